"""MMANet's network for four MRI modalities: ours, since the authors published none (Wei et al., CVPR 2023).

RFNet's encoders and its mono-modal decoder without the region machinery, so that a comparison with RFNet
isolates MMANet's two losses.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from acdis.networks import modalities
from acdis.networks.block import Block
from acdis.networks.modalities import Levels
from acdis.networks.unet import ConvNormAct, Decoder, Encoder, Padding


class Fusion(Block):
    """4C channels, modality after modality, to C: 1³, 3³ and 1³ convolutions.

    The first is linear, so each modality's share of it is computed once for all subsets.
    """

    def __init__(self, width: int, count: int, padding: Padding) -> None:
        super().__init__()
        self.squeeze = ConvNormAct(count * width, width, kernel=1)
        self.mix = ConvNormAct(width, width, padding=padding)
        self.settle = ConvNormAct(width, width, kernel=1)

    def shares(self, maps: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """What each modality's map, `[B, C, D, H, W]`, adds to the first convolution."""
        width = maps[0].shape[1]
        return tuple(self.squeeze.convolution.part(x, m * width) for m, x in enumerate(maps))

    def compute(self, *inputs: Tensor) -> Tensor:
        (summed,) = inputs
        result: Tensor = self.settle(self.mix(self.squeeze.finish(summed)))
        return result


class Decoded(NamedTuple):
    """Logits `[B, 4, D, H, W]` and the fused maps that they come from, fine to coarse."""

    logits: Tensor
    fused: tuple[Tensor, ...]


class Network(nn.Module):
    """Student and teacher alike."""

    def __init__(self, widths: Sequence[int], classes: int, count: int, padding: Padding) -> None:
        super().__init__()
        self.encoders = nn.ModuleList(Encoder(1, widths, padding) for _ in range(count))
        self.fusions = nn.ModuleList(Fusion(width, count, padding) for width in widths)
        self.decoder = Decoder(widths, classes, padding)

    def encode(self, images: Tensor) -> Levels:
        """`[B, 4, D, H, W]` to each modality's share of the fusions, level by level."""
        pyramids = modalities.extract(self.encoders, images)
        levels = modalities.by_level(pyramids)
        fusions = cast(Sequence[Fusion], self.fusions)
        return tuple(fusion.shares(level) for fusion, level in zip(fusions, levels, strict=True))

    def decode(self, features: Levels, available: Tensor) -> Decoded:
        """Zeros stand for what `available`, bool [B, 4], lacks."""
        known = modalities.known(features, available)
        fused = tuple(
            fusion(torch.stack(level).sum(0)) for fusion, level in zip(self.fusions, known, strict=True)
        )
        return Decoded(self.decoder(fused), fused)
