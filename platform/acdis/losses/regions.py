"""Losses on region maps: WT, TC and ET each for itself, `[B, 3, D, H, W]` (UNet-MFI, M3AE, ShaSpec)."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from acdis.losses import Reduction, full_precision, reduce_samples, same_shape
from acdis.vocabulary import REGION_LABELS, REGIONS


def region_target(labels: Tensor) -> Tensor:
    """Labels 0..3, [B, D, H, W], to float32 [B, 3, D, H, W]: 1 inside WT, TC, ET."""
    inside = []
    for region in REGIONS:
        chosen = [labels == value for value in REGION_LABELS[region]]
        inside.append(torch.stack(chosen).any(0))
    return torch.stack(inside, dim=1).float()


def region_probabilities(logits: Tensor) -> Tensor:
    """Sigmoid, in float32 also under autocast (float64 stays)."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32)).sigmoid()


def region_cross_entropy(logits: Tensor, target: Tensor, reduction: Reduction = "mean") -> Tensor:
    """Binary cross-entropy, mean over regions and voxels."""
    same_shape(logits, target)
    logits, target = full_precision(logits, target)
    values = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    return reduce_samples(values, reduction)


def region_dice(
    probabilities: Tensor,
    target: Tensor,
    pool: Callable[[Tensor], Tensor],
    epsilon: float,
    squares: bool = False,
) -> Tensor:
    """1 - mean over the regions of (2 I + ε) / (P + T + ε), the sums over batch and space.

    Args:
        probabilities, target: `[B, 3, D, H, W]`.
        pool: see `segmentation.dice_loss`; called exactly once.
        epsilon: ε, above and below.
        squares: P and T are sums of squares.
    """
    same_shape(probabilities, target)
    probabilities, target = full_precision(probabilities, target)
    space = (0, 2, 3, 4)
    power = 2 if squares else 1
    sums = torch.stack(
        [
            (probabilities * target).sum(space),
            probabilities.pow(power).sum(space),
            target.pow(power).sum(space),
        ]
    )
    intersection, prediction, truth = pool(sums)
    return 1 - ((2 * intersection + epsilon) / (prediction + truth + epsilon)).mean()
