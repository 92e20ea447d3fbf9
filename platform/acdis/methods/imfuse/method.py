"""IM-Fuse as a method: one training step's terms, and what is computed once per window."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from acdis.config import Training
from acdis.losses import segmentation
from acdis.methods.base import MAIN, Batch, Method, Terms
from acdis.methods.imfuse import VERSION
from acdis.methods.imfuse import Options as IMFuseOptions
from acdis.methods.imfuse.network import Features, Network
from acdis.methods.mmformer.network import enlarged, named
from acdis.methods.mmformer.transformer import Positions
from acdis.networks import modalities
from acdis.networks.modalities import Levels
from acdis.vocabulary import CLASSES, MODALITIES

_SLOPE = 0.01  # that the kernels' first values suppose


class IMFuse(Method):
    """mmFormer's encoders and decoders around a selective scan over all modalities, level by level."""

    Options = IMFuseOptions
    version = VERSION
    training_only = ("net.mono_decoder", *(f"net.heads.{level}" for level in range(1, 5)))

    def __init__(self, options: IMFuseOptions) -> None:
        super().__init__()
        self.options = options
        self.net = Network(
            options.widths,
            options.embedding,
            options.heads,
            options.feed_forward,
            options.dropout,
            options.grid,
            len(CLASSES),
            len(MODALITIES),
            options.level1 == "fused",
            options.interleaved,
            options.scan,
        )

    def encode(self, images: Tensor, origin: Tensor | None = None) -> Features:
        """`[B, 4, D, H, W]` to what does not depend on the subset; nothing is dropped."""
        last = images.contiguous(memory_format=torch.channels_last_3d)
        features: Features = self.net.features(modalities.extract(self.net.encoders, last), None)
        return features

    def decode(self, features: Features, available: Tensor) -> Tensor:
        """Logits `[B, 4, D, H, W]`; zeros stand for the features that `available` (bool [B, 4]) lacks."""
        logits: Tensor = self.net.heads[0](self.net.maps(features, available, None)[0])
        return logits

    def modality_features(self, features: Features) -> Levels:
        return features.maps

    def forward(self, batch: Batch, epoch: int) -> Terms:
        """Weighted cross-entropy and Dice of the fused map, of four mono and of four deep maps (sums)."""
        generators = batch.generators("dropout")
        pyramids = modalities.extract(self.net.encoders, batch.images)
        maps = self.net.maps(self.net.features(pyramids, generators), batch.available, generators)
        target, pool = segmentation.one_hot(batch.labels), batch.pool
        fused, *deep = (head(x) for head, x in zip(self.net.heads, maps, strict=True))
        mono = [self.net.mono_decoder(pyramid) for pyramid in pyramids]
        terms = named("fuse", segmentation.map_terms(segmentation.class_probabilities(fused), target, pool))
        mono_probabilities = (segmentation.class_probabilities(logits) for logits in mono)
        mono_terms = segmentation.summed_map_terms(mono_probabilities, target, pool, batch.present)
        terms |= named("mono", mono_terms)
        deep_terms = segmentation.summed_map_terms(enlarged(deep, target), target, pool)
        return {MAIN: terms | named("deep", deep_terms)}

    def optimisers(self, recipe: Training) -> dict[str, torch.optim.Optimizer]:
        if self.options.optimiser == "adam":
            return super().optimisers(recipe)
        return {
            name: torch.optim.RAdam(group, lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
            for name, group in self.parameter_groups().items()
        }

    def initialise(self, module: nn.Module) -> None:
        """Kaiming-normal kernels of slope 0.01, biases 0, no positions; all else as it begins by itself."""
        if isinstance(module, Positions):
            nn.init.zeros_(module.table)
        elif isinstance(module, nn.Conv3d):
            nn.init.kaiming_normal_(module.weight, a=_SLOPE)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        else:
            module.reset_parameters()  # type: ignore[operator]

    def bytes_per_voxel(self, subsets: int) -> int:
        # Where the finest level is fused: five tokens a voxel, each with its inner channels and states.
        return 4 * (140 * self.options.base_width + 100) + 32 * subsets
