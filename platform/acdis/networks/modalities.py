"""The pyramids of several modalities, side by side or one after the other; what is missing among them.

A modality's pyramid is a list of maps `[B, C, D, H, W]`, fine to coarse; all have the same shapes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn


def extract(encoders: Iterable[nn.Module], images: Tensor) -> list[list[Tensor]]:
    """A pyramid per modality, from `[B, M, D, H, W]` and M encoders: no modality sees another."""
    return [encoder(images[:, m : m + 1]) for m, encoder in enumerate(encoders)]


def side_by_side(pyramids: Sequence[Sequence[Tensor]]) -> tuple[Tensor, ...]:
    """`[B, M, C, D, H, W]` per level.

    Joined along the channels and then unfolded, so that the memory layout stays what the blocks gave.
    """
    levels = zip(*pyramids, strict=True)
    return tuple(torch.cat(level, dim=1).unflatten(1, (len(level), -1)) for level in levels)


def in_turn(pyramids: Sequence[Sequence[Tensor]]) -> list[Tensor]:
    """`[M B, C, D, H, W]` per level, modality after modality: what one decoder reads in one call."""
    return [torch.cat(level, dim=0) for level in zip(*pyramids, strict=True)]


def known(features: Sequence[Tensor], available: Tensor) -> tuple[Tensor, ...]:
    """Zeros for what `available`, bool `[B, M]`, lacks; selected, not multiplied: 0 × NaN is NaN."""
    chosen = available[:, :, None, None, None, None]
    return tuple(
        torch.where(chosen, level, torch.zeros((), dtype=level.dtype, device=level.device))
        for level in features
    )
