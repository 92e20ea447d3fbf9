"""What a power cut leaves of a cell's small files is that cell's problem: named, set aside, written again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from acdis import cells, config, methods
from acdis.cells import Cell
from acdis.cells.schemas import DamagedError
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
    for cut in range(len(lines)):
        path.write_text("".join(lines[:cut]))
        with pytest.raises(UserError, match=r"config\.yaml[:,]"):
            cell.experiment()
        assert len(cell.damage()) == 1
    path.write_text("".join(lines))
    assert cell.experiment() == experiment


@pytest.mark.parametrize("name", [name for name in FILES if name.endswith("json")])
def test_a_file_is_torn_wherever_it_was_cut(cell: Cell, name: str) -> None:
    """Behind a brace too, with which half of it ends as all of it does."""
    path = cell.folder / name
    whole = json.dumps(json.loads(path.read_text()) | {"of": {"a": {"later": 1}}, "version": 2}, indent=1)
    for size in range(len(whole)):
        path.write_text(whole[:size])
        assert len(cell.damage()) == 1
    path.write_text(whole)
    assert cell.damage() == []


@pytest.mark.parametrize("name", ["lineage.json", "history.json"])
def test_what_lies_in_the_middle_of_a_file_is_found_when_its_cell_is_taken_up(
    cell: Cell, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A hole that a power cut has left: who only looks sees how such a file ends."""
    path, experiment = cell.folder / name, cell.experiment()
    tree = json.loads(path.read_text())
    path.write_text(json.dumps(tree, indent=1).replace('": ', '"\0 ', 1))
    cells.create(_base(cell), cell.name, experiment, DETAILS)
    assert f"{path}: is damaged" in caplog.text
    assert (cell.folder / f"{name}.damaged").exists()
    assert cell.lineage()["splits"] == DETAILS["splits"]


def test_damaged_roles_give_way_to_new_ones(cell: Cell, caplog: pytest.LogCaptureFixture) -> None:
    (cell.folder / "roles.json").write_text('{"roles": [{"spec": "s"')
    assert cell.known_roles() == []
    cell.add_role(spec="s", table=None, row="other", seed=5)
    assert f"{cell.folder / 'roles.json'}: is damaged" in caplog.text
    assert [role["row"] for role in cell.roles()] == ["other"]


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
