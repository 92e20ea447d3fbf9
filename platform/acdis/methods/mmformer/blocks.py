"""mmFormer's convolutional parts: norm and activation stand before each convolution.

Maps are `[B, C, D, H, W]`; a *pyramid* is a list of maps, fine to coarse, each half as wide as the last.
IM-Fuse has the same encoders and the same mono-modal decoder.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from acdis.networks.block import Block
from acdis.networks.convolution import Conv3d
from acdis.networks.norm import InstanceNormAct
from acdis.networks.unet import SLOPE, Padding


class NormActConv(nn.Module):
    """Instance norm without affine, LeakyReLU 0.2, then a convolution with bias (mmFormer's order)."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int = 3, stride: int = 1, padding: Padding = "reflect"
    ) -> None:
        super().__init__()
        mode = padding if kernel > 1 else "zeros"
        self.activate = InstanceNormAct(SLOPE)
        self.convolution = Conv3d(inputs, outputs, kernel, stride, kernel // 2, padding_mode=mode)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.convolution(self.activate(x))
        return result

    def share(self, x: Tensor, first: int) -> Tensor:
        """What channels `first` and on of the input add to the result, without bias.

        The norm is channel by channel and the convolution linear, so the shares of all channels and the bias
        add up to the whole, and channels that are 0 add nothing.
        """
        return self.convolution.part(self.activate(x), first)


class EncoderLevel(Block):
    """An entry convolution, then x + conv(conv(x)); the first level's entry has no norm before it."""

    def __init__(self, inputs: int, outputs: int, finest: bool) -> None:
        super().__init__()
        self.entry = (
            Conv3d(inputs, outputs, 3, padding=1, padding_mode="reflect")
            if finest
            else NormActConv(inputs, outputs, stride=2)
        )
        self.pair = nn.Sequential(NormActConv(outputs, outputs), NormActConv(outputs, outputs))

    def compute(self, *inputs: Tensor) -> Tensor:
        (x,) = inputs
        x = self.entry(x)
        result: Tensor = x + self.pair(x)
        return result


class Encoder(nn.Module):
    """`[B, 1, D, H, W]` to a pyramid with `widths` channels, fine to coarse."""

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        before = (1, *widths[:-1])
        self.levels = nn.ModuleList(
            EncoderLevel(i, o, finest=level == 0)
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
    """One step up: enlarge (trilinear, corners aligned), 3³, join the skip, 3³ and 1³ convolutions.

    Args:
        skip_first: the skip stands before the enlarged map (fusion decoder) or behind it (mono decoder).
    """

    def __init__(self, inputs: int, outputs: int, skip_first: bool) -> None:
        super().__init__()
        self.skip_first = skip_first
        self.rise = NormActConv(inputs, outputs)
        self.merge = NormActConv(2 * outputs, outputs)
        self.settle = NormActConv(outputs, outputs, kernel=1)

    def compute(self, *inputs: Tensor) -> Tensor:
        x, skip = inputs
        x = self.rise(F.interpolate(x, size=skip.shape[2:], mode="trilinear", align_corners=True))
        pair = (skip, x) if self.skip_first else (x, skip)
        result: Tensor = self.settle(self.merge(torch.cat(pair, dim=1)))
        return result


class MonoDecoder(nn.Module):
    """A modality's own pyramid to logits `[B, classes, D, H, W]`; shared by all, in training only."""

    def __init__(self, widths: Sequence[int], classes: int) -> None:
        super().__init__()
        self.levels = nn.ModuleList(  # fine to coarse, as everywhere
            DecoderLevel(coarse, fine, skip_first=False) for fine, coarse in itertools.pairwise(widths)
        )
        self.head = Conv3d(widths[0], classes, 1)

    def forward(self, pyramid: Sequence[Tensor]) -> Tensor:
        *skips, x = pyramid
        for level, skip in zip(reversed(self.levels), reversed(skips), strict=True):
            x = level(x, skip)
        logits: Tensor = self.head(x)
        return logits


class Fusion(Block):
    """Several maps as one: 1³, 3³ and 1³ convolutions, zeros at the border.

    The first convolution's share of each modality does not depend on the others: `shares` computes them once,
    and `forward` takes the sum of those that are there.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.squeeze = NormActConv(inputs, outputs, kernel=1)
        self.mix = NormActConv(outputs, outputs, padding="zeros")
        self.settle = NormActConv(outputs, outputs, kernel=1)

    def shares(self, maps: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """What each modality's map, `[B, C, D, H, W]`, adds to the first convolution."""
        width = maps[0].shape[1]
        return tuple(self.squeeze.share(x, m * width) for m, x in enumerate(maps))

    def compute(self, *inputs: Tensor) -> Tensor:
        (summed,) = inputs
        bias = self.squeeze.convolution.bias
        assert bias is not None
        result: Tensor = self.settle(self.mix(summed + bias.to(summed.dtype)[:, None, None, None]))
        return result
