"""Whether predicted probabilities mean what they say: how often voxels of a probability are of the region.

The counts by bin are what scoring keeps of a probability map: the reliability curve (DeGroot and Fienberg
1983) and the expected calibration error (Naeini et al. 2015) of any cases together come from their sums.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

#: Of equal width, from 0 to 1; a bin holds its lower edge, the last one 1 as well.
BINS = 10
#: Numbers of a record: voxels, sum of their probabilities and voxels of the truth, bin by bin.
NUMBERS = 3 * BINS

Counts = NDArray[np.float64]


def counts(probability: NDArray[np.floating], truth: NDArray[np.bool_]) -> Counts:
    """[3, BINS] of one region: voxels, the sum of their probabilities, and how many are of the region.

    Args:
        probability: of the region, 0 to 1, of any shape.
        truth: of the same shape.

    Raises:
        ValueError: shapes that differ, or a probability that is none.
    """
    if probability.shape != truth.shape:
        raise ValueError(f"probabilities of {probability.shape} where truth has {truth.shape} voxels")
    flat = np.ravel(probability)
    if flat.size and not (flat.min() >= 0 and flat.max() <= 1):
        raise ValueError(f"probabilities from {flat.min()} to {flat.max()}, where 0 to 1 is due")
    bins = np.minimum((flat * BINS).astype(np.uint8), BINS - 1)
    sums = (None, flat, np.ravel(truth))
    return np.stack([np.bincount(bins, weights, BINS).astype(np.float64) for weights in sums])


def error(of_bins: Counts) -> NDArray[np.float64]:
    """Expected calibration error, 0 to 1, of counts [..., 3, BINS]: [...].

    The mean over voxels of |mean probability − share of the region| of their bin; 0 without voxels.
    """
    voxels, predicted, true = np.moveaxis(of_bins, -2, 0)
    total = voxels.sum(axis=-1)
    apart = np.abs(predicted - true).sum(axis=-1)
    return np.asarray(np.divide(apart, total, out=np.zeros_like(total), where=total > 0))


def curve(of_bins: Counts) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean probability and share of the region in each bin, of counts [..., 3, BINS]; NaN in empty ones."""
    voxels, predicted, true = np.moveaxis(of_bins, -2, 0)
    nothing = np.full_like(voxels, np.nan)
    mean, share = (
        np.divide(sums, voxels, out=nothing.copy(), where=voxels > 0) for sums in (predicted, true)
    )
    return mean, share
