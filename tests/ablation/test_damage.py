"""What a power cut leaves of a cell's small files is that cell's problem: named, set aside, written again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from acdis import config, methods
from acdis.ablation import cells
from acdis.ablation.cells import Cell
from acdis.ablation.notes import DamagedError
from acdis.errors import UserError

EXPERIMENT = {"method": {"name": "acdis"}, "training": {"learning_rate": 3e-4}, "seed": 5}
DETAILS = {"tags": {"acdis.git_commit": "0123456789"}, "splits": {"test": ["case 1"]}}
FILES = ("state.json", "roles.json", "config.yaml", "lineage.json", "history.json")
#: What each message says is lost, or stays, and what to do.
TRUE = {
    "state.json": "weights and scores stay; `train` or `ablate`",
    "roles.json": "`ablate` of its specs",
    "config.yaml": "weights and scores stay; `train` or `ablate`",
    "lineage.json": "commit and versions of its training are lost",
    "history.json": "writes its epochs again, from its journal",
}


@pytest.fixture
def cell(tmp_path: Path) -> Cell:
    """A finished one, in a folder as people have them."""
    experiment = methods.resolve(config.parse(EXPERIMENT, "test"))
    made = cells.create(tmp_path / "Möbius home", "acdis-0123456789ab", experiment, DETAILS)
    made.update(status="done", done=3)
    made.add_role(spec="s", table=None, row="r", seed=5)
    entry = {"epoch": 1, "terms": {}, "learning_rate": 1.0, "seconds": 2.0, "validation": {}}
    (made.folder / "history.json").write_text(json.dumps({"epochs": [entry]}))
    made.weights.write_text("weights")
    return made


def _base(cell: Cell) -> Path:
    return cell.folder.parent.parent


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("cut", [0.0, 0.5, 0.99, "zeros"])
def test_damage_is_named_and_mended_and_what_is_lost_is_not_made_up(
    cell: Cell, name: str, cut: float | str, caplog: pytest.LogCaptureFixture
) -> None:
    assert cell.damage() == []
    path, experiment = cell.folder / name, cell.experiment()
    whole = path.read_bytes()
    torn = whole[:8] + b"\0" * (len(whole) - 8) if cut == "zeros" else whole[: int(float(cut) * len(whole))]
    path.write_bytes(torn)
    (problem,) = cell.damage()
    assert problem.startswith(f"{path}: is damaged (")
    assert TRUE[name] in problem
    assert "\n" not in problem
    cells.create(_base(cell), cell.name, experiment, {"tags": {"acdis.git_commit": "of today"}, "splits": {}})
    assert problem in caplog.text
    assert cell.damage() == []
    assert (cell.folder / f"{name}.damaged").read_bytes() == torn
    assert cell.weights.read_text() == "weights"
    assert cell.experiment() == experiment
    assert cell.lineage() == (DETAILS if name != "lineage.json" else {"tags": {}, "splits": {}})


def test_half_a_configuration_is_never_read_as_defaults(cell: Cell) -> None:
    """Cut at every line: each key that is missing would have its default."""
    path, experiment = cell.folder / "config.yaml", cell.experiment()
    lines = path.read_text().splitlines(keepends=True)
    sections = [number for number, line in enumerate(lines) if not line.startswith((" ", "-"))]
    for cut in range(sections[-1] + 2):
        path.write_text("".join(lines[:cut]))
        with pytest.raises(UserError, match=r"config\.yaml[:,]"):
            cell.experiment()
    for cut in range(sections[-1] + 2, len(lines) + 1):  # what follows is where it was tracked
        path.write_text("".join(lines[:cut]))
        read = cell.experiment()
        assert read.model_copy(update={"tracking": experiment.tracking}) == experiment


def test_half_a_state_is_never_read_as_a_state(cell: Cell) -> None:
    content = (cell.folder / "state.json").read_bytes()
    for size in range(len(content)):
        (cell.folder / "state.json").write_bytes(content[:size])
        with pytest.raises(DamagedError):
            cell.state()
        assert len(cell.damage()) == 1
    cell.begin(status="starting")
    assert cell.state()["status"] == "starting"


def test_whole_files_stay_and_pipes_are_not_waited_for(cell: Cell) -> None:
    import os

    before = {path.name: path.read_bytes() for path in cell.folder.iterdir()}
    cells.create(_base(cell), cell.name, cell.experiment(), {"tags": {}, "splits": {}})
    assert {path.name: path.read_bytes() for path in cell.folder.iterdir()} == before
    (cell.folder / "history.json").unlink()
    os.mkfifo(cell.folder / "history.json")
    assert len(cell.damage()) == 1
