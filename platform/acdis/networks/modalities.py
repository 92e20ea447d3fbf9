"""The pyramids of several modalities: modality by modality, level by level, joined; what is missing in them.

A modality's pyramid is a list of maps `[B, C, D, H, W]`, fine to coarse; all have the same shapes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

#: Per level, fine to coarse, a map `[B, C, D, H, W]` of each modality.
Levels = tuple[tuple[Tensor, ...], ...]


def extract(encoders: Iterable[nn.Module], images: Tensor) -> list[list[Tensor]]:
    """A pyramid per modality, from `[B, M, D, H, W]` and M encoders: no modality sees another."""
    return [encoder(images[:, m : m + 1]) for m, encoder in enumerate(encoders)]


def by_level(pyramids: Sequence[Sequence[Tensor]]) -> Levels:
    """The maps of all modalities, level by level."""
    return tuple(zip(*pyramids, strict=True))


def joined(levels: Sequence[Sequence[Tensor]]) -> list[Tensor]:
    """`[B, M C, D, H, W]` per level, modality after modality."""
    return [torch.cat(list(level), dim=1) for level in levels]


def in_turn(pyramids: Sequence[Sequence[Tensor]]) -> list[Tensor]:
    """`[M B, C, D, H, W]` per level, modality after modality: what one decoder reads in one call."""
    return [torch.cat(level, dim=0) for level in zip(*pyramids, strict=True)]


def known(levels: Levels, available: Tensor) -> Levels:
    """Zeros for what `available`, bool `[B, M]`, lacks; selected, not multiplied: 0 × NaN is NaN."""
    return tuple(
        tuple(where(available[:, m], f, f.new_zeros(())) for m, f in enumerate(level)) for level in levels
    )


def where(chosen: Tensor, f: Tensor, other: Tensor) -> Tensor:
    """The samples of f that `chosen`, bool [B], marks; of `other` the rest."""
    return torch.where(chosen[:, None, None, None, None], f, other)
