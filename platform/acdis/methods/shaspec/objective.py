"""ShaSpec's losses, means over the batch of a number per sample."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from acdis.losses import Reduction, full_precision, reduce_samples

_DICE_EPSILON = 1.0  # below alone: a map whose truth is empty has a loss of 1


def dice(probabilities: Tensor, target: Tensor, reduction: Reduction = "mean") -> Tensor:
    """1 - mean over the regions of 2 Σ p y / (Σ p + Σ y + 1), per sample; `[B, 3, D, H, W]`."""
    probabilities, target = full_precision(probabilities, target)
    space = (2, 3, 4)
    below = probabilities.sum(space) + target.sum(space) + _DICE_EPSILON
    return reduce_samples(1 - 2 * (probabilities * target).sum(space) / below, reduction)


def shared_differences(features: Sequence[Tensor]) -> Tensor:
    """Mean absolute differences of each modality's shared feature from the next one's, round, summed.

    Args:
        features: `[B, C, d, h, w]` of each modality.
    """
    precise = full_precision(*features)
    ring = zip(precise, (*precise[1:], precise[0]), strict=True)
    return torch.stack([(one - other).abs().mean() for one, other in ring]).sum()


def domain_cross_entropy(logits: Sequence[Tensor], counted: Tensor) -> Tensor:
    """-log softmax of each modality's own number, mean over those that `counted`, bool [B, M], marks.

    Args:
        logits: `[B, M]` of each of the M modalities.
    """
    stacked = torch.stack(full_precision(*logits), dim=1)
    truth = torch.arange(len(logits), device=stacked.device).expand(len(stacked), -1)
    values = F.cross_entropy(stacked.transpose(1, 2), truth, reduction="none")
    chosen = counted.to(values.dtype)
    return ((values * chosen).sum(1) / chosen.sum(1)).mean()
