"""One cell on Ray Train: start the workers, wait with a progress display, say what came out."""

from __future__ import annotations

import os
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from acdis.cells import Cell
from acdis.cells.object_store import ray_storage, remove_runs, store_of
from acdis.cluster.worker import run
from acdis.config import Experiment, Scaling
from acdis.data.inputs import Inputs
from acdis.errors import UserError
from acdis.files import write_text
from acdis.planning.placement import WorkerShare

#: How often Ray tries again to start a training's workers; and for how long each time, where the next attempt
#: may be one with fewer of them.
START_RETRIES, ELASTIC_SECONDS = 3, 60.0
Show = Callable[[dict[str, Any]], None]


class TrainingFailed(RuntimeError):  # noqa: N818  it says what happened
    """The training ended without a result; the message says why."""


class TrainingStopped(Exception):  # noqa: N818  it says what happened
    """It ended early because `stopping.ask` said so; the message says why."""


@dataclass(frozen=True)
class Job:
    """All that training and scoring one cell takes; it can be pickled.

    Attributes:
        experiment: resolved.
        evaluation: folder that gets the per-case records.
        tracking: `uri` and `experiment` of MLflow.
        base: ACDIS_HOME; Ray keeps its own state of the run below it.
    """

    experiment: Experiment
    cell: Cell
    inputs: Inputs
    evaluation: Path
    tracking: dict[str, str]
    base: Path

    def plain(self) -> dict[str, Any]:
        """What the workers are given: plain values."""
        splits = {
            "train": self.inputs.train,
            "validation": self.inputs.validation,
            "test": self.inputs.test,
            "incomplete": self.inputs.incomplete,
        }
        return {
            "experiment": self.experiment.model_dump(mode="json"),
            "cell": str(self.cell.folder),
            "entries": {name: list(entries) for name, entries in splits.items()},
            "evaluation": str(self.evaluation),
        }


def launch(job: Job, room: WorkerShare, show: Show, again: bool = False) -> None:
    """Train (from the last checkpoint, if there is one) and score one cell. Ray must be connected.

    Args:
        room: what each worker gets.
        show: called every second with the cell's state.
        again: score even if there are records already.

    Raises:
        UserError: the run's input was wrong.
        TrainingFailed: it diverged, or Ray gave up restarting it.
        TrainingStopped: it was asked to stop.
    """
    cell, scaling = job.cell, job.experiment.scaling
    cell.begin(status="starting", workers=scaling.workers, cpus=room.cpus, gpus=room.gpus, driver=os.getpid())
    store = store_of(cell, scaling.storage)
    if store:
        store.push()  # its configuration and lineage: a worker elsewhere starts from them
    remove_runs(scaling.storage, job.base, cell)  # of drivers that were killed
    # A new name each time: the cell's folder is what resumes, and Ray continues by name.
    name = f"{cell.name}-{time.time_ns():x}"
    settings = job.plain() | {"again": again, "threads": room.cpus}
    try:
        _fit(_trainer(settings, scaling, room, ray_storage(scaling.storage, job.base), name), job, show)
    finally:
        remove_runs(scaling.storage, job.base, cell)
    _judge(cell)


def _trainer(settings: dict[str, Any], scaling: Scaling, room: WorkerShare, storage: str, name: str) -> Any:
    import ray.train
    from ray.train.torch import TorchTrainer

    from acdis.cluster.rendezvous import Rendezvous

    seconds, retries = start_limits(scaling)
    os.environ["RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S"] = str(seconds)
    return TorchTrainer(
        run,
        train_loop_config=settings,
        torch_config=Rendezvous(backend="nccl" if room.gpus else "gloo"),
        scaling_config=ray.train.ScalingConfig(
            num_workers=(scaling.min_workers, scaling.workers) if scaling.min_workers else scaling.workers,
            elastic_resize_monitor_interval_s=scaling.resize_seconds,
            use_gpu=bool(room.gpus),
            resources_per_worker={"CPU": room.cpus} | ({"GPU": room.gpus} if room.gpus else {}),
        ),
        run_config=ray.train.RunConfig(
            name=name,
            storage_path=storage,
            failure_config=ray.train.FailureConfig(
                max_failures=scaling.max_failures, controller_failure_limit=retries
            ),
        ),
    )


def start_limits(scaling: Scaling) -> tuple[float, int]:
    """Seconds until Ray asks anew for its workers' places, and how often it does; together `patience`."""
    if scaling.min_workers is None:
        return scaling.patience / (START_RETRIES + 1), START_RETRIES
    seconds = min(ELASTIC_SECONDS, scaling.patience / (START_RETRIES + 1))
    return seconds, round(scaling.patience / seconds) - 1


def _fit(trainer: Any, job: Job, show: Show) -> None:
    """Wait for Ray, showing the cell's state.

    Ray waits in a thread: in the main thread it takes Ctrl-C for itself and ends the process with code 0.
    """
    cell, store = job.cell, store_of(job.cell, job.experiment.scaling.storage)
    failures: list[BaseException] = []

    def fit() -> None:
        try:
            problem = trainer.fit().return_value
            if problem:
                cell.update(status="failed", reason=str(problem), user_error=True)
        except BaseException as error:
            failures.append(error)

    fitting = threading.Thread(target=fit, name="ray-train", daemon=True)
    fitting.start()
    while fitting.is_alive():
        fitting.join(1.0)
        if store:
            store.refresh()
        show(cell.state())
    if store:
        store.refresh()
    if failures and cell.state().get("status") != "failed":
        report = cell.folder / "error.txt"
        write_text(report, "".join(traceback.format_exception(failures[0])))
        reason = f"{_last_line(failures[0])} (all of it: {report})"
        cell.update(status="failed", reason=reason, user_error=False)


def _judge(cell: Cell) -> None:
    state = cell.state()
    if state.get("status") == "stopped" and state.get("reason"):  # none where Ctrl-C has stopped it
        raise TrainingStopped(str(state["reason"]))
    if state.get("status") == "failed":
        kind = UserError if state.get("user_error") else TrainingFailed
        raise kind(str(state.get("reason")))


def _last_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[-1] if lines else type(error).__name__)[:500]
