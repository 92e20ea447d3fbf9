"""`ablate`: train the missing cells of specs side by side; the same command goes on where it stopped."""

from __future__ import annotations

import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from acdis import home
from acdis.ablation.cells import write_text
from acdis.ablation.members import Member
from acdis.ablation.pace import clock
from acdis.ablation.survey import Standing, survey
from acdis.cluster import session
from acdis.cluster.session import Room
from acdis.cluster.train import Job, TrainingFailed, TrainingStopped, launch
from acdis.cluster.tune import run_all
from acdis.errors import UserError
from acdis.tracking.lineage import lineage
from acdis.verbs.cell import BEFORE_SECONDS, complete, tracker_of
from acdis.verbs.crowd import BUSY, Crowd
from acdis.verbs.parents import parents
from acdis.verbs.progress import Display
from acdis.verbs.specs import open_specs
from acdis.verbs.train import job_of, where_to_look


@dataclass(frozen=True)
class Request:
    """What the user asked for.

    Attributes:
        rows, seeds: only these; none: all of the spec.
        at_once: most cells side by side; none: as many as fit.
        failed: only cells that have failed.
    """

    specs: Sequence[Path]
    experiment: Path | None = None
    overrides: Sequence[str] = ()
    rows: Sequence[str] | None = None
    seeds: Sequence[int] | None = None
    at_once: int | None = None
    failed: bool = False


@dataclass(frozen=True)
class Order:
    """One cell to train, as a trial gets it."""

    job: Job
    tags: dict[str, str]
    room: Room


def ablate(request: Request) -> None:
    """Train, score and publish what is missing of the specs' cells.

    Raises:
        UserError: a spec, an experiment or its data is wrong, or a cell can never be placed.
        TrainingFailed: some cells failed; the others are done.
    """
    base = home.home()
    with Display() as display:
        members = open_specs(
            request.specs,
            request.experiment,
            request.overrides,
            request.rows,
            request.seeds,
            base,
            display,
        )
        standings = survey(members, base)
        jobs = _jobs(standings, request.failed, base, display)
        with parents(members, base):
            if jobs:
                _run(jobs, members, request.at_once, base, display)
        _conclude(survey(members, base), display)
        display.say(where_to_look(members[0].experiment, base))


def _jobs(standings: Sequence[Standing], failed: bool, base: Path, display: Display) -> list[Job]:
    """One job per cell that is to be trained; every role of a cell is noted in its folder."""
    tags = lineage()
    jobs: dict[str, Job] = {}
    for standing in standings:
        member = standing.member
        job = job_of(member.experiment, member.inputs, base, tags)
        job.cell.add_role(spec=member.spec.name, table=member.spec.table, row=member.row.id, seed=member.seed)
        if standing.status in (("failed",) if failed else ("missing", "failed")):
            jobs[member.cell] = job
    every = {standing.member.cell: standing.status for standing in standings}
    running = list(every.values()).count("running")
    display.say(
        f"cells: {len(every)}, of which {list(every.values()).count('done')} are done; {len(jobs)} to train"
        + (f"; {running} are being trained by another process and left to it" if running else "")
    )
    return list(jobs.values())


def _run(jobs: list[Job], members: Sequence[Member], most: int | None, base: Path, display: Display) -> None:
    cells = len({member.cell for member in members})
    tags = lineage()
    display.say("Ray: connecting, or starting one of our own (about 10 s)")
    try:
        with session.connected():
            nodes = session.nodes()
            rooms = [session.side_by_side(nodes, job.experiment.scaling, cells) for job in jobs]
            at_once = min(number for _, number in rooms)
            at_once = max(1, min(at_once, most or at_once))
            orders = [Order(job, tags, room) for job, (room, _) in zip(jobs, rooms, strict=True)]
            display.say(
                f"training {len(jobs)} cells, {at_once} at a time on {rooms[0][0].cpus} CPUs a worker"
            )
            crowd = Crowd([job.cell for job in jobs], at_once, display)
            began = time.monotonic()
            run_all(drive, orders, at_once, base, crowd.look)
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


def drive(order: Order) -> None:
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


def _conclude(standings: Sequence[Standing], display: Display) -> None:
    failed = {standing.member.cell: standing for standing in standings if standing.status == "failed"}
    done = {standing.member.cell for standing in standings if standing.status == "done"}
    display.say(f"{len(done)} cells are done")
    if failed:
        lines = [f"{_role(each)} ({name}): {each.state.get('reason')}" for name, each in failed.items()]
        raise TrainingFailed(
            f"{len(failed)} cells (`ablate --failed …` trains only these again):\n  " + "\n  ".join(lines)
        )


def _role(standing: Standing) -> str:
    member = standing.member
    return f"{member.spec.name}/{member.row.id}, seed {member.seed}"
