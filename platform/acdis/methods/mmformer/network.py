"""The network of mmFormer and one training step's terms (Zhang et al., MICCAI 2022)."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from acdis.losses import segmentation
from acdis.methods.base import MAIN, Batch, Method, Terms
from acdis.methods.mmformer.blocks import DecoderLevel, Encoder, Fusion, MonoDecoder
from acdis.methods.mmformer.options import VERSION
from acdis.methods.mmformer.options import Options as MmFormerOptions
from acdis.methods.mmformer.transformer import (
    Generators,
    Positions,
    TransformerBlock,
    maps_of,
    side_by_side,
    tokens_of,
)
from acdis.networks import modalities
from acdis.networks.convolution import Conv3d
from acdis.networks.modalities import Levels
from acdis.vocabulary import CLASSES, MODALITIES


class Features(NamedTuple):
    """What does not depend on the subset.

    Attributes:
        shares: per level but the coarsest, fine to coarse, what each modality adds to the fusion's first
            convolution, `[B, C, D, H, W]`.
        tokens: each modality's, behind its transformer, `[B, N, embedding]`.
        grid: voxels of the coarsest level; N of them.
    """

    shares: Levels
    tokens: tuple[Tensor, ...]
    grid: tuple[int, ...]


class FusionDecoder(nn.Module):
    """The joint map of the coarsest level and the summed shares of the others to logits of each level."""

    def __init__(self, widths: Sequence[int], embedding: int, classes: int, count: int) -> None:
        super().__init__()
        self.coarsest = Fusion(embedding, widths[-1])
        self.fusions = nn.ModuleList(Fusion(count * width, width) for width in widths[:-1])
        self.levels = nn.ModuleList(
            DecoderLevel(coarse, fine, skip_first=True) for fine, coarse in itertools.pairwise(widths)
        )
        self.heads = nn.ModuleList(Conv3d(width, classes, 1) for width in widths)

    def forward(self, summed: Sequence[Tensor], joint: Tensor) -> list[Tensor]:
        """Maps before the heads, fine to coarse, from shares that are summed over the modalities."""
        x = self.coarsest(self.coarsest.shares([joint])[0])
        maps = [x]
        steps = zip(self.levels, self.fusions, summed, strict=True)
        for level, fusion, shares in reversed(list(steps)):
            x = level(x, fusion(shares))
            maps.append(x)
        return maps[::-1]


class MmFormer(Method):
    """mmFormer: an encoder and a transformer per modality, one transformer across them, a fusion decoder.

    The four 1³ convolutions back to 128 channels that the public network holds and never uses (262,656
    parameters) are left out.
    """

    Options = MmFormerOptions
    version = VERSION
    training_only = ("mono_decoder",)

    def __init__(self, options: MmFormerOptions) -> None:
        super().__init__()
        self.options = options
        widths, width, count = options.widths, options.embedding, len(MODALITIES)

        def transformer() -> TransformerBlock:
            return TransformerBlock(width, options.heads, options.feed_forward, options.dropout)

        self.encoders = nn.ModuleList(Encoder(widths) for _ in MODALITIES)
        self.embed = nn.ModuleList(Conv3d(widths[-1], width, 1) for _ in MODALITIES)
        self.positions = nn.ModuleList(Positions(options.grid, width) for _ in MODALITIES)
        self.intra = nn.ModuleList(transformer() for _ in MODALITIES)
        self.inter = transformer()
        self.joint = Conv3d(count * width, width, 1)
        self.fusion_decoder = FusionDecoder(widths, width, len(CLASSES), count)
        self.mono_decoder = MonoDecoder(widths, len(CLASSES))

    def encode(self, images: Tensor, origin: Tensor | None = None) -> Features:
        """`[B, 4, D, H, W]` to what does not depend on the subset; nothing is dropped."""
        last = images.contiguous(memory_format=torch.channels_last_3d)
        return self._features(modalities.extract(self.encoders, last), None)

    def decode(self, features: Features, available: Tensor) -> Tensor:
        """Logits `[B, 4, D, H, W]`; zeros stand for the features that `available` (bool [B, 4]) lacks."""
        logits: Tensor = self.fusion_decoder.heads[0](self._maps(features, available, None)[0])
        return logits

    def forward(self, batch: Batch, epoch: int) -> Terms:
        """Weighted cross-entropy and Dice of the fused map, of four mono and of four deep maps (sums)."""
        generators = batch.generators("dropout")
        pyramids = modalities.extract(self.encoders, batch.images)
        maps = self._maps(self._features(pyramids, generators), batch.available, generators)
        target, pool = segmentation.one_hot(batch.labels), batch.pool
        fused, *deep = (head(x) for head, x in zip(self.fusion_decoder.heads, maps, strict=True))
        mono = [self.mono_decoder(pyramid) for pyramid in pyramids]
        terms = named("fuse", segmentation.map_terms(segmentation.class_probabilities(fused), target, pool))
        mono_probabilities = (segmentation.class_probabilities(logits) for logits in mono)
        mono_terms = segmentation.summed_map_terms(mono_probabilities, target, pool, batch.present)
        terms |= named("mono", mono_terms)
        return {
            MAIN: terms | named("deep", segmentation.summed_map_terms(enlarged(deep, target), target, pool))
        }

    def initialise(self, module: nn.Module) -> None:
        """Kaiming-normal kernels (fan-in, slope 0), no positions; all else as torch begins."""
        if isinstance(module, Positions):
            nn.init.zeros_(module.table)
        else:
            module.reset_parameters()  # type: ignore[operator]
            if isinstance(module, nn.Conv3d):
                nn.init.kaiming_normal_(module.weight)

    def bytes_per_voxel(self, subsets: int) -> int:
        # Maps and shares of four modalities at the finest level; per subset what one decoding holds.
        return 4 * (60 * self.options.base_width + 200) + 20 * subsets

    def _features(self, pyramids: Sequence[Sequence[Tensor]], generators: Generators) -> Features:
        *finer, coarsest = modalities.by_level(pyramids)
        grid = tuple(coarsest[0].shape[2:])
        tokens = tuple(
            block(tokens_of(embed(x)), positions(grid), generators)
            for block, embed, positions, x in zip(
                self.intra, self.embed, self.positions, coarsest, strict=True
            )
        )
        shares = tuple(
            cast(Fusion, fusion).shares(level)
            for fusion, level in zip(self.fusion_decoder.fusions, finer, strict=True)
        )
        return Features(shares, tokens, grid)

    def _maps(self, features: Features, available: Tensor, generators: Generators) -> list[Tensor]:
        """The fusion decoder's maps before its heads, fine to coarse."""
        zero = features.tokens[0].new_zeros(())
        tokens = [torch.where(available[:, m, None, None], x, zero) for m, x in enumerate(features.tokens)]
        positions = torch.cat([table(features.grid) for table in self.positions])
        mixed = self.inter(torch.cat(tokens, dim=1), positions, generators)
        rows = side_by_side(mixed.chunk(len(tokens), dim=1), self.options.view)
        joint = self.joint(maps_of(rows, features.grid))
        summed = [sum_of(level) for level in modalities.known(features.shares, available)]
        maps: list[Tensor] = self.fusion_decoder(summed, joint)
        return maps


def sum_of(maps: Sequence[Tensor]) -> Tensor:
    """The sum of the modalities' maps."""
    return torch.stack(tuple(maps)).sum(0)


def enlarged(maps: Sequence[Tensor], like: Tensor) -> Iterator[Tensor]:
    """Deep maps' probabilities at the crop's size: softmax first, then trilinear (corners aligned)."""
    for logits in maps:
        probabilities = segmentation.class_probabilities(logits)
        yield F.interpolate(probabilities, size=like.shape[2:], mode="trilinear", align_corners=True)


def named(prefix: str, terms: dict[str, Tensor]) -> dict[str, Tensor]:
    """The terms as they are logged."""
    return {f"seg/{prefix}/{name}": value for name, value in terms.items()}
