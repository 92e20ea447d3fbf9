"""Whether what specs ask for can ever be placed on a cluster; reckoned from files alone, without data."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from acdis import config
from acdis.ablation.expansion import Member
from acdis.ablation.spec import Spec, experiment_of
from acdis.config import Scaling
from acdis.errors import UserError
from acdis.planning.resources import DRIVER, Resources

GIB = 2**30
#: Of a crop: four modalities and a one-hot truth of four classes in fp32.
_BYTES_PER_VOXEL = 32


@dataclass(frozen=True)
class WorkerShare:
    """What one worker gets.

    Attributes:
        cpus: CPUs that Ray sets aside, and threads that torch uses.
        gpus: 0, 1 or a share of one.
    """

    cpus: int
    gpus: float


def fit_specs(specs: Sequence[Spec], resources: Resources) -> None:
    """Check every row of specs.

    Raises:
        UserError: a row's workers can never be placed; the sum is shown.
    """
    for spec in specs:
        draft = config.draft(spec.base, spec.overrides)
        for row in spec.rows:
            fit(f"{spec.path}, row {row.id!r}", experiment_of(draft, row).scaling, resources)


def fit(who: str, scaling: Scaling, resources: Resources) -> None:
    """Check one cell's workers.

    Raises:
        UserError: they can never be placed; the sum is shown.
    """
    try:
        share(resources.nodes, scaling)
    except UserError as error:
        raise UserError(f"{who}: can never be scheduled on {resources.source}: {error}") from None


def place(resources: Resources, members: Sequence[Member]) -> tuple[dict[str, WorkerShare], int]:
    """What a worker of each cell gets, and how many cells run side by side.

    Raises:
        UserError: a cell can never be placed; the sum is shown.
    """
    cells = len({member.cell for member in members})
    shares: dict[Scaling, tuple[WorkerShare, int]] = {}
    rooms: dict[str, WorkerShare] = {}
    for member in members:
        scaling = member.experiment.scaling
        _refuse_crops(member, resources)
        if scaling not in shares:
            fit(f"{member.spec.path}, row {member.row.id!r}", scaling, resources)
            shares[scaling] = side_by_side(resources.nodes, scaling, cells)
        rooms[member.cell] = shares[scaling][0]
    return rooms, max(1, min(number for _, number in shares.values()))


def _refuse_crops(member: Member, resources: Resources) -> None:
    """What the crops of a step alone take, without a network: a bound that nothing can do without."""
    training, data, scaling = (getattr(member.experiment, part) for part in ("training", "data", "scaling"))
    crops = -(-training.batch_size // (scaling.workers * scaling.accumulation))
    needed = crops * math.prod(data.crop) * _BYTES_PER_VOXEL
    most = max((node.get("memory", math.inf) for node in resources.nodes), default=math.inf)
    if needed > most:
        raise UserError(
            f"{member.spec.path}, row {member.row.id!r}: can never run on {resources.source}: {crops:,} "
            f"crops of {'×'.join(map(str, data.crop))} voxels at once take {needed / GIB:,.0f} GiB a worker, "
            f"the largest node has {most / GIB:,.0f}; set a smaller training.batch_size, or more "
            "scaling.accumulation"
        )


def share(nodes: Sequence[dict[str, float]], scaling: Scaling) -> WorkerShare:
    """What each worker gets on these nodes: as many CPUs as still leave room for every worker, or for as many
    as there must be.

    Raises:
        UserError: as `room`.
    """
    gpus = scaling.gpus
    most = max((int(node.get("CPU", 0)) for node in nodes), default=1)
    wanted = [scaling.cpus_per_worker] if scaling.cpus_per_worker else range(most, 0, -1)
    fitting = (
        cpus
        for least in (scaling.workers, scaling.least)
        for cpus in wanted
        if sum(_places(node, cpus, gpus) for node in nodes) >= least
    )
    cpus = next(fitting, scaling.cpus_per_worker or 1)
    places = sum(_places(node, cpus, gpus) for node in nodes)
    if places < scaling.least:
        kinds = Counter(f"{node.get('CPU', 0):g} CPUs, {node.get('GPU', 0):g} GPUs" for node in nodes)
        have = " + ".join(f"{number} × ({kind})" if number > 1 else kind for kind, number in kinds.items())
        raise UserError(
            f"scaling.workers: {scaling.least} workers of {cpus} CPUs and {gpus:g} GPUs each do not fit the "
            f"cluster ({have}: room for {places}); set fewer workers, scaling.cpus_per_worker, or "
            "scaling.gpu=false"
        )
    return WorkerShare(cpus, gpus)


def side_by_side(nodes: Sequence[dict[str, float]], scaling: Scaling, cells: int) -> tuple[WorkerShare, int]:
    """What each worker gets, and how many cells run at once: as many as the scarcest resource allows.

    Without `scaling.cpus_per_worker` a worker gets as many CPUs as cost no cell its place. `cells` counts all
    cells of the specs, not those still missing: threads must not change when an ablation goes on.

    Raises:
        UserError: as `room`.
    """
    share(nodes, scaling)  # one must fit
    gpus = scaling.gpus
    most = max(int(node.get("CPU", 0)) for node in nodes)
    wanted = [scaling.cpus_per_worker] if scaling.cpus_per_worker else range(1, most + 1)

    most_driven = drivers(nodes)

    def at_once(cpus: int) -> int:
        places = sum(_places(node, cpus, gpus) for node in nodes)
        trainings = max(places // scaling.workers, int(places >= scaling.least))
        return min(cells, trainings, most_driven or trainings)

    cpus = max(wanted, key=lambda cpus: (at_once(cpus), cpus))
    return WorkerShare(cpus, gpus), at_once(cpus)


def idle_gpus(nodes: Sequence[dict[str, float]], scaling: Scaling) -> str:
    """A line where GPUs stand idle, since nothing has asked for them; empty where none does."""
    there = int(sum(node.get("GPU", 0) for node in nodes))
    if scaling.gpu or not there:
        return ""
    stand = "GPU stands" if there == 1 else "GPUs stand"
    return f"{there} {stand} idle: scaling.gpu=true trains there"


def drivers(nodes: Sequence[dict[str, float]]) -> int:
    """How many trials the head drives at once, where it says so; 0 where it does not."""
    return int(sum(node.get(DRIVER, 0) for node in nodes))


def _places(node: dict[str, float], cpus: int, gpus: float) -> int:
    """Workers that find room on a node; each on one card."""
    by_cpu = int(node.get("CPU", 0) // cpus)
    return min(by_cpu, int(node.get("GPU", 0)) * int(1 / gpus + 1e-9)) if gpus else by_cpu
