"""Train the missing cells of specs side by side; the same again goes on where it stopped."""

from __future__ import annotations

import shutil
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from acdis import home
from acdis.ablation.expansion import Member, generations
from acdis.ablation.standings import Standing, survey
from acdis.cells import Cell
from acdis.cells.time_left import clock
from acdis.cluster import session
from acdis.cluster.train import Job, TrainingFailed, TrainingStopped, launch
from acdis.cluster.tune import run_all
from acdis.errors import UserError
from acdis.files import write_text
from acdis.planning.placement import WorkerShare, idle_gpus, side_by_side
from acdis.terminal.many_cells import BUSY, ManyCells
from acdis.terminal.progress import Display
from acdis.tracking.lineage import lineage
from acdis.workflow.jobs import check_parents, job_of
from acdis.workflow.life import BEFORE_SECONDS, complete, tracker_of
from acdis.workflow.others import score_missing
from acdis.workflow.spec_runs import parents

#: How often cells are taken over that another process has left.
ROUNDS = 5
#: Bytes of free space below which cells may have ended for want of it, and could not say so.
LITTLE = 2**26


@dataclass(frozen=True)
class Order:
    """One cell to train, as a trial gets it."""

    job: Job
    tags: dict[str, str]
    room: WorkerShare


def train_missing(
    members: Sequence[Member], base: Path, display: Display, at_once: int | None = None, failed: bool = False
) -> None:
    """Train, score and publish what is missing of these cells; other tools' predictions are scored first.

    What other processes train is waited for, and trained here if one of them dies.

    Args:
        at_once: most cells side by side; none: as many as fit.
        failed: only cells that have failed.

    Raises:
        UserError: a parent is missing, a cell can never be placed, or a prediction cannot be scored.
        TrainingFailed: some cells failed, or have not come to an end; the others are done.
    """
    trained = [member for member in members if member.trains]
    check_parents([member.experiment for member in trained], {member.cell for member in trained}, base)
    standings = survey(trained, base)
    jobs = _jobs(standings, base)
    due = _with(standings, *(("failed",) if failed else ("missing", "failed")))
    running = _with(standings, "running")
    for name in due:
        jobs[name].cell.check_writable()
    display.say(
        f"cells: {len(jobs)}, of which {len(_with(standings, 'done'))} are done; {len(due)} to train"
        + (f"; {len(running)} are being trained by another process" if running else "")
    )
    with parents(members, base):
        score_missing([member for member in members if not member.trains], base, display)
        for _ in range(ROUNDS):
            for generation in generations(trained):  # parents first
                names = dict.fromkeys(member.cell for member in generation)
                wanted = [jobs[name] for name in names if name in due]
                wanted = [job for job in wanted if _has_parents(job, base, display)]
                if wanted:
                    _run(wanted, trained, at_once, base, display)
            due = [] if failed else _left_behind(trained, running, base, display)
            running = []  # they are ours now
            if not due:
                break
    _conclude(survey(members, base), failed, base, display)


def _has_parents(job: Job, base: Path, display: Display) -> bool:
    """Whether a cell's parents are trained; one that another process trains is waited for.

    Without them the cell has failed before it began, and says which of them it lacks.
    """
    for role, name in job.experiment.method.parents.items():
        parent = Cell(home.cells(base) / name)
        if not parent.weights.exists() and parent.busy():
            display.say(f"waiting for {name}, a parent of {job.cell.name}, which another process trains")
            while parent.busy():
                time.sleep(1)
        if not parent.weights.exists():
            reason = f"its parent {name} (method.parents.{role}) has failed, or was not trained to its end"
            job.cell.update(status="failed", reason=reason)
            return False
    return True


def _jobs(standings: Sequence[Standing], base: Path) -> dict[str, Job]:
    """How each cell is trained, by its name; every role of a cell is noted in its folder."""
    tags = lineage()
    jobs: dict[str, Job] = {}
    for member in (standing.member for standing in standings):
        job = job_of(member.experiment, member.inputs, base, tags)
        job.cell.add_role(spec=member.spec.name, table=member.spec.table, row=member.row.id, seed=member.seed)
        jobs[member.cell] = job
    return jobs


def _with(standings: Sequence[Standing], *statuses: str) -> list[str]:
    """Cells that stand so; a cell that serves two rows once."""
    return list(dict.fromkeys(standing.member.cell for standing in standings if standing.status in statuses))


def _left_behind(members: Sequence[Member], running: list[str], base: Path, display: Display) -> list[str]:
    """Wait for cells that other processes train; those that nobody trains any more and that have not ended.

    After `kill -9` Ray takes a few seconds to end what the killed command has started: it may end while we
    wait, between two looks, or after a trial of ours found the cell held. What we train and somebody asked to
    stop stays so.

    Args:
        running: what other processes trained at the first look, whether they still do or not.
    """
    held = _with(survey(members, base), "running")
    if held:
        display.say(f"waiting for {len(held)} cells that another process trains")
        cells = [Cell(home.cells(base) / name) for name in held]
        crowd = ManyCells(cells, len(cells), display)
        while any(cell.busy() for cell in cells):
            crowd.look()
            time.sleep(1)
    others = {*running, *held}
    standings = survey(members, base)
    unended = {standing.member.cell for standing in standings if standing.state.get("status") in BUSY}
    return [name for name in _with(standings, "missing") if name in others | unended]


def _run(jobs: list[Job], members: Sequence[Member], most: int | None, base: Path, display: Display) -> None:
    cells = len({member.cell for member in members})
    tags = lineage()
    display.say("Ray: connecting, or starting one of our own (about 10 s)")
    try:
        with session.connected(nested=True):
            nodes = session.nodes(display.say)
            rooms = [side_by_side(nodes, job.experiment.scaling, cells) for job in jobs]
            at_once = min(number for _, number in rooms)
            at_once = max(1, min(at_once, most or at_once))
            orders = [Order(job, tags, room) for job, (room, _) in zip(jobs, rooms, strict=True)]
            display.say(
                f"training {len(jobs)} cells, {at_once} at a time on {rooms[0][0].cpus} CPUs a worker"
            )
            if idle := idle_gpus(nodes, jobs[0].experiment.scaling):
                display.say(idle)
            crowd = ManyCells([job.cell for job in jobs], at_once, display)
            began = time.monotonic()
            run_all(train_one, orders, at_once, base, crowd.look)
            display.say(_overhead(jobs, time.monotonic() - began, at_once))
    except KeyboardInterrupt:
        for job in jobs:
            _stopped(job)
        raise


def _overhead(jobs: Sequence[Job], wall: float, places: int) -> str:
    """Time inside training and scoring; the rest is start-up, publishing and waiting."""
    inside = sum(job.cell.state().get("loop_seconds", 0.0) for job in jobs)
    ratio = f", overhead {wall * places / inside:.2f}" if inside else ""
    return f"{clock(wall)} × {places} places, {clock(inside)} of it inside training and scoring{ratio}"


def _stopped(job: Job) -> None:
    """Close what a stopped trial could not."""
    if job.cell.state().get("status") in BUSY:
        job.cell.update(status="stopped")
        with tracker_of(job, running=False, patience=BEFORE_SECONDS) as tracker:
            tracker.finish("KILLED")


def train_one(order: Order) -> None:
    """Train one cell in a trial of its own. What goes wrong stands in its folder, and stops no other."""
    cell = order.job.cell
    try:
        with cell.alone():
            _complete(order)
    except UserError:
        return  # somebody else trains it; what is wrong with its input is noted already


def _complete(order: Order) -> None:
    cell = order.job.cell
    try:
        complete(order.job, order.tags, lambda: launch(order.job, order.room, _quiet), _quiet)
    except TrainingStopped:
        return  # as it was asked to; its state says why
    except (UserError, TrainingFailed) as error:
        if cell.state().get("status") != "failed":
            cell.update(status="failed", reason=str(error), user_error=isinstance(error, UserError))
    except Exception as error:  # a bug, or a full disk: the others go on, this one keeps its traceback
        write_text(cell.folder / "error.txt", traceback.format_exc())
        reason = f"{type(error).__name__}: {error} (all of it: {cell.folder / 'error.txt'})"
        cell.update(status="failed", reason=reason, user_error=False)


def _quiet(_: object) -> None:
    """A trial has nobody to tell."""


def _conclude(standings: Sequence[Standing], partly: bool, base: Path, display: Display) -> None:
    """Say how it ended; `partly`: cells that are missing were not asked for."""
    display.say(f"{len(_with(standings, 'done'))} cells are done")
    failed = {standing.member.cell: standing for standing in standings if standing.status == "failed"}
    if failed:
        lines = [f"{_role(told)} ({name}): {told.state.get('reason')}" for name, told in failed.items()]
        raise TrainingFailed(
            f"{len(failed)} cells (`ablate --failed …` trains only these again):\n  " + "\n  ".join(lines)
        )
    missing = _with(standings, "missing", "running")
    if missing and not partly:
        free = shutil.disk_usage(base).free
        first = f"{base} has {free / 2**20:.1f} MiB left: free space, then " if free < LITTLE else ""
        raise TrainingFailed(
            f"{len(missing)} cells have not come to an end; {first}the same command goes on with them"
        )


def _role(standing: Standing) -> str:
    member = standing.member
    return f"{member.spec.name}/{member.row.id}, seed {member.seed}"
