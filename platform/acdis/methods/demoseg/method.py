"""DeMoSeg as a method: one training step's terms, and what is computed once per window."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from acdis.config import Training
from acdis.methods import optimisers
from acdis.methods.base import MAIN, Batch, Method, Terms
from acdis.methods.demoseg import VERSION, objective
from acdis.methods.demoseg import Options as DeMoSegOptions
from acdis.methods.demoseg.network import SLOPE, Stems, UNet, distillation, fill_slots
from acdis.vocabulary import CLASSES

_MOMENTUM = 0.99
_LARGEST_NORM = 12.0


class DeMoSeg(Method):
    """A stem per modality, whose groups of channels stand for the modalities that are missing; one U-Net."""

    Options = DeMoSegOptions
    version = VERSION
    training_only = tuple(f"net.heads.{level}" for level in range(1, 4))

    def __init__(self, options: DeMoSegOptions) -> None:
        super().__init__()
        self.options = options
        shuffled = options.cssa == "published"
        self.stems = Stems(options.base_width, shuffled)
        # The coarsest level's head has no loss: it is left out.
        self.net = UNet(options.widths, len(CLASSES), shuffled, heads=options.halvings - 1)

    def encode(self, images: Tensor, origin: Tensor | None = None) -> tuple[Tensor, ...]:
        """`[B, 4, D, H, W]` to the stems' maps `[B, C, D, H, W]`, a modality each."""
        features: tuple[Tensor, ...] = self.stems(images)
        return features

    def decode(self, features: tuple[Tensor, ...], available: Tensor) -> Tensor:
        """Logits `[B, 4, D, H, W]`."""
        logits: Tensor = self.net(fill_slots(features, available), levels=1)[0]
        return logits

    def modality_features(self, features: tuple[Tensor, ...]) -> tuple[tuple[Tensor, ...], ...]:
        return (features,)

    def forward(self, batch: Batch, epoch: int) -> Terms:
        """Dice and cross-entropy of each level but the coarsest, and the distillation between stems."""
        parts = self.stems.parts(batch.images)
        logits = self.net(fill_slots([stem for _, stem in parts], batch.available))
        terms = objective.terms(logits, batch.labels)
        if self.options.kl:
            terms["kl"] = distillation([entry for entry, _ in parts], batch.available).mean()
        return {MAIN: terms}

    def optimisers(self, recipe: Training) -> dict[str, torch.optim.Optimizer]:
        if self.options.optimiser == "adam":
            return super().optimisers(recipe)
        return optimisers.sgd(self.parameter_groups(), recipe, _MOMENTUM, _LARGEST_NORM)

    def initialise(self, module: nn.Module) -> None:
        """Kaiming-normal kernels of slope 0.01, biases 0; scores, norms as torch begins."""
        if isinstance(module, nn.Conv3d | nn.ConvTranspose3d):
            nn.init.kaiming_normal_(module.weight, a=SLOPE)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        else:
            module.reset_parameters()  # type: ignore[operator]

    def bytes_per_voxel(self, subsets: int) -> int:
        # Four stems, then slots, skip and map of the finest level, joined and convolved.
        return 4 * 14 * self.options.base_width + 32 * subsets
