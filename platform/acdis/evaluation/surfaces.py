"""Distances between the surfaces of two masks, and what is read from them: HD95 and NSD.

MONAI's definitions (`tests/evaluation/test_lesionwise.py` compares the values): a surface is the voxels of a
mask with a face towards a voxel outside it, everything beyond the volume is outside, each counts the same.
MONAI's own functions fill a whole box with distances for each figure; here one search of neighbours among the
surfaces' voxels gives all figures, many times over in one case.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_erosion, find_objects
from scipy.spatial import KDTree


@dataclass(frozen=True)
class SurfaceDistances:
    """Mm from each voxel of one surface to the nearest of the other: [P] of the prediction's, [T]."""

    of_prediction: NDArray[np.float64]
    of_truth: NDArray[np.float64]

    def hd95(self) -> float:
        """The larger of the two directed 95th percentiles, mm."""
        return max(float(np.percentile(distances, 95)) for distances in (self.of_prediction, self.of_truth))

    def hd95_pooled(self) -> float:
        """The 95th percentile of both directions together, mm."""
        return float(np.percentile(np.concatenate([self.of_prediction, self.of_truth]), 95))

    def nsd(self, tolerance: float) -> float:
        """Share of both surfaces that is no further than `tolerance` mm from the other (Nikolov 2018)."""
        near = sum(
            np.count_nonzero(distances <= tolerance) for distances in (self.of_prediction, self.of_truth)
        )
        return float(near / (self.of_prediction.size + self.of_truth.size))


def surface_distances(
    prediction: NDArray[np.bool_], truth: NDArray[np.bool_], spacing: Sequence[float]
) -> SurfaceDistances:
    """Of two masks [D, H, W] that both hold voxels; `spacing` in mm along D, H, W.

    Raises:
        ValueError: a mask without a voxel.
    """
    if not (prediction.any() and truth.any()):
        raise ValueError("surface distances: both masks need a voxel")
    box = bounding_box(prediction | truth)
    predicted, true = surface(prediction[box]), surface(truth[box])
    return SurfaceDistances(_to(true, predicted, spacing), _to(predicted, true, spacing))


def bounding_box(mask: NDArray[np.bool_], margin: int = 0) -> tuple[slice, ...]:
    """Smallest box about a mask with voxels, `margin` voxels wider as far as the volume goes."""
    (tight,) = find_objects(mask.view(np.uint8))
    return tuple(slice(max(0, side.start - margin), side.stop + margin) for side in tight)


def surface(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Voxels of a mask with a face towards a voxel outside it."""
    return mask & ~binary_erosion(mask)


def _to(there: NDArray[np.bool_], here: NDArray[np.bool_], spacing: Sequence[float]) -> NDArray[np.float64]:
    """Of each voxel `here` to the nearest one `there`; what both share is at 0 and needs no search."""
    apart = here & ~there
    distances = np.zeros(np.count_nonzero(here))
    if apart.any():
        sides = np.asarray(spacing, dtype=np.float64)
        tree = KDTree(np.argwhere(there) * sides, balanced_tree=False, compact_nodes=False)
        nearest, _ = tree.query(np.argwhere(apart) * sides)
        distances[: np.size(nearest)] = nearest
    return distances
