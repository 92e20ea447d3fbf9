"""What runs on each Ray Train worker: the plain loop, and a listener that keeps its files current."""

from __future__ import annotations

import os
import secrets
import socket
import time
from pathlib import Path
from typing import Any

from acdis.ablation import stopping
from acdis.ablation.cells import Cell
from acdis.ablation.store import Store, store_of
from acdis.config import Experiment
from acdis.errors import UserError
from acdis.files import UnwritableError, write_json
from acdis.tracking.epoch_log import EpochLog
from acdis.tracking.epochs import epoch_values
from acdis.version import __version__


def run(job: dict[str, Any]) -> str | None:
    """Train if weights are missing, then score the test cases.

    Args:
        job: `experiment` (plain values), `cell` (folder), `entries` (prepared cases by split),
            `evaluation` (folder), `threads`.
    """
    from acdis.training.loop import Diverged

    cell = Cell(Path(job["cell"]))
    cell.folder.mkdir(parents=True, exist_ok=True)
    store = store_of(cell, job["experiment"]["scaling"]["storage"])
    if store:
        store.pull()  # this machine may lack what others have trained
    if cell.state().get("status") == "failed":
        return None  # Ray restarted the others of a worker that has said why it gave up; see below
    group = _group(job["threads"])
    problems = [problem for problem in group.gather([_unseen(cell, job)]) if problem]
    if problems:  # told to the driver by way of Ray: the cell's folder may be what is missing here
        return f"{'; '.join(dict.fromkeys(problems))}; every node must see the same ACDIS_HOME"
    attempt = secrets.token_hex(4)
    if group.leads:
        cell.update(
            attempt=attempt,
            pid=os.getpid(),
            workers=group.world,
            version=__version__,
            code=str(Path(__file__).resolve().parents[1]),
            resumed_at=None,  # of the attempt before
        )
    try:
        _run(job, group, Heartbeat(cell, group, attempt), store)
    except _AskedToStop as asked:
        if group.leads:
            cell.update(status="stopped", reason=str(asked))
    except UnwritableError:
        raise  # a full disk, or storage that is away: Ray starts the workers again
    except (Diverged, UserError) as error:
        # The same input would fail again, so Ray must not restart it: the driver reads the reason. With
        # several workers the others may be waiting for this one, and only a crash ends them.
        user_error = isinstance(error, UserError)
        if group.leads or user_error:
            cell.update(status="failed", reason=str(error), user_error=user_error)
        if group.world > 1 and user_error:
            raise
    finally:
        if store and group.leads:
            store.push()
    return None


def _unseen(cell: Cell, job: dict[str, Any]) -> str | None:
    """Why nothing can be trained on this node: it does not see the storage that the driver has written to."""
    names = job["experiment"]["method"].get("parents", {}).values()
    parents = [cell.folder.parent / name / cell.weights.name for name in names]
    needed = [
        cell.folder / "config.yaml",
        *parents,
        *(entry.path for part in job["entries"].values() for entry in part),
    ]
    missing = [path for path in needed if not path.exists()]
    if not missing:
        return None
    return f"{socket.gethostname()}: {missing[0]} is not there"


def _run(job: dict[str, Any], group: Any, heartbeat: Heartbeat, store: Store | None) -> None:
    from acdis.training import checkpoint, loop

    began, cell = time.monotonic(), heartbeat.cell
    experiment = Experiment.model_validate(job["experiment"])
    entries = job["entries"]
    if not cell.weights.exists():
        listener = Listener(heartbeat, group, store)
        trained = loop.train(
            experiment, loop.Cases(entries["train"], entries["validation"]), cell.folder, group, listener
        )
        if group.leads:
            write_json(cell.folder / "history.json", {"epochs": trained.history, "best": trained.best})
            checkpoint.save(cell.weights, loop.final_state(trained, cell.folder))
        group.wait()
    _evaluate(job, experiment, entries["test"], group, heartbeat)
    if group.leads:
        heartbeat.check()
        cell.update(status="scored", loop_seconds=time.monotonic() - began)
        for name in loop.STATE:
            (cell.folder / name).unlink(missing_ok=True)  # a finished cell keeps final weights only


def _evaluate(
    job: dict[str, Any], experiment: Experiment, entries: list[Any], group: Any, heartbeat: Heartbeat
) -> None:
    """Score the test cases with the final weights; records and slices of the worst cases stay."""
    import torch

    from acdis.evaluation.examples import Worst
    from acdis.evaluation.records import write_parquet
    from acdis.training import checkpoint, loop, precision

    folder = Path(job["evaluation"])
    if not entries or (not job["again"] and (folder / "records.parquet").exists()):
        return
    folder.mkdir(parents=True, exist_ok=True)
    method = loop.new_method(experiment).to(group.device)
    method.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    method.load_inference_state(checkpoint.load(heartbeat.cell.weights, group.device))
    dtype = precision.autocast_dtype(experiment.training.precision)
    worst = Worst()
    records = loop.score_share(
        method, entries, experiment, experiment.evaluation, group, dtype, heartbeat, worst.add
    )
    everyone = Worst(group.gather(worst.examples))
    if group.leads:
        everyone.save(folder / "examples")
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


class Superseded(RuntimeError):  # noqa: N818  it says what happened
    """Another process trains this cell now. Ray has given this one up, which did not hear of it."""


class Heartbeat:
    """Writes what the training is doing into the cell's state, at most every other second.

    A machine that was cut off trains on while Ray has long begun anew elsewhere. Who reads another's
    `attempt` in the state ends himself, at the latest before the next checkpoint is written.
    """

    def __init__(self, cell: Cell, group: Any, attempt: str | None = None) -> None:
        self.cell, self.attempt = cell, attempt
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
            self.cell.update(**state)
            self.written = time.monotonic()

    def check(self) -> None:
        """Raise `Superseded` if the cell is another's."""
        theirs = self.cell.state().get("attempt")
        if theirs != self.attempt:
            raise Superseded(f"{self.cell.name}: taken over by attempt {theirs}")


class _AskedToStop(Exception):  # noqa: N818  it says what happened
    """Ends the loop on every rank after the same epoch."""


class Listener:
    """Sends a training's events to the cell's state, to its journal, to the store, and to Ray.

    Not to MLflow: a worker need not reach its server. The driver sends what the journal says.
    """

    def __init__(self, heartbeat: Heartbeat, group: Any, store: Store | None = None) -> None:
        self.cell, self.group, self.store = heartbeat.cell, group, store
        self.heartbeat = heartbeat
        self.log = EpochLog(self.cell.folder) if group.leads else None

    def __call__(self, event: Any) -> None:
        from acdis.training.events import EpochEnd

        self.heartbeat(event)
        if isinstance(event, EpochEnd):
            self._epoch(event)

    def _epoch(self, event: Any) -> None:
        import ray.train

        if self.log:
            self.log.log_epoch(event.epoch, epoch_values(event.as_dict()))
        if self.store and self.group.leads:
            self.store.push()
        ray.train.report(
            {"epoch": event.epoch, "loss": event.terms["loss"]}
        )  # a barrier: every rank calls it
        reasons = self.group.gather([stopping.asked(self.cell) if self.group.leads else None])
        if reasons[0] is not None and event.epoch < event.epochs:
            raise _AskedToStop(reasons[0])
