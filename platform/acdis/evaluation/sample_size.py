"""How many seeds or cases it would take, if a difference and the spreads of its table stayed what they are.

The mean squares hold a row×seed part (MS_TR − MS_E) / N, a row×case part (MS_TC − MS_E) / S and a residual
MS_E. With S' seeds and N' cases they would be N' and S' times these parts over the residual, which gives the
error and its degrees of freedom as in `mrmc`. A difference is found with a power of 80 % where it is at least
(t(1 − 0.05/2m) + t(0.8)) × its error; m is the number of questions asked (Holm's first step).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit

from acdis.evaluation.mrmc import MeanSquares
from acdis.evaluation.statistics import ALPHA, NOTHING

POWER = 0.8
#: Beyond these a number says no more than "not with data of this kind".
MOST_SEEDS, MOST_CASES = 30, 1000
#: Degrees of freedom with which t is the normal distribution.
NORMAL = 1e9


@dataclass(frozen=True)
class Needed:
    """What would settle a difference.

    Attributes:
        seeds: with the cases that there are; none: more than `MOST_SEEDS`.
        cases: with the seeds that there are; none: more than `MOST_CASES`.
        settled: the smallest difference, in points, that `MOST_SEEDS` seeds would find.
    """

    seeds: int | None
    cases: int | None
    settled: float


def needed(squares: MeanSquares, delta: float, tests: int) -> Needed:
    """For a difference of `delta` points that is one of `tests` questions."""
    seeds = np.arange(squares.seeds + 1, MOST_SEEDS + 1)
    cases = np.arange(squares.cases + 1, MOST_CASES + 1)
    by_seeds = seeds[smallest_found(squares, seeds, squares.cases, tests) <= abs(delta)]
    by_cases = cases[smallest_found(squares, squares.seeds, cases, tests) <= abs(delta)]
    return Needed(
        int(by_seeds[0]) if len(by_seeds) else None,
        int(by_cases[0]) if len(by_cases) else None,
        float(smallest_found(squares, max(MOST_SEEDS, squares.seeds), squares.cases, tests)),
    )


def smallest_found(
    squares: MeanSquares, seeds: int | np.ndarray, cases: int | np.ndarray, tests: int
) -> np.ndarray:
    """The smallest difference, in points, that so many seeds (at least 2) and cases find with the power."""
    row_seed = max(squares.row_seed - squares.residual, 0.0) * np.asarray(cases) / squares.cases
    row_case = max(squares.row_case - squares.residual, 0.0) * np.asarray(seeds) / squares.seeds
    seed_part = np.maximum(row_seed + squares.residual, NOTHING)
    total = seed_part + row_case
    freedom = np.minimum((squares.rows - 1) * (np.asarray(seeds) - 1) * (total / seed_part) ** 2, NORMAL)
    quantiles = stdtrit(freedom, 1 - ALPHA / (2 * tests)) + stdtrit(freedom, POWER)
    return np.asarray(quantiles * np.sqrt(2 * total / (np.asarray(seeds) * np.asarray(cases))))
