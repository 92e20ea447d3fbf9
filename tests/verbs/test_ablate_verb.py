"""`ablate` takes over what another process leaves, whenever that one ends."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from acdis.ablation.standings import Standing, Status
from acdis.cells import Cell
from acdis.cluster.train import TrainingFailed
from acdis.files import UnwritableError
from acdis.terminal.progress import Display
from acdis.workflow import train_missing

#: How a cell stands and what its state says.
Look = tuple[Status, str]


@pytest.mark.parametrize(
    ("looks", "trained"),
    [
        # Killed before the first look; its processes die before the second.
        ([("running", "training"), *[("missing", "training")] * 2], 1),
        # They die while we wait.
        ([("running", "training"), ("running", "training"), ("missing", "training")], 1),
        # It was stopped there.
        ([("running", "training"), *[("missing", "stopped")] * 2], 1),
        # A trial of ours found the cell held, and its holder died before we looked.
        ([("missing", "training")] * 3, 2),
        # It came to its end.
        ([("running", "scored"), ("done", "done")], 0),
        # What we train and is asked to stop is not begun again, nor is what we took over.
        ([("missing", "training"), *[("missing", "stopped")] * 2], 1),
        ([("running", "training"), *[("missing", "training")] * 2, *[("missing", "stopped")] * 2], 1),
    ],
)
def test_the_same_command_once_takes_over_what_has_ended_unfinished(
    looks: Sequence[Look], trained: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each look sees the next of `looks`, then a cell that is done: one look at first, two a round."""
    script = list(looks)
    runs: list[list[Any]] = []
    job = SimpleNamespace(cell=Cell(tmp_path))

    def survey(members: Any, base: Path) -> list[Standing]:
        status, state = script.pop(0) if script else ("done", "done")
        return [Standing(cast(Any, SimpleNamespace(cell="a")), status, {"status": state}, ())]

    monkeypatch.setattr(train_missing, "survey", survey)
    monkeypatch.setattr(train_missing, "parents", lambda *_: nullcontext())
    monkeypatch.setattr(train_missing, "_jobs", lambda *_: {"a": job})
    monkeypatch.setattr(train_missing, "generations", lambda _: [[SimpleNamespace(cell="a")]])
    monkeypatch.setattr(train_missing, "_has_parents", lambda *_: True)
    monkeypatch.setattr(train_missing, "_run", lambda jobs, *_: runs.append(jobs))
    with Display() as display:
        train_missing.train_missing([], tmp_path, display)
    assert runs == [[job]] * trained


@pytest.fixture
def of_one_cell(monkeypatch: pytest.MonkeyPatch) -> None:
    """An ablation whose cell is always missing; its training does nothing."""
    missing = Standing(cast(Any, SimpleNamespace(cell="a")), "missing", {}, ())
    monkeypatch.setattr(train_missing, "survey", lambda *_: [missing])
    monkeypatch.setattr(train_missing, "parents", lambda *_: nullcontext())
    monkeypatch.setattr(train_missing, "generations", lambda _: [[SimpleNamespace(cell="a")]])
    monkeypatch.setattr(train_missing, "_has_parents", lambda *_: True)
    monkeypatch.setattr(train_missing, "_run", lambda *_: None)


@pytest.mark.usefixtures("of_one_cell")
def test_a_cell_that_cannot_be_written_is_one_line_before_anything_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its training could not say why it ended at once."""
    theirs = SimpleNamespace(cell=Cell(tmp_path / "acdis-1"))
    monkeypatch.setattr(train_missing, "_jobs", lambda *_: {"a": theirs})
    monkeypatch.setattr(train_missing, "_run", lambda *_: pytest.fail("it was begun"))
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != theirs.cell.folder)
    with Display() as display, pytest.raises(UnwritableError, match=r"acdis-1: cannot be written \(Perm"):
        train_missing.train_missing([], tmp_path, display)


@pytest.mark.usefixtures("of_one_cell")
@pytest.mark.parametrize(("free", "said"), [(2**20, "has 1.0 MiB left: free space, then"), (2**30, "")])
def test_where_the_disk_is_full_it_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int, said: str
) -> None:
    """A cell may have had no room to write down why it ended."""
    monkeypatch.setattr(train_missing, "_jobs", lambda *_: {"a": SimpleNamespace(cell=Cell(tmp_path))})
    monkeypatch.setattr(train_missing.shutil, "disk_usage", lambda _: SimpleNamespace(free=free))
    words = rf"1 cells have not come to an end; (\S+ )?{said} ?the same command goes on"
    with Display() as display, pytest.raises(TrainingFailed, match=words):
        train_missing.train_missing([], tmp_path, display)


def _child(base: Path) -> Any:
    cell = Cell(base / "cells" / "gss-child")
    cell.folder.mkdir(parents=True)
    method = SimpleNamespace(parents={"start": "rfnet-parent"})
    return SimpleNamespace(cell=cell, experiment=SimpleNamespace(method=method))


def test_a_cell_whose_parent_has_failed_says_so_and_is_not_begun(tmp_path: Path) -> None:
    job = _child(tmp_path)
    with Display() as display:
        assert not train_missing._has_parents(job, tmp_path, display)
        state = job.cell.state()
        assert state["status"] == "failed"
        assert "its parent rfnet-parent (method.parents.start) has failed" in state["reason"]
        weights = tmp_path / "cells" / "rfnet-parent" / "weights.pt"
        weights.parent.mkdir()
        weights.write_bytes(b"x")
        assert train_missing._has_parents(job, tmp_path, display)


def test_a_parent_that_another_process_trains_is_waited_for(tmp_path: Path) -> None:
    job, parent = _child(tmp_path), Cell(tmp_path / "cells" / "rfnet-parent")
    parent.folder.mkdir()
    begun = threading.Event()

    def train() -> None:
        with parent.alone():
            begun.set()
            time.sleep(1.5)
            parent.weights.write_bytes(b"x")

    other = threading.Thread(target=train)
    other.start()
    begun.wait()
    with Display() as display:
        assert train_missing._has_parents(job, tmp_path, display)
    other.join()
    assert job.cell.state() == {}
