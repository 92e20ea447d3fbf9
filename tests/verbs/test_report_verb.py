"""`report` from a spec file and a home, and from a bundle alone."""

from __future__ import annotations

import errno
import json
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from acdis import cells, config, files
from acdis.ablation.expansion import Member, resolve
from acdis.ablation.selection import load_specs
from acdis.cluster.train import TrainingFailed
from acdis.data.inputs import Inputs
from acdis.errors import UserError
from acdis.evaluation import floor_files
from acdis.evaluation.records import Record, write_parquet
from acdis.report import bundle
from acdis.report.formats import RENDERERS
from acdis.tracking import patch
from acdis.tracking.epoch_log import EpochLog
from acdis.verbs.ablate import Request, ablate
from acdis.verbs.report import ReportRequest, report
from acdis.verbs.status import status
from acdis.vocabulary import REGIONS, SUBSETS, subset_name
from acdis.workflow import opening, train_missing

EXPERIMENT = """
data: {phantoms: {cases: 4}, min_size: 16, crop: [16, 16, 16]}
evaluation: {window: [16, 16, 16], stride: [16, 16, 16]}
tracking: {uri: "http://somebody:secret@example.org:5000"}
"""
BASE_SPEC = """
title: A small ablation
base: ../experiments/small.yaml
seeds: [0, 1, 2]
baseline: slow
paper: Some journal
rows:
  slow: {label: slow one, set: {training.learning_rate: 1.0e-4}, paper: {WT: 80.0, TC: 70.0, ET: 60.0}}
"""
SPEC = """
extends: base.yaml
rows:
  slow: {use: base.yaml#slow}
  fast:
    label: fast | one
    set: {training.learning_rate: 1.0e-3}
    paper: {WT: 81.0, TC: 71.0, ET: 61.0}
    note: Tick marks garbled in the source.
"""


def _records(level: float, seed: int) -> list[Record]:
    draw = np.random.default_rng([int(1000 * level), seed])
    return [
        Record(
            case=f"case{case}",
            subset=subset_name(subset),
            region=region,
            dice=float(np.clip(level + 0.05 * case + 0.02 * draw.standard_normal(), 0, 1)),
            dice_et500=level if region == "ET" else None,
            hd95=3.0,
            predicted_voxels=1,
            truth_voxels=1,
            voxel_volume=1.0,
        )
        for case in range(5)
        for subset in SUBSETS
        for region in REGIONS
    ]


def _train(base: Path, member: Member, level: float) -> None:
    """What a finished cell leaves behind."""
    tags = {"acdis.git_commit": "0123456789abcdef", "acdis.git_dirty": "true"}
    cell = cells.create(base, member.cell, member.experiment, {"tags": tags, "splits": {"test": ["case0"]}})
    cell.update(status="done", workers=2, cpus=3, gpus=0, evaluation=member.evaluation, code="/home/somebody")
    files.write_json(cell.folder / "history.json", {"epochs": [{"seconds": 600.0}, {"seconds": 1200.0}]})
    (cell.folder / "changes.patch").write_text("-old\n+new\n")
    folder = cell.evaluations / member.evaluation
    folder.mkdir(parents=True)
    write_parquet(folder / "records.parquet", _records(level, member.seed))


@pytest.fixture
def ablation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """(spec file, home): two rows, three seeds; the last cell failed."""
    base = tmp_path / "home"
    monkeypatch.setenv("ACDIS_HOME", str(base))
    for name, text in (
        ("experiments/small.yaml", EXPERIMENT),
        ("ablations/base.yaml", BASE_SPEC),
        ("ablations/small.yaml", SPEC),
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(opening, "prepare", lambda *_: Inputs((), (), ()))
    spec = tmp_path / "ablations" / "small.yaml"
    *trained, failed = resolve(load_specs([spec]), lambda _: Inputs((), (), ()))
    for member in trained:
        _train(base, member, 0.3 if member.row.id == "slow" else 0.5)
    cell = cells.create(base, failed.cell, failed.experiment, {"tags": {}})
    cell.update(status="failed", reason="the loss became NaN\nin epoch 3")
    return spec, base


def _printed(capsys: pytest.CaptureFixture[str], wanted: ReportRequest) -> str:
    capsys.readouterr()
    report(wanted)
    return capsys.readouterr().out


def test_from_the_cells_of_a_home(ablation: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    text = _printed(capsys, ReportRequest([ablation[0]]))
    assert text.startswith("# A small ablation\n\n> **These are phantoms")
    assert "2 rows, 3 seeds (0, 1, 2); 5 of 6 cells are scored. Paper: Some journal." in text
    assert "Missing: fast seed 2 (failed: the loss became NaN in epoch 3)." in text
    # Half an hour, two workers, three CPUs each: 3 CPU-hours a cell.
    assert "| slow one (baseline) | 3 of 3 |     5 |" in text
    assert "9.00 CPU |" in text
    assert "6.00 CPU |" in text
    assert "0123456+" in text
    assert "- [1] fast \\| one: Tick marks garbled in the source." in text


def test_nothing_but_the_report_goes_to_standard_output(
    ablation: tuple[Path, Path],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    def prepare(_experiment: Any, _base: Path, display: Any, *_: bool) -> Inputs:
        display.say("preparing")
        return Inputs((), (), ())

    monkeypatch.setattr(opening, "prepare", prepare)
    report(ReportRequest([ablation[0]], form="csv"))
    said = capsys.readouterr()
    assert said.out.startswith("warning,phantoms,spec,")
    assert "preparing" in said.err
    report(ReportRequest([ablation[0]], out=tmp_path / "new" / "table.tex"))
    assert capsys.readouterr().out == ""
    text = (tmp_path / "new" / "table.tex").read_text()
    assert r"\label{tab:small-means}" in text
    assert r"\documentclass" not in text
    report(ReportRequest([ablation[0]], out=tmp_path / "new" / "table.tex", standalone=True))
    assert (tmp_path / "new" / "table.tex").read_text().startswith(r"\documentclass")


def test_rows_and_seeds(ablation: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert "1 rows" not in (text := _printed(capsys, ReportRequest([ablation[0]], rows=["fast"], seeds=[0])))
    assert "1 row, 1 seed (0); 1 of 1 cells are scored." in text
    assert "it is not among the rows asked for" in text


@pytest.fixture
def bundled(ablation: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A bundle far from home, and the home gone."""
    made = tmp_path / "made.zip"
    report(ReportRequest([ablation[0]], out=tmp_path / "here.md", pack=made))
    for form in RENDERERS:
        report(ReportRequest([ablation[0]], form=form, out=tmp_path / f"here.{form}"))
    away = tmp_path / "away"
    away.mkdir()
    shutil.move(made, away / "bundle.zip")
    shutil.rmtree(ablation[1])
    shutil.rmtree(ablation[0].parent)
    monkeypatch.setenv("ACDIS_HOME", str(tmp_path / "other"))
    monkeypatch.chdir(away)
    return away / "bundle.zip"


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"layout": "subset"}, "--layout: 'subset' is none of rows, subsets"),
        ({"layout": "subsets", "form": "challenger"}, "--format challenger: not with --layout subsets"),
        ({"standalone": True}, "--standalone: is LaTeX; give --format latex or an --out that ends in .tex"),
        ({"standalone": True, "layout": "subsets"}, "--standalone: is LaTeX"),
        ({"against": "fast"}, "--against: has an effect with --layout subsets alone"),
        ({"layout": "subsets", "against": "nobody"}, "--against: .* has no row 'nobody'"),
    ],
)
def test_layouts_that_cannot_be(ablation: tuple[Path, Path], more: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        report(ReportRequest([ablation[0]], **more))


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"out": "x.pdf"}, "--out x.pdf: no PDF is written; give a .tex file and compile it, or .html"),
        ({"out": "x.PDF", "form": "latex"}, "--out x.PDF: no PDF is written"),
        ({"out": "x.docx"}, "--out x.docx: .* give one of .md, .tex, .csv, .html, .htm, or --format"),
        ({"out": "report"}, "--out report: its ending says no format"),
        ({"pack": "x.tar.gz"}, "--bundle x.tar.gz: .* name it .zip"),
    ],
)
def test_endings_that_say_no_format(
    ablation: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, more: dict[str, str], message: str
) -> None:
    monkeypatch.chdir(ablation[1].parent)
    there = set(Path().iterdir())
    paths: dict[str, Any] = {key: Path(said) if key != "form" else said for key, said in more.items()}
    with pytest.raises(UserError, match=message):
        report(ReportRequest([ablation[0]], **paths))
    assert set(Path().iterdir()) == there


@pytest.mark.parametrize(
    ("name", "form", "start"),
    [
        ("a.md", None, "# A small ablation"),
        ("a.TEX", None, "% needs "),
        ("a.csv", None, "warning,"),
        ("a.htm", None, "<!doctype html>"),
        ("a.txt", "md", "# A small ablation"),
    ],
)
def test_the_ending_says_the_format(
    ablation: tuple[Path, Path], tmp_path: Path, name: str, form: str | None, start: str
) -> None:
    report(ReportRequest([ablation[0]], form=form, out=tmp_path / name))
    assert (tmp_path / name).read_text().startswith(start)


def test_a_checklist_from_a_home_and_from_its_bundle(
    ablation: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec, pack = ablation[0], tmp_path / "b.zip"
    report(ReportRequest([spec], out=tmp_path / "claim.md", pack=pack, checklist="claim"))
    here = (tmp_path / "claim.md").read_text()
    assert here.startswith("# CLAIM 2024: A small ablation\n\n> **These are phantoms")
    # Half an hour, two workers, three CPUs each; the cell that failed had come through no epoch.
    assert "15.00 CPU hours in all (6 cells, each once), of which none counted in trainings that" in here
    assert "fast \\| one, seed 2" in here
    assert "the loss became NaN" in here
    shutil.rmtree(ablation[1])
    there = _printed(capsys, ReportRequest([pack], checklist="claim"))
    assert [line for line in here.splitlines() if line not in there.splitlines()] == [
        "- the home holds no other cells than these"
    ]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (
            {"checklist": "metric-reloaded"},
            "'metric-reloaded' is none of claim, metrics-reloaded, midl, neurips; d",
        ),
        ({"checklist": "NeurIPS"}, "did you mean 'neurips'"),
        ({"checklist": "claim", "form": "latex"}, "--checklist: is Markdown; give an --out that ends in .md"),
        ({"checklist": "claim", "out": Path("x.html")}, "--checklist: is Markdown"),
        ({"checklist": "claim", "layout": "subsets"}, "--checklist: is Markdown"),
    ],
)
def test_checklists_that_cannot_be(ablation: tuple[Path, Path], more: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        report(ReportRequest([ablation[0]], **more))
    assert "\n" not in str(error.value)


def test_the_table_of_subsets_from_a_bundle(
    ablation: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report(ReportRequest([ablation[0]], out=tmp_path / "here.md", pack=tmp_path / "b.zip", layout="subsets"))
    capsys.readouterr()
    again = _printed(capsys, ReportRequest([tmp_path / "b.zip"], layout="subsets"))
    assert again == (tmp_path / "here.md").read_text()
    assert again.count("| WT | ") >= 2


@pytest.mark.parametrize("form", RENDERERS)
def test_a_bundle_alone_gives_the_same_bytes(
    bundled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], form: str
) -> None:
    assert (
        _printed(capsys, ReportRequest([Path("bundle.zip")], form=form))
        == (tmp_path / f"here.{form}").read_text()
    )
    assert not (tmp_path / "other").exists()


def test_what_a_reviewer_finds_in_it(bundled: Path) -> None:
    with zipfile.ZipFile(bundled) as archive:
        names = archive.namelist()
        assert archive.testzip() is None
        assert {"README.md", "members.json", "code/commit.json", "code/changes.patch"} <= set(names)
        assert {name for name in names if name.startswith("specs/")} == {
            "specs/ablations/small.yaml",
            "specs/ablations/base.yaml",
            "specs/experiments/small.yaml",
        }
        assert len([name for name in names if name.endswith("records.parquet")]) == 5
        assert (
            len([name for name in names if name.startswith("cells") and name.endswith("changes.patch")]) == 5
        )
        configurations = [name for name in names if name.endswith("config.yaml")]
        assert len(configurations) == 6
        everything = b"".join(archive.read(name) for name in names if name.startswith("cells/"))
        assert b"secret" not in everything
        assert b"/home/somebody" not in everything
        resolved = config.parse(json.loads(json.dumps(_yaml(archive.read(configurations[0])))), "a bundle")
        assert resolved.tracking.uri == "http://example.org:5000"
        commits = [_commit(archive.read(name)) for name in names if name.endswith("lineage.json")]
        assert sorted(commits) == ["", *5 * ["0123456789abcdef"]]  # the cell that failed at once has none
        assert "torch" in json.loads(archive.read("code/commit.json"))["versions"]


def _commit(lineage: bytes) -> str:
    return str(json.loads(lineage)["tags"].get("acdis.git_commit", ""))


def _yaml(content: bytes) -> Any:
    import yaml

    return yaml.safe_load(content)


def test_no_password_leaves_the_house(
    ablation: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    uri = "tracking.uri=https://me:hush@example.org"
    text = _printed(capsys, ReportRequest([ablation[0]], overrides=[uri], pack=tmp_path / "b.zip"))
    assert "Overrides: tracking.uri=https://example.org." in text
    with zipfile.ZipFile(tmp_path / "b.zip") as archive:
        everything = b"".join(archive.read(name) for name in archive.namelist() if "code/" not in name)
    assert b"hush" not in everything
    assert b"secret" not in everything


def test_equal_reports_make_equal_bundles(
    ablation: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patch, "code", lambda: {"commit.json": "{}"})  # somebody may be editing the checkout
    for name in ("one.zip", "two.zip"):
        report(ReportRequest([ablation[0]], out=tmp_path / "out.md", pack=tmp_path / name))
    assert (tmp_path / "one.zip").read_bytes() == (tmp_path / "two.zip").read_bytes()
    assert not list(tmp_path.glob(".*"))


def _rewritten(bundle: Path, change: Callable[[str, bytes], bytes | None]) -> Path:
    """A copy in which every file went through `change`; none leaves it out."""
    copy = bundle.with_name("changed.zip")
    with zipfile.ZipFile(bundle) as source, zipfile.ZipFile(copy, "w") as target:
        for name in source.namelist():
            content = change(name, source.read(name))
            if content is not None:
                target.writestr(name, content)
    return copy


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda name, content: None if name == "members.json" else content, "members.json is not in it"),
        (lambda name, content: b"{" if name == "members.json" else content, "is not of the format"),
        (
            lambda name, content: (
                content.replace(b"bundle-1", b"bundle-9") if name == "members.json" else content
            ),
            "is not of the format",
        ),
        (
            lambda name, content: (
                content.replace(b'"seed": 0', b'"seed": "x"') if name == "members.json" else content
            ),
            "rows.0.cells.0.seed",
        ),
        (
            lambda name, content: None if name.endswith(".parquet") else content,
            "records.parquet is not in it",
        ),
        (lambda name, content: b"PAR1" if name.endswith(".parquet") else content, "cannot be read"),
    ],
)
def test_a_damaged_bundle_is_one_clear_line(
    bundled: Path, change: Callable[[str, bytes], bytes | None], said: str
) -> None:
    changed = _rewritten(bundled, change)
    with pytest.raises(UserError, match=r"changed\.zip") as error:
        report(ReportRequest([changed]))
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_what_cannot_be_packed_is_named(
    ablation: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another file for the bundle would not help."""

    def theirs(*_: Any) -> Any:
        raise PermissionError(errno.EACCES, "Permission denied", "acdis-1/records.parquet")

    monkeypatch.setattr(bundle, "_scores", theirs)
    with pytest.raises(UserError, match=r"^acdis-1/records\.parquet: cannot be read \(Permission denied\)$"):
        report(ReportRequest([ablation[0]], pack=tmp_path / "made.zip"))
    assert not (tmp_path / "made.zip").exists()


def test_what_is_no_bundle(tmp_path: Path) -> None:
    (tmp_path / "x.zip").write_bytes(b"not a zip")
    with pytest.raises(UserError, match="is not a ZIP file"):
        report(ReportRequest([tmp_path / "x.zip"]))
    with pytest.raises(UserError, match="cannot be read"):
        report(ReportRequest([tmp_path / "y.zip"]))


def test_a_flipped_bit_is_noticed(bundled: Path) -> None:
    content = bytearray(bundled.read_bytes())
    with zipfile.ZipFile(bundled) as archive:
        name = next(name for name in archive.namelist() if name.endswith("records.parquet"))
        place = archive.getinfo(name).header_offset + 200
    content[place] ^= 0xFF
    bundled.write_bytes(content)
    with pytest.raises(UserError, match="is damaged"):
        report(ReportRequest([bundled]))


@pytest.mark.parametrize(
    "more",
    [
        {"specs": [Path("a.zip"), Path("b.yaml")]},
        {"seeds": [1]},
        {"rows": ["a"]},
        {"overrides": ["training.epochs=1"]},
        {"pack": Path("c.zip")},
    ],
)
def test_a_bundle_is_taken_as_it_is(more: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=r"a\.zip: a bundle is reported alone"):
        report(ReportRequest(**({"specs": [Path("a.zip")]} | more)))


def test_a_torn_file_is_named_and_the_others_are_reported(
    ablation: tuple[Path, Path], capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    spec, base = ablation
    whole = _printed(capsys, ReportRequest([spec]))
    for name in ("state.json", "lineage.json", "history.json", "roles.json", "config.yaml"):
        caplog.clear()
        cell = min(base.glob("cells/*/evaluations")).parent
        before = (cell / name).read_bytes() if (cell / name).exists() else None
        (cell / name).write_bytes(b"")
        text = _printed(capsys, ReportRequest([spec], pack=base / "torn.zip"))
        assert text.count("slow one") == whole.count("slow one")
        if name in ("state.json", "lineage.json", "history.json"):
            assert f"{name}: is damaged" in caplog.text
        if before is None:
            (cell / name).unlink()
        else:
            (cell / name).write_bytes(before)
    assert _printed(capsys, ReportRequest([spec])) == whole


def test_ablate_names_what_is_torn_and_goes_on(
    ablation: tuple[Path, Path], caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    spec, base = ablation
    overrides = [f"tracking.uri=sqlite:///{base}/mlflow.db"]
    trained = [cells.Cell(folder.parent) for folder in base.glob("cells/*/evaluations")]
    for cell in trained:
        cell.weights.write_text("weights")
    torn = next(cell for cell in trained if cell.experiment().seed == 0)
    log = EpochLog(torn.folder)
    log.log_epoch(1, {"train/loss": 1.0, "learning_rate": 1e-4, "epoch_seconds": 2.0})
    names = ("roles.json", "config.yaml", "lineage.json", "history.json")
    for name in names:
        (torn.folder / name).write_bytes(b"")
    ablate(Request([spec], None, overrides, seeds=[0, 1]))
    assert capsys.readouterr().out.splitlines()[-1].startswith("dashboard: ")
    told = [f"{torn.folder / name}: is damaged (it is empty)" for name in names]
    assert [caplog.text.count(each) for each in told] == [1, 1, 1, 1]
    assert torn.damage() == []
    assert [role["seed"] for role in torn.roles()] != []
    assert [entry["epoch"] for entry in torn.history()] == [1]
    assert torn.lineage()["tags"] == {}


def test_a_torn_state_is_told_by_status_and_taken_up_by_ablate(
    ablation: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    spec, base = ablation
    torn, *_ = [cells.Cell(folder.parent) for folder in sorted(base.glob("cells/*/evaluations"))]
    (torn.folder / "state.json").write_text('{"status": "do')
    status([spec], None, [], None, None, once=True)
    said = " ".join(capsys.readouterr().out.split())
    assert "state.json: is damaged (" in said
    assert said.count("stopped: damaged") == 1
    begun: list[str] = []

    def run(jobs: Sequence[Any], *_: Any) -> None:
        begun.extend(job.cell.name for job in jobs)

    monkeypatch.setattr(train_missing, "_run", run)
    with pytest.raises(TrainingFailed):
        ablate(Request([spec], None, [f"tracking.uri=sqlite:///{base}/mlflow.db"]))
    assert torn.name in begun
    assert (torn.folder / "state.json.damaged").exists()


def test_wrong_words(tmp_path: Path, ablation: tuple[Path, Path]) -> None:
    with pytest.raises(UserError, match="name at least one spec file"):
        report(ReportRequest([]))
    with pytest.raises(UserError, match="'pdf' is none of md, latex, csv, html, challenger"):
        report(ReportRequest([tmp_path / "x.yaml"], form="pdf"))
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"--out .*cannot be written"):
        report(ReportRequest([ablation[0]], out=tmp_path / "file" / "x.md"))
    with pytest.raises(UserError, match=r"--bundle .*cannot be written"):
        report(ReportRequest([ablation[0]], pack=tmp_path / "file" / "x.zip"))


@pytest.mark.parametrize(
    "words",
    [["bundle.zip"], ["made.yaml", "--bundle", "made.zip"], ["bundle.zip", "--checklist", "claim"]],
)
def test_a_report_imports_nothing_heavy(bundled: Path, words: list[str]) -> None:
    (bundled.parent / "made.yaml").write_text(BASE_SPEC.replace("../", ""))
    (bundled.parent / "experiments").mkdir()
    (bundled.parent / "experiments" / "small.yaml").write_text(EXPERIMENT)
    out = "out.md" if "--checklist" in words else "out.html"
    code = (
        "import sys; from acdis import cli\n"
        "from acdis.data.inputs import Inputs\n"
        "from acdis.workflow import opening\n"
        "opening.prepare = lambda *_: Inputs((), (), ())\n"
        f"sys.argv = ['acdis', 'report', *{words!r}, '--out', {out!r}]\n"
        "try:\n    cli.main()\nexcept SystemExit as end: assert not end.code\n"
        "heavy = ('torch', 'monai', 'ray', 'mlflow', 'scipy.stats', 'matplotlib')\n"
        "print([name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"
    assert (bundled.parent / out).read_text().startswith(("<!doctype html>", "# CLAIM"))


def _floors(base: Path) -> list[Path]:
    """Floors beside every cell's records; ET of the whole brain is above the slow row's."""
    found = floor_files.Floors(
        3, None, tuple(f"case{case}" for case in range(5)), np.tile([0.1, 0.2, 0.45], (5, 1)), None
    )
    places = [path.with_name(floor_files.FILE) for path in sorted(base.rglob("records.parquet"))]
    for path in places:
        floor_files.write(path, found)
    return places


def test_floors_are_in_the_report_and_in_its_bundle(
    ablation: tuple[Path, Path],
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    spec, base = ablation
    places = _floors(base)
    pack = tmp_path / "floors.zip"
    text = _printed(capsys, ReportRequest([spec], pack=pack))
    assert text.startswith("> **BELOW THE WHOLE BRAIN painted as tumour")
    assert "fast" not in text.splitlines()[0]
    with zipfile.ZipFile(pack) as archive:
        assert sum(name.endswith("/floors.json") for name in archive.namelist()) == len(places) == 5
    monkeypatch.setenv("ACDIS_HOME", str(tmp_path / "nothing"))
    assert _printed(capsys, ReportRequest([pack])) == text

    def spoiled(name: str, content: bytes) -> bytes:
        return b'{"version": 1}' if name.endswith("floors.json") else content

    with pytest.raises(UserError, match=r"floors\.json: is damaged"):
        report(ReportRequest([_rewritten(pack, spoiled)]))


def test_damaged_floors_cost_the_floors_alone(
    ablation: tuple[Path, Path], capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    spec, base = ablation
    without = _printed(capsys, ReportRequest([spec]))
    for path in _floors(base):
        path.write_bytes(path.read_bytes()[:40])
    assert _printed(capsys, ReportRequest([spec])) == without
    assert "floors.json: is damaged" in caplog.text


def test_a_terminal_gets_tables_and_a_pipe_markdown(
    ablation: tuple[Path, Path], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    piped = _printed(capsys, ReportRequest([ablation[0]]))
    assert piped.startswith("# A small ablation\n")
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    shown = _printed(capsys, ReportRequest([ablation[0]]))
    assert "A small ablation" in shown.splitlines()[0]
    assert not any(line.startswith(("#", "| ")) for line in shown.splitlines())
    assert "slow one (baseline)" in shown
    assert "fast | one" in shown  # as it is, not as Markdown has to write it
    assert _printed(capsys, ReportRequest([ablation[0]], form="md")) == piped
