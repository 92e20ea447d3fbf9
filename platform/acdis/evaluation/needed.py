"""How many cases or seeds it would take, if the effect and its spread stayed what they are.

A difference counts only where both tests say so, at 0.05 shared out over the m tests of the table
(Bonferroni's share, which Holm's first step asks for). Power is 80 %: with the number that is given, four of
five repetitions would find an effect of this size.

- Bootstrap: the difference must reach (t(1 - 0.05/2m) + t(0.8)) × its standard error, with Satterthwaite's
  degrees of freedom; the part of the variance from seeds falls with 1/seeds, that from cases with 1/cases.
- Wilcoxon, which looks at cases alone: Noether's number (1987), (z(1 - 0.05/2m) + z(0.8))² / (3 (q - ½)²),
  q being the share of pairs of cases whose summed differences point the way of the mean; and never fewer
  than the cases at which 2/2^n can reach 0.05/m at all.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri, stdtrit

from acdis.evaluation.bootstrap import Effect, satterthwaite
from acdis.evaluation.statistics import ALPHA, DIGITS, fewest_cases

POWER = 0.8
#: Beyond this a number says no more than "not with data of this kind".
MOST = 10_000


@dataclass(frozen=True)
class Needed:
    """What it would take; (cases, seeds per row) each. None where no number up to `MOST` would do.

    Attributes:
        by_cases: with the seeds that there are.
        by_seeds: with the cases that there are, or where these cannot do, with more of both.
    """

    by_cases: tuple[int, int] | None
    by_seeds: tuple[int, int] | None


def needed(effect: Effect, differences: np.ndarray, tests: int, wilcoxon_says_so: bool) -> Needed:
    """From a difference that is undecided.

    Args:
        effect: from `bootstrap.effects`.
        differences: per case [N], mean over seeds.
        tests: m, all tests of the table.
        wilcoxon_says_so: whether that test is content with the cases that there are.
    """
    seeds, cases = min(effect.counts[:2]), effect.counts[2]
    least = cases if wilcoxon_says_so else wilcoxon_cases(differences, tests)
    if least is None:
        return Needed(None, None)
    by_cases = _smallest(lambda count: _reaches(effect, seeds, count, tests), least)
    return Needed((by_cases, seeds) if by_cases else None, _by_seeds(effect, least, tests))


def _by_seeds(effect: Effect, least: int, tests: int) -> tuple[int, int] | None:
    """More seeds, with the cases that there are if that can do; else the pair with the smallest product."""
    present, cases = min(effect.counts[:2]), effect.counts[2]
    pairs = []
    while least <= MOST:
        seeds = _smallest(lambda count, n=least: _reaches(effect, count, n, tests), present)  # type: ignore[misc]
        if seeds and least == cases:
            return least, seeds
        if seeds:
            pairs.append((least, seeds))
        least *= 2
    return min(pairs, key=lambda pair: pair[0] * pair[1], default=None)


def wilcoxon_cases(differences: np.ndarray, tests: int) -> int | None:
    """Cases for the signed-rank test, more than there are; None where the ranks do not point as the mean."""
    values = np.round(differences * np.sign(differences.mean()), DIGITS)
    sums = (values[:, None] + values[None, :])[np.triu_indices(len(values), k=1)]
    share = float((sums > 0).mean() + (sums == 0).mean() / 2)
    if share <= 0.5:
        return None
    z = float(ndtri(1 - ALPHA / (2 * tests)) + ndtri(POWER))
    noether = math.ceil(z**2 / (3 * (share - 0.5) ** 2))
    return max(noether, fewest_cases(tests), len(values) + 1)


def _reaches(effect: Effect, seeds: int, cases: int, tests: int) -> bool:
    """Whether the bootstrap would find the effect with so many seeds per row and cases."""
    row, baseline = (max(seeds, count) for count in effect.counts[:2])
    counts = (row, baseline, cases)
    parts = tuple(
        part * before / after for part, before, after in zip(effect.parts, effect.counts, counts, strict=True)
    )
    if not sum(parts):
        return effect.delta != 0
    # Resampling finds a little more than the parts add up to (see `bootstrap`).
    error = effect.error * math.sqrt(sum(parts) / sum(effect.parts))
    freedom = satterthwaite(parts, counts)
    t = float(stdtrit(freedom, 1 - ALPHA / (2 * tests)) + stdtrit(freedom, POWER))
    return abs(effect.delta) >= t * error


def _smallest(reaches: Callable[[int], bool], least: int) -> int | None:
    """The smallest count from `least` to `MOST` that does, by halving: more is never worse."""
    low, high = least, MOST
    if high < low or not reaches(high):
        return None
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if reaches(middle) else (middle + 1, high)
    return low
