"""Intervals, Holm and Kendall against scipy.stats and by hand."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import scipy.stats

from acdis.evaluation.statistics import LEAST_P, compare, holm, kendall, t_interval


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


def test_holm_by_hand() -> None:
    # sorted 0.005, 0.01, 0.03, 0.04 times 4, 3, 2, 1: 0.02, 0.03, 0.06, 0.04 raised to 0.06
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([0.04]) == [0.04]
    assert holm([]) == []


def test_no_p_is_zero() -> None:
    """Rows that differ by a constant, or by more than any t table holds."""
    same = np.random.default_rng(0).normal(50, 5, size=(1, 3, 6, 3))
    for answer in compare(np.concatenate([same, same + 10, same - 1e9])):
        assert LEAST_P <= answer.p <= answer.p_adjusted <= 1e-9


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
        "import sys, acdis.evaluation.sample_size\n"
        "print([name for name in ('torch', 'monai', 'ray', 'mlflow', 'scipy.stats') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
