"""The network of RFNet and one training step's terms (Ding et al., ICCV 2021)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from acdis.losses import segmentation
from acdis.methods.base import MAIN, Batch, Method, Terms
from acdis.methods.rfnet import VERSION
from acdis.methods.rfnet import Options as RFNetOptions
from acdis.networks import modalities
from acdis.networks.modalities import Levels
from acdis.networks.rfm import RegionDecoder
from acdis.networks.unet import Decoder, Encoder
from acdis.vocabulary import CLASSES, MODALITIES


class RFNet(Method):
    """Region-aware Fusion Network.

    `encode` gives each modality's features, level by level. Before the epoch `fusion_start` the last layers
    are untrained, and what `decode` gives is noise.
    """

    Options = RFNetOptions
    version = VERSION
    training_only = ("mono_decoder",)
    passed_on = ("mono_decoder",)  # GSS starts from it

    def __init__(self, options: RFNetOptions) -> None:
        super().__init__()
        self.options = options
        widths, padding, count = options.widths, options.padding, len(MODALITIES)
        self.encoders = nn.ModuleList(Encoder(1, widths, padding) for _ in MODALITIES)
        self.fusion_decoder = RegionDecoder(widths, len(CLASSES), padding, count)
        self.mono_decoder = Decoder(widths, len(CLASSES), padding)

    def encode(self, images: Tensor, origin: Tensor | None = None) -> Levels:
        """`[B, 4, D, H, W]` to the features of every modality, available or not."""
        last = images.contiguous(memory_format=torch.channels_last_3d)
        return modalities.by_level(modalities.extract(self.encoders, last))

    def decode(self, features: Levels, available: Tensor) -> Tensor:
        """Logits `[B, 4, D, H, W]`; zeros stand for the features that `available` (bool [B, 4]) lacks."""
        logits, _ = self._fuse(features, available)
        assert logits is not None  # only a held map is absent
        return logits

    def modality_features(self, features: Levels) -> Levels:
        return features

    def bytes_per_voxel(self, subsets: int) -> int:
        # Regions times features at the finest level, for one subset at a time; logits of each.
        return 4 * (30 * self.options.base_width + 400) + 20 * subsets

    def forward(self, batch: Batch, epoch: int) -> Terms:
        """Three groups of terms, see `Method.forward`; that of the fused map is absent before its epoch.

        The mono decoder reads all modalities that the case has, whatever subset was drawn.
        """
        pyramids = modalities.extract(self.encoders, batch.images)
        held = epoch < self.options.fusion_start
        fused, regions = self._fuse(modalities.by_level(pyramids), batch.available, held)
        mono = modalities.each_decoded(self.mono_decoder, pyramids)
        return {MAIN: self._terms(batch, fused, mono, regions)}

    def _fuse(
        self, features: Levels, available: Tensor, held: bool = False
    ) -> tuple[Tensor | None, list[Tensor]]:
        """As `RegionDecoder`, from the features of all modalities."""
        known = modalities.joined(modalities.known(features, available))
        result: tuple[Tensor | None, list[Tensor]] = self.fusion_decoder(known, held)
        return result

    def _terms(
        self, batch: Batch, fused: Tensor | None, mono: Sequence[Tensor], regions: Sequence[Tensor]
    ) -> dict[str, Tensor]:
        """L_WCE and L_Dice: of the fused map, of the mono decoder's maps and of the region maps (sums)."""
        target, pool, options = segmentation.one_hot(batch.labels), batch.pool, self.options
        terms: dict[str, Tensor] = {}
        if fused is not None:
            losses = segmentation.map_terms(segmentation.class_probabilities(fused), target, pool)
            terms |= _named("fuse", losses)
        mono_probabilities = (segmentation.class_probabilities(logits) for logits in mono)
        losses = segmentation.summed_map_terms(mono_probabilities, target, pool, batch.present)
        terms |= _named("mono", losses, options.mono_weight)
        losses = segmentation.summed_map_terms(_enlarged(regions, target), target, pool)
        return terms | _named("regions", losses, options.region_weight)


def _enlarged(maps: Sequence[Tensor], like: Tensor) -> Iterator[Tensor]:
    """Region maps at the crop's size; trilinear, so that each voxel's probabilities still sum to 1."""
    for regions in maps:
        yield F.interpolate(regions, size=like.shape[2:], mode="trilinear", align_corners=True)


def _named(prefix: str, terms: dict[str, Tensor], weight: float = 1.0) -> dict[str, Tensor]:
    return {f"seg/{prefix}/{name}": weight * value for name, value in terms.items()}
