"""Rows × seeds × cases as a multi-reader multi-case study: mean squares and the error of a difference.

Seeds are the readers, rows of a table the modalities (Dorfman, Berbaum and Metz 1992; Obuchowski and Rockette
1995; degrees of freedom after Hillis 2007). All rows share seeds and cases, so what a seed or a case does to
every row alike cancels, and all rows together estimate the spread that is left.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from scipy.special import fdtrc

#: A row leaves the pool where its spread is larger than the others' at this level, shared out over rows,
#: regions and the two tests.
UNEQUAL = 0.05
#: Below so many values in a row Brown and Forsythe's test knows nothing, or finds what is not there: of three
#: one distance from the median is 0, of two both are the same number.
FEW = 10
#: Digits of a point, and the share of a sum of squares, below which there is rounding and no spread.
DIGITS, ROUNDING = 9, 1e-12


@dataclass(frozen=True)
class MeanSquares:
    """Mean squares of one region, and the counts that they come from.

    Attributes:
        row_seed, row_case, residual: MS_TR, MS_TC and MS_E, squared points.
        rows, seeds, cases: R, S and N.
    """

    row_seed: float
    row_case: float
    residual: float
    rows: int
    seeds: int
    cases: int

    def difference(self) -> tuple[float, float]:
        """Standard error of the difference of two rows, and its degrees of freedom (Hillis 2007).

        MS_TR does not count for less than MS_E, of which it holds one part: with few rows and seeds it is
        often seen too small, and false alarms follow.
        """
        seed_part = max(self.row_seed, self.residual)
        total = seed_part + max(self.row_case - self.residual, 0.0)
        least = float((self.rows - 1) * (self.seeds - 1))
        freedom = least * (total / seed_part) ** 2 if seed_part else least
        return math.sqrt(2 * total / (self.seeds * self.cases)), freedom

    def with_cases_of(self, other: MeanSquares) -> MeanSquares:
        """These seeds and residual, and the other's row×case part, of the same seeds and cases."""
        return replace(self, row_case=other.row_case + (self.residual - other.residual))


def mean_squares(scores: np.ndarray) -> MeanSquares:
    """Of scores [R, S, N] of one region; R, S and N at least 2."""
    rows, seeds, cases = scores.shape
    by_seed, by_case, residual = _by_seed(scores), _by_case(scores), _centred(scores, (0, 1, 2))
    both = (rows - 1) * (seeds - 1)
    return MeanSquares(
        cases * float((by_seed**2).sum()) / both,
        seeds * float((by_case**2).sum()) / ((rows - 1) * (cases - 1)),
        float((residual**2).sum()) / (both * (cases - 1)),
        rows,
        seeds,
        cases,
    )


def unsteady_rows(scores: np.ndarray) -> tuple[int, ...]:
    """Rows of scores [R, S, N, regions] whose row×seed spread is larger than the others'.

    By a ratio of variances. Each row beside the rest, the most different first, then again without it. A row
    that is different in one region counts in all of them: two or three seeds of one region seldom show it. Of
    two rows nothing can be said: what one has too much, the other has too little.
    """
    return _unequal(scores, lambda table: _ratio(_by_seed(table)))


def uneven_rows(scores: np.ndarray) -> tuple[int, ...]:
    """The same of row×case: by Brown and Forsythe's test (1974), which heavy tails do not mislead.

    Fewer than `FEW` cases by a ratio of variances too.
    """
    test = _ratio if scores.shape[2] < FEW else _larger
    return _unequal(scores, lambda table: test(_by_case(table)))


def _unequal(scores: np.ndarray, test: Callable[[np.ndarray], np.ndarray]) -> tuple[int, ...]:
    regions = scores.shape[3]
    pool, apart = list(range(len(scores))), []
    while len(pool) > 2:
        chances = np.min([test(scores[pool][..., region]) for region in range(regions)], axis=0)
        place = int(np.argmin(chances))
        if chances[place] >= UNEQUAL / (2 * regions * len(pool)):
            break
        apart.append(pool.pop(place))
    return tuple(sorted(apart))


def _by_seed(scores: np.ndarray) -> np.ndarray:
    """[R, S], what is left of the means over cases without row and seed."""
    return _centred(scores.mean(axis=2), (0, 1))


def _by_case(scores: np.ndarray) -> np.ndarray:
    """[R, N], what is left of the means over seeds without row and case."""
    return _centred(scores.mean(axis=1), (0, 1))


def _centred(values: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    for axis in axes:
        values = values - values.mean(axis=axis, keepdims=True)
    return values


def _ratio(values: np.ndarray) -> np.ndarray:
    """p [R] that a row of interactions [R, K] varies as the rest, against more: F(K − 1, (R − 2)(K − 1)).

    A row minus the mean of the others is independent of what these differ by among themselves, so the ratio
    is exact for normal spreads, also of two or three seeds.
    """
    values = np.round(values, DIGITS)
    rows, count = values.shape
    squares = (values**2).sum()
    own = (values**2).sum(axis=1) * rows / (rows - 1)
    rest = np.maximum(squares - own, ROUNDING * squares)
    ratio = np.divide(own * (rows - 2), rest, out=np.zeros(rows), where=rest > 0)
    return np.asarray(fdtrc(count - 1, (rows - 2) * (count - 1), ratio))


def _larger(values: np.ndarray) -> np.ndarray:
    """p [R] of Brown and Forsythe's tests that a row of [R, K] spreads as the rest; 1 if it spreads less."""
    values = np.round(values, DIGITS)
    rows, count = values.shape
    distances = np.abs(values - np.median(values, axis=1, keepdims=True))
    rest = (rows - 1) * count
    own, others = distances.mean(axis=1), (distances.sum() - distances.sum(axis=1)) / rest
    squares = ((distances - distances.mean()) ** 2).sum()
    gap = own - others
    between = gap**2 * count * rest / (count + rest)
    within = squares - between
    tested = (gap > 0) & (within > ROUNDING * squares)
    ratio = np.divide(between * (count + rest - 2), within, out=np.zeros(rows), where=tested)
    return np.where(tested, fdtrc(1, count + rest - 2, ratio), 1.0)
