"""Ranks against scipy, by hand, and what the bootstrap of a ranking must do."""

import numpy as np
import pytest
from scipy.stats import rankdata

from acdis.evaluation.ranking import RESAMPLES, ranking, ranks


def test_ranks_are_scipys_with_ties_shared():
    scores = np.random.default_rng(0).integers(0, 4, size=(6, 5, 15, 3)) / 3
    assert ranks(scores) == pytest.approx(rankdata(-scores, axis=0, method="average"))
    noise = scores + 1e-14 * np.random.default_rng(1).standard_normal(scores.shape)
    assert ranks(noise) == pytest.approx(ranks(scores))


def _of(levels):
    """[R, N] as scores [R, N, 15, 3]."""
    return np.repeat(np.repeat(np.asarray(levels, float)[..., None, None], 15, axis=2), 3, axis=3)


def test_mean_ranks_by_hand():
    # Case 0: a first, b and c share 2 and 3. Case 1: c, b, a.
    found = ranking([_of([[0.9, 0.1], [0.5, 0.2], [0.5, 0.3]])], ["p", "q"])
    assert found.mean == pytest.approx([2.0, 2.25, 1.75])
    assert found.place.tolist() == [2, 3, 1]
    # Both scans of one patient, drawn together: nothing can change.
    alone = ranking([_of([[0.9, 0.1], [0.5, 0.2], [0.5, 0.3]])], ["p", "p"])
    assert (alone.low == alone.high).all()
    assert alone.first.tolist() == [0, 0, 1]


def test_the_bootstrap_is_that_of_a_plain_loop():
    draw = np.random.default_rng(2)
    seeds = [draw.random((4, 6, 15, 3)) for _ in range(3)]
    found = ranking(seeds, list("abcdef"))
    every = np.stack([rankdata(-scores, axis=0).mean(axis=(2, 3)) for scores in seeds])
    own, first = np.random.default_rng(3), 0
    for _ in range(3000):
        s, n = own.integers(3, size=3), own.integers(6, size=6)
        first += every[s][:, :, n].mean(axis=(0, 2)).argmin() == found.mean.argmin()
    share = found.first[found.mean.argmin()]
    assert share == pytest.approx(first / 3000, abs=4 * (0.25 / RESAMPLES + 0.25 / 3000) ** 0.5)
    assert (found.low <= found.place).all()
    assert (found.place <= found.high).all()


def test_a_row_that_is_best_everywhere_is_first_always():
    scores = _of([[0.2, 0.4, 0.6], [0.3, 0.5, 0.7], [0.3, 0.5, 0.7]])
    found = ranking([scores, scores], list("abc"))
    assert found.place.tolist() == [3, 1, 1]
    assert found.first.tolist() == [0, 1, 1]
    assert (found.low.tolist(), found.high.tolist()) == ([3, 1, 1], [3, 1, 1])
