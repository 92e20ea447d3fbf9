"""Who listens to a training on a worker: its attempt's file, its journal, the store, and Ray."""

from __future__ import annotations

import time
from typing import Any

from acdis.cells import Cell, stop_request
from acdis.cells.attempts import Attempt
from acdis.cells.object_store import CellStore
from acdis.tracking.epoch_log import EpochLog
from acdis.tracking.epochs import epoch_values


class Superseded(RuntimeError):  # noqa: N818  it says what happened
    """Another process trains this cell now. Ray has given this one up, which did not hear of it."""


class Heartbeat:
    """Writes what the training is doing into the attempt's file, at most every other second.

    A machine that was cut off trains on while Ray has long begun anew elsewhere. Who finds a later attempt
    ends himself, at the latest just before the next checkpoint is written.
    """

    def __init__(self, cell: Cell, group: Any, attempt: Attempt, store: CellStore | None = None) -> None:
        self.cell, self.attempt, self.store = cell, attempt, store
        self.leads = group.leads
        self.written = 0.0
        self.started = time.time()

    def __call__(self, event: Any) -> None:
        from acdis.training import events

        if not self.leads:
            return
        if isinstance(event, events.Step):
            self._write(
                status="training",
                epoch=event.epoch,
                epochs=event.epochs,
                step=event.step,
                steps=event.steps,
                loss=event.loss,
                now=event.step == event.steps,
            )
        elif isinstance(event, events.Saving):
            if self.store:
                self.store.refresh()
            self.check()
        elif isinstance(event, events.Scoring):
            self._write(status="scoring", scored=event.done, cases=event.cases)
        elif isinstance(event, events.Projection):
            self._write(
                now=True,
                status="training",
                epochs=event.epochs,
                resumed_at=event.epoch,
                step_seconds=event.step_seconds,
                projected_seconds=event.remaining_seconds,
                peak_bytes=event.peak_bytes,
            )
        elif isinstance(event, events.EpochEnd):
            self._write(
                now=True,
                status="training",
                done=event.epoch,
                epochs=event.epochs,
                validation=event.validation,
                seconds=event.seconds,
            )

    def _write(self, now: bool = False, **state: Any) -> None:
        if now or time.monotonic() - self.written > 2:
            self.check()
            self.attempt.update(**state)
            self.written = time.monotonic()

    def check(self) -> None:
        """Raise `Superseded` if the cell is another's."""
        theirs = self.attempt.successor()
        if theirs is not None:
            raise Superseded(f"{self.cell.name}: taken over by attempt {theirs}")


class AskedToStop(Exception):  # noqa: N818  it says what happened
    """Ends the loop on every rank after the same epoch."""


class Listener:
    """Sends a training's events to the cell's state, to its journal, to the store, and to Ray.

    Not to MLflow: a worker need not reach its server. The driver sends what the journal says.

    Args:
        measured: see `EpochLog`.
    """

    def __init__(
        self, heartbeat: Heartbeat, group: Any, store: CellStore | None = None, measured: bool = False
    ) -> None:
        self.cell, self.group, self.store = heartbeat.cell, group, store
        self.heartbeat = heartbeat
        self.log = EpochLog(self.cell.folder, measured) if group.leads else None

    def __call__(self, event: Any) -> None:
        from acdis.training.events import EpochEnd

        self.heartbeat(event)
        if isinstance(event, EpochEnd):
            self._epoch(event)

    def close(self) -> None:
        """When the training is over."""
        if self.log:
            self.log.close()

    def _epoch(self, event: Any) -> None:
        import ray.train

        if self.log:
            self.log.log_epoch(event.epoch, epoch_values(event.as_dict()))
        if self.store and self.group.leads:
            self.store.push()
        ray.train.report(
            {"epoch": event.epoch, "loss": event.terms["loss"]}
        )  # a barrier: every rank calls it
        reasons = self.group.gather([stop_request.asked(self.cell) if self.group.leads else None])
        if reasons[0] is not None and event.epoch < event.epochs:
            raise AskedToStop(reasons[0])
