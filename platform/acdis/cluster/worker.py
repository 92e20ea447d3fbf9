"""What runs on each Ray Train worker: the plain loop, and a listener that keeps files and MLflow current."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from acdis.ablation import stopping
from acdis.ablation.cells import Cell, write_json
from acdis.config import Experiment
from acdis.errors import UserError
from acdis.tracking.epochs import epoch_values
from acdis.version import __version__


def run(job: dict[str, Any]) -> None:
    """Train if weights are missing, then score the test cases.

    Args:
        job: `experiment` (plain values), `cell` (folder), `entries` (prepared cases by split),
            `evaluation` (folder), `threads`, `tracking` (uri, experiment name).
    """
    from acdis.training.loop import Diverged

    cell = Cell(Path(job["cell"]))
    if cell.state().get("status") == "failed":
        return  # Ray restarted the others of a worker that has said why it gave up; see below
    group = _group(job["threads"])
    if group.leads:
        cell.update(
            pid=os.getpid(),
            version=__version__,
            code=str(Path(__file__).resolve().parents[1]),
            resumed_at=None,  # of the attempt before
        )
    try:
        _run(job, cell, group)
    except _AskedToStop as asked:
        if group.leads:
            cell.update(status="stopped", reason=str(asked))
    except (Diverged, UserError) as error:
        # The same input would fail again, so Ray must not restart it: the driver reads the reason. With
        # several workers the others may be waiting for this one, and only a crash ends them.
        user_error = isinstance(error, UserError)
        if group.leads or user_error:
            cell.update(status="failed", reason=str(error), user_error=user_error)
        if group.world > 1 and user_error:
            raise


def _run(job: dict[str, Any], cell: Cell, group: Any) -> None:
    from acdis.training import checkpoint, loop

    began = time.monotonic()
    experiment = Experiment.model_validate(job["experiment"])
    entries = job["entries"]
    if not cell.weights.exists():
        listener = Listener(cell, job, group)
        trained = loop.train(
            experiment, loop.Cases(entries["train"], entries["validation"]), cell.folder, group, listener
        )
        if group.leads:
            write_json(cell.folder / "history.json", {"epochs": trained.history, "best": trained.best})
            checkpoint.save(cell.weights, loop.final_state(trained, cell.folder))
        listener.close()
        group.wait()
    _evaluate(job, experiment, cell, entries["test"], group)
    if group.leads:
        cell.update(status="scored", loop_seconds=time.monotonic() - began)
        for name in (loop.LAST, loop.BEST):
            (cell.folder / name).unlink(missing_ok=True)  # a finished cell keeps final weights only


def _evaluate(
    job: dict[str, Any], experiment: Experiment, cell: Cell, entries: list[Any], group: Any
) -> None:
    """Score the test cases with the final weights; per-case records and a few pictures stay in the folder."""
    import torch

    from acdis.evaluation.examples import save_example
    from acdis.evaluation.records import write_parquet
    from acdis.training import checkpoint, loop, precision

    folder = Path(job["evaluation"])
    if not entries or (not job["again"] and (folder / "records.parquet").exists()):
        return
    folder.mkdir(parents=True, exist_ok=True)
    method = loop.new_method(experiment).to(group.device)
    method.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    method.load_inference_state(checkpoint.load(cell.weights, group.device))
    dtype = precision.autocast_dtype(experiment.training.precision)
    state = Heartbeat(cell, group)
    records, _ = loop.score_share(method, entries, experiment, experiment.evaluation, group, dtype, state)
    if group.leads:
        save_example(folder / "example.npz", method, entries[0], experiment.evaluation, group.device, dtype)
        write_parquet(folder / "records.parquet", records)
    group.wait()


def _group(threads: int) -> Any:
    import ray.train
    import ray.train.torch
    import torch

    from acdis.training.group import Group

    torch.set_num_threads(threads)
    context = ray.train.get_context()
    device = ray.train.torch.get_device()
    return Group(context.get_world_rank(), context.get_world_size(), device)


class Heartbeat:
    """Writes what the training is doing into the cell's state, at most every other second."""

    def __init__(self, cell: Cell, group: Any) -> None:
        self.cell = cell
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
            )
        elif isinstance(event, events.Scoring):
            self._write(status="scoring", scored=event.done, cases=event.cases)
        elif isinstance(event, events.Projection):
            self.cell.update(
                status="training",
                epochs=event.epochs,
                resumed_at=event.epoch,
                step_seconds=event.step_seconds,
                projected_seconds=event.remaining_seconds,
                peak_bytes=event.peak_bytes,
            )
        elif isinstance(event, events.EpochEnd):
            self.cell.update(
                status="training",
                done=event.epoch,
                epochs=event.epochs,
                validation=event.validation,
                seconds=event.seconds,
            )

    def _write(self, **state: Any) -> None:
        if time.monotonic() - self.written > 2:
            self.cell.update(**state)
            self.written = time.monotonic()


class _AskedToStop(Exception):  # noqa: N818  it says what happened
    """Ends the loop on every rank after the same epoch."""


class Listener:
    """Sends a training's events to the cell's state, to MLflow, and to Ray."""

    def __init__(self, cell: Cell, job: dict[str, Any], group: Any) -> None:
        from acdis.tracking.runs import RunTracker

        self.cell, self.group = cell, group
        self.heartbeat = Heartbeat(cell, group)
        self.tracker = (
            RunTracker(
                cell.folder, job["tracking"]["uri"], job["tracking"]["experiment"], cell.name, cell.name
            )
            if group.leads
            else None
        )

    def __call__(self, event: Any) -> None:
        from acdis.training.events import EpochEnd

        self.heartbeat(event)
        if isinstance(event, EpochEnd):
            self._epoch(event)

    def _epoch(self, event: Any) -> None:
        import ray.train

        if self.tracker:
            self.tracker.log_epoch(event.epoch, epoch_values(event.as_dict()))
        ray.train.report(
            {"epoch": event.epoch, "loss": event.terms["loss"]}
        )  # a barrier: every rank calls it
        reasons = self.group.gather([stopping.asked(self.cell) if self.group.leads else None])
        if reasons[0] is not None and event.epoch < event.epochs:
            self.close()
            raise _AskedToStop(reasons[0])

    def close(self) -> None:
        """Wait a little for MLflow; what cannot be sent stays in the journal."""
        if self.tracker:
            self.tracker.close(timeout=30)
