"""Where figures look, and what local windows say: against loops in NumPy and cases made by hand."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from acdis.losses import consistency
from acdis.report.paper.windows import (
    best_place,
    correlation,
    extremes,
    likeness,
    mean_where,
    most_tumour,
    window_map,
)

SHAPE = (3, 7, 11, 6)  # channels, and sides that 5 does not divide; 6 leaves windows of one voxel a side


def _pair(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    a = torch.randn(SHAPE, generator=generator)
    return a, 0.5 * a + torch.randn(SHAPE, generator=generator)


def _places(shape: tuple[int, ...], side: int) -> Iterator[tuple[slice, ...]]:
    for start in itertools.product(*(range(0, length, side) for length in shape)):
        yield tuple(slice(at, at + side) for at in start)


def _by_loops(a: torch.Tensor, b: torch.Tensor, side: int) -> np.ndarray:
    """|covariance| per window by `np.cov`, mean over channels."""
    painted = np.full(a.shape[1:], np.nan)
    for place in _places(a.shape[1:], side):
        one, other = (f.double().numpy()[(slice(None), *place)].reshape(len(f), -1) for f in (a, b))
        if one.shape[1] > 1:
            painted[place] = np.mean([abs(np.cov(x, y)[0, 1]) for x, y in zip(one, other, strict=True)])
    return painted


@pytest.mark.parametrize("side", [2, 3, 5, 20])
def test_a_map_of_windows_is_numpys_covariance(side: int) -> None:
    a, b = _pair()
    np.testing.assert_allclose(window_map(a, b, side), _by_loops(a, b, side), rtol=1e-9)
    np.testing.assert_allclose(window_map(a, a, side), _by_loops(a, a, side), rtol=1e-9)


def test_a_window_of_one_voxel_is_none() -> None:
    f = torch.zeros(1, 6, 6, 6)
    assert window_map(f, f, 5).isnan().sum() == 1


def test_the_maps_are_those_of_the_losses() -> None:
    """1 - |σ_ab| / (σ_a σ_b) of one channel, mean over windows, is L_Covar of features before the sigmoid."""
    a, b = (f[:1, :5, :10, :5] for f in _pair())
    one, other = a.sigmoid(), b.sigmoid()
    ratio = window_map(one, other, 5) / (window_map(one, one, 5) * window_map(other, other, 5)).sqrt()
    loss = consistency.covariance_loss(a[None], b[None], 5)
    assert 1 - float(ratio.mean()) == pytest.approx(float(loss), abs=1e-4)  # ε is 1e-6 beside σσ of 0.04


def test_likeness_is_the_mean_correlation_of_windows() -> None:
    a, b = (f[0] for f in _pair())
    where = torch.zeros(a.shape, dtype=torch.bool)
    where[:, 2:9, :4] = True
    painted = np.full(a.shape, np.nan)
    for place in _places(tuple(a.shape), 5):
        one, other = a[place].flatten().numpy(), b[place].flatten().numpy()
        if len(one) > 1:
            painted[place] = abs(np.corrcoef(one, other)[0, 1])
    assert likeness(a, b, where, 5) == pytest.approx(float(np.nanmean(painted[where.numpy()])), rel=1e-6)
    assert likeness(a, -3 * a + 1, where, 5) == pytest.approx(1)


def test_flat_windows_have_no_likeness() -> None:
    a, _ = _pair()
    everywhere = torch.ones(a.shape[1:], dtype=torch.bool)
    assert np.isnan(likeness(a[0], torch.ones_like(a[0]), everywhere, 5))
    half = a[0].clone()
    half[:5] = 0.1
    assert likeness(a[0], half, everywhere, 5) == pytest.approx(1)  # of the windows that are left


def test_correlation_is_numpys_over_the_voxels_marked() -> None:
    a, b = _pair()
    where = a[0] > 0
    chosen = [f.numpy()[:, where.numpy()].ravel() for f in (a, b)]
    assert correlation(a, b, where) == pytest.approx(np.corrcoef(*chosen)[0, 1], rel=1e-6)


def test_a_mean_leaves_nan_out() -> None:
    values = torch.tensor([1.0, torch.nan, 3.0, 9.0])
    assert mean_where(values, torch.tensor([True, True, True, False])) == 2
    assert np.isnan(mean_where(values, torch.zeros(4, dtype=torch.bool)))


def test_the_slice_with_most_tumour() -> None:
    labels, brain = np.zeros((4, 4, 6), np.uint8), np.zeros((4, 4, 6), bool)
    brain[:2, :, 1] = True
    assert most_tumour(labels, brain) == 1
    labels[0, 0, 3] = 3
    labels[1:3, 0, 4] = 1  # two voxels; the sum of labels is the smaller one
    assert most_tumour(labels, brain) == 4


def test_the_window_with_most_tumour_and_then_with_most_brain() -> None:
    labels, brain = np.zeros((12, 8, 8), np.uint8), np.zeros((12, 8, 8), bool)
    brain[6:] = True
    assert best_place(labels, brain, (8, 8, 8), (2, 8, 8)) == ((4, 0, 0), 0)
    labels[5, 4, 6] = 1  # in every window
    assert best_place(labels, brain, (8, 8, 8), (2, 8, 8)) == ((4, 0, 0), 6)
    labels[0, 4, 2:4] = 2
    assert best_place(labels, brain, (8, 8, 8), (2, 8, 8)) == ((0, 0, 0), 2)


def test_a_slice_that_is_asked_for_is_shown_where_most_of_its_tumour_is() -> None:
    labels, brain = np.zeros((12, 8, 12), np.uint8), np.ones((12, 8, 12), bool)
    labels[0, :, 2] = 1  # most of all, in another slice
    labels[11, 3, 9] = 2
    place = best_place(labels, brain, (8, 8, 8), (4, 8, 4), at=9)
    assert place == ((4, 0, 4), 5)
    assert best_place(labels, brain, (8, 8, 8), (4, 8, 4), at=2).start[0] == 0
    brain[:4] = False
    assert best_place(labels, brain, (8, 8, 8), (4, 8, 4), at=11) == ((4, 0, 4), 7)  # no tumour: most brain


def test_the_richest_and_the_flattest_window_lie_in_the_brain() -> None:
    variance = np.repeat(np.repeat(np.arange(9.0).reshape(3, 3), 5, 0), 5, 1)[None, :14].repeat(2, 0)
    brain, none = np.ones((14, 15), bool), np.zeros((14, 15), bool)
    assert extremes(variance, none, brain, 5) == ((5, 10), (0, 0), False)  # the last row of windows is cut
    brain[0, 0] = brain[9, 14] = False
    assert extremes(variance, none, brain, 5) == ((5, 5), (0, 5), False)
    assert extremes(variance, none, none, 5) == ((5, 10), (0, 0), False)  # no brain: any window
    variance[:, 5:10, 10:] = np.nan
    assert extremes(variance, none, none, 5) == ((5, 5), (0, 0), False)


def test_the_richest_and_the_flattest_window_are_sought_at_the_tumour() -> None:
    """Windows of 5 count 0 to 8 row by row; the tumour reaches into 4, 5 and 7, each by a corner."""
    variance = np.repeat(np.repeat(np.arange(9.0).reshape(3, 3), 5, 0), 5, 1)[None].repeat(4, 0)
    brain, tumour = np.ones((15, 15), bool), np.zeros((15, 15), bool)
    tumour[9:11, 9:10] = tumour[9, 10] = True
    assert extremes(variance, tumour, brain, 5) == ((10, 5), (5, 5), True)
    variance[:, 10:, 5:10] = np.nan  # no window: the next one
    assert extremes(variance, tumour, brain, 5) == ((5, 10), (5, 5), True)
    outside = brain.copy()
    outside[6:10, 10:] = False  # 20 of the window's 25 voxels: hardly any brain
    assert extremes(variance, tumour, outside, 5).at_tumour is False
    only = np.zeros_like(tumour)
    only[7, 7] = True  # in one window alone: there would be nothing to compare
    assert extremes(variance, only, brain, 5) == ((10, 10), (0, 0), False)
