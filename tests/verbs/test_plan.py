"""`plan` and `status`: what they say about hand-made cells, what they refuse, and what they do not import."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from acdis import cells, config, home
from acdis.ablation.expansion import Member
from acdis.ablation.standings import survey
from acdis.cells import Cell
from acdis.data import inputs
from acdis.data.found_cases import find_cases
from acdis.errors import UserError
from acdis.planning import estimate
from acdis.planning.estimate import Measured
from acdis.planning.measure import measure_missing
from acdis.planning.placement import WorkerShare, place
from acdis.planning.resources import Resources
from acdis.terminal.progress import Display
from acdis.verbs.plan import plan
from acdis.verbs.report import ReportRequest, report
from acdis.verbs.status import line, status, view
from acdis.workflow.opening import load_specs, open_specs

EXPERIMENT = """\
data:
  phantoms: {cases: 4, seed: 1, shape: [16, 16, 16], spacing: 8}
  split: {counts: [2, 1, 1]}
  min_size: 16
  crop: [16, 16, 16]
method: {options: {base_width: 4, levels: 2, afeb_tokens: 2, synthesis_start: 1}}
training: {epochs: 4, iterations: 3, precision: fp32}
evaluation: {window: [16, 16, 16], stride: [16, 16, 16]}
"""
SPEC = """\
title: Mine
base: tiny.yaml
seeds: [0, 1]
baseline: plain
rows:
  plain: {}
  long: {set: {training.epochs: 10}}
"""


@pytest.fixture(scope="module")
def place_to_be(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a spec, its experiment, and its phantoms drawn and prepared in `home`."""
    folder = tmp_path_factory.mktemp("plan")
    (folder / "tiny.yaml").write_text(EXPERIMENT)
    (folder / "own.yaml").write_text(SPEC)
    with Display() as display:
        open_specs([folder / "own.yaml"], None, [], None, None, folder / "home", display)
    return folder


@pytest.fixture
def members(place_to_be: Path, monkeypatch: pytest.MonkeyPatch) -> list[Member]:
    """Four members: plain 0, plain 1, long 0, long 1; no cells."""
    base = place_to_be / "home"
    monkeypatch.setenv("ACDIS_HOME", str(base))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    for folder in home.cells(base).glob("*"):
        for file in sorted(folder.rglob("*"), reverse=True):
            file.unlink() if file.is_file() else file.rmdir()
        folder.rmdir()
    with Display() as display:
        return open_specs([place_to_be / "own.yaml"], None, [], None, None, base, display)


def _begin(place_to_be: Path, member: Member, **state: object) -> Cell:
    cell = cells.create(place_to_be / "home", member.cell, member.experiment, {})
    cell.begin(**state)
    return cell


def _plan(place_to_be: Path, *overrides: str, **options: bool) -> None:
    plan([place_to_be / "own.yaml"], None, list(overrides), None, None, **options)


def test_neither_imports_torch_monai_ray_or_mlflow(members: list[Member], place_to_be: Path) -> None:
    code = (
        "import sys\nfrom acdis import cli\nsys.argv = ['acdis', *sys.argv[1:]]\n"
        "try:\n    cli.main()\nexcept SystemExit as ended: assert not ended.code, ended.code\n"
        "print([name for name in ('torch', 'monai', 'ray', 'mlflow') if name in sys.modules])"
    )
    for verb in ("plan", "status"):
        done = subprocess.run(
            [sys.executable, "-c", code, verb, str(place_to_be / "own.yaml")],
            env=os.environ | {"ACDIS_HOME": str(place_to_be / "home")},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.splitlines()[-1] == "[]"
        assert "4 cells: 4 missing" in done.stdout


def test_looking_draws_and_prepares_nothing_and_says_so(
    place_to_be: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    home_of = tmp_path / "new"
    monkeypatch.setenv("ACDIS_HOME", str(home_of))
    spec = [place_to_be / "own.yaml"]
    for look in (
        lambda: plan(spec, None, [], None, None),
        lambda: status(spec, None, [], None, None),
        lambda: report(ReportRequest(spec)),
    ):
        look()
        told = capsys.readouterr()
        said = told.out + told.err
        assert "drawing phantoms" not in said
        assert "preparing cases" not in said
        assert "the cases are not prepared here yet (`ablate` does it)" in said
        assert "cases: 2 train, 1 validate, 1 test" in said
        assert not (home_of / "phantoms").exists()
        assert not (home_of / "cache").exists()
    assert not list(home_of.glob("cells/*"))
    status(spec, None, [], None, None)
    assert capsys.readouterr().out.count("unprepared-") == 4 + 1  # four cells, and what is said about them


def test_looking_finds_the_names_of_prepared_cases_and_does_not_say_it_prepares(
    members: list[Member], place_to_be: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec, base = [place_to_be / "own.yaml"], place_to_be / "home"
    capsys.readouterr()
    with Display() as display:
        looked = open_specs(spec, None, [], None, None, base, display, looking=True)
    assert [each.cell for each in looked] == [each.cell for each in members]
    assert [each.evaluation for each in looked] == [each.evaluation for each in members]
    assert capsys.readouterr().out == "cases: 2 train, 1 validate, 1 test\n"
    with Display() as display:  # one more case is not prepared
        more = open_specs(spec, None, ["data.phantoms.cases=5"], None, None, base, display, looking=True)
    assert all(each.cell.startswith("unprepared-") for each in more)
    assert len({each.cell for each in more}) == 4


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_phantoms_that_are_not_drawn_are_split_as_drawn_ones(tmp_path: Path, seed: int) -> None:
    drawn = config.Phantoms(cases=12, seed=seed, shape=(16, 16, 16), spacing=8.0)
    data = config.Data(phantoms=drawn, split=config.Split(counts=(6, 2, 4), seed=seed))
    lists = inputs._split_of_phantoms(data, drawn)
    found = find_cases(data, tmp_path, lambda *_: None)
    assert lists == inputs.split_cases(found, data, tmp_path, 1, lambda *_: None)


def test_plan_before_anything_has_begun(
    members: list[Member], place_to_be: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _plan(place_to_be)
    said = capsys.readouterr().out
    assert f"own.yaml: 2 rows × 2 seeds on {place_to_be}/tiny.yaml: 4 cells: 4 missing" in said
    assert "plain (baseline)" in said
    assert "no step has been measured here yet" in said


def test_plan_says_what_is_absent_and_what_costs_whole_passes(
    members: list[Member], place_to_be: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = "  early: {set: {method.name: unet}}\n  later: {absent: not written yet}\n"
    (place_to_be / "more.yaml").write_text(SPEC + rows)
    plan([place_to_be / "more.yaml"], None, [], None, None)
    said = capsys.readouterr().out
    assert "  15 subsets cost 15 whole passes, since the modalities meet at the input: early\n" in said
    assert "  absent: later: not written yet\n" in said
    assert "3 rows × 2 seeds" in said


def test_plan_with_measured_steps(
    members: list[Member], place_to_be: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """plain 0 is done; plain 1 has 2 of 4 epochs of 3 steps left, of 2 s; long has 2 × 30 of 4 s (median)."""
    plain, other, long, _ = members
    done = _begin(place_to_be, plain, status="done", step_seconds=6.0)
    done.weights.write_bytes(b"w" * 2**20)
    scores = done.evaluations / plain.evaluation / "records.parquet"
    scores.parent.mkdir(parents=True)
    scores.write_bytes(b"")
    _begin(place_to_be, other, status="stopped", done=2, step_seconds=2.0, peak_bytes=2**20)
    old = Cell(home.cells(place_to_be / "home") / "acdis-0123456789ab")
    old.folder.mkdir()
    old.add_role(spec="own", table="own", row="long", seed=long.seed)
    _plan(place_to_be, resolved=True)
    said = capsys.readouterr().out
    assert "4 cells: 1 done, 1 stopped, 2 missing" in said
    assert "missing (stale)" in said
    assert "stale: 1 cells under older names" in said
    assert "acdis-0123456789ab for row long, seed 0" in said
    machine = len(os.sched_getaffinity(0))
    seconds = max(120.0, 252 / min(4, machine))
    clock = f"{seconds // 60:.0f} min {seconds % 60:02.0f} s"
    assert f"about {clock} of training steps for 3 cells" in said
    assert "from 2 measured steps" in said
    assert "3.0 MiB of final weights stay" in said
    assert f"# own/plain, seed 0, as it is trained: {plain.cell}" in said
    assert "learning_rate: 0.0001" in said


def test_hours_are_worker_time(members: list[Member], tmp_path: Path) -> None:
    """Steps of 5 s: 2 × 12 and 2 × 30 steps are 420 s, on 3 CPUs each."""
    standings = survey(members, tmp_path)
    known = Measured({"another": 5.0})
    rooms = {member.cell: WorkerShare(cpus=3, gpus=0) for member in members}
    ahead = estimate.ahead(standings, known, rooms)
    assert (ahead.cells, ahead.seconds, ahead.longest) == (4, 420.0, 150.0)
    assert ahead.cpu_hours == pytest.approx(420 * 3 / 3600)
    assert (ahead.wall(1), ahead.wall(2), ahead.wall(4)) == (420.0, 210.0, 150.0)
    on_gpus = estimate.ahead(standings, known, {name: WorkerShare(1, 1) for name in rooms})
    assert on_gpus.gpu_hours == pytest.approx(420 / 3600)
    assert on_gpus.price(3.0) == pytest.approx(420 / 3600 * 3)
    assert estimate.ahead(standings, Measured({}), rooms).seconds is None


def test_a_row_of_several_cells_is_one_row(
    place_to_be: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its parts are counted, and what is put together from them costs no step."""
    base, file = place_to_be / "home", place_to_be / "several.yaml"
    monkeypatch.setenv("ACDIS_HOME", str(base))
    rows = "{one: {set: {method.name: unet}}, each: {set: {method.name: unet_dedicated}}}"
    file.write_text(f"base: tiny.yaml\nseeds: [0]\nbaseline: one\nrows: {rows}\n")
    plan([file], None, [], None, None)
    said = " ".join(capsys.readouterr().out.split())
    assert "16 cells: 16 missing" in said
    assert "2 rows × 1 seeds on" in said
    assert "17 cells: 17 missing" in said
    with Display() as display:
        members = open_specs([file], None, [], None, None, base, display)
    standings = survey(members, base)
    known = Measured({members[0].cell: 2.0})
    ahead = estimate.ahead(standings, known, {member.cell: WorkerShare(1, 0) for member in members})
    assert (ahead.cells, ahead.seconds) == (17, 16 * 4 * 3 * 2.0)
    (whole,) = (each for each in standings if each.member.row.id == "each")
    assert measure_missing([whole], Measured({}), {whole.member.cell: WorkerShare(1, 0)}, print) == Measured(
        {}
    )


def test_rows_of_several_methods_are_told_apart(
    place_to_be: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A step of each method is measured once; its other cells are thought alike."""
    base, file = place_to_be / "home", place_to_be / "several.yaml"
    monkeypatch.setenv("ACDIS_HOME", str(base))
    rows = "{one: {set: {method.name: unet}}, each: {set: {method.name: unet_dedicated}}}"
    file.write_text(f"base: tiny.yaml\nseeds: [0, 1]\nbaseline: one\nrows: {rows}\n")
    with Display() as display:
        members = open_specs([file], None, [], None, None, base, display)
    asked: list[str] = []

    def measured(member: Member, _: WorkerShare) -> dict[str, float]:
        asked.append(member.row.id.split(":")[0])
        dedicated = member.experiment.method.name == "unet_dedicated"
        return {
            "seconds": 3.0 if dedicated else 2.0,
            "peak": 7 * 2**30 if dedicated else 2**30,
            "checkpoint": 9,
        }

    monkeypatch.setattr("acdis.planning.measure.measure", measured)
    standings = survey(members, base)
    rooms = {member.cell: WorkerShare(1, 0) for member in members}
    known = measure_missing(standings, Measured({}), rooms, lambda _: None)
    assert asked == ["one", "each"]
    one, each = estimate.by_row(standings, known, rooms)
    steps = 4 * 3  # four epochs of three
    assert (one.row, one.ahead.cells, one.step, one.peak) == ("one", 2, 2.0, 2**30)
    assert one.ahead.cpu_hours == pytest.approx(2 * steps * 2.0 / 3600)
    assert (each.row, each.ahead.cells, each.step, each.peak) == ("each", 2 * 16, 3.0, 7 * 2**30)
    assert each.ahead.cpu_hours == pytest.approx(2 * 15 * steps * 3.0 / 3600)
    monkeypatch.setattr("acdis.verbs.plan.measure_missing", lambda *_: known)
    capsys.readouterr()
    plan([file], None, [], None, None, measure=True)
    told = [
        line.split("│")[1:-1]
        for line in capsys.readouterr().out.splitlines()
        if "CPU" in line and "│" in line
    ]
    assert [[word.strip() for word in line] for line in told] == [
        ["one", "2", "2.00", "0.01 CPU", "1.00", "0.0 MiB"],
        ["each", "32", "3.00", "0.30 CPU", "7.00", "0.0 MiB"],
    ]


def test_one_pass_over_the_cases_where_no_number_is_given(members: list[Member]) -> None:
    training = members[0].experiment.training.model_copy(update={"iterations": None, "batch_size": 2})
    member = Member(
        **(
            members[0].__dict__
            | {"experiment": members[0].experiment.model_copy(update={"training": training})}
        )
    )
    assert estimate.steps_per_epoch(members[0]) == 3
    assert estimate.steps_per_epoch(member) == 1  # two cases in a batch


def test_checkpoints_and_weights_follow_from_each_other(members: list[Member], tmp_path: Path) -> None:
    """Adam with amsgrad keeps three numbers beside each weight; of each cell there are up to three."""
    standings = survey(members, tmp_path)
    found = estimate.disk(standings, Measured({}, weights=100), 2, 10_000)
    assert found is not None
    assert (found.kept, found.meanwhile, found.free) == (400, 3 * 800, 10_000)
    found = estimate.disk(standings, Measured({}, checkpoint=400), 9, 10_000)
    assert found is not None
    assert (found.kept, found.meanwhile) == (400, 3 * 1600)
    assert estimate.disk(standings, Measured({}), 2, 10_000) is None


def test_as_many_side_by_side_as_the_scarcest_allows(members: list[Member]) -> None:
    rooms, at_once = place(Resources(({"CPU": 8.0},), "here", True), members)
    assert (rooms[members[0].cell], at_once) == (WorkerShare(2, 0), 4)
    assert place(Resources(({"CPU": 2.0},), "here", True), members)[1] == 2


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["scaling.gpu=true"], "1 workers of 1 CPUs and 1 GPUs each do not fit"),
        (["scaling.workers=2", "scaling.cpus_per_worker=9999"], "2 workers of 9999 CPUs"),
    ],
)
def test_what_can_never_be_scheduled_is_refused_with_the_sum(
    members: list[Member],
    place_to_be: Path,
    monkeypatch: pytest.MonkeyPatch,
    overrides: list[str],
    words: str,
) -> None:
    here = Resources(({"CPU": 2.0, "GPU": 0.0, "memory": 8e9},), "this machine", True)
    monkeypatch.setattr("acdis.verbs.plan.resources.available", lambda base: here)
    with pytest.raises(UserError) as refused:
        _plan(place_to_be, *overrides)
    said = str(refused.value)
    assert "own.yaml, row 'plain': can never be scheduled on this machine: " in said
    assert words in said
    assert "2 CPUs, 0 GPUs: room for 0" in said


def test_a_step_that_takes_more_memory_than_there_is_is_refused(
    members: list[Member], place_to_be: Path
) -> None:
    _begin(place_to_be, members[0], status="stopped", step_seconds=1.0, peak_bytes=2**60)
    with pytest.raises(UserError, match=r"need 1073741824\.0 GiB of memory at the peak of a step"):
        _plan(place_to_be)


def test_checkpoints_that_the_disk_cannot_hold_are_refused(
    members: list[Member], place_to_be: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cell = _begin(place_to_be, members[0], status="stopped", step_seconds=1.0)
    (cell.folder / "last.pt").write_bytes(b"c" * 4096)
    monkeypatch.setattr("acdis.verbs.plan.shutil.disk_usage", lambda _: type("", (), {"free": 4096}))
    with pytest.raises(UserError, match="for weights and checkpoints"):
        _plan(place_to_be)


@pytest.mark.slow
def test_measuring_a_step_trains_nothing(
    members: list[Member], place_to_be: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _plan(place_to_be, measure=True)
    said = capsys.readouterr().out
    assert "measuring a step of own/plain" in said
    assert "from 1 measured steps" in said
    assert "of checkpoints while cells train" in said
    assert not home.cells(place_to_be / "home").exists() or not any(
        home.cells(place_to_be / "home").iterdir()
    )


def test_status_says_where_cells_stand(
    members: list[Member], place_to_be: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plain, other, long, last = members
    running = _begin(
        place_to_be, plain, status="training", epoch=2, epochs=4, step=1, steps=3, step_seconds=2.0, done=1
    )
    running.update(validation={"dice/mean": 0.4567})
    _begin(place_to_be, other, status="failed", reason="the loss became NaN")
    _begin(place_to_be, long, status="training", epoch=5, epochs=10, done=4)
    _begin(place_to_be, last, status="scored")
    with running.alone():
        standings = survey(members, place_to_be / "home")
        status([place_to_be / "own.yaml"], None, [], None, None)
    assert line(standings[0]) == (
        *("own/plain", "0", "running: training 33 %", "2 of 4", "45.7 %", "16 s"),
        plain.cell,
    )
    assert line(standings[1])[2:6] == ("failed", "", "", "")
    assert line(standings[2])[2:6] == ("stopped", "4 of 10", "", "")
    assert line(standings[3])[2] == "stopped: not scored"
    said = capsys.readouterr().out
    assert "4 cells: 1 running, 1 failed, 2 stopped" in said
    assert f"{other.cell} failed: the loss became NaN" in said


def test_of_many_cells_those_at_work_are_shown(members: list[Member], place_to_be: Path) -> None:
    _begin(place_to_be, members[3], status="failed", reason="no")
    table, words = view(survey(members, place_to_be / "home"), most=1).renderables
    assert table.row_count == 1
    assert f"{members[3].cell} failed: no" in str(words)
    assert "3 rows are not shown" in str(words)


def test_specs_are_chosen_by_row_over_several_files(place_to_be: Path) -> None:
    other = place_to_be / "other.yaml"
    other.write_text(SPEC.replace("long:", "longer:"))
    paths = [place_to_be / "own.yaml", other]
    found = load_specs(paths, rows=["longer"], seeds=[5])
    assert [(spec.name, [row.id for row in spec.rows], spec.seeds) for spec in found] == [
        ("other", ["longer"], (5,))
    ]
    with pytest.raises(UserError, match="--rows: no spec has a row 'lonk'; did you mean 'long'"):
        load_specs(paths, rows=["lonk"])
    with pytest.raises(UserError, match="two specs called 'own'"):
        load_specs([paths[0], paths[0]])
    with pytest.raises(UserError, match="no spec given"):
        load_specs([])


@pytest.mark.parametrize(
    ("override", "reason"),
    [
        (
            "training.batch_size=1000000",
            "can never run on this machine: 1,000,000 crops of 16×16×16",
        ),
        (
            "training.batch_size=1000000000",
            "batch_size: Input should be less than or equal to 1000000",
        ),
        ("method.options.base_width=100000000", "base_width: Input should be less than or equal to 1024"),
        ("data.phantoms.spacing=100000", "data.phantoms.spacing: Input should be less than or equal to 20"),
    ],
)
def test_what_can_never_run_is_refused(
    members: list[Member], place_to_be: Path, override: str, reason: str
) -> None:
    with pytest.raises(UserError, match=reason):
        _plan(place_to_be, override)
