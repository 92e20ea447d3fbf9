"""Driver and workers write files of their own; whose word counts is no matter of clocks or locks."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from acdis import files
from acdis.cells import Cell, attempts
from acdis.cells.attempts import Attempt
from acdis.cells.object_store import CellStore


def _begun(folder: Path, **said: object) -> Attempt:
    attempt = Attempt(folder, *attempts.fresh(folder))
    attempt.update(**said)
    return attempt


def _seen(cell: Cell) -> dict[str, object]:
    return {key: value for key, value in cell.state().items() if key not in ("updated", "beat", "attempt")}


def test_a_worker_writes_nothing_of_the_drivers(tmp_path: Path) -> None:
    cell = Cell(tmp_path)
    cell.begin(status="starting", cpus=2)
    before = (tmp_path / "state.json").read_bytes()
    worker = _begun(tmp_path, status="training", done=1)
    worker.update(done=2)
    assert (tmp_path / "state.json").read_bytes() == before
    assert [path.name for path in (tmp_path / "attempts").iterdir()] == [f"000001-{worker.mark}-0.json"]
    assert _seen(cell) == {"status": "training", "cpus": 2, "done": 2}


def test_what_the_driver_has_taken_over_stays_and_is_written_by_nobody_else(tmp_path: Path) -> None:
    cell = Cell(tmp_path)
    cell.begin(status="starting")
    worker = _begun(tmp_path, status="scored", done=4, loop_seconds=3.0)
    assert worker.successor() is None
    cell.update(status="done", evaluation="e")
    expected = {"status": "done", "done": 4, "loop_seconds": 3.0, "evaluation": "e", "taken": 1}
    assert _seen(cell) == expected
    assert [path.name for path in tmp_path.iterdir()] == ["state.json"]
    assert worker.successor() == "of the driver"
    worker.update(status="training", done=1)  # it was cut off, and has not looked
    assert _seen(cell) == expected
    cell.begin(status="starting")
    assert _seen(cell) == {"status": "starting", "done": 4, "evaluation": "e", "taken": 1}


@pytest.mark.parametrize("ahead", [-86400, 86400])
def test_the_later_attempt_counts_whatever_the_clocks_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ahead: int
) -> None:
    cell = Cell(tmp_path)
    cell.begin(status="starting")
    first = _begun(tmp_path, status="training", done=1)
    second = _begun(tmp_path, status="training", done=2)
    now = attempts.time.time()
    monkeypatch.setattr(attempts.time, "time", lambda: now + ahead)
    for _ in range(3):
        first.update(done=7)
    os.utime(first.path, (now + ahead, now + ahead))
    assert (cell.state()["done"], cell.state()["attempt"]) == (2, second.mark)
    assert (first.successor(), second.successor()) == (second.mark, None)


def test_of_two_that_took_one_number_at_once_all_follow_the_same(tmp_path: Path) -> None:
    low, high = Attempt(tmp_path, 1, "00000001"), Attempt(tmp_path, 1, "0000000a")
    high.update(done=1)
    low.update(done=2)
    assert Cell(tmp_path).state()["done"] == 1
    assert (low.successor(), high.successor()) == ("0000000a", None)
    assert attempts.fresh(tmp_path)[0] == 2


def test_what_a_following_rank_says_is_heard(tmp_path: Path) -> None:
    lead = _begun(tmp_path, status="training", done=1)
    Attempt(tmp_path, lead.number, lead.mark, 1).update(status="failed", reason="no data here")
    state = Cell(tmp_path).state()
    assert (state["status"], state["reason"], state["done"]) == ("failed", "no data here", 1)


def test_damaged_and_strange_files_are_as_none(tmp_path: Path) -> None:
    cell = Cell(tmp_path)
    cell.begin(status="starting")
    (tmp_path / "attempts").mkdir()
    for name in ("000009-0123abcd-0.json", "9-0123abcd-0.json", "readme.txt"):
        (tmp_path / "attempts" / name).write_text("{")
    assert _seen(cell) == {"status": "starting"}
    assert attempts.fresh(tmp_path)[0] == 10  # it was somebody's
    cell.begin(status="starting")
    assert not (tmp_path / "attempts" / "000009-0123abcd-0.json").exists()


def test_on_a_store_each_side_sends_its_own_files(tmp_path: Path) -> None:
    """Driver and worker on machines that share nothing else."""
    address = f"file://{tmp_path}/bucket"
    here, there = Cell(tmp_path / "here" / "acdis-1"), Cell(tmp_path / "there" / "acdis-1")
    driver, worker = CellStore(address, here), CellStore(address, there, driver=False)
    here.begin(status="starting", cpus=2)
    assert driver.push()
    worker.pull()
    attempt = _begun(there.folder, status="training", done=1)
    files.write_text(there.folder / "last.pt", "one epoch")
    here.update(workers=1)
    assert driver.push()
    assert worker.push()  # with the driver's older state in its folder
    driver.refresh()
    assert _seen(here) == {"status": "training", "cpus": 2, "workers": 1, "done": 1}
    later = Cell(tmp_path / "later" / "acdis-1")  # a third machine takes over
    CellStore(address, later, driver=False).pull()
    second = _begun(later.folder, status="training")
    CellStore(address, later, driver=False).push_attempts()
    assert attempt.successor() is None
    worker.refresh()
    assert attempt.successor() == second.mark
    driver.pull()
    here.weights.write_text("final")
    here.update(status="done")
    assert driver.push()
    assert not list((tmp_path / "bucket").rglob("attempts/*.json"))
    worker.refresh()
    assert attempt.successor() is not None


def test_a_worker_says_what_is_done_after_it_has_sent_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cell = Cell(tmp_path / "acdis-1")
    cell.begin(status="starting")
    _begun(cell.folder, done=1)
    for name in ("last.pt", "epochs.jsonl", "tracking.jsonl"):
        files.write_text(cell.folder / name, "content")
    sent: list[str] = []
    monkeypatch.setattr(CellStore, "_send", lambda self, name: sent.append(name))
    CellStore(f"file://{tmp_path}/bucket", cell, driver=False).push()
    assert [name.partition("/")[0] for name in sent] == ["epochs.jsonl", "last.pt", "attempts"]
