"""The pyramids of several modalities: modality by modality, level by level, joined; what is missing in them.

A modality's pyramid is a list of maps `[B, C, D, H, W]`, fine to coarse; all have the same shapes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from acdis.networks.batch_norm import BatchNormAct
from acdis.networks.block import Block
from acdis.networks.unet import Decoder

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


def each_decoded(decoder: Decoder, pyramids: Sequence[Sequence[Tensor]]) -> Sequence[Tensor]:
    """A decoder's map of each modality: in one call, or modality by modality where memory is to be saved.

    Batch norm sees all modalities together, so there it is one call always.
    """
    parts = list(decoder.modules())
    saving = any(part.checkpointing for part in parts if isinstance(part, Block))
    if saving and not any(isinstance(part, BatchNormAct) for part in parts):
        # Backward, a block's activations come to life again: those of one modality and not of all.
        return [decoder(pyramid) for pyramid in pyramids]
    maps: Tensor = decoder([torch.cat(level, dim=0) for level in zip(*pyramids, strict=True)])
    return maps.chunk(len(pyramids))


def known(levels: Levels, available: Tensor) -> Levels:
    """Zeros for what `available`, bool `[B, M]`, lacks; selected, not multiplied: 0 × NaN is NaN."""
    return tuple(
        tuple(where(available[:, m], f, f.new_zeros(())) for m, f in enumerate(level)) for level in levels
    )


def where(chosen: Tensor, f: Tensor, other: Tensor) -> Tensor:
    """The samples of f that `chosen`, bool [B], marks; of `other` the rest."""
    return torch.where(chosen[:, None, None, None, None], f, other)
