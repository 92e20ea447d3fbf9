"""What runs on each Ray Train worker: the plain loop, told to listeners that keep its files current."""

from __future__ import annotations

import os
import socket
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from acdis import methods
from acdis.cells import Cell, attempts
from acdis.cells.attempts import Attempt
from acdis.cells.object_store import store_of
from acdis.cluster.listeners import AskedToStop, Heartbeat, Listener
from acdis.config import Experiment
from acdis.errors import UserError
from acdis.files import UnwritableError, write_json
from acdis.tracking import lineage
from acdis.tracking.epoch_log import EpochLog
from acdis.tracking.epochs import epoch_values
from acdis.version import __version__

#: What an attempt takes over of the one before: it goes on from there.
_KEPT = ("done", "epochs", "validation")


def run(job: dict[str, Any]) -> str | None:
    """Train if weights are missing, then score the test cases.

    Args:
        job: `experiment` (plain values), `cell` (folder), `entries` (prepared cases by split),
            `evaluation` (folder), `threads`.
    """
    from acdis.training.loop import Diverged

    cell = Cell(Path(job["cell"]))
    cell.folder.mkdir(parents=True, exist_ok=True)
    store = store_of(cell, job["experiment"]["scaling"]["storage"], driver=False)
    if store:
        store.pull()  # this machine may lack what others have trained
    if cell.state().get("status") == "failed":
        return None  # Ray restarted the others of a worker that has said why it gave up; see below
    group = _group(job["threads"])
    problems = [problem for problem in group.gather([_unseen(cell, job)]) if problem]
    if problems:  # told to the driver by way of Ray: the cell's folder may be what is missing here
        return f"{'; '.join(dict.fromkeys(problems))}; every node must see the same ACDIS_HOME"
    number, mark = group.gather([attempts.fresh(cell.folder) if group.leads else (0, "")])[0]
    attempt = Attempt(cell.folder, number, mark, group.rank)
    if group.leads:
        before = cell.state()
        _introduce(attempt, group.world, {key: before[key] for key in _KEPT if key in before})
        if store:
            store.push_attempts()  # for who was given up on a machine that does not see this folder
    heartbeat = Heartbeat(cell, group, attempt, store)
    listener = Listener(heartbeat, group, store, job["experiment"]["tracking"]["system_metrics"])
    try:
        _run(job, group, heartbeat, listener)
    except AskedToStop as asked:
        if group.leads:
            attempt.update(status="stopped", reason=str(asked))
    except UnwritableError:
        raise  # a full disk, or storage that is away: Ray starts the workers again
    except (Diverged, UserError) as error:
        # The same input would fail again, so Ray must not restart it: the driver reads the reason. With
        # several workers the others may be waiting for this one, and only a crash ends them.
        user_error = isinstance(error, UserError)
        if group.leads or user_error:
            attempt.update(status="failed", reason=str(error), user_error=user_error)
        if group.world > 1 and user_error:
            raise
    finally:
        listener.close()
        if store and group.leads:
            store.push()
    return None


def _introduce(attempt: Attempt, workers: int, kept: Mapping[str, Any]) -> None:
    """What an attempt says first: who it is, and what is kept of the one before."""
    attempt.update(
        **kept,
        pid=os.getpid(),
        workers=workers,
        version=__version__,
        code=str(Path(__file__).resolve().parents[1]),
        device=lineage.device(),
    )


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


def run_alone(job: dict[str, Any], tell: Callable[[Any], None], device: str = "cpu") -> None:
    """As `run`, in this process, without Ray: one worker, which tells its events to whoever listens.

    Args:
        device: as torch names it.

    Raises:
        UserError, Diverged: the state of the cell says so too.
    """
    import torch

    from acdis.training.group import Group
    from acdis.training.loop import Diverged

    cell, group = Cell(Path(job["cell"])), Group(device=torch.device(device))
    attempt = Attempt(cell.folder, *attempts.fresh(cell.folder))
    _introduce(attempt, group.world, {})
    heartbeat = Heartbeat(cell, group, attempt)
    log = EpochLog(cell.folder, job["experiment"]["tracking"]["system_metrics"])

    def listen(event: Any) -> None:
        from acdis.training.events import EpochEnd

        heartbeat(event)
        if isinstance(event, EpochEnd):
            log.log_epoch(event.epoch, epoch_values(dict(event.as_dict())))
        tell(event)

    try:
        _run(job, group, heartbeat, listen)
    except (Diverged, UserError) as error:
        attempt.update(status="failed", reason=str(error), user_error=isinstance(error, UserError))
        raise
    except KeyboardInterrupt:
        attempt.update(status="stopped")
        raise
    finally:
        log.close()


def _run(job: dict[str, Any], group: Any, heartbeat: Heartbeat, listener: Callable[[Any], None]) -> None:
    from acdis.training import checkpoint, loop, precision

    began, cell = time.monotonic(), heartbeat.cell
    experiment = Experiment.model_validate(job["experiment"])
    entries = job["entries"]
    precision.set_up(group.device, experiment.scaling.deterministic)
    if not _agreed(group, cell.weights.exists(), cell.weights):
        trained = loop.train(
            experiment, loop.Cases(entries["train"], entries["validation"]), cell.folder, group, listener
        )
        if group.leads:
            heartbeat.check()
            history = {
                "epochs": trained.history,
                "best": trained.best,
                "parts": _parts(experiment),
                "capacity": _capacity(trained, len(entries["train"]), cell),
            }
            write_json(cell.folder / "history.json", history)
            checkpoint.save(cell.weights, loop.final_state(trained, cell.folder))
        group.wait()
    _evaluate(job, experiment, entries["test"], entries["incomplete"], group, heartbeat)
    if group.leads:
        heartbeat.check()
        heartbeat.attempt.update(status="scored", loop_seconds=time.monotonic() - began)
        for name in loop.STATE:
            (cell.folder / name).unlink(missing_ok=True)  # a finished cell keeps final weights only


def _parts(experiment: Experiment) -> list[str]:
    """Cells whose training is this one's, where it has none of its own."""
    return sorted(experiment.method.parents.values()) if methods.put_together(experiment) else []


def _capacity(trained: Any, cases: int, cell: Cell) -> dict[str, float]:
    """How large the method is, bytes at the peak of a step, and seconds of a step, data included.

    The last is the median over the epochs. Of a cell without a training of its own: the largest of its parts.
    """
    from acdis.data.loader import iterations_per_epoch
    from acdis.training.capacity import capacity

    numbers = capacity(trained.method, trained.experiment.evaluation.window)
    parts = [Cell(cell.folder.parent / part) for part in _parts(trained.experiment)]
    peaks = [owner.state().get("peak_bytes") for owner in (cell, *parts)]
    steps = [part.capacity().get("step_seconds") for part in parts]
    if trained.history:
        settings = trained.experiment.training
        steps_each = iterations_per_epoch(cases, settings.batch_size, settings.iterations)
        steps.append(statistics.median(epoch["seconds"] for epoch in trained.history) / steps_each)
    for name, values in (("peak_bytes", peaks), ("step_seconds", steps)):
        known = [value for value in values if value is not None]
        numbers |= {name: max(known)} if known else {}
    return numbers


def _evaluate(
    job: dict[str, Any],
    experiment: Experiment,
    entries: list[Any],
    incomplete: list[Any],
    group: Any,
    heartbeat: Heartbeat,
) -> None:
    """Score the test cases with the final weights; records and slices of the worst cases stay.

    Args:
        incomplete: test cases that lack modalities, whose records are a file of their own.
    """
    import torch

    from acdis.evaluation.case_files import CaseFiles
    from acdis.evaluation.examples import Worst
    from acdis.evaluation.incomplete import FILE
    from acdis.evaluation.records import write_parquet
    from acdis.training import checkpoint, loop, precision

    folder = Path(job["evaluation"])
    scores = folder / "records.parquet"
    if not entries or (_agreed(group, scores.exists(), scores) and not job["again"]):
        return
    folder.mkdir(parents=True, exist_ok=True)
    method = loop.new_method(experiment).to(group.device)
    method.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    method.load_inference_state(checkpoint.load(heartbeat.cell.weights, group.device))
    dtype = precision.autocast_dtype(experiment.training.precision)
    worst = Worst()
    files = CaseFiles(folder / "scored")  # of those that a kill did not cost
    how = experiment, experiment.evaluation, group, dtype, heartbeat
    apart = loop.score_share(method, incomplete, *how, files=files) if incomplete else []
    records = loop.score_share(method, entries, *how, worst.add, files=files)
    everyone = Worst(group.gather(worst.examples))
    if group.leads:
        heartbeat.check()
        everyone.save(folder / "examples")
        if apart:
            write_parquet(folder / FILE, apart)
        write_parquet(scores, records)
        files.remove()
    group.wait()


def _agreed(group: Any, there: bool, path: Path) -> bool:
    """Whether a file is there, as all ranks see it: one that trains while another scores waits for ever.

    Raises:
        UserError: some see it, some do not.
    """
    lacking = [rank for rank, sees in enumerate(group.gather([there])) if not sees]
    if lacking and len(lacking) < group.world:
        ranks = ", ".join(map(str, lacking))
        raise UserError(
            f"{path}: not seen by rank {ranks} of {group.world}; every node must see the same ACDIS_HOME"
        )
    return there


def _group(threads: int) -> Any:
    import ray.train
    import ray.train.torch
    import torch

    from acdis.training.group import Group

    torch.set_num_threads(threads)
    context = ray.train.get_context()
    device = ray.train.torch.get_device()
    return Group(context.get_world_rank(), context.get_world_size(), device)
