"""What cells will cost, from the steps, weights and checkpoints of those that have begun."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from acdis import home, methods
from acdis.ablation.expansion import Member
from acdis.ablation.standings import Standing
from acdis.cells import Cell
from acdis.planning.placement import WorkerShare

#: What a checkpoint holds for each weight: itself, and Adam's two running values, three with amsgrad.
_PLAIN, _AMSGRAD = 3, 4


@dataclass(frozen=True)
class Measured:
    """What is known of cells that have begun.

    Attributes:
        steps: seconds of an optimiser step by cell.
        peak: bytes that a worker took at its peak, the largest of all; 0 where none has said so.
        weights: bytes of final weights, the largest; 0 where there are none.
        checkpoint: bytes of a training's state, the largest; 0 where there is none.
        peaks, checkpoints: the same bytes by cell, where known.
    """

    steps: Mapping[str, float]
    peak: int = 0
    weights: int = 0
    checkpoint: int = 0
    peaks: Mapping[str, int] = field(default_factory=dict)
    checkpoints: Mapping[str, int] = field(default_factory=dict)

    def seconds(self, cell: str) -> float | None:
        """Of a step of this cell: its own, else the median of its method's, else of all; None without any."""
        if cell in self.steps:
            return self.steps[cell]
        alike = [seconds for name, seconds in self.steps.items() if _method(name) == _method(cell)]
        known = alike or list(self.steps.values())
        return statistics.median(known) if known else None


@dataclass(frozen=True)
class Ahead:
    """What is still to be done.

    Attributes:
        cells: that are not done.
        seconds: of training steps, summed over the cells; None where no step has been measured.
        longest: seconds of the cell with the most to do.
        cpu_hours, gpu_hours: all workers together.
    """

    cells: int
    seconds: float | None
    longest: float = 0.0
    cpu_hours: float = 0.0
    gpu_hours: float = 0.0

    def price(self, per_gpu_hour: float) -> float:
        """Of the GPUs, in the currency of `per_gpu_hour`; start-up, validation and scoring come on top."""
        return self.gpu_hours * per_gpu_hour

    def wall(self, at_once: int) -> float | None:
        """Seconds until the last cell is trained, so many at a time."""
        return None if self.seconds is None else max(self.longest, self.seconds / at_once)


@dataclass(frozen=True)
class RowAhead:
    """What is still to be done of one row.

    Attributes:
        step: seconds, of a cell with a training of its own; None where nothing is measured.
        peak: bytes that a worker takes, of its own cells or others of their methods; none: not measured.
        checkpoint: bytes of a training's state, likewise.
    """

    row: str
    ahead: Ahead
    step: float | None
    peak: int | None
    checkpoint: int | None


@dataclass(frozen=True)
class Disk:
    """Bytes: what the finished cells will keep, what those in training take meanwhile, what is free."""

    kept: int
    meanwhile: int
    free: int


def measured(standings: Sequence[Standing], base: Path) -> Measured:
    """Gather from states and files what the cells of these standings have shown."""
    states = {standing.member.cell: standing.state for standing in standings if standing.state}
    folders = [home.cells(base) / name for name in states]
    return Measured(
        steps={
            name: float(state["step_seconds"]) for name, state in states.items() if "step_seconds" in state
        },
        peak=max((int(state.get("peak_bytes", 0)) for state in states.values()), default=0),
        weights=max((_size(Cell(folder).weights) for folder in folders), default=0),
        checkpoint=max((_size(folder / "last.pt") for folder in folders), default=0),
        peaks={name: int(state["peak_bytes"]) for name, state in states.items() if "peak_bytes" in state},
        checkpoints={folder.name: size for folder in folders if (size := _size(folder / "last.pt"))},
    )


def ahead(standings: Sequence[Standing], known: Measured, rooms: Mapping[str, WorkerShare]) -> Ahead:
    """Time and cost of the cells that are not done.

    Args:
        rooms: what a worker gets, by cell.
    """
    left = {standing.member.cell: standing for standing in standings if standing.status != "done"}
    seconds = {name: _left(standing, known.seconds(name)) for name, standing in left.items()}
    if any(value is None for value in seconds.values()):
        return Ahead(len(left), None)
    certain = {name: value or 0.0 for name, value in seconds.items()}
    cpu = gpu = 0.0
    for name, value in certain.items():
        workers = left[name].member.experiment.scaling.workers
        cpu += value * workers * rooms[name].cpus / 3600
        gpu += value * workers * rooms[name].gpus / 3600
    return Ahead(len(left), sum(certain.values()), max(certain.values(), default=0.0), cpu, gpu)


def by_row(
    standings: Sequence[Standing], known: Measured, rooms: Mapping[str, WorkerShare]
) -> list[RowAhead]:
    """The same row by row, a row of several cells as one."""
    rows: dict[str, list[Standing]] = {}
    for standing in standings:
        rows.setdefault(standing.member.part_of or standing.member.row.id, []).append(standing)
    return [_row_ahead(name, own, known, rooms) for name, own in rows.items()]


def _row_ahead(
    name: str, own: Sequence[Standing], known: Measured, rooms: Mapping[str, WorkerShare]
) -> RowAhead:
    trained = [
        standing.member.cell for standing in own if not methods.put_together(standing.member.experiment)
    ]
    steps = [seconds for seconds in map(known.seconds, trained) if seconds is not None]
    return RowAhead(
        name,
        ahead(own, known, rooms),
        max(steps, default=None),
        _largest(known.peaks, trained),
        _largest(known.checkpoints, trained),
    )


def _largest(sizes: Mapping[str, int], cells: Sequence[str]) -> int | None:
    """Of these cells, else of others of their methods."""
    mine = [sizes[cell] for cell in cells if cell in sizes]
    kinds = set(map(_method, cells))
    return max(mine or [size for cell, size in sizes.items() if _method(cell) in kinds], default=None)


def _method(cell: str) -> str:
    """A cell is called after its method."""
    return cell.rpartition("-")[0]


def disk(standings: Sequence[Standing], known: Measured, at_once: int, free: int) -> Disk | None:
    """What checkpoints will take; None where neither weights nor checkpoints are known yet."""
    left = {standing.member.cell: standing.member for standing in standings if standing.status != "done"}
    if not (known.weights or known.checkpoint) or not left:
        return None
    amsgrad = any(member.experiment.training.amsgrad for member in left.values())
    factor = _AMSGRAD if amsgrad else _PLAIN
    weights = known.weights or known.checkpoint // factor
    checkpoint = known.checkpoint or known.weights * factor
    # The last checkpoint, the one before it, and the next while it is written.
    return Disk(weights * len(left), 3 * checkpoint * min(at_once, len(left)), free)


def steps_per_epoch(member: Member) -> int:
    """Optimiser steps of an epoch: as configured, or one pass over the cases, the last batch filled up."""
    training = member.experiment.training
    return training.iterations or -(-member.inputs.counts[0] // training.batch_size)


def _left(standing: Standing, seconds: float | None) -> float | None:
    """Seconds of training steps that are left of a cell."""
    if _trained(standing.state) or methods.put_together(standing.member.experiment):
        return 0.0
    if seconds is None:
        return None
    steps = steps_per_epoch(standing.member)
    done = int(standing.state.get("done", 0)) * steps
    return seconds * (standing.member.experiment.training.epochs * steps - done)


def _trained(state: Mapping[str, Any]) -> bool:
    return state.get("status") in ("scoring", "scored", "done")


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
