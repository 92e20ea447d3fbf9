"""`statistics.compare`: on paper, against the ANOVA in plain loops, and in simulated tables."""

import itertools
import math

import numpy as np
import pytest
from scipy.stats import f, f_oneway, t, ttest_rel

from acdis.errors import UserError
from acdis.evaluation.mrmc import (
    MeanSquares,
    _centred,
    _larger,
    _ratio,
    mean_squares,
    uneven_rows,
    unsteady_rows,
)
from acdis.evaluation.statistics import compare, judged

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


@pytest.mark.parametrize(
    ("squares", "error", "freedom"),
    [
        # MS_TR below MS_E counts for MS_E: M = 4, v = 4; 2 rows, 2 seeds, 3 cases
        (MeanSquares(1.0, 3.0, 4.0, 2, 2, 3), math.sqrt(8 / 6), 1.0),
        # M = 4, v = 4 + (9 − 4) = 9; 3 rows, 2 seeds, 5 cases: df = 9² / (4² / 2)
        (MeanSquares(1.0, 9.0, 4.0, 3, 2, 5), math.sqrt(18 / 10), 81 / 8),
        # M = 6, v = 6; MS_TC below MS_E takes nothing away
        (MeanSquares(6.0, 1.0, 4.0, 3, 3, 5), math.sqrt(12 / 15), 4.0),
    ],
)
def test_the_floor_of_the_seeds_part(squares, error, freedom):
    assert squares.difference() == pytest.approx((error, freedom))


def by_hand(p_values):
    """Holm: the smallest times m, the next times m − 1, never below the one before."""
    adjusted, reached = {}, 0.0
    for step, place in enumerate(np.argsort(p_values)):
        reached = max(reached, min(1.0, (len(p_values) - step) * p_values[place]))
        adjusted[place] = reached
    return [adjusted[place] for place in range(len(p_values))]


def test_verdicts_are_those_of_three_tests_by_scipy():
    """Two-sided, and one-sided from either end of the margin, each corrected over the questions."""
    generator, seen = np.random.default_rng(14), set()
    for _ in range(80):
        spread = generator.choice([0.05, 0.2, 1.0]) * np.array(SPREAD)
        scores = table(generator, int(generator.integers(2, 5)), 3, int(generator.integers(5, 30)), spread)
        scores[1] += generator.choice([0, -0.9, 0.6, 1.5, -4])
        margin = float(generator.choice([0.5, 1.0, 2.0]))
        answers = compare(scores, margin=margin)
        laws = [t(answer.freedom, scale=answer.error) for answer in answers]
        pairs = list(zip(laws, [answer.delta for answer in answers], strict=True))
        differs = by_hand([2 * law.sf(abs(delta)) for law, delta in pairs])
        same = by_hand([max(law.sf(delta + margin), law.cdf(delta - margin)) for law, delta in pairs])
        for answer, one, other in zip(answers, differs, same, strict=True):
            due = "better" if answer.delta > 0 else "worse"
            due = due if one <= 0.05 else ("equal" if other <= 0.05 else "undecided")
            assert (answer.verdict, answer.p_adjusted) == (due, pytest.approx(one))
            seen.add(due)
    assert seen == {"better", "worse", "equal", "undecided"}


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


def test_scores_and_margins_that_are_none():
    scores = table(np.random.default_rng(5), 2, 3, 4)
    for margin in (0, -1, math.nan):
        with pytest.raises(UserError, match="above 0"):
            compare(scores, margin=margin)
    scores[1, 2, 3, 0] = math.inf
    with pytest.raises(UserError, match="a score is infinite"):
        compare(scores)


def test_missing_seed_and_case_are_left_out_for_all():
    scores = table(np.random.default_rng(6), 3, 4, 9)
    holes = scores.copy()
    holes[1, 2], holes[0, 1, 5, 2] = np.nan, np.nan
    assert compare(holes) == compare(np.delete(np.delete(scores, 2, axis=1), 5, axis=2))


def test_rows_that_spread_more_are_found_by_scipys_test():
    """Brown and Forsythe's test is an analysis of variance of the distances from the medians."""
    generator = np.random.default_rng(10)
    values = generator.normal(0, [[1.0], [1.0], [1.4], [0.7], [1.0]], (5, 30))
    for row, p in enumerate(_larger(values)):
        rest = np.delete(values - np.median(values, axis=1, keepdims=True), row, axis=0).ravel()
        own = values[row] - np.median(values[row])
        wanted = f_oneway(np.abs(own), np.abs(rest)).pvalue
        assert p == pytest.approx(wanted if np.abs(own).mean() > np.abs(rest).mean() else 1.0)


@pytest.mark.parametrize(("rows", "seeds"), [(3, 2), (5, 3), (6, 5)])
def test_rows_that_vary_more_over_seeds_are_found_by_an_exact_ratio(rows, seeds):
    """A row minus the mean of the others, over what these differ by among themselves: step by step, and F."""
    x = np.random.default_rng(11).normal(0, 1, (rows, seeds))
    for row, p in enumerate(_ratio(_centred(x, (0, 1)))):
        others = np.delete(x, row, axis=0)
        own = (x[row] - others.mean(axis=0)).var(ddof=1) / (1 + 1 / (rows - 1))
        left = others - others.mean(axis=0) - others.mean(axis=1, keepdims=True) + others.mean()
        freedom = (rows - 2) * (seeds - 1)
        assert p == pytest.approx(f.sf(own / ((left**2).sum() / freedom), seeds - 1, freedom))


@pytest.mark.parametrize(("seeds", "cases"), [(2, 16), (3, 16), (3, 2), (3, 3), (3, 5), (5, 40)])
def test_rows_that_spread_alike_seldom_leave_the_pool(seeds, cases):
    """In 5 % of the tables one does by chance, with three errors of 400 of them (3.3 points)."""
    generator = np.random.default_rng(12)
    tables = [table(generator, 4, seeds, cases) for _ in range(400)]
    assert np.mean([bool(unsteady_rows(scores) or uneven_rows(scores)) for scores in tables]) <= 0.083


def test_a_row_of_unsteady_seeds_leaves_the_pool_in_every_region():
    """Three seeds, eight points apart where the others' are half a point: no power is lost to it."""
    generator = np.random.default_rng(13)
    found, power, without = 0, [], []
    for _ in range(60):
        scores = table(generator, 6, 3, 100)
        scores[1] += 3
        without.append(compare(np.delete(scores, 5, axis=0))[1].verdict == "better")
        scores[5] += 8 * generator.standard_normal((3, 1, 3))
        answers = compare(scores)
        found += sum(answer.apart for answer in answers) == 3 == sum(answer.apart for answer in answers[-3:])
        power.append(answers[1].verdict == "better")
    assert found >= 55
    assert np.mean(power) >= np.mean(without) - 0.1


def test_identical_rows_stay_equal_beside_one_that_is_not():
    scores = np.repeat(table(np.random.default_rng(4), 1, 3, 5), 3, axis=0)
    scores[2] = table(np.random.default_rng(5), 1, 3, 5)[0]
    assert {(one.verdict, one.p) for one in compare(scores) if one.row == 1} == {("equal", 1.0)}


def test_a_row_that_collapses_leaves_the_pool():
    generator = np.random.default_rng(7)
    scores = table(generator, 6, 3, 100)
    quiet = compare(np.delete(scores, 3, axis=0))[0]
    scores[3] += 12 * generator.standard_normal((1, 100, 3)) - 20
    assert (unsteady_rows(scores), uneven_rows(scores)) == ((), (3,))
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


def test_one_seed_is_scipys_paired_test_over_patients():
    scores = table(np.random.default_rng(15), 3, 1, 9)
    for answer in compare(scores):
        place = ("WT", "TC", "ET").index(answer.region)
        found = ttest_rel(scores[answer.row, 0, :, place], scores[0, 0, :, place])
        low, high = found.confidence_interval()
        assert (answer.low, answer.high, answer.p) == pytest.approx((low, high, found.pvalue))
        assert answer.p > 0.001


def test_what_a_row_has_too_much_of_is_its_pairs_own():
    """Row 2 unsteady over seeds, row 4 uneven over cases: that part of the error is from its own differences,
    the other from all rows that are alike in it, itself among them."""
    generator = np.random.default_rng(16)
    scores = table(generator, 6, 3, 40)
    scores[2] += 9 * generator.standard_normal((3, 1, 3))
    scores[4] += 15 * generator.standard_normal((1, 40, 3))
    assert (unsteady_rows(scores), uneven_rows(scores)) == ((2,), (4,))
    answers = {(one.row, one.region): one for one in compare(scores)}
    tc = scores[..., 1]
    pool, unsteady, uneven = (mean_squares(tc[rows]) for rows in ([0, 1, 3, 5], [0, 2], [0, 4]))
    steady, even = (mean_squares(np.delete(tc, row, axis=0)) for row in (2, 4))
    for row, seeds, cases in ((1, pool, pool), (2, unsteady, even), (4, steady, uneven)):
        part = max(seeds.row_seed, seeds.residual)
        total = part + max(cases.row_case - cases.residual, 0)
        freedom = total**2 / (part**2 / ((seeds.rows - 1) * 2))
        answer = answers[row, "TC"]
        assert (answer.error, answer.freedom) == pytest.approx((math.sqrt(2 * total / 120), freedom))
        assert answer.apart == (row != 1)


def test_three_rows_of_which_two_are_apart():
    """No pool of both kinds is left; each part has the two rows that are alike in it."""
    generator = np.random.default_rng(17)
    scores = table(generator, 3, 4, 40)
    scores[1] += 60 * generator.standard_normal((4, 1, 3))
    scores[2] += 25 * generator.standard_normal((1, 40, 3))
    assert (unsteady_rows(scores), uneven_rows(scores)) == ((1,), (2,))
    answer = next(one for one in compare(scores) if (one.row, one.region) == (2, "TC"))
    seeds = mean_squares(scores[[0, 2]][..., 1])
    assert answer.squares is not None
    assert answer.squares.row_seed == pytest.approx(seeds.row_seed)


def test_what_stands_on_one_seed_is_a_family_of_its_own():
    """Beside answers on three seeds a tiny p over cases alone neither costs nor lends anything."""
    scores = table(np.random.default_rng(9), 3, 3, 40)
    scores[1] += 1.2
    three, one = compare(scores), compare(scores[:, :1])
    both = judged([*one, *three])
    assert both[6:] == three
    assert both[:6] == one
    assert {answer.verdict for answer in both[:6]} == {"one seed"}
