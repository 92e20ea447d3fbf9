"""The losses of U-HeMIS (NiftyNet's cross-entropy and Dice), means over the batch of a number per sample."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from acdis.losses import Reduction, full_precision, reduce_samples
from acdis.losses.segmentation import class_probabilities, one_hot

_DICE_EPSILON = 1e-5


def terms(logits: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """Cross-entropy and Dice: logits `[B, 4, D, H, W]`, labels `[B, D, H, W]`."""
    return {
        "seg/ce": cross_entropy(logits, labels),
        "seg/dice": squared_dice(class_probabilities(logits), one_hot(labels)),
    }


def cross_entropy(logits: Tensor, labels: Tensor, reduction: Reduction = "mean") -> Tensor:
    """-log softmax of the true class, mean over voxels, all classes alike."""
    (logits,) = full_precision(logits)
    return reduce_samples(F.cross_entropy(logits, labels.long(), reduction="none"), reduction)


def squared_dice(probabilities: Tensor, target: Tensor, reduction: Reduction = "mean") -> Tensor:
    """1 - mean over the classes of (2 Σ p y + 1e-5) / (Σ p² + Σ y + 1e-5), per sample; absent classes count.

    Args:
        probabilities: softmax, `[B, 4, D, H, W]`.
        target: one-hot, same shape.
    """
    probabilities, target = full_precision(probabilities, target)
    space = (2, 3, 4)
    above = 2 * (probabilities * target).sum(space) + _DICE_EPSILON
    below = probabilities.square().sum(space) + target.sum(space) + _DICE_EPSILON
    return reduce_samples(1 - torch.mean(above / below, dim=1), reduction)
