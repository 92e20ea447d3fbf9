"""M3AE as two methods, one per stage: their steps' terms, and what inference does."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from acdis.config import Training
from acdis.errors import UserError
from acdis.losses import full_precision
from acdis.losses.regions import region_cross_entropy, region_dice, region_probabilities, region_target
from acdis.methods import optimisers
from acdis.methods.base import MAIN, Batch, Method, Terms
from acdis.methods.m3ae import VERSION
from acdis.methods.m3ae import Options as M3AEOptions
from acdis.methods.m3ae.learnt import LearntImage
from acdis.methods.m3ae.network import CUBE, UNet, cubes_kept
from acdis.methods.subsets import by_count
from acdis.vocabulary import MODALITIES, REGIONS

IMAGE = "image"  # the learnt image's optimiser
_DICE, _CROSS_ENTROPY = 0.7, 0.3  # weights of a map's losses
_DICE_EPSILON = 1.0
_UNEVENNESS = 0.005  # weight of the learnt image's norm


class Features(NamedTuple):
    """Images `[B, 4, D, H, W]` and the learnt image where they lie: all before the first convolution."""

    images: Tensor
    filler: Tensor


class Stage(Method):
    """What both stages share: a learnt image that fills holes, a U-Net on four modalities together."""

    Options = M3AEOptions
    version = VERSION

    def __init__(self, options: M3AEOptions, outputs: int, learns: bool) -> None:
        super().__init__()
        self.options = options
        self.image = LearntImage(len(MODALITIES), options.volume, learns)
        self.net = UNet(len(MODALITIES), outputs, options.base_width, deep=not learns)

    def encode(self, images: Tensor, origin: Tensor | None = None) -> Features:
        """The images and, at the same place of the whole volume, the learnt one."""
        if origin is None:
            origin = torch.zeros(len(images), 3, dtype=torch.long, device=images.device)
        return Features(images, self.image(origin, None, images.shape[2:]))

    def decode(self, features: Features, available: Tensor) -> Tensor:
        """The last map: of fine-tuning region logits `[B, 3, D, H, W]`."""
        seen = available[:, :, None, None, None]
        logits: Tensor = self.net(filled(features.images, features.filler, seen), deep_maps=False).full
        return logits

    def settings_at(self, epochs: float, recipe: Training) -> dict[str, dict[str, Any]]:
        settings = super().settings_at(epochs, recipe)
        if self.options.schedule == "cosine":
            settings[MAIN]["lr"] = recipe.learning_rate * optimisers.cosine(epochs, recipe)
        if IMAGE in settings:
            share = settings[MAIN]["lr"] / recipe.learning_rate
            settings[IMAGE]["lr"] = self.options.image_learning_rate * share
        return settings

    def sample_subsets(self, generator: torch.Generator | np.random.Generator, n: int, epoch: int) -> Tensor:
        if self.options.subsets == "uniform":
            return super().sample_subsets(generator, n, epoch)
        return by_count(generator, n)

    def initialise(self, module: nn.Module) -> None:
        """As torch begins; the learnt image as it does itself."""
        module.reset_parameters()  # type: ignore[operator]

    def bytes_per_voxel(self, subsets: int) -> int:
        return 4 * (5 * self.options.base_width + 40) + 32 * subsets


class Pretraining(Stage):
    """Reconstruct all modalities from a few cubes of some; its "classes" are the four modalities' voxels."""

    def __init__(self, options: M3AEOptions) -> None:
        super().__init__(options, len(MODALITIES), learns=True)

    def forward(self, batch: Batch, epoch: int) -> Terms:
        """Squared differences from the images, and the learnt image's unevenness."""
        _check_place(batch)
        images = batch.images
        filler = self.image(batch.origin, batch.flips, images.shape[2:])
        seen = self._cubes(batch).to(images.device)
        for axis in (2, 3, 4):
            seen = seen.repeat_interleave(CUBE, axis)
        reconstruction, truth = full_precision(self.net(filled(images, filler, seen)).full, images)
        return {
            MAIN: {"reconstruction": (reconstruction - truth).square().mean()},
            IMAGE: {"unevenness": _UNEVENNESS * self.image.unevenness()},
        }

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        return {MAIN: list(self.net.parameters()), IMAGE: list(self.image.parameters())}

    def optimisers(self, recipe: Training) -> dict[str, torch.optim.Optimizer]:
        """Adam without weight decay."""
        return super().optimisers(recipe.model_copy(update={"weight_decay": 0.0}))

    def _cubes(self, batch: Batch) -> Tensor:
        """Which cubes are seen, bool `[B, 4, D/16, H/16, W/16]`: so many of those that the subset has."""
        grid = [side // CUBE for side in batch.images.shape[2:]]
        cubes_per_modality = int(np.prod(grid))
        count = max(1, int(self.options.kept * len(MODALITIES) * cubes_per_modality))
        seen = []
        for available, generator in zip(batch.available.tolist(), batch.generators("cubes"), strict=True):
            survivors = [m for m, there in enumerate(available) if there]
            order = torch.randperm(len(survivors) * cubes_per_modality, generator=generator)
            seen.append(cubes_kept(order[:count].tolist(), survivors, grid))
        return torch.stack(seen)


class M3AE(Stage):
    """Segment regions from whatever is there, the learnt image in place of the rest; two views agree."""

    outputs = "regions"
    merged = "logits"
    training_only = ("net.heads",)

    def __init__(self, options: M3AEOptions) -> None:
        super().__init__(options, len(REGIONS), learns=False)

    def forward(self, batch: Batch, epoch: int) -> Terms:
        """Dice and cross-entropy of three maps of two views (sums over the maps), and their agreement."""
        _check_place(batch)
        filler = self.image(batch.origin, batch.flips, batch.images.shape[2:])
        drawn = [self.sample_subsets(generator, 1, epoch) for generator in batch.generators("second view")]
        second = torch.cat(drawn).to(batch.available.device)
        views = [
            filled(batch.images, filler, subset[:, :, None, None, None])
            for subset in (batch.available, second)
        ]
        maps = self.net(torch.cat(views))
        target = region_target(batch.labels).repeat(2, 1, 1, 1, 1)
        logits = (*maps.deep, maps.full)
        dice = [
            region_dice(region_probabilities(level), target, batch.pool, _DICE_EPSILON, squares=True)
            for level in logits
        ]
        cross = [region_cross_entropy(level, target) for level in logits]
        compared = maps.deep[0] if self.options.consistency == "deep" else maps.bottleneck
        return {
            MAIN: {
                "seg/dice": _DICE * torch.stack(dice).sum(),
                "seg/ce": _CROSS_ENTROPY * torch.stack(cross).sum(),
                "consistency": self.options.consistency_weight * disagreement(compared),
            }
        }

    def adopt(self, role: str, state: Mapping[str, Tensor]) -> None:
        """The learnt image and the network without its last layer, of a pre-training."""
        if role != "pretraining":
            super().adopt(role, state)
        own = self.state_dict()
        taken = {key: value for key, value in state.items() if not key.startswith("net.last.")}
        due = {key for key in own if not key.startswith(("net.last.", "net.heads."))}
        if taken.keys() != due or any(value.shape != own[key].shape for key, value in taken.items()):
            raise UserError(
                "method.parents.pretraining: its weights are of another network; it needs "
                "method.options.stage 'pretraining' and the same base_width and volume"
            )
        self.load_state_dict(taken, strict=False)


def build(options: M3AEOptions) -> Method:
    """The method of a stage."""
    return Pretraining(options) if options.stage == "pretraining" else M3AE(options)


def filled(images: Tensor, filler: Tensor, seen: Tensor) -> Tensor:
    """The images where `seen`, the filler elsewhere; selected, not multiplied: 0 × NaN is NaN."""
    mixed = torch.where(seen, images, filler.to(images.dtype))
    return mixed.contiguous(memory_format=torch.channels_last_3d)


def disagreement(views: Tensor) -> Tensor:
    """Mean squared difference between the first half of a batch, one view, and the second, the other."""
    one, other = full_precision(*views.chunk(2))
    return (one - other).square().mean()


def _check_place(batch: Batch) -> None:
    if batch.origin is None:
        raise ValueError("M3AE needs each crop's place in its volume (Batch.origin)")
