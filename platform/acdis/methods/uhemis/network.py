"""The network of U-HeMIS and one training step's terms (Dorent et al. 2019, their baseline)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from acdis.config import Training
from acdis.methods.base import MAIN, Batch, Method, Terms
from acdis.methods.subsets import by_count
from acdis.methods.uhemis import VERSION, objective
from acdis.methods.uhemis import Options as UHeMISOptions
from acdis.networks import modalities
from acdis.networks.block import Block
from acdis.networks.convolution import Conv3d
from acdis.networks.modalities import Levels
from acdis.vocabulary import CLASSES, MODALITIES

WIDTHS = (8, 16, 32, 64)  # inside a level; it gives half of that to the next, and to the fusion
SLOPE = 0.02  # of LeakyReLU below zero
EPSILON = 1e-6  # of instance norm


class HeteroModal(Method):
    """What U-HeMIS and U-HVED have in common: their authors' schedule, subsets and first weights."""

    options: Any

    def settings_at(self, epochs: float, recipe: Training) -> dict[str, dict[str, Any]]:
        if self.options.quarter_every is None:
            return super().settings_at(epochs, recipe)
        return {MAIN: {"lr": quartered(epochs, recipe, self.options.quarter_every)}}

    def sample_subsets(self, generator: torch.Generator | np.random.Generator, n: int, epoch: int) -> Tensor:
        if self.options.subsets == "uniform":
            return super().sample_subsets(generator, n, epoch)
        return by_count(generator, n)

    def initialise(self, module: nn.Module) -> None:
        initialise(module)


class UHeMIS(HeteroModal):
    """Hetero-modal segmentation: a pyramid per modality, mean and variance over those that are given."""

    Options = UHeMISOptions
    version = VERSION

    def __init__(self, options: UHeMISOptions) -> None:
        super().__init__()
        self.options = options
        halves = tuple(width // 2 for width in WIDTHS)
        self.encoders = nn.ModuleList(Encoder(halves) for _ in MODALITIES)
        self.decoder = Decoder(WIDTHS, len(CLASSES))

    def encode(self, images: Tensor, origin: Tensor | None = None) -> Levels:
        """`[B, 4, D, H, W]` to the features of every modality, available or not."""
        return modalities.by_level(modalities.extract(self.encoders, images))

    def decode(self, features: Levels, available: Tensor) -> Tensor:
        """Logits `[B, 4, D, H, W]`."""
        logits: Tensor = self.decoder([moments(level, available) for level in features])
        return logits

    def modality_features(self, features: Levels) -> Levels:
        return features

    def forward(self, batch: Batch, epoch: int) -> Terms:
        """Cross-entropy and Dice of the one map, see `Method.forward`."""
        logits = self.decode(self.encode(batch.images), batch.available)
        return {MAIN: objective.terms(logits, batch.labels)}


def quartered(epochs: float, recipe: Training, every: int) -> float:
    """The recipe's learning rate, divided by 4 after every so many epochs."""
    return recipe.learning_rate / 4 ** math.floor(epochs / every)


def initialise(module: nn.Module) -> None:
    """Kernels from a normal cut off at two deviations of sqrt(2 / inputs); gains 1, biases 0."""
    if isinstance(module, nn.Conv3d):
        deviation = math.sqrt(2 * len(module.weight) / module.weight.numel())
        nn.init.trunc_normal_(module.weight, std=deviation, a=-2 * deviation, b=2 * deviation)
    else:
        module.reset_parameters()  # type: ignore[operator]


def moments(level: Sequence[Tensor], available: Tensor) -> Tensor:
    """Mean, then population variance over the modalities that each sample has: `[B, 2 C, D, H, W]`.

    Args:
        level: a map `[B, C, D, H, W]` of each modality.
        available: bool [B, 4], one at least for each sample.
    """
    count = available.sum(1)[:, None, None, None, None]
    (known,) = modalities.known((tuple(level),), available)
    mean = torch.stack(known).sum(0) / count
    squares = [(f - mean).square() for f in known]
    chosen = (
        modalities.where(available[:, m], square, square.new_zeros(())) for m, square in enumerate(squares)
    )
    return torch.cat([mean, sum(chosen, torch.zeros_like(mean)) / count], dim=1)


class Layer(nn.Sequential):
    """Instance norm with affine, LeakyReLU 0.02, 3³ convolution without bias."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(
            nn.InstanceNorm3d(inputs, eps=EPSILON, affine=True),
            nn.LeakyReLU(SLOPE),
            Conv3d(inputs, outputs, 3, padding=1, bias=False),
        )


class Pair(Block):
    """Two layers."""

    def __init__(self, inputs: int, width: int, outputs: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(Layer(inputs, width), Layer(width, outputs))

    def compute(self, *inputs: Tensor) -> Tensor:
        result: Tensor = self.layers(torch.cat(inputs, dim=1))
        return result


class Encoder(nn.Module):
    """One modality `[B, 1, D, H, W]` to a map per level, fine to coarse; max-pooling halves.

    Args:
        outputs: channels of the maps; inside a level there are `WIDTHS`.
    """

    def __init__(self, outputs: Sequence[int]) -> None:
        super().__init__()
        self.stem = Conv3d(1, WIDTHS[0], 1, bias=False)
        before = (WIDTHS[0], *outputs[:-1])
        self.levels = nn.ModuleList(Pair(*sizes) for sizes in zip(before, WIDTHS, outputs, strict=True))

    def forward(self, image: Tensor) -> list[Tensor]:
        x = F.leaky_relu(self.stem(image), SLOPE)
        maps: list[Tensor] = []
        for level in self.levels:
            x = level(F.max_pool3d(x, 2) if maps else x)
            maps.append(x)
        return maps


class Decoder(nn.Module):
    """Fused maps to logits, or to an image; the map from below stands before the skip.

    Args:
        fused: channels of the maps, fine to coarse.
        outputs: channels of the result.
    """

    def __init__(self, fused: Sequence[int], outputs: int) -> None:
        super().__init__()
        below = (*(width // 2 for width in WIDTHS[1:-1]), fused[-1])
        self.levels = nn.ModuleList(
            Pair(lower + skip, width, width // 2)
            for lower, skip, width in zip(below, fused[:-1], WIDTHS[:-1], strict=True)
        )
        self.head = Conv3d(WIDTHS[0] // 2, outputs, 1, bias=False)

    def forward(self, fused: Sequence[Tensor]) -> Tensor:
        *skips, x = fused
        for level, skip in zip(reversed(self.levels), reversed(skips), strict=True):
            # Not TensorFlow 1's grid, which the authors' framework has: it is half a voxel off.
            x = F.interpolate(x, size=skip.shape[2:], mode="trilinear", align_corners=False)
            x = level(x, skip)
        result: Tensor = self.head(x)
        return result
