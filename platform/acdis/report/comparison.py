"""A table of rows × seeds: figures, differences to the baseline with two tests, order beside the paper's.

All in per cent of Dice. Seeds weigh the same, cases weigh the same, the 15 subsets weigh the same.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from acdis.evaluation.bootstrap import Effect, effects
from acdis.evaluation.needed import Needed, needed
from acdis.evaluation.scores import Scores
from acdis.evaluation.statistics import ALPHA, holm, kendall, t_interval, wilcoxon
from acdis.report.facts import RowScores
from acdis.vocabulary import REGIONS

Verdict = Literal["better", "worse", "undecided", "none"]


@dataclass(frozen=True)
class Figures:
    """Means over seeds, and 95 % t intervals over seeds; `low` and `high` are none with one seed.

    Attributes:
        mean: [3], over cases and subsets; `subsets`: [15, 3], over cases.
        et500: [15], hd95: [15, 3] in mm or none.
        seeds, cases: on which they stand; cases as (fewest, most) over the seeds.
    """

    mean: np.ndarray
    low: np.ndarray | None
    high: np.ndarray | None
    subsets: np.ndarray
    subsets_low: np.ndarray | None
    subsets_high: np.ndarray | None
    et500: np.ndarray
    hd95: np.ndarray | None
    per_seed: Mapping[int, np.ndarray]
    seeds: int
    cases: tuple[int, int]


@dataclass(frozen=True)
class Difference:
    """Row minus baseline in one region; p-values after Holm over all tests of the table.

    Attributes:
        seeds: of the row and of the baseline; cases: that both have.
        effect, p_wilcoxon, p_bootstrap: none where the data cannot carry a test; `why` says why.
        needed: for an undecided one.
    """

    row: str
    region: str
    delta: float
    seeds: tuple[int, int]
    cases: int
    effect: Effect | None = None
    p_wilcoxon: float | None = None
    p_bootstrap: float | None = None
    verdict: Verdict = "none"
    why: str = ""
    needed: Needed | None = None


@dataclass(frozen=True)
class Agreement:
    """Kendall's τ with the paper's order in one region, pairs of rows that agree, pairs, rows."""

    region: str
    tau: float
    agreeing: int
    pairs: int
    rows: int


@dataclass(frozen=True)
class Comparison:
    """Everything that a report says about one spec.

    Attributes:
        figures: by row; rows without scores are not in it.
        differences: row by row, region by region, the baseline left out.
        tests: how many were made; Holm's family.
    """

    figures: Mapping[str, Figures]
    differences: tuple[Difference, ...]
    agreement: tuple[Agreement, ...]
    tests: int


def compare(rows: Sequence[RowScores], baseline: str) -> Comparison:
    """Figures of all rows, and each against the baseline, as far as there are scores."""
    known = {row.id: row for row in rows if row.seeds}
    found = {name: figures(row.seeds) for name, row in known.items()}
    pairs = [
        pair
        for name, row in known.items()
        if baseline in known and name != baseline
        for pair in _pairs(name, row.seeds, known[baseline].seeds)
    ]
    tests = sum(difference.effect is not None for difference, _ in pairs)
    return Comparison(found, tuple(_judged(pairs, tests)), tuple(_agreement(rows, found)), tests)


def figures(seeds: Mapping[int, Scores]) -> Figures:
    """Of one row; at least one seed."""
    every = list(seeds.values())
    by_subset = np.stack([100 * scores.dice.mean(axis=0) for scores in every])  # [S, 15, 3]
    means = by_subset.mean(axis=1)
    low, high = t_interval(means) or (None, None)
    subsets_low, subsets_high = t_interval(by_subset) or (None, None)
    distances = [scores.hd95.mean(axis=0) for scores in every if scores.hd95 is not None]
    counts = [len(scores.cases) for scores in every]
    return Figures(
        means.mean(axis=0),
        low,
        high,
        by_subset.mean(axis=0),
        subsets_low,
        subsets_high,
        np.mean([100 * scores.dice_et500.mean(axis=0) for scores in every], axis=0),
        np.mean(distances, axis=0) if len(distances) == len(every) else None,
        dict(zip(seeds, means, strict=True)),
        len(every),
        (min(counts), max(counts)),
    )


#: A difference, and its paired differences per patient [N] where there is a test.
_Pair = tuple[Difference, np.ndarray]


def _pairs(name: str, row: Mapping[int, Scores], baseline: Mapping[int, Scores]) -> list[_Pair]:
    """Per region, on the cases that every seed of both has; not judged yet."""
    cases = sorted(set.intersection(*(set(each.cases) for each in (*row.values(), *baseline.values()))))
    seeds = (len(row), len(baseline))
    if not cases:
        return _untested(name, [math.nan] * len(REGIONS), seeds, 0, "no case in common with the baseline")
    ours, theirs = _by_patient(row, cases), _by_patient(baseline, cases)
    patients = ours.shape[1]
    why = _untestable(seeds, patients)
    if why:
        deltas = ours.mean(axis=(0, 1)) - theirs.mean(axis=(0, 1))
        return _untested(name, deltas.tolist(), seeds, patients, why)
    paired = ours.mean(axis=0) - theirs.mean(axis=0)
    return [
        (
            Difference(
                name, region, effect.delta, seeds, patients, effect, wilcoxon(paired[:, place]), effect.p
            ),
            paired[:, place],
        )
        for place, (region, effect) in enumerate(zip(REGIONS, effects(ours, theirs, name), strict=True))
    ]


def _untested(
    name: str, deltas: Sequence[float], seeds: tuple[int, int], cases: int, why: str
) -> list[_Pair]:
    return [
        (Difference(name, region, delta, seeds, cases, why=why), np.empty(0))
        for region, delta in zip(REGIONS, deltas, strict=True)
    ]


def _by_patient(seeds: Mapping[int, Scores], cases: Sequence[str]) -> np.ndarray:
    """[S, N, 3]: mean over the 15 subsets, and over a patient's scans: two of them are not independent."""
    return np.stack([100 * scores.by_patient(cases).mean(axis=1) for scores in seeds.values()])


def _untestable(seeds: tuple[int, int], cases: int) -> str:
    """Why nothing can be tested; empty where it can."""
    if min(seeds) < 2:
        who = "" if max(seeds) < 2 else (" of the row" if seeds[0] < 2 else " of the baseline")
        return f"1 seed{who}"
    return "1 case" if cases < 2 else ""


def _judged(pairs: Sequence[_Pair], tests: int) -> list[Difference]:
    """p-values corrected over the table, and what follows from them."""
    tested = [difference for difference, _ in pairs if difference.effect is not None]
    ranks = iter(holm([difference.p_wilcoxon or 0.0 for difference in tested]))
    resamples = iter(holm([difference.p_bootstrap or 0.0 for difference in tested]))
    return [
        _verdict(difference, paired, next(ranks), next(resamples), tests)
        if difference.effect is not None
        else difference
        for difference, paired in pairs
    ]


def _verdict(
    difference: Difference, paired: np.ndarray, p_wilcoxon: float, p_bootstrap: float, tests: int
) -> Difference:
    effect = difference.effect
    assert effect is not None
    verdict: Verdict = "undecided"
    demand: Needed | None = None
    if max(p_wilcoxon, p_bootstrap) <= ALPHA and _one_way(paired):
        verdict = "better" if effect.delta > 0 else "worse"
    else:
        demand = needed(effect, paired, tests, p_wilcoxon <= ALPHA)
    return replace(difference, p_wilcoxon=p_wilcoxon, p_bootstrap=p_bootstrap, verdict=verdict, needed=demand)


def _one_way(paired: np.ndarray) -> bool:
    """Whether ranks and mean point the same way: signed ranks sum to the sign of the mean."""
    order = np.abs(paired).argsort().argsort() + 1
    return bool(np.sign((np.sign(paired) * order).sum()) == np.sign(paired.mean()))


def _agreement(rows: Sequence[RowScores], found: Mapping[str, Figures]) -> list[Agreement]:
    """Region by region, over the rows that have our figure and the paper's."""
    made = []
    for place, region in enumerate(REGIONS):
        both = [row for row in rows if row.id in found and row.paper and region in row.paper]
        ours = [float(found[row.id].mean[place]) for row in both]
        theirs = [row.paper[region] for row in both if row.paper]
        order = kendall(ours, theirs)
        if order:
            made.append(Agreement(region, *order, rows=len(both)))
    return made
