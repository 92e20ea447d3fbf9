"""Scores of one case: Dice, the `dice_et500` variant and HD95 (METHOD.md, data protocol of the field).

Where MONAI's results fit METHOD.md and where not:

- HD95 of two masks that both hold voxels is MONAI's. When one or both are empty MONAI gives NaN or inf, which
  would drop out of a mean or poison it: here both empty is 0 and one empty is `HD95_ONE_EMPTY`.
- Dice is computed here: MONAI's `DiceMetric` has no 1e-8 above and below, gives NaN for an empty truth and
  leaves that case out of the mean, so a false positive on a case without ET would cost nothing.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from acdis.config import Evaluation
from acdis.evaluation.calibration import Counts, error
from acdis.evaluation.records import Record
from acdis.vocabulary import CLASSES, REGION_LABELS, REGIONS, SUBSETS, Subset, subset_name

Mask = NDArray[np.bool_]
Spacing = Sequence[float]

#: Added above and below in Dice (RFNet): both empty gives 1, an empty truth with a false positive about 0.
DICE_EPSILON = 1e-8

#: mm, HD95 when exactly one mask is empty: the diagonal of the BraTS volume, √(240² + 240² + 155²).
HD95_ONE_EMPTY = 373.13

#: How the two directions become one distance, in words.
HD95_CONVENTIONS = {
    "max": "the larger of the two directed 95th percentiles (MONAI)",
    "pooled": "the 95th percentile of both directions' distances together (medpy)",
}

#: Files' spacings are rounded (0.99999994 mm): 500 voxels of such a volume are still 500 mm³.
_VOLUME_TOLERANCE = 1e-5


def region_mask(labels: NDArray[Any], region: str) -> Mask:
    """Where labels (0..3, any shape) belong to a region: WT = {1, 2, 3}, TC = {1, 3}, ET = {3}."""
    member = np.zeros(len(CLASSES), dtype=bool)
    member[list(REGION_LABELS[region])] = True
    return member[labels]


def dice(prediction: Mask, truth: Mask) -> float:
    """(2 |P ∩ T| + 1e-8) / (|P| + |T| + 1e-8) of two masks of one shape (RFNet convention).

    Both empty gives 1; an empty truth with any false positive about 0.
    """
    overlap = np.count_nonzero(prediction & truth)
    voxels = np.count_nonzero(prediction) + np.count_nonzero(truth)
    return float((2 * overlap + DICE_EPSILON) / (voxels + DICE_EPSILON))


def hd95(prediction: Mask, truth: Mask, spacing: Spacing, convention: str = "max") -> float:
    """95th percentile Hausdorff distance in mm of two masks [D, H, W].

    Between surfaces: voxels of the mask with a face towards a voxel outside it, where everything beyond the
    volume is outside. Both empty gives 0, one empty `HD95_ONE_EMPTY`.

    Args:
        spacing: mm per voxel along D, H, W.
        convention: `max`, the larger of the two directed 95th percentiles (MONAI's definition), or `pooled`,
            the 95th percentile of the distances of both directions together (medpy's).
    """
    empty = (not prediction.any(), not truth.any())
    if any(empty):
        return 0.0 if all(empty) else HD95_ONE_EMPTY
    if convention == "pooled":
        from acdis.evaluation.surfaces import surface_distances  # scipy: reports read this module without

        return surface_distances(prediction, truth, spacing).hd95_pooled()
    from monai.metrics import compute_hausdorff_distance  # takes seconds to import

    box = _bounding_box(prediction | truth)
    pair = (mask[box][None, None] for mask in (prediction, truth))
    with warnings.catch_warnings():  # MONAI warns of an argument that it gives to itself
        warnings.filterwarnings("ignore", "monai.metrics.utils", FutureWarning)
        return float(
            compute_hausdorff_distance(*pair, include_background=True, percentile=95, spacing=list(spacing))
        )


def _bounding_box(mask: Mask) -> tuple[slice, ...]:
    """Smallest box that holds every voxel of a mask that has some."""
    box = []
    for axis in range(mask.ndim):
        others = tuple(other for other in range(mask.ndim) if other != axis)
        filled = np.flatnonzero(mask.any(axis=others))
        box.append(slice(int(filled[0]), int(filled[-1]) + 1))
    return tuple(box)


def empty_if_small(prediction: Mask, minimum: float, voxel_volume: float) -> Mask:
    """The mask, or an empty one if it holds less than `minimum` mm³; `voxel_volume` in mm³.

    RFNet empties a predicted ET of fewer than 500 voxels at 1 mm; 500 itself stays.
    """
    small = is_small(int(np.count_nonzero(prediction)), minimum, voxel_volume)
    return np.zeros_like(prediction) if small else prediction


def is_small(voxels: int, minimum: float, voxel_volume: float) -> bool:
    """Whether so many voxels of `voxel_volume` mm³ are less than `minimum` mm³."""
    return voxels * voxel_volume < minimum * (1 - _VOLUME_TOLERANCE)


def score_case(
    name: str,
    predictions: Iterable[ArrayLike],
    truth: ArrayLike,
    spacing: Spacing,
    evaluation: Evaluation,
    subsets: Sequence[Subset] = SUBSETS,
    patient: str = "",
) -> list[Record]:
    """Scores of one case, every subset × region, at the spacing of `truth`.

    Args:
        name: of the case, for the records.
        predictions: one per subset in the order of `subsets`: probabilities [4, D, H, W], of which the argmax
            is taken, or integer labels [D, H, W]. An array [S, 4, D, H, W] or [S, D, H, W] will do, and so
            will a generator, which keeps one subset's volume in memory at a time.
        truth: labels 0..3 [D, H, W].
        spacing: mm per voxel along D, H, W.
        evaluation: whether HD95 and what further metrics are wanted, and the smallest ET of `dice_et500` in
            mm³. Calibration is not scored here: `scoring.score` does, where probabilities are the case's own.
        patient: who was scanned, for the records; none: the case itself.

    Raises:
        ValueError: shapes that differ, labels other than 0..3, probabilities that are not finite, a spacing
            that is not positive, or not one prediction per subset.
    """
    case = CaseTruth(name, truth, spacing, patient)
    pairs = zip(subsets, predictions, strict=True)
    return [record for subset, prediction in pairs for record in case.score(subset, prediction, evaluation)]


class CaseTruth:
    """What the predictions of one case are scored against, checked once; arguments as of `score_case`."""

    def __init__(self, name: str, truth: ArrayLike, spacing: Spacing, patient: str = "") -> None:
        if len(spacing) != 3 or not all(math.isfinite(side) and side > 0 for side in spacing):
            raise ValueError(
                f"case {name}: spacing must be three positive lengths in mm, got {tuple(spacing)}"
            )
        labels = _labels(truth, f"case {name}, truth")
        self.name, self.spacing, self.patient, self.shape = name, spacing, patient, labels.shape
        self._regions = {region: region_mask(labels, region) for region in REGIONS}

    def score(
        self,
        subset: Subset,
        prediction: ArrayLike,
        evaluation: Evaluation,
        calibration: Counts | None = None,
    ) -> list[Record]:
        """Scores of one subset's prediction, region by region.

        Args:
            calibration: [3, 3, BINS], `calibration.counts` of each region; none: labels alone are known.
        """
        labels = _labels(prediction, f"case {self.name}, {subset_name(subset)}")
        if labels.shape != self.shape:
            raise ValueError(
                f"case {self.name}: predicted {labels.shape} voxels where truth has {self.shape}"
            )
        records = []
        for place, (region, truth) in enumerate(self._regions.items()):
            pair = region_mask(labels, region), truth
            of_bins = None if calibration is None else calibration[place]
            about = self.spacing, evaluation, self.patient, of_bins
            records.append(_score(self.name, subset, region, pair, *about))
        return records


def _score(
    name: str,
    subset: Subset,
    region: str,
    pair: tuple[Mask, Mask],
    spacing: Spacing,
    evaluation: Evaluation,
    patient: str,
    calibration: Counts | None,
) -> Record:
    prediction, truth = pair
    voxel_volume = math.prod(float(side) for side in spacing)
    kept = empty_if_small(prediction, evaluation.et_minimum, voxel_volume) if region == "ET" else None
    further: dict[str, Any] = {}
    if evaluation.metrics:
        from acdis.evaluation.named_metrics import named  # scipy: reports read these names without it

        further = named(evaluation.metrics, prediction, truth, spacing)
    if calibration is not None:
        further |= {"ece": float(error(calibration)), "calibration": tuple(calibration.ravel().tolist())}
    return Record(
        case=name,
        subset=subset_name(subset),
        region=region,
        dice=dice(prediction, truth),
        dice_et500=None if kept is None else dice(kept, truth),
        hd95=hd95(prediction, truth, spacing, evaluation.hd95_convention) if evaluation.hd95 else None,
        predicted_voxels=int(np.count_nonzero(prediction)),
        truth_voxels=int(np.count_nonzero(truth)),
        voxel_volume=voxel_volume,
        patient=patient,
        hd95_convention=None if evaluation.hd95_convention == "max" else evaluation.hd95_convention,
        **further,
    )


def _labels(volume: ArrayLike, what: str) -> NDArray[np.intp]:
    """Labels [D, H, W] from labels, or from probabilities [4, D, H, W] by argmax; `what` is for errors."""
    array = np.asarray(volume)
    if array.ndim == 4 and len(array) == len(CLASSES):
        if not np.isfinite(array).all():
            raise ValueError(f"{what}: probabilities are not finite")
        return array.argmax(axis=0)
    if array.ndim != 3 or not np.issubdtype(array.dtype, np.integer):
        raise ValueError(f"{what}: needs [4, D, H, W] or integers [D, H, W], got {array.dtype} {array.shape}")
    if array.size and not (array.min() >= 0 and array.max() < len(CLASSES)):
        raise ValueError(
            f"{what}: labels {array.min()} to {array.max()}, where 0 to {len(CLASSES) - 1} is due"
        )
    return array
