"""One cell from its first epoch to its published table: what `train` does once and `ablate` does for many."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from acdis import home
from acdis.cells import Cell
from acdis.cells.object_store import remove_runs, store_of
from acdis.cells.time_left import clock
from acdis.cluster.train import Job, TrainingFailed, TrainingStopped
from acdis.errors import UserError
from acdis.evaluation import floor_files
from acdis.tracking.runs import RunTracker
from acdis.workflow import publish
from acdis.workflow.logged_models import export_and_log

#: Seconds that a start or a failure waits for a tracking server that is away, and the end of a run.
BEFORE_SECONDS, AFTER_SECONDS = 5.0, 30.0
Say = Callable[[str], None]


def complete(job: Job, tags: dict[str, str], train: Callable[[], None], say: Say) -> str:
    """Train and score if that is missing, then publish; returns the cell's table. Hold the cell's lock.

    Args:
        tags: of the MLflow run, beside those that every run has.
        train: trains and scores the cell.
        say: takes a line for the user.

    Raises:
        UserError: the run's input was wrong.
        TrainingFailed: no weights came of it.
        TrainingStopped: it was asked to stop.
    """
    cell, inputs = job.cell, job.inputs
    store = store_of(cell, job.experiment.scaling.storage)
    if store:
        store.begin()
    before = cell.state()
    if inputs.test:  # what the scores will be held against, before there are any
        floor_files.place(
            job.evaluation, home.cache(job.base), inputs.train, inputs.test, job.experiment.data.background
        )
    if is_finished(cell, job.evaluation, bool(inputs.test)):
        remove_runs(job.experiment.scaling.storage, job.base, cell)  # of a driver that was killed at the end
        say("it is trained and scored already; nothing is trained again, this is what came out:")
    else:
        with tracker_of(job, running=True) as tracker:  # it sends what the workers write meanwhile
            publish.begin(
                tracker, cell, job.experiment, tags | {"acdis.data_fingerprint": inputs.fingerprint}
            )
            _train(job, train, tracker)
        if store:
            store.pull()
    with tracker_of(job, running=False) as tracker:
        tracker.log_roles(cell.roles())  # a second spec may have taken the cell while it was trained
        publish.curves(tracker, cell)
        text = _published(tracker, job)
        is_new = (before.get("status"), before.get("evaluation")) != ("done", job.evaluation.name)
        if is_new:
            publish.workers(tracker, cell)
            publish.cost(tracker, cell)
            tracker.finish("FINISHED")
        run = tracker.run_id
    cell.update(status="done", evaluation=job.evaluation.name, run_id=run)
    told = job.experiment.tracking
    if told.log_model and is_new:
        export_and_log(cell, job.tracking, told.register_as, say)
    if store and not store.push():
        say(f"scaling.storage: {store.address} does not have all of it; the same command sends the rest")
    return text


def _train(job: Job, train: Callable[[], None], tracker: RunTracker) -> None:
    """Whatever ends the training ends the MLflow run as well."""
    try:
        train()
    except (UserError, TrainingFailed, TrainingStopped, KeyboardInterrupt) as error:
        stopped = isinstance(error, (KeyboardInterrupt, TrainingStopped))
        if isinstance(error, KeyboardInterrupt):
            job.cell.update(status="stopped")
        tracker.finish("KILLED" if stopped else "FAILED")
        raise


def _published(tracker: RunTracker, job: Job) -> str:
    if not job.inputs.test:
        return "trained; no test cases, so no table" + (
            " (give data.split.test)" if job.experiment.scored else ": scored is false"
        )
    title = f"{job.cell.name}, seed {job.experiment.seed}"
    return publish.scores(tracker, job.evaluation, job.experiment.evaluation, title)


def is_finished(cell: Cell, evaluation: Path, scored: bool) -> bool:
    """Whether the final weights are there and, if there are cases to score, their scores."""
    return cell.weights.exists() and (not scored or (evaluation / "records.parquet").exists())


def tracker_of(
    job: Job, running: bool, patience: float = AFTER_SECONDS
) -> contextlib.AbstractContextManager[RunTracker]:
    """The cell's MLflow run."""
    return opened(job.cell.folder, job.cell.name, job.tracking, running, patience)


@contextlib.contextmanager
def opened(
    folder: Path, name: str, tracking: Mapping[str, str], running: bool, patience: float = AFTER_SECONDS
) -> Iterator[RunTracker]:
    """An MLflow run of that name, its journal in `folder`, at the place that `tracking_of` gives.

    What a server has not taken in `patience` seconds at the end waits for the next start.
    """
    uri = tracking["uri"]
    tracker = RunTracker(folder, uri, tracking["experiment"], name, name, running=running)
    try:
        yield tracker
    except BaseException:
        patience = min(patience, BEFORE_SECONDS)
        raise
    finally:
        tracker.close(timeout=patience if uri.startswith("http") else AFTER_SECONDS)


def projection(state: dict[str, Any]) -> str:
    """What a measured step says about the whole run."""
    resumed = f", going on after epoch {state['resumed_at']}" if state.get("resumed_at") else ""
    return (
        f"a step takes {state['step_seconds']:.2f} s and {state['peak_bytes'] / 2**30:.1f} GiB at its peak; "
        f"{clock(state['projected_seconds'])} of training steps ahead{resumed}"
    )
