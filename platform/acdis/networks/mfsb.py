"""Modality Feature Synthesis Block (paper, Section 3.2, Eq. 5-9) and its convolutional stand-in.

Both read the features of all modalities, zeros for the missing ones, `[B, 4C, D, H, W]`, and return those of
one modality, `[B, C, D, H, W]`. There is a block per modality and level. No normalisation inside: the paper
has none.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from acdis.networks.block import Block
from acdis.networks.convolution import Conv3d
from acdis.networks.cpu import pointwise
from acdis.networks.unet import SLOPE, Padding


def _conv(inputs: int, outputs: int, kernel: int, padding: Padding) -> Conv3d:
    """Without bias: the paper writes W1 to W4 as plain matrices."""
    mode = padding if kernel > 1 else "zeros"
    return Conv3d(inputs, outputs, kernel, padding=kernel // 2, bias=False, padding_mode=mode)


def means(maps: Tensor) -> Tensor:
    """The mean of each channel over space, `[B, C]`, in fp32 at least."""
    # Not `Tensor.mean`: of a bf16 map it makes an fp32 copy first, which takes six times as long on a CPU.
    precise = torch.promote_types(maps.dtype, torch.float32)
    return maps.sum(dim=(2, 3, 4), dtype=precise) / math.prod(maps.shape[2:])


class MFSB(Block):
    """Eq. 5-9: channel weights, reduction to C channels, then a modality's style as a spatial affine map.

    Takes the features and, from a caller that has them, their `means`: all blocks of a level need the same.

    Args:
        channels: C.
        kernel: side of W3 and W4: 1, or 3 as an option.
    """

    def __init__(
        self, channels: int, kernel: int = 1, padding: Padding = "zeros", modalities: int = 4
    ) -> None:
        super().__init__()
        self.weigh = nn.Linear(modalities * channels, modalities * channels, bias=False)  # W1
        self.reduce = _conv(modalities * channels, channels, 1, padding)  # W2
        self.scale = _conv(channels, channels, kernel, padding)  # W3
        self.shift = _conv(channels, channels, kernel, padding)  # W4

    def compute(self, *inputs: Tensor) -> Tensor:
        available, *mean = inputs
        weight = torch.sigmoid(self.weigh(mean[0] if mean else means(available)))  # Eq. 5
        # Eq. 6, with the channels' weights in the matrix and not in a copy of all features.
        features = pointwise(available, self.reduce.weight.flatten(1) * weight[:, None])
        alpha = torch.sigmoid(self.scale(features))  # Eq. 7
        beta = torch.sigmoid(self.shift(features))  # Eq. 8
        result: Tensor = (1 + alpha) * features + beta  # Eq. 9
        return result


class ConvMFSB(Block):
    """Stand-in for MFSB in the ablation: 1³ 4C → w, 3³ w → w, 1³ w → C, LeakyReLU between.

    Takes what MFSB takes; means are of no use to it.

    Args:
        channels: C.
        budget: number of parameters to meet; w is the width that comes nearest.
    """

    def __init__(self, channels: int, budget: int, padding: Padding = "zeros", modalities: int = 4) -> None:
        super().__init__()
        self.width = _width((modalities + 1) * channels, budget)
        self.layers = nn.Sequential(
            _conv(modalities * channels, self.width, 1, padding),
            nn.LeakyReLU(SLOPE, inplace=True),
            _conv(self.width, self.width, 3, padding),
            nn.LeakyReLU(SLOPE, inplace=True),
            _conv(self.width, channels, 1, padding),
        )

    def compute(self, *inputs: Tensor) -> Tensor:
        result: Tensor = self.layers(inputs[0])
        return result


def _width(linear: int, budget: int) -> int:
    """The w ≥ 1 for which 27w² + linear·w comes nearest to the budget."""
    root = (math.sqrt(linear**2 + 4 * 27 * budget) - linear) / (2 * 27)
    candidates = (max(1, math.floor(root)), max(1, math.ceil(root)))
    return min(candidates, key=lambda w: abs(27 * w**2 + linear * w - budget))
