"""Encoder and decoders, close to the 3D U-Net of RFNet (paper, Section 4.1; sizes are RFNet's convention).

Maps are `[B, C, D, H, W]`; a *pyramid* is a list of maps, fine to coarse, each half as wide as the one before
(a side of odd length is rounded up). Nothing here forces a memory layout or a precision: the caller does.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Literal, cast

import torch.nn.functional as F
from torch import Tensor, nn

from acdis.networks.batch_norm import BatchNormAct
from acdis.networks.block import Block
from acdis.networks.convolution import Conv3d
from acdis.networks.norm import GroupNormAct, InstanceNormAct

Padding = Literal["zeros", "reflect"]
Norm = Literal["instance", "batch", "group"]

SLOPE = 0.2  # of LeakyReLU below zero, everywhere in RFNet


def initialise(module: nn.Module) -> None:
    """Kaiming-normal weights, zero biases (RFNet convention); of other modules what they themselves do."""
    if isinstance(module, nn.Conv3d | nn.Linear):
        nn.init.kaiming_normal_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif reset := getattr(module, "reset_parameters", None):
        reset()


class ConvNormAct(nn.Sequential):
    """Convolution, instance norm without affine, LeakyReLU 0.2 (RFNet convention).

    The convolution has no bias: the norm behind it would take it away again.
    """

    def __init__(
        self, inputs: int, outputs: int, kernel: int = 3, stride: int = 1, padding: Padding = "zeros"
    ) -> None:
        mode = padding if kernel > 1 else "zeros"
        super().__init__(
            Conv3d(inputs, outputs, kernel, stride, kernel // 2, bias=False, padding_mode=mode),
            InstanceNormAct(SLOPE),
        )

    @property
    def convolution(self) -> Conv3d:
        return cast(Conv3d, self[0])

    def norm_by(self, norm: Norm) -> None:
        """Choose how this layer normalises; none of the ways has parameters."""
        self[1] = norm_act(norm, self.convolution.out_channels, SLOPE)

    def finish(self, convolved: Tensor) -> Tensor:
        """Norm and activation of what the convolution, or its parts, gave."""
        result: Tensor = self[1](convolved)
        return result


def norm_act(norm: Norm, channels: int, slope: float) -> nn.Module:
    """Norm without affine, then LeakyReLU (slope 1: none)."""
    if norm == "batch":
        return BatchNormAct(channels, slope)
    return GroupNormAct(channels, slope) if norm == "group" else InstanceNormAct(slope)


def set_norm(module: nn.Module, norm: Norm) -> None:
    """One way of normalising in every layer of `module` that has a choice."""
    for part in list(module.modules()):
        choose = getattr(part, "norm_by", None)
        if choose is not None:
            choose(norm)


class EncoderLevel(Block):
    """An entry convolution (stride 2 below the first level), then x + conv(conv(x))."""

    def __init__(self, inputs: int, outputs: int, stride: int, padding: Padding) -> None:
        super().__init__()
        self.entry = ConvNormAct(inputs, outputs, stride=stride, padding=padding)
        self.pair = nn.Sequential(
            ConvNormAct(outputs, outputs, padding=padding), ConvNormAct(outputs, outputs, padding=padding)
        )

    def compute(self, *inputs: Tensor) -> Tensor:
        (x,) = inputs
        x = self.entry(x)
        result: Tensor = x + self.pair(x)
        return result


class Encoder(nn.Module):
    """E_m and E_Aux: `[B, inputs, D, H, W]` to a pyramid with `widths` channels, fine to coarse."""

    def __init__(self, inputs: int, widths: Sequence[int], padding: Padding = "zeros") -> None:
        super().__init__()
        before = (inputs, *widths[:-1])
        self.levels = nn.ModuleList(
            EncoderLevel(i, o, 1 if level == 0 else 2, padding)
            for level, (i, o) in enumerate(zip(before, widths, strict=True))
        )

    def forward(self, images: Tensor) -> list[Tensor]:
        pyramid = []
        x = images
        for level in self.levels:
            x = level(x)
            pyramid.append(x)
        return pyramid


class DecoderLevel(Block):
    """One step up: enlarge, 3³ convolution, join the skip of `skip` channels, 3³ and 1³ convolutions.

    The convolution that joins is linear, so the skip's part in it, its *share*, is computed apart: what many
    maps have in common is convolved once.
    """

    def __init__(self, inputs: int, outputs: int, skip: int, padding: Padding) -> None:
        super().__init__()
        self.width = outputs
        self.rise = ConvNormAct(inputs, outputs, padding=padding)
        self.merge = ConvNormAct(outputs + skip, outputs, padding=padding)
        self.settle = ConvNormAct(outputs, outputs, kernel=1)

    def share(self, skip: Tensor, first: int = 0, times: int = 1) -> Tensor:
        """What channels of the skip add where it is joined, see `Conv3d.part`; `first` counts the skip's."""
        return self.merge.convolution.part(skip, self.width + first, times)

    def compute(self, *inputs: Tensor) -> Tensor:
        """The map from below and the sum of the skip's shares to this level's map."""
        x, shares = inputs
        return self.join(self.lift(x, shares), shares)

    def lift(self, x: Tensor, like: Tensor) -> Tensor:
        """`x` at the size of `like`, with this level's channels."""
        # To the skip's size and not times two: a side of odd length was rounded up on the way down.
        x = F.interpolate(x, size=like.shape[2:], mode="trilinear", align_corners=True)
        lifted: Tensor = self.rise(x)
        return lifted

    def join(self, lifted: Tensor, shares: Tensor) -> Tensor:
        """What `lift` gave and the sum of the skip's shares to this level's map."""
        joined = self.merge.convolution.part(lifted, 0).add_(shares)
        result: Tensor = self.settle(self.merge.finish(joined))
        return result


class Decoder(nn.Module):
    """D_Aux: a pyramid to logits `[B, classes, D, H, W]` (RFNet's mono-modal decoder).

    Args:
        widths: channels per level, fine to coarse, of the decoder's own maps.
        multiple: the skips hold `multiple` times as many channels; the coarsest map never does.
    """

    def __init__(
        self, widths: Sequence[int], classes: int, padding: Padding = "zeros", multiple: int = 1
    ) -> None:
        super().__init__()
        self.levels = nn.ModuleList(  # fine to coarse, as everywhere
            DecoderLevel(coarse, fine, multiple * fine, padding)
            for fine, coarse in itertools.pairwise(widths)
        )
        self.head = Conv3d(widths[0], classes, 1)

    def forward(self, pyramid: Sequence[Tensor]) -> Tensor:
        *skips, coarsest = pyramid
        levels = cast(Sequence[DecoderLevel], self.levels)
        return self.join([level.share(skip) for level, skip in zip(levels, skips, strict=True)], coarsest)

    def join(self, shares: Sequence[Tensor], coarsest: Tensor) -> Tensor:
        """Logits from the sums of the skips' shares, fine to coarse, and the coarsest map."""
        x = coarsest
        for level, sums in zip(reversed(self.levels), reversed(shares), strict=True):
            x = level(x, sums)
        logits: Tensor = self.head(x)
        return logits


class FusionDecoder(nn.Module):
    """D_Fuse: a pyramid of 4C-channel maps, modality after modality, to logits (paper, Section 3.2)."""

    def __init__(
        self, widths: Sequence[int], classes: int, padding: Padding = "zeros", modalities: int = 4
    ) -> None:
        super().__init__()
        self.squeeze = ConvNormAct(modalities * widths[-1], widths[-1], padding=padding)
        self.decoder = Decoder(widths, classes, padding, multiple=modalities)

    def forward(self, pyramid: Sequence[Tensor]) -> Tensor:
        return self.join([self.share(level, maps) for level, maps in enumerate(pyramid)])

    def share(self, level: int, maps: Tensor, first: int = 0, times: int = 1) -> Tensor:
        """What maps of some modalities add to the first convolution that reads a level's 4C channels.

        Args:
            level: 0 is the finest.
            maps, first, times: see `Conv3d.part`.
        """
        if level == len(self.decoder.levels):
            return self.squeeze.convolution.part(maps, first, times)
        return cast(DecoderLevel, self.decoder.levels[level]).share(maps, first, times)

    def join(self, shares: Sequence[Tensor]) -> Tensor:
        """Logits from the sum of all shares, level by level, fine to coarse."""
        *finer, coarsest = shares
        return self.decoder.join(finer, self.squeeze.finish(coarsest))
