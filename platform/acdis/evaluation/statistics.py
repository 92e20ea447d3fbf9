"""Tests and intervals for few cases and few seeds. NumPy and scipy.special only: quick to import.

What stands on seeds and cases at once is in `bootstrap`, how many of them would be needed in `needed`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy.special import ndtr, stdtrit

#: Of every test and interval in a report.
ALPHA = 0.05
#: Up to here the Wilcoxon test is exact, ties or not; beyond, by its normal approximation.
EXACT_CASES = 200
#: Differences are rounded to this many digits before they are ranked: 1e-17 is a tie, not a difference.
DIGITS = 10


def t_interval(values: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """95 % interval of the mean over the first axis (seeds), by Student's t: (low, high).

    None with fewer than two values: one seed has no spread.
    """
    count = len(values)
    if count < 2:
        return None
    mean = values.mean(axis=0)
    half = stdtrit(count - 1, 1 - ALPHA / 2) * values.std(axis=0, ddof=1) / math.sqrt(count)
    return mean - half, mean + half


def wilcoxon(differences: np.ndarray) -> float:
    """Two-sided p of the Wilcoxon signed-rank test on paired differences [N].

    Differences of zero are ranked with the others and then left out (Pratt 1959), so that cases in which
    nothing changes still count as cases; ties share their mean rank. Up to `EXACT_CASES` cases p is exact,
    the share of all 2^n sign patterns of these very ranks: n cases can never give less than 2 / 2^n.
    """
    values = np.round(np.asarray(differences, dtype=np.float64), DIGITS)
    ranks = _ranks(np.abs(values))
    kept = ranks[values != 0]
    if not len(kept):
        return 1.0
    positive = ranks[values > 0].sum()
    return _exact(kept, positive) if len(kept) <= EXACT_CASES else _normal(kept, positive)


def _ranks(values: np.ndarray) -> np.ndarray:
    """1 for the smallest; equal values share the mean of their ranks."""
    ordered = np.sort(values)
    low = np.searchsorted(ordered, values, side="left")
    high = np.searchsorted(ordered, values, side="right")
    return (low + high + 1) / 2


def _exact(ranks: np.ndarray, positive: float) -> float:
    """Distribution of the sum of positive ranks, one rank after the other; doubled ranks are whole."""
    doubled = np.rint(2 * ranks).astype(np.int64)
    chance = np.zeros(doubled.sum() + 1)
    chance[0] = 1.0
    for rank in doubled:
        moved = np.zeros_like(chance)
        moved[rank:] = chance[: len(chance) - rank]
        chance = (chance + moved) / 2
    found = round(2 * positive)
    tail = min(chance[: found + 1].sum(), chance[found:].sum())
    return float(min(1.0, 2 * tail))


def _normal(ranks: np.ndarray, positive: float) -> float:
    """With continuity correction."""
    distance = abs(positive - ranks.sum() / 2) - 0.5
    return float(min(1.0, 2 * ndtr(-max(distance, 0.0) / math.sqrt((ranks**2).sum() / 4))))


def smallest_p(cases: int) -> float:
    """The least two-sided p that the test can give: 0.0625 for five cases."""
    return min(1.0, 2.0 ** (1 - cases))


def fewest_cases(tests: int) -> int:
    """Cases below which Holm over so many tests can reject nothing: the least n with tests × 2/2^n ≤ 0.05."""
    cases = 1
    while tests * smallest_p(cases) > ALPHA:
        cases += 1
    return cases


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjusted p-values (1979), in the order given; compare each with 0.05.

    The smallest is multiplied by the number of tests m, the next by m - 1, …; none is below one before it.
    """
    order = sorted(range(len(p_values)), key=lambda place: p_values[place])
    adjusted = [0.0] * len(p_values)
    reached = 0.0
    for step, place in enumerate(order):
        reached = max(reached, min(1.0, (len(order) - step) * p_values[place]))
        adjusted[place] = reached
    return adjusted


def kendall(ours: Sequence[float], theirs: Sequence[float]) -> tuple[float, int, int] | None:
    """Kendall's τ-b of two orders of the same rows, pairs that agree, pairs in all; None below two rows.

    None as well where all values of one side are equal: there is no order to agree with.
    """
    first, second = (np.round(np.asarray(side, dtype=np.float64), DIGITS) for side in (ours, theirs))
    upper = np.triu_indices(len(first), k=1)
    one = np.sign(first[:, None] - first[None, :])[upper]
    two = np.sign(second[:, None] - second[None, :])[upper]
    norm = math.sqrt(float((one**2).sum()) * float((two**2).sum()))
    if not norm:
        return None
    return float((one * two).sum()) / norm, int((one * two > 0).sum()), len(one)
