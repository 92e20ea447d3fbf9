"""When a run's checkpoints are written, and when others hear of its epochs.

An epoch is told of (`EpochEnd`: journal, state, store, Ray) when a checkpoint that holds it is on the disk,
never before: what has been heard is never ahead of what a kill leaves.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch import Tensor

from acdis.training.events import Emit, EpochEnd, Saving
from acdis.training.group import Group
from acdis.training.run import TrainingRun, is_best, state_of, write

#: Steps of the next epoch after which a checkpoint that is written behind them is waited for: the same on all
#: ranks, which hear of an epoch together. 265 MB are on a disk before ten steps of 0.1 s are over.
STEPS_AHEAD = 10


def written_behind(group: Group) -> bool:
    """Whether a thread writes while training goes on: on a GPU, which would stand still meanwhile."""
    return group.device.type == "cuda"


class Checkpoints:
    """Writes a checkpoint when it is due, from a copy where a thread does it; then tells of its epochs.

    One is on its way at most. Leaving the `with` block waits for it, whatever has been raised: what goes on
    elsewhere then finds no writer behind its back.

    Args:
        emit: see `loop.train`.
        clock: seconds.
    """

    def __init__(
        self, run: TrainingRun, folder: Path, emit: Emit, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._run, self._folder, self._emit, self._clock = run, folder, emit, clock
        self._thread = ThreadPoolExecutor(1, "checkpoint") if written_behind(run.group) else None
        self._writing: Future[None] | None = None
        self._best: dict[str, Tensor] | None = None
        self._unwritten: list[EpochEnd] = []
        self._untold: list[EpochEnd] = []  # in the checkpoint that is on its way
        self._latest = clock()

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._thread:
            self._thread.shutdown()

    def after_step(self, number: int) -> None:
        """Called on every rank after each step of an epoch, counted from 1."""
        if number == STEPS_AHEAD:
            self._tell()

    def after_epoch(self, entry: EpochEnd) -> None:
        """Called on every rank when an epoch is in the run's history.

        Raises:
            UnwritableError: the checkpoint, or the one before it, cannot be written.
        """
        self._tell()
        self._unwritten.append(entry)
        due = self._is_due(entry)
        if is_best(self._run, entry):
            self._run.best = {"dice": entry.validation["dice/mean"], "epoch": float(entry.epoch)}
            if self._run.group.leads:
                kept = self._run.method.kept_state()
                self._best = kept if due and self._thread is None else copied(kept)
        if due:
            self._write(entry)
        if self._thread is None or entry.epoch == entry.epochs:
            self._tell()

    def _is_due(self, entry: EpochEnd) -> bool:
        """As the leading rank's clock says it."""
        minutes = self._run.experiment.scaling.checkpoint_minutes
        if minutes is None or entry.epoch == entry.epochs:
            return True
        return self._run.group.gather([self._clock() - self._latest >= 60 * minutes])[0]

    def _write(self, entry: EpochEnd) -> None:
        best, self._best = self._best, None
        if self._run.group.leads:
            self._emit(Saving(entry.epoch))
            state = state_of(self._run)
            if self._thread is None:
                write(self._folder, state, best)
            else:
                self._writing = self._thread.submit(write, self._folder, copied(state), best)
        self._untold, self._unwritten = self._unwritten, []
        self._latest = self._clock()

    def _tell(self) -> None:
        """Of the epochs in the checkpoint that was begun last, when it is on the disk."""
        if not self._untold:
            return
        if self._writing:
            self._writing.result()
        self._run.group.wait()
        told, self._untold = self._untold, []
        for entry in told:
            self._emit(entry)


def copied(state: Any) -> Any:
    """Tensors and plain containers, copied to the CPU: from a GPU to pinned memory, all in one go."""
    copies = _copied(state)
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
    return copies


def _copied(state: Any) -> Any:
    if isinstance(state, Tensor):
        pinned = state.device.type == "cuda"
        there = torch.empty_like(state, device="cpu", pin_memory=pinned, requires_grad=False)
        return there.copy_(state.detach(), non_blocking=pinned)
    if isinstance(state, dict):
        return type(state)((key, _copied(value)) for key, value in state.items())
    if isinstance(state, list | tuple):
        return type(state)(_copied(value) for value in state)
    return state
