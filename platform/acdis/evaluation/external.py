"""How scores on other people's cases differ from those on a cell's own test cases: two groups of patients."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtr, stdtrit

from acdis.evaluation.scores import Scores
from acdis.evaluation.statistics import ALPHA, holm
from acdis.vocabulary import REGIONS


@dataclass(frozen=True)
class Shift:
    """One region, Dice in per cent, mean over 15 subsets, patients as units.

    Attributes:
        inside, outside: means over the patients of the cell's own test cases, and of the others.
        delta: outside − inside, with its 95 % interval `low` to `high` (NaN with fewer than two patients).
        p, p_adjusted: two-sided Welch test; Holm over the three regions.
        verdict: `lower` or `higher` outside, `undecided`, or `too few` where a group has less than two.
    """

    region: str
    inside: float
    outside: float
    delta: float
    low: float
    high: float
    p: float
    p_adjusted: float
    verdict: str


def shifts(inside: Scores, outside: Scores) -> list[Shift]:
    """Welch's t test for each region: the groups are other patients, and spread differently.

    It is about patients, for this trained model alone: one training has no spread of its own.
    """
    groups = [
        100 * scores.by_patient(scores.cases).mean(axis=1) for scores in (inside, outside)
    ]  # [patients, 3]
    tests = [_welch(groups[0][:, place], groups[1][:, place]) for place in range(len(REGIONS))]
    adjusted = holm([p for *_, p in tests])
    return [
        Shift(
            region,
            float(groups[0][:, place].mean()),
            float(groups[1][:, place].mean()),
            *tests[place],
            adjusted[place],
            _verdict(tests[place], adjusted[place]),
        )
        for place, region in enumerate(REGIONS)
    ]


def _welch(one: np.ndarray, other: np.ndarray) -> tuple[float, float, float, float]:
    """Other − one: difference, 95 % interval, two-sided p."""
    delta = float(other.mean() - one.mean())
    if min(len(one), len(other)) < 2:
        return delta, math.nan, math.nan, 1.0
    parts = [float(group.var(ddof=1)) / len(group) for group in (one, other)]
    error = math.sqrt(sum(parts))
    if not error:
        return delta, delta, delta, float(delta == 0)
    freedom = sum(parts) ** 2 / sum(
        part**2 / (len(group) - 1) for part, group in zip(parts, (one, other), strict=True)
    )
    half = float(stdtrit(freedom, 1 - ALPHA / 2)) * error
    return delta, delta - half, delta + half, 2 * float(stdtr(freedom, -abs(delta) / error))


def _verdict(test: Sequence[float], adjusted: float) -> str:
    delta, low = test[:2]
    if math.isnan(low):
        return "too few"
    if adjusted > ALPHA:
        return "undecided"
    return "lower" if delta < 0 else "higher"
