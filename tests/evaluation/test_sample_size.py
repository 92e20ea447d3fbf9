"""Numbers of seeds and cases: by a plain search, by their own promise in simulations, and capped."""

import math

import numpy as np
import pytest
from scipy.stats import t

from acdis.evaluation.mrmc import MeanSquares, mean_squares
from acdis.evaluation.sample_size import MOST_CASES, MOST_SEEDS, Needed, needed, smallest_found
from acdis.evaluation.statistics import compare
from acdis.vocabulary import REGIONS


def _found(parts, rows, seeds, cases, tests):
    """Smallest difference from the parts row×seed, row×case and residual, one number after the other."""
    row_seed, row_case, residual = parts
    seed_part = cases * row_seed + residual
    total = seed_part + seeds * row_case
    law = t((total / seed_part) ** 2 * (rows - 1) * (seeds - 1))
    return (law.ppf(1 - 0.025 / tests) + law.ppf(0.8)) * math.sqrt(2 * total / (seeds * cases))


def test_the_first_number_that_a_plain_search_finds():
    parts, rows, seeds, cases, tests = (0.5, 9.0, 25.0), 4, 3, 40, 9
    squares = MeanSquares(cases * 0.5 + 25, seeds * 9.0 + 25, 25.0, rows, seeds, cases)
    delta = 3.4
    by_seeds = next(s for s in range(4, 99) if _found(parts, rows, s, cases, tests) <= delta)
    by_cases = next(n for n in range(41, 999) if _found(parts, rows, seeds, n, tests) <= delta)
    assert needed(squares, -delta, tests) == Needed(
        by_seeds, by_cases, pytest.approx(_found(parts, rows, 30, cases, tests))
    )
    assert 3 < by_seeds < 30
    assert 40 < by_cases < 1000


def test_never_more_than_the_caps():
    squares = MeanSquares(400.0, 40.0, 30.0, 6, 3, 16)
    one = needed(squares, 0.7, 15)  # asked for 8,851 seeds once
    assert (one.seeds, one.cases) == (None, None)
    assert one.settled == pytest.approx(float(smallest_found(squares, 30, 16, 15)))
    assert needed(squares, 0.0, 15).seeds is None
    assert (MOST_SEEDS, MOST_CASES) == (30, 1000)


def test_a_table_without_spread():
    assert needed(MeanSquares(0.0, 0.0, 0.0, 2, 2, 2), 1.0, 3) == Needed(3, 3, pytest.approx(0, abs=1e-4))


def test_the_number_keeps_its_promise():
    """200 tables with the seeds that it says: four of five find the difference (within three errors)."""
    draw = np.random.default_rng(3)
    row_seed, row_case, residual, cases, rows = 0.8, 4.0, 5.0, 40, 4
    squares = MeanSquares(
        cases * row_seed**2 + residual**2, 3 * row_case**2 + residual**2, residual**2, rows, 3, cases
    )
    seeds = needed(squares, 3.0, 1).seeds
    assert seeds is not None
    hits = []
    for _ in range(200):
        scores = (
            row_seed * draw.standard_normal((rows, seeds, 1, 3))
            + row_case * draw.standard_normal((rows, 1, cases, 3))
            + residual * draw.standard_normal((rows, seeds, cases, 3))
        )
        scores[1] += 3.0
        (answer,) = compare(scores, family=[(1, REGIONS[0])])
        hits.append(answer.verdict == "better")
    assert 0.72 <= np.mean(hits) <= 0.95


def test_what_is_undecided_is_never_answered_by_what_there_is():
    """At the seeds and cases of the table itself the same error stands behind test and number."""
    scores = np.random.default_rng(4).normal(0, 5, (3, 3, 10, 3))
    squares = mean_squares(scores[..., 0])
    error, freedom = squares.difference()
    wanted = (t(freedom).ppf(0.975) + t(freedom).ppf(0.8)) * error
    assert smallest_found(squares, 3, 10, 1) == pytest.approx(wanted)
