"""UNet-MFI as a method: one training step's terms, and what is computed once per window."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from acdis.losses.regions import region_cross_entropy, region_dice, region_probabilities, region_target
from acdis.methods.base import MAIN, Batch, Method, Terms
from acdis.methods.unet_mfi import VERSION
from acdis.methods.unet_mfi import Options as UNetMFIOptions
from acdis.methods.unet_mfi.network import Encoded, Networks
from acdis.vocabulary import MODALITIES, REGIONS

_DICE_EPSILON = 1e-5
_CROSS_ENTROPY = 0.5  # weight beside Dice


class UNetMFI(Method):
    """Four U-Nets, one per modality, that exchange channel attention; an image of zeros for a missing one."""

    Options = UNetMFIOptions
    version = VERSION
    outputs = "regions"
    merged = "logits"
    training_only = ("networks.deep",)

    def __init__(self, options: UNetMFIOptions) -> None:
        super().__init__()
        self.options = options
        self.networks = Networks(options.base_width, len(MODALITIES), len(REGIONS), options.mask_softmax)

    def encode(self, images: Tensor, origin: Tensor | None = None) -> Encoded:
        """`[B, 4, D, H, W]` to the finest level: below it the modalities know of each other."""
        return self.networks.enter(images)

    def decode(self, features: Encoded, available: Tensor) -> Tensor:
        """Region logits `[B, 3, D, H, W]`: the mean of the modalities' four maps and the joint one."""
        return torch.stack(self.networks(features, available).full).mean(0)

    def forward(self, batch: Batch, epoch: int) -> Terms:
        """Dice and cross-entropy of thirteen maps, summed: five of full size and eight deep ones."""
        outputs = self.networks.train_on(batch.images, batch.available)
        target = region_target(batch.labels)
        terms: dict[str, Tensor] = {}
        for name, maps in (("full", outputs.full), ("deep", outputs.deep)):
            summed = summed_terms(maps, target, batch.pool)
            terms |= {f"seg/{name}/{term}": value for term, value in summed.items()}
        return {MAIN: terms}

    def initialise(self, module: nn.Module) -> None:
        """As torch begins: the public code has another initialisation and never calls it."""
        module.reset_parameters()  # type: ignore[operator]

    def bytes_per_voxel(self, subsets: int) -> int:
        # Skips and maps of four modalities at the finest level, twice: for the image and for one of zeros.
        return 4 * 40 * self.options.base_width + 12 * subsets


def summed_terms(
    maps: Sequence[Tensor], target: Tensor, pool: Callable[[Tensor], Tensor]
) -> dict[str, Tensor]:
    """Dice, and half of the cross-entropy: means over the regions, sums over the maps (logits)."""
    dice = [region_dice(region_probabilities(logits), target, pool, _DICE_EPSILON) for logits in maps]
    cross = [_CROSS_ENTROPY * region_cross_entropy(logits, target) for logits in maps]
    return {"dice": torch.stack(dice).sum(), "ce": torch.stack(cross).sum()}
