"""ShaSpec as a method: one training step's terms, and what is computed once per window."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from acdis.config import Training
from acdis.losses.regions import region_cross_entropy, region_probabilities, region_target
from acdis.methods import optimisers
from acdis.methods.base import MAIN, Batch, Method, Terms
from acdis.methods.shaspec import VERSION, objective
from acdis.methods.shaspec import Options as ShaSpecOptions
from acdis.methods.shaspec.network import Composition, Decoder, Encoded, Encoder
from acdis.methods.subsets import by_count
from acdis.vocabulary import MODALITIES, REGIONS

_MOMENTUM = 0.99
#: At test the first of these that is there stands in for what is missing.
_ORDER = tuple(MODALITIES.index(name) for name in ("FLAIR", "T1", "T1ce", "T2"))


class Features(NamedTuple):
    """What does not depend on the subset.

    Attributes:
        composed: a modality's fused feature where it is there, `[B, C, d, h, w]` each.
        shared: its shared feature, which may stand in for others'.
        skips: the shared encoder's maps, level by level, fine to coarse, of each modality.
        empty: the same of an image of zeros, `[1, C, …]`, which stands for a missing one.
        size: voxels of the crop before padding.
    """

    composed: tuple[Tensor, ...]
    shared: tuple[Tensor, ...]
    skips: tuple[tuple[Tensor, ...], ...]
    empty: tuple[Tensor, ...]
    size: tuple[int, ...]


class ShaSpec(Method):
    """One shared and four specific encoders; a missing modality's feature is another's shared one."""

    Options = ShaSpecOptions
    version = VERSION
    outputs = "regions"
    training_only = ("classifier",)

    def __init__(self, options: ShaSpecOptions) -> None:
        super().__init__()
        self.options = options
        width, count = options.base_width, len(MODALITIES)
        self.shared, *specific = (
            Encoder(width, options.stride, options.bottlenecks) for _ in range(1 + count)
        )
        self.specific = nn.ModuleList(specific)
        self.composition = Composition(4 * width)
        self.decoder = Decoder(width, len(REGIONS), count, options.stride)
        self.classifier = nn.Linear(4 * width, count)

    def encode(self, images: Tensor, origin: Tensor | None = None) -> Features:
        """`[B, 4, D, H, W]` to the features of every modality, available or not, and of an empty image."""
        padded = self._pad(images)
        shared = [self.shared(padded[:, m : m + 1]) for m in range(len(MODALITIES))]
        composed = [
            self.composition(common.feature, encoder(padded[:, m : m + 1]).feature)
            for m, (common, encoder) in enumerate(zip(shared, self.specific, strict=True))
        ]
        empty = self.shared(torch.zeros_like(padded[:1, :1]))
        return Features(
            tuple(composed),
            tuple(encoded.feature for encoded in shared),
            tuple(zip(*(encoded.skips for encoded in shared), strict=True)),
            empty.skips,
            tuple(images.shape[2:]),
        )

    def decode(self, features: Features, available: Tensor) -> Tensor:
        """Region logits `[B, 3, D, H, W]`."""
        skips = [
            torch.cat(_chosen(available, level, [empty] * len(level)), dim=1)
            for level, empty in zip(features.skips, features.empty, strict=True)
        ]
        fused = self._fused(features.composed, features.shared, available, first_of(available))
        return self._logits(fused, skips, features.size)

    def forward(self, batch: Batch, epoch: int) -> Terms:
        """Dice and cross-entropy; shared features alike; specific features that tell their modality."""
        available, count = batch.available, len(MODALITIES)
        padded = self._pad(batch.images) * available[:, :, None, None, None]
        shared: Encoded = self.shared(padded.transpose(0, 1).flatten(0, 1)[:, None])
        common = shared.feature.chunk(count)
        specific = [encoder(padded[:, m : m + 1]) for m, encoder in enumerate(self.specific)]
        composed = [self.composition(r, s.feature) for r, s in zip(common, specific, strict=True)]
        fused = self._fused(composed, common, available, self._drawn(batch))
        skips = [torch.cat(level.chunk(count), dim=1) for level in shared.skips]
        logits = self._logits(fused, skips, batch.images.shape[2:])
        target, options = region_target(batch.labels), self.options
        told = [self.classifier(encoded.mean) for encoded in specific]
        counted = available if options.domain_samples == "available" else torch.ones_like(available)
        return {
            MAIN: {
                "seg/dice": objective.dice(region_probabilities(logits), target),
                "seg/ce": len(REGIONS) * region_cross_entropy(logits, target),
                "shared": options.shared_weight * objective.shared_differences(common),
                "domain": options.domain_weight * objective.domain_cross_entropy(told, counted),
            }
        }

    def sample_subsets(self, generator: torch.Generator | np.random.Generator, n: int, epoch: int) -> Tensor:
        if epoch < self.options.warm_up:
            return torch.ones(n, len(MODALITIES), dtype=torch.bool)
        if self.options.subsets == "uniform":
            return super().sample_subsets(generator, n, epoch)
        return by_count(generator, n)

    def optimisers(self, recipe: Training) -> dict[str, torch.optim.Optimizer]:
        if self.options.optimiser == "adam":
            return super().optimisers(recipe)
        return optimisers.sgd(self.parameter_groups(), recipe, _MOMENTUM)

    def settings_at(self, epochs: float, recipe: Training) -> dict[str, dict[str, Any]]:
        if self.options.optimiser == "adam":
            return super().settings_at(epochs, recipe)
        # Over the warm-up alone first: at its end the rate rises from 0 to what is left of the whole.
        whole = self.options.warm_up if epochs < self.options.warm_up else recipe.epochs
        return {MAIN: {"lr": recipe.learning_rate * (1 - epochs / whole) ** recipe.poly_power}}

    def initialise(self, module: nn.Module) -> None:
        """Kaiming-normal kernels by what goes out; gains 1, biases 0; the classifier as torch begins."""
        if isinstance(module, nn.Conv3d | nn.ConvTranspose3d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out")
        else:
            module.reset_parameters()  # type: ignore[operator]

    def bytes_per_voxel(self, subsets: int) -> int:
        # Skips of five images at the finest level, chosen and joined; with the full stem four times
        # as large. Padding makes 80³ half as large again, and 48³ nearly twice.
        finest = 18 if self.options.stem == "strided" else 50
        return 4 * (finest * self.options.base_width + 60) + 32 * subsets

    def _pad(self, images: Tensor) -> Tensor:
        """Zeros at the far ends, up to sides that the strides divide."""
        ends = []
        for side, stride in reversed(list(zip(images.shape[2:], self.options.stride, strict=True))):
            ends += [0, -side % (16 * stride)]
        return F.pad(images, ends).contiguous(memory_format=torch.channels_last_3d)

    def _drawn(self, batch: Batch) -> Tensor:
        """A random one of each sample's modalities, int [B]: whose shared feature stands in."""
        # The largest of a random number per modality that is there: nothing is read from the device.
        numbers = [
            torch.rand(len(MODALITIES), generator=generator) for generator in batch.generators("stand-in")
        ]
        drawn = torch.stack(numbers).to(batch.images.device)
        return drawn.masked_fill(~batch.available, -1.0).argmax(dim=1)

    def _fused(
        self, composed: Sequence[Tensor], shared: Sequence[Tensor], available: Tensor, stand_in: Tensor
    ) -> Tensor:
        """Composed features of what is there, the stand-in's shared one elsewhere, side by side."""
        rows = torch.arange(len(stand_in), device=stand_in.device)
        other = torch.stack(tuple(shared), dim=1)[rows, stand_in]
        return torch.cat(_chosen(available, composed, [other] * len(composed)), dim=1)

    def _logits(self, fused: Tensor, skips: Sequence[Tensor], size: Sequence[int]) -> Tensor:
        depth, height, width = size
        logits: Tensor = self.decoder(fused, skips)
        return logits[..., :depth, :height, :width]


def first_of(available: Tensor) -> Tensor:
    """The first that is there of FLAIR, T1, T1ce, T2: `available`, bool [B, 4], to int [B]."""
    order = torch.tensor(_ORDER, device=available.device)
    return order[available[:, order].to(torch.uint8).argmax(1)]


def _chosen(available: Tensor, given: Sequence[Tensor], others: Sequence[Tensor]) -> list[Tensor]:
    """Selected, not multiplied: what is missing may be NaN."""
    pairs = zip(given, others, strict=True)
    return [torch.where(available[:, m, None, None, None, None], x, y) for m, (x, y) in enumerate(pairs)]
