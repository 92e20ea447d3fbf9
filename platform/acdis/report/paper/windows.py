"""The mathematics of the figures: where to look in a case, and what local windows say. Pure functions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from acdis.evaluation import sliding
from acdis.losses.local_windows import blocks


class Place(NamedTuple):
    """A window of the evaluation and one axial slice of it.

    Attributes:
        start: its first voxel [D, H, W] in the case.
        at: the slice, counted from the window's first one.
    """

    start: tuple[int, int, int]
    at: int


class Extremes(NamedTuple):
    """The richest and the flattest window of a slice, by their first voxels (row, column).

    `at_tumour`: whether they were sought among the windows that hold tumour.
    """

    richest: tuple[int, int]
    flattest: tuple[int, int]
    at_tumour: bool


def most_tumour(labels: np.ndarray, brain: np.ndarray) -> int:
    """Index along the last axis of the slice with most tumour voxels; where there are none, with most brain.

    Args:
        labels: [D, H, W], 0 for no tumour.
        brain: bool [D, H, W].
    """
    tumour, inside = ((mask > 0).sum((0, 1)) for mask in (labels, brain))
    return int((tumour if tumour.any() else inside).argmax())


def best_place(
    labels: np.ndarray,
    brain: np.ndarray,
    window: Sequence[int],
    stride: Sequence[int],
    at: int | None = None,
) -> Place:
    """The evaluation's window with most tumour voxels (of equals the one with most brain), and its slice.

    Args:
        labels, brain: as for `most_tumour`, each side at least that of the window.
        window, stride: voxels along each axis.
        at: a slice that is to be shown, of the case: the window with most of the tumour in it; none: the
            slice of the window with most tumour.
    """
    starts = sliding.windows(labels.shape, window, stride)
    if at is not None:
        starts = [start for start in starts if start[2] <= at < start[2] + window[2]]

    def held(start: tuple[int, int, int]) -> tuple[int, int]:
        first, second, third = cut(start, window)
        here = (first, second, third if at is None else slice(at, at + 1))
        return tuple(int((mask[here] > 0).sum()) for mask in (labels, brain))  # type: ignore[return-value]

    start = max(starts, key=held)
    here = cut(start, window)
    return Place(start, most_tumour(labels[here], brain[here]) if at is None else at - start[2])


def cut(start: Sequence[int], window: Sequence[int]) -> tuple[slice, ...]:
    """The voxels of a window, as an index."""
    return tuple(slice(first, first + side) for first, side in zip(start, window, strict=True))


def window_map(a: Tensor, b: Tensor, window: int) -> Tensor:
    """|Eq. 2| of each local window, mean over channels, painted over the window's voxels: [D, H, W].

    Windows lie side by side, as in the losses, and statistics are unbiased (n - 1). With b = a it is the
    variance. NaN where a voxel is in no window of two voxels or more. No sigmoid is taken here.

    Args:
        a, b: [C, D, H, W].
        window: side in voxels, at least 2.
    """
    result = torch.full((1, 1, *a.shape[1:]), torch.nan, dtype=torch.float64)
    one, other = a[None].double().cpu(), b[None].double().cpu()
    for block in blocks(one, window, None):
        products = _deviations(block.of(one)) * _deviations(block.of(other))
        covariance = products.sum((4, 5, 6), keepdim=True) / (block.voxels - 1)
        block.of(result)[...] = covariance.abs().mean(-1, keepdim=True)
    return result[0, 0]


def _deviations(windows: Tensor) -> Tensor:
    """Of [B, nD, nH, nW, sD, sH, sW, C] from each window's mean."""
    return windows - windows.mean((4, 5, 6), keepdim=True)


def likeness(a: Tensor, b: Tensor, where: Tensor, window: int) -> float:
    """|correlation| of a and b, [D, H, W], in local windows: the ratio of Eq. 3 without its ε.

    Mean over the voxels `where` (bool [D, H, W]) says, of the value of each voxel's window; windows in which
    one of the two is flat are left out. NaN where nothing is left.
    """
    one, other = a[None], b[None]
    spread = window_map(one, one, window) * window_map(other, other, window)
    ratio = window_map(one, other, window) / spread.sqrt()
    return mean_where(ratio, where & (spread > 1e-16))


def mean_where(values: Tensor, where: Tensor) -> float:
    """Mean of the values that `where` marks and that are not NaN; NaN where there are none."""
    return float(values[where].nanmean()) if where.any() else float("nan")


def correlation(a: Tensor, b: Tensor, where: Tensor) -> float:
    """Pearson's r of a and b, [C, D, H, W], over the voxels `where` (bool [D, H, W]) and all channels."""
    one, other = (values[:, where].double().flatten() for values in (a, b))
    one, other = one - one.mean(), other - other.mean()
    return float((one * other).sum() / (one.square().sum() * other.square().sum()).sqrt())


def extremes(variance: np.ndarray, tumour: np.ndarray, brain: np.ndarray, window: int) -> Extremes:
    """The windows with the largest and the smallest mean variance over modalities, of the whole windows of a
    slice that hold tumour and are brain by half or more; where fewer than two are, of those that lie in the
    brain; where none does, of all.

    Args:
        variance: [M, H, W], painted by `window_map`; NaN counts as no window.
        tumour, brain: bool [H, W].
    """
    mean = variance.mean(0)
    rows, columns = (range(0, side - window + 1, window) or range(1) for side in mean.shape)
    every = [(row, column) for row in rows for column in columns if np.isfinite(mean[row, column])]
    share = {at: brain[cut(at, (window, window))].mean() for at in every}
    held = [at for at in every if share[at] >= 0.5 and tumour[cut(at, (window, window))].any()]
    inside = [at for at in every if share[at] == 1]
    at_tumour = len(held) > 1
    ranked = sorted(held if at_tumour else inside or every, key=lambda at: mean[at])
    return Extremes(ranked[-1], ranked[0], at_tumour)
