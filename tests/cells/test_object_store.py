"""A cell's copy on an object store: what is sent and fetched, and in which order."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import pytest

from acdis.cells import Cell, attempts, object_store
from acdis.cells.attempts import Attempt
from acdis.cells.object_store import CellStore
from acdis.errors import UserError


@pytest.fixture
def cell(tmp_path: Path) -> Cell:
    """A cell after its second epoch."""
    cell = Cell(tmp_path / "home" / "cells" / "acdis-0123456789ab")
    cell.folder.mkdir(parents=True)
    cell.begin(status="training", done=2)
    for name, content in {
        "last.pt": "two epochs",
        "before.pt": "one epoch",
        "tracking.jsonl": '{"op": "epoch"}\n',
        "lock": "",
        ".state.json.77": "half",
    }.items():
        (cell.folder / name).write_text(content)
    return cell


@pytest.fixture
def address(tmp_path: Path) -> str:
    return f"file://{tmp_path}/bucket/some prefix".replace(" ", "%20")


def _elsewhere(cell: Cell, tmp_path: Path) -> Cell:
    """The same cell on a machine that has nothing."""
    return Cell(tmp_path / "other" / cell.name)


def _names(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_another_machine_gets_what_it_takes_to_go_on(cell: Cell, address: str, tmp_path: Path) -> None:
    (cell.evaluations / "e1").mkdir(parents=True)
    (cell.evaluations / "e1" / "records.parquet").write_bytes(b"\0records")
    assert CellStore(address, cell).push()
    other = _elsewhere(cell, tmp_path)
    CellStore(address, other).pull()
    assert _names(other.folder) == {
        "last.pt",
        "tracking.jsonl",
        "state.json",
        "evaluations/e1/records.parquet",
    }
    assert all(
        (other.folder / name).read_bytes() == (cell.folder / name).read_bytes()
        for name in _names(other.folder)
    )


def test_who_finds_a_file_finds_what_belongs_to_it(
    cell: Cell, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever push is interrupted: a checkpoint comes after its journal, the state after everything."""
    cell.weights.write_text("final")
    (cell.folder / "history.json").write_text("{}")
    sent: list[str] = []
    monkeypatch.setattr(CellStore, "_send", lambda self, name: sent.append(name))
    CellStore(address, cell).push()
    assert sent[-3:] == ["last.pt", "weights.pt", "state.json"]
    assert set(sent[:-3]) == {"history.json", "tracking.jsonl"}


def test_only_what_has_changed_is_sent(cell: Cell, address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    mirror = CellStore(address, cell)
    mirror.push()
    sent: list[str] = []
    original = CellStore._send
    monkeypatch.setattr(CellStore, "_send", lambda self, name: (sent.append(name), original(self, name)))
    mirror.push()
    assert sent == []
    cell.update(done=3)
    mirror.push()
    assert sent == ["state.json"]


def test_the_copy_wins_only_with_more_epochs(cell: Cell, address: str, tmp_path: Path) -> None:
    other = _elsewhere(cell, tmp_path)
    CellStore(address, cell).push()
    CellStore(address, other).pull()
    (other.folder / "last.pt").write_text("three epochs")
    other.update(done=3)
    CellStore(address, other).pull()
    assert (other.folder / "last.pt").read_text() == "three epochs"
    CellStore(address, other).push()
    CellStore(address, cell).pull()
    assert (cell.folder / "last.pt").read_text() == "three epochs"
    assert cell.state()["done"] == 3


def test_a_workers_copy_of_the_drivers_journal_stays_away(cell: Cell, address: str, tmp_path: Path) -> None:
    """What the driver has noted since is not in it; the worker's own file comes."""
    other = _elsewhere(cell, tmp_path)
    CellStore(address, cell).push()
    CellStore(address, other).pull()
    (other.folder / "epochs.jsonl").write_text('{"op": "epoch"}\n')
    other.update(done=3)
    CellStore(address, other).push()
    with (cell.folder / "tracking.jsonl").open("a") as journal:
        journal.write('{"op": "tags"}\n')
    CellStore(address, cell).pull()
    assert (cell.folder / "tracking.jsonl").read_text() == '{"op": "epoch"}\n{"op": "tags"}\n'
    assert (cell.folder / "epochs.jsonl").exists()


def test_a_failure_that_is_told_elsewhere_is_heard_and_one_that_is_over_is_not(
    cell: Cell, address: str, tmp_path: Path
) -> None:
    other = _elsewhere(cell, tmp_path)
    shutil.copytree(cell.folder, other.folder)
    Attempt(other.folder, *attempts.fresh(other.folder)).update(status="failed", reason="no data")
    CellStore(address, other, driver=False).push()
    CellStore(address, cell).refresh()
    assert cell.state()["reason"] == "no data"
    cell.begin(status="starting")
    CellStore(address, cell).push()
    CellStore(address, other, driver=False).pull()
    assert other.state()["status"] == "starting"


def test_a_finished_cell_keeps_no_training_state(cell: Cell, address: str, tmp_path: Path) -> None:
    mirror = CellStore(address, cell)
    mirror.push()
    cell.weights.write_text("final")
    (cell.folder / "last.pt").unlink()
    mirror.push()
    other = _elsewhere(cell, tmp_path)
    CellStore(address, other).pull()
    assert "weights.pt" in _names(other.folder)
    assert "last.pt" not in _names(other.folder)
    assert not list((tmp_path / "bucket").rglob("last.pt"))


def test_a_store_that_is_away_stops_no_training_but_a_start(
    cell: Cell, address: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    mirror = CellStore(address, cell)

    def away(*_: Any, **__: Any) -> Any:
        raise OSError("nobody is there")

    with monkeypatch.context() as patch:
        patch.setattr(CellStore, "_send", away)
        patch.setattr(CellStore, "_there", away)
        with caplog.at_level(logging.WARNING):
            assert not mirror.push()
        assert "nobody is there" in caplog.text
        with pytest.raises(UserError, match=r"scaling\.storage: .*nobody is there"):
            mirror.pull()
        patch.setattr(CellStore, "_there", lambda self: [])
        with pytest.raises(UserError, match=r"scaling\.storage: .*cannot be written .*nobody is there"):
            mirror.begin()
    assert mirror.push()


@pytest.mark.parametrize("address", ["s4://bucket", "bucket", ""])
def test_no_address(cell: Cell, address: str) -> None:
    with pytest.raises(UserError, match=r"scaling\.storage: .*s3://bucket/prefix"):
        CellStore(address, cell)


def test_names_that_lead_out_of_the_folder_are_not_fetched(
    cell: Cell, address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pyarrow import fs

    CellStore(address, cell).push()
    other = CellStore(address, _elsewhere(cell, tmp_path))

    class Lying:
        """As an object store may: its names are any text."""

        def __getattr__(self, name: str) -> Any:
            return getattr(real, name)

        def get_file_info(self, selector: Any) -> Any:
            found = real.get_file_info(selector)
            return [*found, fs.FileInfo(f"{other._root}/../../outside.txt", fs.FileType.File, size=3)]

    real, other._files = other._files, Lying()
    other.pull()
    assert not list(tmp_path.rglob("outside.txt"))
    assert json.loads((other.cell.folder / "state.json").read_text())["done"] == 2


def test_ray_keeps_its_own_state_beside_the_cells(tmp_path: Path) -> None:
    assert object_store.ray_storage(None, tmp_path) == str(tmp_path / "ray")
    assert object_store.ray_storage("s3://b/p/", tmp_path) == "s3://b/p/ray"
    assert object_store.ray_storage("s3://b/p?region=x", tmp_path) == "s3://b/p/ray?region=x"


def test_what_killed_drivers_left_of_ray_is_removed(cell: Cell, tmp_path: Path) -> None:
    for address in (None, f"file://{tmp_path}"):
        for name in (f"{cell.name}-1", f"{cell.name}-2", f"{cell.name[:-1]}-3", "ablation-4"):
            (tmp_path / "ray" / name / "inside").mkdir(parents=True, exist_ok=True)
        object_store.remove_runs(address, tmp_path, cell)
        left = {path.name for path in (tmp_path / "ray").iterdir()}
        assert left == {f"{cell.name[:-1]}-3", "ablation-4"}
    object_store.remove_runs(None, tmp_path / "nothing", cell)
