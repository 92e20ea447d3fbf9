"""Rows × seeds × cases as a multi-reader multi-case study: mean squares and the error of a difference.

Seeds are the readers, rows of a table the modalities (Dorfman, Berbaum and Metz 1992; Obuchowski and Rockette
1995; degrees of freedom after Hillis 2007). All rows share seeds and cases, so what a seed or a case does to
every row alike cancels, and all rows together estimate the spread that is left.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.special import fdtrc

#: A row leaves the pool where its spread is larger than the others' at this level, shared out over the rows.
UNEQUAL = 0.01


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


def mean_squares(scores: np.ndarray) -> MeanSquares:
    """Of scores [R, S, N] of one region; R, S and N at least 2."""
    rows, seeds, cases = scores.shape
    by_seed, by_case = _interactions(scores)
    residual = _centred(scores, (0, 1, 2))
    both = (rows - 1) * (seeds - 1)
    return MeanSquares(
        cases * float((by_seed**2).sum()) / both,
        seeds * float((by_case**2).sum()) / ((rows - 1) * (cases - 1)),
        float((residual**2).sum()) / (both * (cases - 1)),
        rows,
        seeds,
        cases,
    )


def unequal_rows(scores: np.ndarray) -> tuple[int, ...]:
    """Rows of scores [R, S, N] whose row×seed or row×case spread is larger than the others' (one region).

    Brown and Forsythe's test (1974) of each row beside the rest, the most different first, then again without
    it. Of two rows nothing can be said: what one has too much, the other has too little.
    """
    pool, apart = list(range(len(scores))), []
    while len(pool) > 2:
        by_seed, by_case = _interactions(scores[pool])
        chances = [min(_larger(by_seed, place), _larger(by_case, place)) for place in range(len(pool))]
        place = int(np.argmin(chances))
        if chances[place] >= UNEQUAL / (2 * len(pool)):
            break
        apart.append(pool.pop(place))
    return tuple(sorted(apart))


def _interactions(scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What is left of the means over cases [R, S] and over seeds [R, N] without row, seed and case."""
    return _centred(scores.mean(axis=2), (0, 1)), _centred(scores.mean(axis=1), (0, 1))


def _centred(values: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    for axis in axes:
        values = values - values.mean(axis=axis, keepdims=True)
    return values


def _larger(values: np.ndarray, place: int) -> float:
    """p of Brown and Forsythe's test that row `place` of [R, K] spreads as the rest; 1 if it spreads less."""
    distances = np.abs(values - np.median(values, axis=1, keepdims=True))
    own, others = distances[place], np.delete(distances, place, axis=0).ravel()
    gap = own.mean() - others.mean()
    within = ((own - own.mean()) ** 2).sum() + ((others - others.mean()) ** 2).sum()
    freedom = len(own) + len(others) - 2
    if gap <= 0 or not within:
        return 1.0
    between = gap**2 * len(own) * len(others) / (len(own) + len(others))
    return float(fdtrc(1, freedom, between / (within / freedom)))
