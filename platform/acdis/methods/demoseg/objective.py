"""The losses of DeMoSeg (nnU-Net's), means over the batch of a number per sample."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from acdis.losses import Reduction, full_precision, reduce_samples
from acdis.losses.segmentation import class_probabilities, one_hot

_DICE_EPSILON = 1e-5


def level_weights(halvings: int) -> list[float]:
    """Of the levels' losses, fine to coarse: 1, 1/2, 1/4, …, over their sum; the coarsest level has none."""
    weights = [0.5**level for level in range(halvings - 1)]
    return [weight / sum(weights) for weight in weights]


def at_level(labels: Tensor, level: int) -> Tensor:
    """Labels `[B, D, H, W]` of a level whose sides are 2^level times shorter: the nearest voxel's."""
    if level == 0:
        return labels
    step = 2**level
    return labels[:, step // 2 :: step, step // 2 :: step, step // 2 :: step]


def foreground_dice(probabilities: Tensor, target: Tensor, reduction: Reduction = "mean") -> Tensor:
    """1 - mean over NCR, ED and ET of (2 Σ p y + 1e-5) / (Σ p + Σ y + 1e-5), per sample.

    Args:
        probabilities: softmax over four classes, `[B, 4, D, H, W]`.
        target: one-hot, same shape.
    """
    probabilities, target = full_precision(probabilities[:, 1:], target[:, 1:])
    space = (2, 3, 4)
    above = 2 * (probabilities * target).sum(space) + _DICE_EPSILON
    below = probabilities.sum(space) + target.sum(space) + _DICE_EPSILON
    return reduce_samples(1 - above / below, reduction)


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """-log softmax of the true class, mean over voxels, all classes alike."""
    (logits,) = full_precision(logits)
    return F.cross_entropy(logits, labels.long())


def terms(logits: Sequence[Tensor], labels: Tensor) -> dict[str, Tensor]:
    """Dice and cross-entropy of the levels' logits, fine to coarse, weighed."""
    dice, cross = [], []
    for level, weight in enumerate(level_weights(len(logits) + 1)):
        truth = at_level(labels, level)
        dice.append(weight * foreground_dice(class_probabilities(logits[level]), one_hot(truth)))
        cross.append(weight * cross_entropy(logits[level], truth))
    return {"seg/dice": torch.stack(dice).sum(), "seg/ce": torch.stack(cross).sum()}
