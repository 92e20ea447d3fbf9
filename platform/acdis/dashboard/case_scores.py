"""Scores case by case: of rows, over their seeds; for one measure, region and subset (or their mean)."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from acdis.dashboard.chosen_rows import Row
from acdis.dashboard.folders import is_name
from acdis.dashboard.state import SeenCell, Site
from acdis.errors import UserError
from acdis.evaluation.scores import Scores
from acdis.report.floors import BRAIN, RULE
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
class ScoreChoice:
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


def wanted(measure: str, region: str, subset: str) -> ScoreChoice:
    """What an address asks for; what it has wrong is replaced. ET500 is of ET alone."""
    measure = measure if measure in MEASURES else "dice"
    region = region if region in REGIONS else REGIONS[0]
    return ScoreChoice(measure, "ET" if measure == "et500" else region, subset if subset in PLACES else MEAN)


def values(scores: Scores, want: ScoreChoice) -> np.ndarray | None:
    """[cases]; none where HD95 was not computed."""
    scale = MEASURES[want.measure][1]
    if want.measure == "et500":
        by_subset: np.ndarray | None = scores.dice_et500
    else:
        every = scores.dice if want.measure == "dice" else scores.hd95
        by_subset = None if every is None else every[..., REGIONS.index(want.region)]
    if by_subset is None:
        return None
    return scale * (by_subset.mean(axis=1) if want.subset == MEAN else by_subset[:, PLACES[want.subset]])


def floors_of(scores: Scores, want: ScoreChoice) -> dict[str, dict[str, float]]:
    """{floor: {case: Dice in per cent}}, of the cases that are scored; floors are of Dice alone."""
    held = scores.floors
    if held is None or want.measure != "dice":
        return {}
    place, by_floor = REGIONS.index(want.region), {BRAIN: held.brain[:, REGIONS.index(want.region)]}
    if held.fitted is not None:
        dice = held.fitted[..., place]
        by_floor[RULE] = dice.mean(axis=1) if want.subset == MEAN else dice[:, PLACES[want.subset]]
    scored = set(scores.cases)
    return {
        label: {
            case: 100 * value for case, value in zip(held.cases, dice.tolist(), strict=True) if case in scored
        }
        for label, dice in by_floor.items()
    }


@dataclass(frozen=True)
class RowCases:
    """A row, case by case.

    Attributes:
        seeds: {seed: {case: value}}.
        looks: {seed: its cell}.
        evaluations: {seed: name of its evaluation}.
        penalties: distances among these scores that are those of one empty mask.
        unread: cells whose records are there and cannot be read, or lack the measure.
        conventions: by which HD95 was computed, see `metrics.hd95`.
        floors: {floor: {case: value}}, what these scores are held against; empty where nobody measured it.
    """

    row: Row
    seeds: Mapping[int, Mapping[str, float]]
    looks: Mapping[int, SeenCell]
    evaluations: Mapping[int, str]
    penalties: int
    unread: int
    conventions: tuple[str, ...]
    floors: Mapping[str, Mapping[str, float]]

    @functools.cached_property
    def means(self) -> dict[str, float]:
        """Of each case, over the seeds that have it."""
        cases = dict.fromkeys(case for by_case in self.seeds.values() for case in by_case)
        return {
            case: float(np.mean([by_case[case] for by_case in self.seeds.values() if case in by_case]))
            for case in cases
        }


def read(site: Site, row: Row, want: ScoreChoice) -> RowCases:
    """Per-case records of the row's cells, each file read once until it changes."""
    seeds: dict[int, Mapping[str, float]] = {}
    looks: dict[int, SeenCell] = {}
    names: dict[int, str] = {}
    conventions: dict[str, None] = {}
    floors: dict[str, dict[str, float]] = {}
    unread = penalties = 0
    for look in row.looks:
        name = evaluation_of(look)
        if not name or site.folders.seen(look.cell.cell, name).scores is None:
            continue
        try:
            scores = site.folders.scores(look.cell.cell, name)
        except (UserError, LookupError):
            unread += 1
            continue
        per_case = values(scores, want)
        if per_case is None:
            unread += 1
            continue
        counts = scores.penalties[:, REGIONS.index(want.region)]
        penalties += int(counts.sum() if want.subset == MEAN else counts[PLACES[want.subset]])
        conventions[scores.hd95_convention] = None
        seeds[look.cell.seed] = dict(zip(scores.cases, per_case.tolist(), strict=True))
        looks[look.cell.seed], names[look.cell.seed] = look, name
        floors = floors or floors_of(scores, want)
    return RowCases(row, seeds, looks, names, penalties, unread, tuple(conventions), floors)


def evaluation_of(look: SeenCell) -> str:
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


def spread(row: RowCases) -> Spread | None:
    """Of all cases and seeds of a row together; none without any."""
    return spread_of([value for cases in row.seeds.values() for value in cases.values()])


def spread_of(every: Sequence[float]) -> Spread | None:
    """The same of any values."""
    if not every:
        return None
    low, first, median, third, high = np.percentile(every, PERCENTILES).tolist()
    return Spread(len(every), float(np.mean(every)), (low, first, median, third, high))


def worst_first(by_case: Mapping[str, float], want: ScoreChoice) -> list[str]:
    """Cases, the worst one first; equal ones by name."""
    sign = 1 if want.more_is_better else -1
    return sorted(by_case, key=lambda case: (sign * by_case[case], case))


def paired(one: Mapping[str, float], two: Mapping[str, float]) -> Sequence[str]:
    """Cases that both have, by name."""
    return sorted(one.keys() & two.keys())
