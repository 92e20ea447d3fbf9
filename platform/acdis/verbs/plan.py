"""`plan`: what `ablate` would do, what it takes, and whether it can ever be placed. Nothing is started."""

from __future__ import annotations

import math
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.table import Table

from acdis import config, home
from acdis.ablation.members import Member
from acdis.ablation.pace import clock
from acdis.ablation.spec import Spec
from acdis.ablation.survey import STATUSES, Standing, survey
from acdis.cluster import growth, resources
from acdis.cluster.resources import Resources
from acdis.cluster.session import Room, side_by_side
from acdis.config import Scaling
from acdis.errors import UserError
from acdis.verbs import estimate
from acdis.verbs.estimate import Measured
from acdis.verbs.fits import fit, fit_specs
from acdis.verbs.measure import measure_missing
from acdis.verbs.progress import Display
from acdis.verbs.specs import load_specs, open_specs

#: Rows of a table that are shown; of the others it is said how they stand.
SHOWN = 40
GIB = 2**30
#: Of a crop: four modalities and a one-hot truth of four classes in fp32.
_BYTES_PER_VOXEL = 32
#: Characters of a line where no terminal says how many there are.
WIDTH = 160


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
        measure: time a step of the first cell that has no measured one, in a process of its own.
        resolved: print the baseline's whole configuration as well.

    Raises:
        UserError: a spec, an experiment or its data is wrong; or a cell can never be placed, with the sum.
    """
    base = home.home()
    with Display() as display:
        if not display.live:
            display.console.width = WIDTH
        found = growth.of_file(cluster) if cluster else None
        if found:  # told before any data is read: that may lie on the cluster alone
            fit_specs(load_specs(paths, experiment, overrides, rows, seeds), found)
            display.say(f"every row can be scheduled on {found.source}")
        members = open_specs(paths, experiment, overrides, rows, seeds, base, display)
        standings = survey(members, base)
        if resolved:
            display.say(_resolved(members[0]))
        for spec in dict.fromkeys(member.spec for member in members):
            _show_spec(spec, [each for each in standings if each.member.spec is spec], display)
        _show_sharing(members, display)
        found = found or resources.available(base)
        rooms, at_once = place(found, members)
        known = estimate.measured(standings, base)
        if measure:
            known = measure_missing(standings, known, rooms, display)
        _show_room(found, rooms, at_once, known, members, display)
        _show_ahead(standings, known, rooms, at_once, display)
        _show_disk(standings, known, at_once, base, display)


def place(found: Resources, members: Sequence[Member]) -> tuple[dict[str, Room], int]:
    """What a worker of each cell gets, and how many cells run side by side.

    Raises:
        UserError: a cell can never be placed; the sum is shown.
    """
    cells = len({member.cell for member in members})
    shares: dict[Scaling, tuple[Room, int]] = {}
    rooms: dict[str, Room] = {}
    for member in members:
        scaling = member.experiment.scaling
        _refuse_crops(member, found)
        if scaling not in shares:
            fit(f"{member.spec.path}, row {member.row.id!r}", scaling, found)
            shares[scaling] = side_by_side(found.nodes, scaling, cells)
        rooms[member.cell] = shares[scaling][0]
    return rooms, max(1, min(number for _, number in shares.values()))


def _refuse_crops(member: Member, found: Resources) -> None:
    """What the crops of a step alone take, without a network: a bound that nothing can do without."""
    training, data, scaling = (getattr(member.experiment, part) for part in ("training", "data", "scaling"))
    crops = -(-training.batch_size // (scaling.workers * scaling.accumulation))
    needed = crops * math.prod(data.crop) * _BYTES_PER_VOXEL
    most = max((node.get("memory", math.inf) for node in found.nodes), default=math.inf)
    if needed > most:
        raise UserError(
            f"{member.spec.path}, row {member.row.id!r}: can never run on {found.source}: {crops:,} crops of "
            f"{'×'.join(map(str, data.crop))} voxels at once take {needed / GIB:,.0f} GiB a worker, the "
            f"largest node has {most / GIB:,.0f}; set a smaller training.batch_size, or more "
            "scaling.accumulation"
        )


def spec_table(spec: Spec, standings: Sequence[Standing]) -> Table:
    """Rows × seeds: how each cell stands."""
    table = Table(title=spec.title, title_justify="left")
    table.add_column("row", overflow="fold")
    for seed in spec.seeds:
        table.add_column(f"seed {seed}")
    by_row: dict[str, dict[int, Standing]] = {}
    for each in standings:
        by_row.setdefault(each.member.row.id, {})[each.member.seed] = each
    for name, found in list(by_row.items())[:SHOWN]:
        label = f"{name} (baseline)" if name == spec.baseline else name
        table.add_row(label, *(_word(found[seed]) for seed in spec.seeds))
    return table


def _show_spec(spec: Spec, standings: Sequence[Standing], display: Display) -> None:
    display.console.print(spec_table(spec, standings))
    names = list(dict.fromkeys(each.member.row.id for each in standings))
    hidden = set(names[SHOWN:])
    if hidden:
        rest = [each for each in standings if each.member.row.id in hidden]
        display.say(f"… and {len(hidden)} more rows: {counted(rest)}")
    display.say(
        f"{spec.path}: {len(names)} rows × {len(spec.seeds)} seeds on {spec.base}: {counted(standings)}"
    )
    for reason, number in spec.excluded.items():
        display.say(f"  left out of the grid: {number} combinations, {reason}")
    stale = {name: each for each in standings for name in each.stale}
    if stale:
        example, each = next(iter(stale.items()))
        display.say(
            f"  stale: {len(stale)} cells under older names (other settings, data or version of the method), "
            f"such as {example} for row {each.member.row.id}, seed {each.member.seed}; they are left alone"
        )


def counted(standings: Sequence[Standing]) -> str:
    """`6 cells: 2 done, 4 missing`."""
    by_cell = {each.member.cell: each.status for each in standings}
    numbers = Counter(by_cell.values())
    said = ", ".join(f"{numbers[status]} {status}" for status in STATUSES if numbers[status])
    return f"{len(by_cell)} cells: {said}"


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
    found: Resources,
    rooms: Mapping[str, Room],
    at_once: int,
    known: Measured,
    members: Sequence[Member],
    display: Display,
) -> None:
    scaling = members[0].experiment.scaling
    each = rooms[members[0].cell]
    have = " and ".join(
        _amount(sum(node.get(kind, 0) for node in found.nodes), kind) for kind in ("CPU", "GPU")
    )
    takes = _amount(each.cpus, "CPU") + (f" and {_amount(each.gpus, 'GPU')}" if each.gpus else "")
    display.say(
        f"resources: {found.source} has {have} on {_amount(len(found.nodes), 'node')}; a cell takes "
        f"{_amount(scaling.workers, 'worker')} of {takes}; {at_once} side by side"
    )
    if found.local and known.peak and not scaling.gpu:
        _show_memory(found, known.peak * scaling.workers, at_once, display)


def _show_memory(found: Resources, needed: int, at_once: int, display: Display) -> None:
    """`needed`: bytes at the peak of a step, of all workers of a cell. They run on this machine."""
    there = resources.this_machine()["memory"]
    if needed > there:
        raise UserError(
            f"a cell can never be scheduled on {found.source}: its workers need {needed / GIB:.1f} GiB "
            f"of memory at the peak of a step, there are {there / GIB:.1f}; make data.crop smaller or set "
            "scaling.accumulation"
        )
    if needed * at_once > there:
        display.say(
            f"  memory: {at_once} side by side need {needed * at_once / GIB:.1f} GiB of "
            f"{there / GIB:.1f}; use --max-concurrent {int(there // needed)}"
        )


def _show_ahead(
    standings: Sequence[Standing], known: Measured, rooms: Mapping[str, Room], at_once: int, display: Display
) -> None:
    ahead = estimate.ahead(standings, known, rooms)
    wall = ahead.wall(at_once)
    if not ahead.cells:
        display.say("time: nothing is left to train")
    elif wall is None:
        display.say("time: no step has been measured here yet; `plan --measure …` measures one (no training)")
    else:
        hours = f"{ahead.gpu_hours:.2f} GPU-hours" if ahead.gpu_hours else f"{ahead.cpu_hours:.2f} CPU-hours"
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


def _word(standing: Standing) -> str:
    return standing.status + (" (stale)" if standing.stale and standing.status != "done" else "")


def _amount(count: float, what: str) -> str:
    return f"{count:g} {what}" + ("" if count == 1 else "s")


def _size(count: float) -> str:
    return f"{count / GIB:.1f} GiB" if count >= GIB else f"{count / 2**20:.1f} MiB"
