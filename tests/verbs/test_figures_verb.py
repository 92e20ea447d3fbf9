"""`report figures` on cells that were trained: what is drawn, what is left out, what is refused."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib.image as mpimg
import numpy as np
import pytest

from acdis import cells, cli, config, methods
from acdis.cells import Cell
from acdis.data.inputs import open_inputs
from acdis.errors import UserError
from acdis.report import palette
from acdis.tracking import default_uri, open_store
from acdis.training import checkpoint, loop
from acdis.training.group import Group
from acdis.verbs.figures import FiguresRequest, figures
from acdis.workflow.jobs import split_names

TREE: dict[str, Any] = {
    "data": {
        "phantoms": {"cases": 3, "seed": 1, "shape": [24, 24, 24], "spacing": 6.0},
        "split": {"counts": [1, 0, 2]},
        "min_size": 16,
        "crop": [16, 16, 16],
    },
    "training": {"epochs": 1, "iterations": 1, "batch_size": 1, "precision": "fp32"},
    "evaluation": {"window": [16, 16, 16], "stride": [8, 8, 8], "hd95": False},
}
SMALL = {"base_width": 4, "levels": 2}
STAND_INS = {"afeb": "conv", "consistency": [], "mfsb": "conv", "synthesis": []}


def _train(base: Path, name: str, data: dict[str, Any] | None = None, **options: Any) -> Cell:
    tree = TREE | {"data": TREE["data"] | (data or {})}
    tree["method"] = {"name": name, "options": SMALL | options}
    experiment = methods.resolve(config.parse(tree, "test"))
    inputs = open_inputs(experiment.data, base, 1, lambda *_: None)
    title = cells.cell_name(experiment, inputs.fingerprint, methods.version(name))
    cell = cells.create(base, title, experiment, {"splits": split_names(inputs)})
    trained = loop.train(experiment, loop.Cases(inputs.train), cell.folder, Group(), lambda event: None)
    checkpoint.save(cell.weights, loop.final_state(trained, cell.folder))
    return cell


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Cell]]:
    """A home with cells of one step each."""
    base = tmp_path_factory.mktemp("home")
    found = {
        "full": _train(base, "acdis", synthesis_start=0),
        "stand-ins": _train(base, "acdis", synthesis_start=0, **STAND_INS),
        "rfnet": _train(base, "rfnet", fusion_start=0),
        "other data": _train(base, "acdis", {"min_size": 18}, synthesis_start=0),
    }
    found["full"].add_role(spec="table3", table="table3", row="syn", seed=0)
    return base, found


@pytest.fixture
def cell(trained: tuple[Path, dict[str, Cell]], monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    """`cell("full")`: its name, in the home that is set."""
    base, found = trained
    monkeypatch.setenv("ACDIS_HOME", str(base))
    return lambda name: found[name].name


def _written(folder: Path) -> list[str]:
    return sorted(str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file())


def _picture(path: Path) -> np.ndarray:
    picture: np.ndarray = mpimg.imread(path)[..., :3]
    assert min(picture.shape[:2]) > 300
    assert picture.std() > 0.1
    return picture


def test_all_figures_of_two_cells(
    cell: Callable[[str], str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    full, other = cell("full"), cell("stand-ins")
    figures(FiguresRequest([full, other], out=tmp_path))
    said = capsys.readouterr().out
    (name,) = {file.stem.split("-", 1)[1] for file in (tmp_path / full).iterdir()}
    due = [f"{full}/figure{number}-{name}" for number in (1, 5, 6, 7)] + [f"{other}/figure1-{name}"]
    assert _written(tmp_path) == sorted(f"{each}.{ending}" for each in due for ending in ("png", "txt"))
    assert f"{other}: Figure 7 is left out: convolutions stand in for its MFSB" in said
    assert "NOTHING about patients" in said
    for file in tmp_path.rglob("*.png"):
        _picture(file)
    segmentations = _picture(tmp_path / full / f"figure5-{name}.png")
    wanted = np.array(palette.rgb(palette.LABELS[2]))
    assert (np.abs(segmentations - wanted).max(-1) < 0.02).sum() > 100  # the legend at least


def test_what_one_cell_cannot_show_is_said(
    cell: Callable[[str], str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rfnet = cell("rfnet")
    figures(FiguresRequest([rfnet], "Phantom_00001", tmp_path))
    said = capsys.readouterr().out
    assert _written(tmp_path) == [
        f"{rfnet}/figure{number}-Phantom_00001.{ending}" for number in (1, 5) for ending in ("png", "txt")
    ]
    assert f"{rfnet}: Figure 7 is left out: the method rfnet synthesises no features" in said
    assert f"{rfnet}: Figure 6 is left out: it compares a cell with ACD" in said


def test_into_the_cells_folder_and_its_run(
    cell: Callable[[str], str], trained: tuple[Path, dict[str, Cell]]
) -> None:
    base, found = trained
    for _ in range(2):  # drawing again replaces
        figures(FiguresRequest([cell("rfnet")]))
    folder = found["rfnet"].folder
    files = [f"figures/{file}" for file in _written(folder / "figures")]
    assert len(files) == 4  # two figures with their captions
    store = open_store(default_uri(base))
    (experiment,) = store.search_experiments(filter_string="name = 'acdis'")
    (run,) = store.search_runs([experiment.experiment_id])
    assert sorted(file.path for file in store.list_artifacts(run.info.run_id, "figures")) == files


def test_a_damaged_or_unlike_cell_is_one_clear_line(
    cell: Callable[[str], str], trained: tuple[Path, dict[str, Cell]], tmp_path: Path
) -> None:
    damaged = Path(shutil.copytree(trained[1]["full"].folder, tmp_path / "copy"))
    (damaged / "weights.pt").write_bytes(b"no weights")
    with pytest.raises(UserError, match="not a readable checkpoint"):
        figures(FiguresRequest([str(damaged)], out=tmp_path))
    with pytest.raises(UserError, match="was prepared differently"):
        figures(FiguresRequest([cell("full"), cell("other data")], out=tmp_path))
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        figures(FiguresRequest([cell("full")], out=tmp_path / "file"))


@pytest.mark.parametrize(
    ("runs", "case", "words"),
    [
        (["nothing"], None, "names no cell"),
        (["full", "full"], None, "is named twice"),
        (["full"] * 9, None, "name 1 to 8 trained cells"),
        (["full"], "Phantom_00099", "is no test case of every cell named; such are: Phantom_"),
    ],
)
def test_wrong_words_are_refused(
    cell: Callable[[str], str], tmp_path: Path, runs: list[str], case: str | None, words: str
) -> None:
    with pytest.raises(UserError, match=words):
        figures(FiguresRequest([cell(run) if run == "full" else run for run in runs], case, tmp_path))


def test_formats_slice_and_subsets_as_asked(cell: Callable[[str], str], tmp_path: Path) -> None:
    """Figure 5 has a row for each subset; the slice stands in the files' names."""
    rfnet = cell("rfnet")
    asked = FiguresRequest(
        [rfnet], "Phantom_00001", tmp_path, ["svg", "pdf"], index=12, subsets=["T2", "T1_T2"], titles=False
    )
    figures(asked)
    due = [f"{rfnet}/figure{number}-Phantom_00001-slice12" for number in (1, 5)]
    assert _written(tmp_path) == sorted(f"{each}.{form}" for each in due for form in ("svg", "pdf", "txt"))
    words = re.findall(r"<!-- (.*?) -->", (tmp_path / f"{due[1]}.svg").read_text(), re.S)
    assert [word for word in words if word in ("FLAIR", "T1ce", "T1", "T2", "+ T2", "T1\n+ T2")]
    assert not any("FLAIR" in word or "T1ce" in word or "Figure" in word for word in words)
    assert "axial slice 12 of its file" in " ".join((tmp_path / f"{due[1]}.txt").read_text().split())


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"formats": ["png", "jpg"]}, "--format: 'jpg' is none of png, pdf, svg"),
        ({"subsets": ["FLAIR_T3"]}, "--subset 'FLAIR_T3': write its modalities"),
        ({"index": 24}, r"--slice 24: Phantom_0000\d has brain in the axial slices \d+ to \d+ of its file"),
    ],
)
def test_what_cannot_be_drawn_is_refused(
    cell: Callable[[str], str], tmp_path: Path, more: dict[str, Any], words: str
) -> None:
    with pytest.raises(UserError, match=words):
        figures(FiguresRequest([cell("rfnet")], out=tmp_path, **more))
    assert _written(tmp_path) == []


def test_a_case_that_a_cell_learned_from_is_refused(
    cell: Callable[[str], str], trained: tuple[Path, dict[str, Cell]]
) -> None:
    (learned,) = cells.read_json(trained[1]["full"].folder / "lineage.json")["splits"]["train"]
    with pytest.raises(UserError, match="is no test case"):
        figures(FiguresRequest([cell("full")], learned))


@pytest.mark.parametrize(
    "words", [["report"], ["report", "nothing.yaml"], ["report", "tables", "nothing.yaml"]]
)
def test_report_without_figures_is_still_the_tables(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    monkeypatch.setenv("ACDIS_HOME", str(tmp_path))
    monkeypatch.setattr(sys, "argv", ["acdis", *words])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2
    assert (
        "nothing.yaml" if len(words) > 1 else "report: name at least one spec file"
    ) in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        ("", FiguresRequest(["acdis-1", "acdis-2"])),
        (
            "--case c --out o --format png,pdf --dpi 300 --slice 80 --subset FLAIR,FLAIR_T2 --no-title",
            FiguresRequest(
                ["acdis-1", "acdis-2"],
                "c",
                Path("o"),
                ["png", "pdf"],
                300,
                80,
                ["FLAIR", "FLAIR_T2"],
                False,
            ),
        ),
    ],
)
def test_the_command_line(monkeypatch: pytest.MonkeyPatch, words: str, wanted: FiguresRequest) -> None:
    import acdis.verbs.figures

    asked: list[Any] = []
    monkeypatch.setattr(acdis.verbs.figures, "figures", asked.append)
    monkeypatch.setattr(sys, "argv", ["acdis", "report", "figures", "acdis-1", "acdis-2", *words.split()])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert not ended.value.code
    assert asked == [wanted]
