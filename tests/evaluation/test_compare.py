"""`statistics.compare`: on paper, against the ANOVA in plain loops, and in simulated tables."""

import itertools
import math

import numpy as np
import pytest
from scipy.stats import t

from acdis.errors import UserError
from acdis.evaluation.mrmc import mean_squares, unequal_rows
from acdis.evaluation.statistics import compare

# Seed, row×seed, row×case, residual, in points (TC).
SPREAD = (0.5, 0.4, 4.0, 5.0)


def table(generator, rows, seeds, cases, spread=SPREAD):
    seed, row_seed, row_case, residual = spread
    draw = generator.standard_normal
    return (
        70
        + 15 * draw((1, 1, cases, 3))
        + seed * draw((1, seeds, 1, 3))
        + row_seed * draw((rows, seeds, 1, 3))
        + row_case * draw((rows, 1, cases, 3))
        + residual * draw((rows, seeds, cases, 3))
    )


def test_worked_by_hand():
    """Row 0: all zero; row 1: first seed (1 2 3), second (3 2 7). Each effect is ± half of a difference's.

    By seed 2 and 4, halves from 3: ±0.5. MS_TR = 3 × (4 × 0.25) / (1 × 1) = 3.
    By case 2, 2 and 5, halves from 3: 0.5, 0.5, 1. MS_TC = 2 × 2 × (0.25 + 0.25 + 1) / (1 × 2) = 3.
    What is left: (0 1 −1), (0 −1 1), halved. MS_E = 2 × (4 × 0.25) / (1 × 1 × 2) = 1.
    v = 3 + (3 − 1) = 5, se = sqrt(2 × 5 / 6), df = 5² / 3².
    """
    scores = np.array([[[0, 0, 0], [0, 0, 0]], [[1, 2, 3], [3, 2, 7]]], dtype=float)
    squares = mean_squares(scores)
    assert (squares.row_seed, squares.row_case, squares.residual) == pytest.approx((3, 3, 1))
    assert squares.difference() == pytest.approx((math.sqrt(5 / 3), 25 / 9))
    answer = compare(np.repeat(scores[..., None], 3, axis=3))[0]
    half = t.ppf(0.975, 25 / 9) * math.sqrt(5 / 3)
    assert (answer.delta, answer.low, answer.high) == pytest.approx((3, 3 - half, 3 + half))
    assert answer.p == pytest.approx(2 * t.sf(3 / math.sqrt(5 / 3), 25 / 9))


def test_agrees_with_anova_in_loops():
    x = table(np.random.default_rng(1), 4, 3, 7)[..., 0]
    rows, seeds, cases = x.shape
    row_seed = row_case = residual = 0.0
    for r, s in itertools.product(range(rows), range(seeds)):
        row_seed += cases * (x[r, s].mean() - x[r].mean() - x[:, s].mean() + x.mean()) ** 2
    for r, n in itertools.product(range(rows), range(cases)):
        row_case += seeds * (x[r, :, n].mean() - x[r].mean() - x[:, :, n].mean() + x.mean()) ** 2
    for r, s, n in itertools.product(range(rows), range(seeds), range(cases)):
        pairs = x[r, s].mean() + x[r, :, n].mean() + x[:, s, n].mean()
        singles = x[r].mean() + x[:, s].mean() + x[:, :, n].mean()
        residual += (x[r, s, n] - pairs + singles - x.mean()) ** 2
    squares = mean_squares(x)
    assert squares.row_seed == pytest.approx(row_seed / (3 * 2))
    assert squares.row_case == pytest.approx(row_case / (3 * 6))
    assert squares.residual == pytest.approx(residual / (3 * 2 * 6))


def test_scans_of_a_patient_are_one():
    scores = table(np.random.default_rng(2), 3, 3, 8)
    twice = np.concatenate([scores + 1, scores - 1], axis=2)
    names = [f"p{place}" for place in range(8)]
    for one, other in zip(compare(scores), compare(twice, patients=names * 2), strict=True):
        assert (one.low, one.high, one.p) == pytest.approx((other.low, other.high, other.p))
        assert other.patients == 8
    assert compare(twice, patients=())[0].patients == 16


@pytest.mark.parametrize(
    ("gain", "spread", "verdict"),
    [
        (9, SPREAD, "better"),
        (-9, SPREAD, "worse"),
        (0, (0.1, 0.02, 0.1, 0.2), "equal"),
        (0.5, SPREAD, "undecided"),
    ],
)
def test_verdicts(gain, spread, verdict):
    scores = table(np.random.default_rng(3), 3, 3, 60, spread)
    scores[1] += gain - (scores[1] - scores[0]).mean(axis=(0, 1))
    assert {answer.verdict for answer in compare(scores) if answer.row == 1} == {verdict}
    one = compare(scores[:, :1])
    assert {answer.verdict for answer in one} == {"one seed"}


def test_identical_rows_are_equal():
    scores = np.repeat(table(np.random.default_rng(4), 1, 3, 5), 2, axis=0)
    assert {(answer.verdict, answer.p) for answer in compare(scores)} == {("equal", 1.0)}


def test_family():
    scores = table(np.random.default_rng(5), 3, 3, 20)
    scores[2] += 2
    (answer,) = compare(scores, family=[(2, "TC", 1)])
    assert answer.p_adjusted == answer.p
    assert (answer.row, answer.against, answer.region) == (2, 1, "TC")
    assert len(compare(scores)) == 6
    with pytest.raises(UserError, match="one of WT, TC, ET"):
        compare(scores, family=[(2, "XX")])


def test_missing_seed_and_case_are_left_out_for_all():
    scores = table(np.random.default_rng(6), 3, 4, 9)
    holes = scores.copy()
    holes[1, 2], holes[0, 1, 5, 2] = np.nan, np.nan
    assert compare(holes) == compare(np.delete(np.delete(scores, 2, axis=1), 5, axis=2))


def test_a_row_that_collapses_leaves_the_pool():
    generator = np.random.default_rng(7)
    scores = table(generator, 6, 3, 100)
    quiet = compare(np.delete(scores, 3, axis=0))[0]
    scores[3] += 12 * generator.standard_normal((1, 100, 3)) - 20
    assert unequal_rows(scores[..., 0]) == (3,)
    answers = {(answer.row, answer.region): answer for answer in compare(scores)}
    assert answers[3, "WT"].apart
    assert not answers[1, "WT"].apart
    assert answers[1, "WT"].error == pytest.approx(quiet.error)


@pytest.mark.parametrize(("rows", "cases"), [(2, 100), (3, 16), (6, 100)])
def test_false_alarms_and_coverage(rows, cases):
    """300 null tables: 5 % and 95 %, each with three errors of the simulation (3.8 points)."""
    generator = np.random.default_rng(8)
    tables = [compare(table(generator, rows, 3, cases)) for _ in range(300)]
    assert np.mean([min(one.p_adjusted for one in answers) <= 0.05 for answers in tables]) <= 0.088
    assert np.mean([one.low <= 0 <= one.high for answers in tables for one in answers]) >= 0.935
