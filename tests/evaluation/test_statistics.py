"""Tests and intervals against scipy.stats, against enumeration, and by hand."""

from __future__ import annotations

import itertools
import subprocess
import sys

import numpy as np
import pytest
import scipy.stats

from acdis.evaluation.statistics import (
    EXACT_CASES,
    fewest_cases,
    holm,
    kendall,
    smallest_p,
    t_interval,
    wilcoxon,
)


def test_t_interval_by_hand() -> None:
    # mean 2, standard deviation 1, t(0.975, 2) = 4.302653 from a printed table
    low, high = t_interval(np.array([1.0, 2.0, 3.0])) or (None, None)
    assert high == pytest.approx(2 + 4.302653 / np.sqrt(3), abs=1e-5)
    assert low == pytest.approx(2 - 4.302653 / np.sqrt(3), abs=1e-5)


def test_t_interval_is_scipys_in_every_place() -> None:
    values = np.random.default_rng(0).normal(size=(5, 4, 2))
    low, high = t_interval(values) or (np.empty(0), np.empty(0))
    for place in np.ndindex(4, 2):
        column = values[(slice(None), *place)]
        wanted = scipy.stats.t.interval(0.95, 4, column.mean(), scipy.stats.sem(column))
        assert (low[place], high[place]) == pytest.approx(wanted)


def test_one_seed_has_no_spread() -> None:
    assert t_interval(np.array([[80.0, 70.0, 60.0]])) is None


def test_five_cases_can_never_give_less_than_0_0625() -> None:
    draw = np.random.default_rng(1)
    found = [wilcoxon(draw.normal(loc, 1, size=5)) for loc in (0, 1, 100) for _ in range(50)]
    assert min(found) == 0.0625 == smallest_p(5)
    assert wilcoxon(np.array([10.0, 20.0, 30.0, 40.0, 50.0])) == 0.0625


@pytest.mark.parametrize("count", range(1, 26))
def test_wilcoxon_without_ties_is_scipys_exact(count: int) -> None:
    for seed in range(5):
        values = np.random.default_rng([count, seed]).normal(0.3, 1, size=count)
        assert wilcoxon(values) == pytest.approx(scipy.stats.wilcoxon(values, method="exact").pvalue)


def _enumerated(values: np.ndarray) -> float:
    """All sign patterns of Pratt's ranks, one after the other."""
    ranks = scipy.stats.rankdata(np.abs(values))
    kept = [(rank, value > 0) for rank, value in zip(ranks, values, strict=True) if value]
    found = sum(rank for rank, positive in kept if positive)
    centre = sum(rank for rank, _ in kept) / 2
    patterns = itertools.product((0, 1), repeat=len(kept))
    sums = [sum(rank * sign for (rank, _), sign in zip(kept, signs, strict=True)) for signs in patterns]
    return sum(abs(each - centre) >= abs(found - centre) - 1e-9 for each in sums) / len(sums)


@pytest.mark.parametrize(
    "values",
    [
        [0, 1, 2, 3],
        [0, 0, 1, -1, 2],
        [1, 1, 1, 1, 1, 1],
        [1, -1, 2, -2, 3, 3, 0],
        [0.5, 0.5, -0.5, 2, 2, 2, 0, 0, 7],
    ],
)
def test_wilcoxon_with_ties_and_zeros_is_the_enumeration(values: list[float]) -> None:
    assert wilcoxon(np.array(values, dtype=float)) == pytest.approx(_enumerated(np.array(values)))


def test_zeros_are_cases_in_which_nothing_changed() -> None:
    # Pratt: the zero takes rank 1, so 2 and 3 are left: of 4 sign patterns 1 on each side is as extreme.
    assert wilcoxon(np.array([0.0, 1.0, 2.0])) == 0.5
    assert wilcoxon(np.zeros(8)) == 1.0


def test_noise_of_the_arithmetic_is_a_tie() -> None:
    assert wilcoxon(np.array([1e-15, -1e-16, 3e-14])) == 1.0
    assert wilcoxon(np.array([0.1 + 0.2, -0.3, 5.0])) == wilcoxon(np.array([0.3, -0.3, 5.0]))


def test_many_cases_take_the_normal_approximation() -> None:
    values = np.random.default_rng(3).normal(0.15, 1, size=EXACT_CASES + 1)
    wanted = scipy.stats.wilcoxon(values, zero_method="pratt", correction=True, method="approx").pvalue
    assert wilcoxon(values) == pytest.approx(wanted, rel=1e-6)
    assert wilcoxon(values[:-1]) == pytest.approx(wilcoxon(values), rel=0.3)


def test_holm_by_hand() -> None:
    # sorted 0.005, 0.01, 0.03, 0.04 times 4, 3, 2, 1: 0.02, 0.03, 0.06, 0.04 raised to 0.06
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([0.04]) == [0.04]
    assert holm([]) == []


def test_cases_below_which_nothing_can_be_said() -> None:
    # 2/2^5 = 0.0625 > 0.05 >= 2/2^6; for 15 tests 15/256 > 0.05 >= 15/512
    assert fewest_cases(1) == 6
    assert fewest_cases(15) == 10
    for tests in (1, 3, 15, 300):
        least = fewest_cases(tests)
        assert holm([smallest_p(least)] * tests)[0] <= 0.05 < holm([smallest_p(least - 1)] * tests)[0]


def test_kendall_by_hand_and_by_scipy() -> None:
    # Of the six pairs of 1 2 3 4 against 1 3 2 4 one is the other way round.
    assert kendall([1, 3, 2, 4], [10, 20, 30, 40]) == (pytest.approx(4 / 6), 5, 6)
    assert kendall([4, 3, 2, 1], [1, 2, 3, 4]) == (-1.0, 0, 6)
    draw = np.random.default_rng(0)
    for _ in range(20):
        ours, theirs = draw.integers(0, 5, size=(2, 9)).astype(float)
        found = kendall(ours, theirs)
        assert found is not None
        assert found[0] == pytest.approx(scipy.stats.kendalltau(ours, theirs).statistic)


def test_kendall_needs_an_order() -> None:
    assert kendall([1.0], [1.0]) is None
    assert kendall([], []) is None
    assert kendall([1.0, 1.0], [1.0, 2.0]) is None


def test_it_is_quick_to_import() -> None:
    code = (
        "import sys, acdis.evaluation.needed\n"
        "print([name for name in ('torch', 'monai', 'ray', 'mlflow', 'scipy.stats') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
