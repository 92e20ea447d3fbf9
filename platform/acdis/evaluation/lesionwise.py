"""Scores lesion by lesion, as the BraTS challenges rank: one false speck of 50 voxels halves them.

Written from the rules that the challenges describe, not from their programs. Two differ by construction: HD95
here weighs every voxel of a surface alike (MONAI), where BraTS 2023's `surface-distance` weighs them by area;
and a lesion's smallest size is counted in voxels, which at BraTS' 1 mm are mm³.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation, find_objects, generate_binary_structure, label

from acdis.evaluation.surfaces import bounding_box, surface_distances

Mask = NDArray[np.bool_]
Labels = NDArray[np.int32]
Box = tuple[slice, ...]

_WITH_EDGES = generate_binary_structure(3, 2)  # 18 neighbours
_WITH_CORNERS = generate_binary_structure(3, 3)  # 26

#: mm, BraTS 2023's HD95 of a lesion that is missed or false.
PENALTY_2023 = 374.0

#: mm, BraTS 2026's.
PENALTY_2026 = 373.0

#: BraTS 2026 pairs instances whose Dice is above this: any that share a voxel, in practice.
LEAST_DICE = 1e-6

#: mm, of the NSD of an instance.
INSTANCE_TOLERANCE = 1.0


@dataclass(frozen=True)
class Rule:
    """BraTS 2023: how often the truth is dilated, and the fewest voxels of a lesion that counts."""

    iterations: int
    smallest: int


#: By the name in `evaluation.metrics`: adult, African and paediatric glioma; meningioma; metastases.
RULES = {"brats2023": Rule(3, 50), "brats2023_men": Rule(1, 50), "brats2023_met": Rule(1, 2)}


@dataclass(frozen=True)
class LesionScores:
    """BraTS 2023 in one region of one case.

    Attributes:
        dice, hd95: means over found, missed and false lesions; a missed or false one is 0 and 374 mm. Without
            any, 1 and 0 mm.
    """

    dice: float
    hd95: float
    found: int
    missed: int
    false: int


@dataclass(frozen=True)
class InstanceScores:
    """BraTS 2026 in one region of one case.

    Attributes:
        dice, nsd, hd95: means over pairs and what is left without one, which is 0, 0 and 373 mm.
        f1: 2 pairs / (true + predicted instances). Without any instance 1, 1, 0 mm and 1.
    """

    dice: float
    nsd: float
    hd95: float
    f1: float


def lesion_scores(prediction: Mask, truth: Mask, spacing: Sequence[float], rule: Rule) -> LesionScores:
    """BraTS 2023's lesion-wise Dice and HD95 of two masks [D, H, W].

    Lesions are the 26-connected components of the dilated truth, each with the truth's own voxels in it: near
    ones are one. Predicted components that touch the dilated lesion are its match, taken together, and one
    that spans two lesions is in both matches. Lesions below the rule's size are left out, and what touches
    one of these is not false.

    Args:
        spacing: mm per voxel along D, H, W.
    """
    if not (prediction.any() or truth.any()):
        return LesionScores(1.0, 0.0, 0, 0, 0)
    box = bounding_box(prediction | truth, rule.iterations)
    prediction, truth = prediction[box], truth[box]
    dilated = binary_dilation(truth, _WITH_EDGES, rule.iterations)
    lesions, lesion_count = _components(dilated)
    parts, part_count = _components(prediction)
    touching, _ = _pairs(lesions, parts)
    lesions[~truth] = 0
    sizes = np.bincount(lesions.ravel(), minlength=lesion_count + 1)
    dices, distances, missed = [], [], 0
    lesion_boxes, part_boxes = find_objects(lesions), find_objects(parts)
    for lesion in range(1, lesion_count + 1):
        if sizes[lesion] < rule.smallest:
            continue
        own = touching[touching[:, 0] == lesion, 1]
        if not own.size:
            missed += 1
            continue
        around = _around([lesion_boxes[lesion - 1], *(part_boxes[part - 1] for part in own)])
        pair = np.isin(parts[around], own), lesions[around] == lesion
        dices.append(_dice(*pair))
        distances.append(surface_distances(*pair, spacing).hd95())
    false = part_count - len(np.unique(touching[:, 1]))
    counted = len(dices) + missed + false
    if not counted:
        return LesionScores(1.0, 0.0, 0, 0, 0)
    penalties = PENALTY_2023 * (missed + false)
    return LesionScores(
        sum(dices) / counted, (sum(distances) + penalties) / counted, len(dices), missed, false
    )


def instance_scores(prediction: Mask, truth: Mask, spacing: Sequence[float]) -> InstanceScores:
    """BraTS 2026's scores of two masks [D, H, W].

    26-connected components on both sides, paired one to one: the pair with the highest Dice first, as long as
    it is above 1e-6.

    Args:
        spacing: mm per voxel along D, H, W.
    """
    if not (prediction.any() or truth.any()):
        return InstanceScores(1.0, 1.0, 0.0, 1.0)
    box = bounding_box(prediction | truth)
    (true, true_count), (parts, part_count) = _components(truth[box]), _components(prediction[box])
    matches = _one_to_one(true, parts)
    true_boxes, part_boxes = find_objects(true), find_objects(parts)
    shares, distances = [], []
    for lesion, part in matches:
        around = _around([true_boxes[lesion - 1], part_boxes[part - 1]])
        surfaces = surface_distances(parts[around] == part, true[around] == lesion, spacing)
        shares.append(surfaces.nsd(INSTANCE_TOLERANCE))
        distances.append(surfaces.hd95())
    alone = true_count + part_count - 2 * len(matches)
    counted = len(matches) + alone
    return InstanceScores(
        dice=sum(matches.values()) / counted,
        nsd=sum(shares) / counted,
        hd95=(sum(distances) + PENALTY_2026 * alone) / counted,
        f1=2 * len(matches) / (true_count + part_count),
    )


def _one_to_one(true: Labels, parts: Labels) -> dict[tuple[int, int], float]:
    """Dice by (true, predicted) instance, no instance twice."""
    pairs, overlaps = _pairs(true, parts)
    sizes = [np.bincount(labels.ravel()) for labels in (true, parts)]
    dices = 2 * overlaps / (sizes[0][pairs[:, 0]] + sizes[1][pairs[:, 1]])
    matches: dict[tuple[int, int], float] = {}
    taken: tuple[set[int], set[int]] = set(), set()
    for place in np.argsort(-dices, kind="stable"):
        lesion, part = map(int, pairs[place])
        if dices[place] > LEAST_DICE and lesion not in taken[0] and part not in taken[1]:
            matches[lesion, part] = float(dices[place])
            taken[0].add(lesion)
            taken[1].add(part)
    return matches


def _components(mask: Mask) -> tuple[Labels, int]:
    """26-connected components, numbered from 1."""
    labels = np.empty(mask.shape, dtype=np.int32)
    return labels, int(label(mask, _WITH_CORNERS, output=labels))


def _pairs(first: Labels, second: Labels) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Labels that share voxels, [N, 2], sorted, and how many they share, [N]."""
    both = (first > 0) & (second > 0)
    span = int(second.max()) + 1
    codes, counts = np.unique(first[both].astype(np.int64) * span + second[both], return_counts=True)
    return np.stack([codes // span, codes % span], axis=1), counts


def _dice(prediction: Mask, truth: Mask) -> float:
    overlap = np.count_nonzero(prediction & truth)
    return float(2 * overlap / (np.count_nonzero(prediction) + np.count_nonzero(truth)))


def _around(boxes: Sequence[Box]) -> Box:
    """Smallest box that holds all of these."""
    return tuple(
        slice(min(side.start for side in sides), max(side.stop for side in sides))
        for sides in zip(*boxes, strict=True)
    )
