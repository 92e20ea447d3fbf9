"""Scores case by case: of rows, over their seeds; for one measure, region and subset (or their mean)."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from acdis.dashboard.choice import Row
from acdis.dashboard.folders import is_name
from acdis.dashboard.site import Look, Site
from acdis.errors import UserError
from acdis.evaluation.scores import Scores
from acdis.vocabulary import REGIONS, SUBSETS, subset_name

#: What can be shown: the words for it, what it is multiplied by, and whether more of it is better.
MEASURES = {
    "dice": ("Dice, %", 100.0, True),
    "et500": ("ET500, %", 100.0, True),
    "hd95": ("HD95, mm", 1.0, False),
}
#: Instead of a subset: the mean over the 15.
MEAN = "mean"
PLACES = {subset_name(subset): place for place, subset in enumerate(SUBSETS)}


@dataclass(frozen=True)
class Wanted:
    """What is looked at: `measure` of MEASURES, a region, a subset's name or MEAN."""

    measure: str
    region: str
    subset: str

    @property
    def more_is_better(self) -> bool:
        return MEASURES[self.measure][2]

    @property
    def words(self) -> str:
        """`Dice, %, ET, from FLAIR + T1ce`."""
        of = "mean over the 15 subsets" if self.subset == MEAN else f"from {self.subset.replace('_', ' + ')}"
        return f"{MEASURES[self.measure][0]}, {self.region}, {of}"


def wanted(measure: str, region: str, subset: str) -> Wanted:
    """What an address asks for; what it has wrong is replaced. ET500 is of ET alone."""
    measure = measure if measure in MEASURES else "dice"
    region = region if region in REGIONS else REGIONS[0]
    return Wanted(measure, "ET" if measure == "et500" else region, subset if subset in PLACES else MEAN)


def values(scores: Scores, want: Wanted) -> np.ndarray | None:
    """[cases]; none where HD95 was not computed."""
    scale = MEASURES[want.measure][1]
    if want.measure == "et500":
        found: np.ndarray | None = scores.dice_et500
    else:
        every = scores.dice if want.measure == "dice" else scores.hd95
        found = None if every is None else every[..., REGIONS.index(want.region)]
    if found is None:
        return None
    return scale * (found.mean(axis=1) if want.subset == MEAN else found[:, PLACES[want.subset]])


@dataclass(frozen=True)
class RowCases:
    """A row, case by case.

    Attributes:
        seeds: {seed: {case: value}}.
        looks: {seed: its cell}.
        evaluations: {seed: name of its evaluation}.
        unread: cells whose records are there and cannot be read, or lack the measure.
    """

    row: Row
    seeds: Mapping[int, Mapping[str, float]]
    looks: Mapping[int, Look]
    evaluations: Mapping[int, str]
    unread: int

    @functools.cached_property
    def means(self) -> dict[str, float]:
        """Of each case, over the seeds that have it."""
        cases = dict.fromkeys(case for found in self.seeds.values() for case in found)
        return {
            case: float(np.mean([found[case] for found in self.seeds.values() if case in found]))
            for case in cases
        }


def read(site: Site, row: Row, want: Wanted) -> RowCases:
    """Per-case records of the row's cells, each file read once until it changes."""
    seeds: dict[int, Mapping[str, float]] = {}
    looks: dict[int, Look] = {}
    names: dict[int, str] = {}
    unread = 0
    for look in row.looks:
        name = evaluation_of(look)
        if not name or site.folders.seen(look.cell.cell, name).scores is None:
            continue
        try:
            scores = site.folders.scores(look.cell.cell, name)
        except (UserError, LookupError):
            unread += 1
            continue
        found = values(scores, want)
        if found is None:
            unread += 1
            continue
        seeds[look.cell.seed] = dict(zip(scores.cases, found.tolist(), strict=True))
        looks[look.cell.seed], names[look.cell.seed] = look, name
    return RowCases(row, seeds, looks, names, unread)


def evaluation_of(look: Look) -> str:
    """The spec's; where only the store knows the spec, the cell's last one."""
    name = look.cell.evaluation or str(look.seen.state.get("evaluation") or "")
    return name if is_name(name) else ""


@dataclass(frozen=True)
class Spread:
    """How values lie: what a box shows, and how many they are."""

    count: int
    mean: float
    box: tuple[float, float, float, float, float]


#: Whiskers, quartiles and median of a box.
PERCENTILES = (5, 25, 50, 75, 95)


def spread(found: RowCases) -> Spread | None:
    """Of all cases and seeds of a row together; none without any."""
    every = [value for cases in found.seeds.values() for value in cases.values()]
    if not every:
        return None
    low, first, median, third, high = np.percentile(every, PERCENTILES).tolist()
    return Spread(len(every), float(np.mean(every)), (low, first, median, third, high))


def worst_first(found: Mapping[str, float], want: Wanted) -> list[str]:
    """Cases, the worst one first; equal ones by name."""
    sign = 1 if want.more_is_better else -1
    return sorted(found, key=lambda case: (sign * found[case], case))


def paired(one: Mapping[str, float], two: Mapping[str, float]) -> Sequence[str]:
    """Cases that both have, by name."""
    return sorted(one.keys() & two.keys())
