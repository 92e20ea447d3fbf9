"""`plan`: what `ablate` would do, what it takes, and whether it can ever be placed. Nothing is started."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.table import Table

from acdis import config, home, methods
from acdis.ablation.expansion import Member
from acdis.ablation.selection import load_specs
from acdis.ablation.spec import Spec
from acdis.ablation.standings import Standing, counted, survey
from acdis.cells.time_left import clock
from acdis.cluster import head
from acdis.errors import UserError
from acdis.planning import cluster_file, estimate, resources
from acdis.planning.estimate import Measured
from acdis.planning.measure import measure_missing
from acdis.planning.placement import GIB, WorkerShare, fit_specs, place
from acdis.planning.resources import Resources
from acdis.terminal.progress import WIDTH, Display
from acdis.workflow.opening import open_specs

#: Rows of a table that are shown; of the others it is said how they stand.
SHOWN = 40


def plan(
    paths: Sequence[Path],
    experiment: Path | None,
    overrides: Sequence[str],
    rows: Sequence[str] | None,
    seeds: Sequence[int] | None,
    measure: bool = False,
    resolved: bool = False,
    cluster: Path | None = None,
) -> None:
    """Print cells by status, resources, time and disk.

    Args:
        cluster: reckon with what this file for `ray up` may start, instead of what is there.
        measure: time a step of each method's first cell that has no measured one, in processes of their own.
        resolved: print the baseline's whole configuration as well.

    Raises:
        UserError: a spec, an experiment or its data is wrong; or a cell can never be placed, with the sum.
    """
    base = home.home()
    with Display() as display:
        if not display.live:
            display.console.width = WIDTH
        offered = cluster_file.of_file(cluster) if cluster else None
        if offered:  # told before any data is read: that may lie on the cluster alone
            fit_specs(load_specs(paths, experiment, overrides, rows, seeds), offered)
            display.say(f"every row can be scheduled on {offered.source}")
        members = open_specs(paths, experiment, overrides, rows, seeds, base, display, looking=not measure)
        standings = survey(members, base)
        if resolved:
            display.say(_resolved(members[0]))
        for spec in dict.fromkeys(member.spec for member in members):
            _show_spec(spec, [standing for standing in standings if standing.member.spec is spec], display)
        _show_sharing(members, display)
        standings = [standing for standing in standings if standing.member.trains]
        members = [member for member in members if member.trains]
        if not members:
            display.say("nothing to train: all chosen rows are predictions of other tools")
            return
        offered = offered or resources.available(head.running(base))
        rooms, at_once = place(offered, members)
        known = estimate.measured(standings, base)
        if measure:
            known = measure_missing(standings, known, rooms, display.say)
        _show_room(offered, rooms, at_once, known, members, display)
        _show_rows(standings, known, rooms, display)
        _show_ahead(standings, known, rooms, at_once, display)
        _show_disk(standings, known, at_once, base, display)


def spec_table(spec: Spec, standings: Sequence[Standing]) -> Table:
    """Rows × seeds: how each cell stands."""
    table = Table(title=spec.title, title_justify="left")
    table.add_column("row", overflow="fold")
    for seed in spec.seeds:
        table.add_column(f"seed {seed}")
    by_row: dict[str, dict[int, list[Standing]]] = {}
    for standing in standings:
        by_row.setdefault(_row(standing), {}).setdefault(standing.member.seed, []).append(standing)
    for name, by_seed in list(by_row.items())[:SHOWN]:
        label = f"{name} (baseline)" if name == spec.baseline else name
        table.add_row(label, *(_words(by_seed.get(seed, ())) for seed in spec.seeds))
    return table


def _row(standing: Standing) -> str:
    """The whole row's name, also of a part."""
    return standing.member.part_of or standing.member.row.id


def _show_spec(spec: Spec, standings: Sequence[Standing], display: Display) -> None:
    display.console.print(spec_table(spec, standings))
    names = list(dict.fromkeys(map(_row, standings)))
    hidden = set(names[SHOWN:])
    if hidden:
        rest = [standing for standing in standings if _row(standing) in hidden]
        display.say(f"… and {len(hidden)} more rows: {counted(rest)}")
    display.say(
        f"{spec.path}: {len(names)} rows × {len(spec.seeds)} seeds on {spec.base}: {counted(standings)}"
    )
    for reason, rows in _costly(standings).items():
        display.say(f"  15 subsets cost 15 whole passes, since {reason}: {', '.join(rows)}")
    if given := [row.id for row in spec.rows if row.predictions is not None]:
        display.say(f"  predictions of other tools, scored and not trained: {', '.join(given)}")
    for row in spec.absent:
        display.say(f"  absent: {row.id}: {row.absent}")
    for reason, number in spec.excluded.items():
        display.say(f"  left out of the grid: {number} combinations, {reason}")
    stale = {name: standing for standing in standings for name in standing.stale}
    if stale:
        example, standing = next(iter(stale.items()))
        display.say(
            f"  stale: {len(stale)} cells under older names (other settings, data or version of the method), "
            f"such as {example} for row {standing.member.row.id}, seed {standing.member.seed}; they are left "
            "alone"
        )


def _costly(standings: Sequence[Standing]) -> dict[str, list[str]]:
    """Rows whose evaluation gains nothing from one encoding for all subsets, by the reason."""
    by_reason: dict[str, list[str]] = {}
    for standing in standings:
        if not standing.member.trains:
            continue
        choice = standing.member.experiment.method
        reason = methods.validate(choice.name, choice.options, ()).nothing_shared()
        if reason and standing.member.experiment.scored and _row(standing) not in by_reason.get(reason, ()):
            by_reason.setdefault(reason, []).append(_row(standing))
    return by_reason


def _show_sharing(members: Sequence[Member], display: Display) -> None:
    roles = Counter(member.cell for member in members)
    shared = {name for name, number in roles.items() if number > 1}
    if shared:
        examples = [f"{m.spec.name}/{m.row.id}" for m in members if m.cell == min(shared)]
        display.say(
            f"all together {len(roles)} cells: {len(shared)} serve several specs and are trained once "
            f"({' = '.join(dict.fromkeys(examples))})"
        )


def _show_room(
    offered: Resources,
    rooms: Mapping[str, WorkerShare],
    at_once: int,
    known: Measured,
    members: Sequence[Member],
    display: Display,
) -> None:
    scaling = members[0].experiment.scaling
    share = rooms[members[0].cell]
    have = " and ".join(
        _amount(sum(node.get(kind, 0) for node in offered.nodes), kind) for kind in ("CPU", "GPU")
    )
    takes = _amount(share.cpus, "CPU") + (f" and {_amount(share.gpus, 'GPU')}" if share.gpus else "")
    display.say(
        f"resources: {offered.source} has {have} on {_amount(len(offered.nodes), 'node')}; a cell takes "
        f"{_amount(scaling.workers, 'worker')} of {takes}; {at_once} side by side"
    )
    if offered.local and known.peak and not scaling.gpu:
        _show_memory(offered, known.peak * scaling.workers, at_once, display)


def _show_memory(offered: Resources, needed: int, at_once: int, display: Display) -> None:
    """`needed`: bytes at the peak of a step, of all workers of a cell. They run on this machine."""
    there = resources.this_machine()["memory"]
    if needed > there:
        raise UserError(
            f"a cell can never be scheduled on {offered.source}: its workers need {needed / GIB:.1f} GiB "
            f"of memory at the peak of a step, there are {there / GIB:.1f}; make data.crop smaller or set "
            "scaling.accumulation"
        )
    if needed * at_once > there:
        display.say(
            f"  memory: {at_once} side by side need {needed * at_once / GIB:.1f} GiB of "
            f"{there / GIB:.1f}; use --max-concurrent {int(there // needed)}"
        )


def _show_rows(
    standings: Sequence[Standing], known: Measured, rooms: Mapping[str, WorkerShare], display: Display
) -> None:
    """Row by row, where rows are of different methods: these differ by orders of magnitude."""
    kinds = {standing.member.experiment.method.name for standing in standings}
    if len(kinds) < 2 or not known.steps:
        return
    table = Table(title="what the rows take, of cells that are left", title_justify="left")
    for name in ("row", "cells", "step, s", "hours", "GiB a worker", "checkpoint"):
        table.add_column(name, justify="left" if name == "row" else "right", overflow="fold")
    for row_ahead in estimate.by_row(standings, known, rooms)[:SHOWN]:
        gpu, cpu = row_ahead.ahead.gpu_hours, row_ahead.ahead.cpu_hours
        table.add_row(
            row_ahead.row,
            str(row_ahead.ahead.cells),
            "–" if row_ahead.step is None else f"{row_ahead.step:.2f}",
            f"{gpu:.2f} GPU" if gpu else f"{cpu:.2f} CPU",
            "–" if row_ahead.peak is None else f"{row_ahead.peak / GIB:.2f}",
            "–" if row_ahead.checkpoint is None else _size(row_ahead.checkpoint),
        )
    display.console.print(table)


def _show_ahead(
    standings: Sequence[Standing],
    known: Measured,
    rooms: Mapping[str, WorkerShare],
    at_once: int,
    display: Display,
) -> None:
    ahead = estimate.ahead(standings, known, rooms)
    wall = ahead.wall(at_once)
    if not ahead.cells:
        display.say("time: nothing is left to train")
    elif wall is None:
        display.say("time: no step has been measured here yet; `plan --measure …` measures one (no training)")
    else:
        hours = f"{ahead.gpu_hours:.2f} GPU-hours" if ahead.gpu_hours else f"{ahead.cpu_hours:.2f} CPU-hours"
        per_hour = standings[0].member.experiment.planning.price_per_gpu_hour
        if per_hour is not None and ahead.gpu_hours:
            hours += f", {ahead.price(per_hour):,.2f} at {per_hour:g} a GPU-hour"
        display.say(
            f"time: about {clock(wall)} of training steps for {ahead.cells} cells, {at_once} at a time; "
            f"{hours} (from {len(known.steps)} measured steps; start-up, validation and scoring come on top)"
        )


def _show_disk(
    standings: Sequence[Standing], known: Measured, at_once: int, base: Path, display: Display
) -> None:
    disk = estimate.disk(standings, known, at_once, shutil.disk_usage(base).free)
    if disk is None:
        return
    needed = disk.kept + disk.meanwhile
    display.say(
        f"disk: about {_size(disk.kept)} of final weights stay, {_size(disk.meanwhile)} of checkpoints while "
        f"cells train; {_size(disk.free)} are free"
    )
    if needed > disk.free:
        raise UserError(
            f"{base}: {_size(needed)} for weights and checkpoints, {_size(disk.free)} are free; make room, "
            "or set ACDIS_HOME to another disk"
        )


def _resolved(member: Member) -> str:
    title = f"# {member.spec.name}/{member.row.id}, seed {member.seed}, as it is trained: {member.cell}"
    return f"{title}\n{config.dump(member.experiment)}"


def _words(standings: Sequence[Standing]) -> str:
    """How the cell stands; of a row of several cells how all do. Predictions may be of one seed alone."""
    if not standings:
        return "–"
    if len(standings) > 1:
        return counted(standings)
    (standing,) = standings
    return standing.word + (" (stale)" if standing.stale and standing.status != "done" else "")


def _amount(count: float, what: str) -> str:
    return f"{count:g} {what}" + ("" if count == 1 else "s")


def _size(count: float) -> str:
    return f"{count / GIB:.1f} GiB" if count >= GIB else f"{count / 2**20:.1f} MiB"
