"""`search`: values for config keys, drawn by Optuna, judged on the validation cases alone."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from acdis import extras, home
from acdis.ablation.file_kinds import expect
from acdis.ablation.search import Search, load
from acdis.ablation.trials import Trial, Trials, alone
from acdis.cells import Cell
from acdis.cluster import session
from acdis.cluster.search import run_as_asked
from acdis.cluster.train import Job, TrainingFailed
from acdis.errors import UserError
from acdis.planning.placement import side_by_side
from acdis.report.facts import PHANTOM_WARNING
from acdis.terminal.many_cells import BUSY
from acdis.terminal.progress import Display
from acdis.tracking.lineage import lineage
from acdis.tracking.specs import Link, SpecTracker, close_orphans, settle
from acdis.workflow.jobs import tracking_of, where_to_look
from acdis.workflow.life import BEFORE_SECONDS, tracker_of
from acdis.workflow.train_missing import Order, train_one
from acdis.workflow.trial_cells import BEST, Cases, Hunt, is_pruned, said, shown

#: Trials in the table at the end.
SHOWN = 10


@dataclass(frozen=True)
class Request:
    """What the user asked for; see `ablate.Request`."""

    spec: Path
    experiment: Path | None = None
    overrides: Sequence[str] = ()
    at_once: int | None = None


def search(request: Request) -> None:
    """Run the trials that are missing, and write the best configuration as an experiment file.

    Raises:
        UserError: the search, the experiment or its data is wrong, or another process runs it.
        TrainingFailed: no trial came to its end.
    """
    expect(request.spec, "search")
    extras.need("cluster", "search")
    base = home.home()
    wanted = load(request.spec, request.experiment, request.overrides)
    folder = base / "searches" / wanted.name
    with Display() as display, alone(folder):
        first = wanted.experiment(wanted.first)
        cases = Cases(base, display)
        inputs, _ = cases.of(first)
        tags = lineage()
        trials = Trials(folder, wanted.settings, wanted.meaning(inputs.fingerprint))
        display.say(f"search {wanted.name}: {len(trials.all())} of {wanted.settings.trials} trials so far")
        hunt = Hunt(wanted, trials, cases, tags, folder)
        with _parent(wanted, hunt, base, tags):
            _run(hunt, request.at_once, display)
        display.say(_result(wanted, trials, folder))
        if first.data.phantoms is not None:
            display.say(PHANTOM_WARNING)
        display.say(where_to_look(first, base))


def _run(hunt: Hunt, most: int | None, display: Display) -> None:
    """Train as long as there is something to train; Ray is started only then."""
    job = hunt.ask()
    if job is None:
        return
    asked = [job]
    try:
        display.say("Ray: connecting, or starting one of our own (about 10 s)")
        with session.connected(nested=True):
            trials = hunt.search.settings.trials
            room, places = side_by_side(session.nodes(display.say), job.experiment.scaling, trials)

            def ask() -> Order | None:
                wanted = asked.pop() if asked else hunt.ask()
                return Order(wanted, hunt.tags, room) if wanted else None

            at_once = max(1, min(places, most or places))
            display.say(f"{at_once} trials at a time, on {room.cpus} CPUs a worker")
            run_as_asked(drive, ask, lambda order, died: hunt.over(order.job, died), at_once, hunt.look)
    except (KeyboardInterrupt, TrainingFailed, UserError):
        for name in hunt.active:
            _stopped(hunt.jobs[name])
        raise


def drive(order: Order) -> None:
    """Train a trial's cell, as `ablate` does, after whoever else may be training it."""
    cell = order.job.cell
    while True:
        train_one(order)
        if not cell.busy():
            break
        time.sleep(2.0)
    if is_pruned(cell.state()):
        _discard(order.job)


def _discard(job: Job) -> None:
    """A pruned cell keeps no checkpoint: nobody goes on with it, and hundreds of them would fill the disk."""
    from acdis.training import loop

    for name in loop.STATE:
        (job.cell.folder / name).unlink(missing_ok=True)
    with tracker_of(job, running=False, patience=BEFORE_SECONDS) as tracker:
        tracker.log_tags({"acdis.pruned": str(job.cell.state().get("reason"))})


def _stopped(job: Job) -> None:
    """Close what a stopped trial could not; its study has it as running, to be taken up again."""
    if job.cell.state().get("status") in BUSY:
        job.cell.update(status="stopped", reason=None)
        with tracker_of(job, running=False, patience=BEFORE_SECONDS) as tracker:
            tracker.finish("KILLED")


@contextlib.contextmanager
def _parent(search: Search, hunt: Hunt, base: Path, tags: dict[str, str]) -> Iterator[None]:
    """The search's run in MLflow, with its trials' below it."""
    tracking = tracking_of(search.experiment(search.first), base)
    uri, experiment = tracking["uri"], tracking["experiment"]
    close_orphans(base, uri, experiment, lambda name: Cell(home.cells(base) / name).busy())
    tracker = SpecTracker(base, uri, experiment, search.name)
    settings = search.settings
    space = {key: domain.model_dump(exclude_defaults=True) for key, domain in settings.space.items()}
    details = {"objective": settings.objective, "space": json.dumps(space), "trials": str(settings.trials)}
    tracker.begin(search.title, details, tags, [search.path])
    status = "FAILED"
    try:
        yield
        status = "FINISHED"
    except KeyboardInterrupt:
        status = "KILLED"
        raise
    finally:
        seed = search.experiment(search.first).seed  # every trial's
        links = [_link(trial, seed, base) for trial in hunt.trials.all() if trial.cell]
        settle([link for link in links if link.status != "running"], uri, experiment)
        tracker.cells(links)
        tracker.finish(status)
        tracker.close()


def _link(trial: Trial, seed: int, base: Path) -> Link:
    """A cell that somebody has removed, or whose roles are damaged, is listed all the same."""
    cell = Cell(home.cells(base) / trial.cell)
    label = f"{shown(trial.values)}; {said(trial)}"
    roles = cell.known_roles()
    return Link(f"trial-{trial.number}", label, seed, cell.name, cell.folder, trial.status, roles)


def _result(search: Search, trials: Trials, folder: Path) -> str:
    """The best trials in order, and where the best one's configuration stands.

    Raises:
        TrainingFailed: there is none.
    """
    every = trials.all()
    best = trials.best()
    if best is None:
        reasons = "; ".join(sorted({trial.reason for trial in every if trial.reason}))
        raise TrainingFailed(f"{search.name}: none of {len(every)} trials came to its end: {reasons}")
    done = sorted(
        (trial for trial in every if trial.status == "done"), key=lambda trial: -(trial.value or 0.0)
    )
    pruned = sum(trial.status == "pruned" for trial in every)
    failed = sum(trial.status == "failed" for trial in every)
    lines = [f"  trial {trial.number}: {said(trial)}  {shown(trial.values)}" for trial in done[:SHOWN]]
    return "\n".join(
        [
            f"{len(every)} trials: {len(done)} trained to the end, {pruned} pruned, {failed} failed",
            f"by {search.settings.objective} on the validation cases, of the weights kept:",
            *lines,
            f"best: {folder / BEST}; train it (and score it on the test cases) with: train {folder / BEST}",
            "The best of many trials looks better than it is: compare it with the base on several seeds.",
        ]
    )
