"""Further scores of one region of one case, by their names in `evaluation.metrics` (docs/metrics.md)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from acdis.evaluation.lesionwise import RULES, instance_scores, lesion_scores
from acdis.evaluation.surfaces import surface_distances
from acdis.vocabulary import NAMED_METRICS

Mask = NDArray[np.bool_]


def named(names: Iterable[str], prediction: Mask, truth: Mask, spacing: Sequence[float]) -> dict[str, float]:
    """Value by metric, for all metrics that `names` give, of two masks [D, H, W].

    Args:
        names: keys of `vocabulary.NAMED_METRICS`. Masks do not tell `calibration`, which gives nothing here.
        spacing: mm per voxel along D, H, W.
    """
    values: dict[str, float] = {}
    for name in names:
        if name == "calibration":
            continue
        values |= zip(NAMED_METRICS[name], _values(name, prediction, truth, spacing), strict=True)
    return values


def _values(name: str, prediction: Mask, truth: Mask, spacing: Sequence[float]) -> tuple[float, ...]:
    if name in RULES:
        lesions = lesion_scores(prediction, truth, spacing, RULES[name])
        counts = float(lesions.found), float(lesions.missed), float(lesions.false)
        return lesions.dice, lesions.hd95, *counts
    if name == "brats2026":
        instances = instance_scores(prediction, truth, spacing)
        return instances.dice, instances.nsd, instances.hd95, instances.f1
    if name == "nsd":
        return nsd(prediction, truth, spacing, (1.0, 2.0))
    if name == "volume":
        return (volume_difference(prediction, truth, spacing),)
    whole = {"sensitivity": truth, "precision": prediction}[name]
    return (_share(prediction & truth, whole),)


def nsd(
    prediction: Mask, truth: Mask, spacing: Sequence[float], tolerances: Sequence[float]
) -> tuple[float, ...]:
    """Normalised surface Dice at each tolerance in mm; both empty is 1, one empty 0 (MONAI: NaN and 0)."""
    if not (prediction.any() and truth.any()):
        return (0.0 if prediction.any() or truth.any() else 1.0,) * len(tolerances)
    distances = surface_distances(prediction, truth, spacing)
    return tuple(distances.nsd(tolerance) for tolerance in tolerances)


def volume_difference(prediction: Mask, truth: Mask, spacing: Sequence[float]) -> float:
    """|predicted − true volume| in ml; its sign is in the records' numbers of voxels."""
    voxels = abs(int(np.count_nonzero(prediction)) - int(np.count_nonzero(truth)))
    return voxels * math.prod(float(side) for side in spacing) / 1000


def _share(part: Mask, whole: Mask) -> float:
    """`part` of `whole`; 1 where nothing is to be found (sensitivity) or can be wrong (precision)."""
    count = int(np.count_nonzero(whole))
    return int(np.count_nonzero(part)) / count if count else 1.0
