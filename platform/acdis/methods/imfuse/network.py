"""The network of IM-Fuse: mmFormer's encoders and decoders around Mamba fusion."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple, cast

import torch.nn.functional as F
from torch import Tensor, nn

from acdis.methods.imfuse.fusion import MambaFusion, Scan
from acdis.methods.mmformer.blocks import DecoderLevel, Encoder, Fusion, MonoDecoder, NormActConv
from acdis.methods.mmformer.transformer import Generators, Positions, TransformerBlock, maps_of, tokens_of
from acdis.networks import modalities
from acdis.networks.block import Block
from acdis.networks.convolution import Conv3d
from acdis.networks.modalities import Levels


class PlainLevel(Block):
    """One step up without a skip: enlarge, 3³, 3³ and 1³ convolutions."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.rise = NormActConv(inputs, outputs)
        self.merge = NormActConv(outputs, outputs)
        self.settle = NormActConv(outputs, outputs, kernel=1)

    def compute(self, *inputs: Tensor) -> Tensor:
        x, like = inputs
        x = self.rise(F.interpolate(x, size=like.shape[2:], mode="trilinear", align_corners=True))
        result: Tensor = self.settle(self.merge(x))
        return result


class Features(NamedTuple):
    """Each modality's maps, fine to coarse without the coarsest, and its tokens of the coarsest as a map."""

    maps: Levels
    tokens: tuple[Tensor, ...]


class Network(nn.Module):
    def __init__(
        self, widths: Sequence[int], width: int, heads: int, inner: int, dropout: float,
        grid: tuple[int, int, int], classes: int, count: int, first: bool, interleaved: bool, scan: Scan,
    ) -> None:  # fmt: skip
        super().__init__()
        self.first = first
        self.encoders = nn.ModuleList(Encoder(widths) for _ in range(count))
        self.embed = nn.ModuleList(Conv3d(widths[-1], width, 1) for _ in range(count))
        self.positions = nn.ModuleList(Positions(grid, width) for _ in range(count + 1))
        self.transformers = nn.ModuleList(
            TransformerBlock(width, heads, inner, dropout) for _ in range(count + 1)
        )
        used = list(enumerate(widths[:-1]))[0 if first else 1 :]
        self.gather = nn.ModuleList(
            MambaFusion(tuple(side * 16 // 2**level for side in grid), w, interleaved, scan)
            for level, w in used
        )
        self.gather_tokens = MambaFusion(grid, width, interleaved, scan)
        self.joint = Conv3d(width, width, 1)
        self.coarsest = Fusion(width, widths[-1])
        self.fusions = nn.ModuleList(Fusion(w, w) for _, w in used)
        pairs = list(itertools.pairwise(widths))
        self.levels = nn.ModuleList(
            DecoderLevel(o, i, skip_first=True) if first or level else PlainLevel(o, i)
            for level, (i, o) in enumerate(pairs)
        )
        self.heads = nn.ModuleList(Conv3d(w, classes, 1) for w in widths)
        self.mono_decoder = MonoDecoder(widths, classes)

    def features(self, pyramids: Sequence[Sequence[Tensor]], generators: Generators) -> Features:
        *finer, coarsest = modalities.by_level(pyramids)
        grid = coarsest[0].shape[2:]
        tokens = []
        for embed, positions, block, x in zip(
            self.embed, self.positions, self.transformers, coarsest, strict=False
        ):
            tokens.append(maps_of(block(tokens_of(embed(x)), positions(grid), generators), grid))
        return Features(tuple(finer), tuple(tokens))

    def maps(self, features: Features, available: Tensor, generators: Generators) -> list[Tensor]:
        (*finer, tokens) = modalities.known((*features.maps, features.tokens), available)
        grid = tokens[0].shape[2:]
        fused = tokens_of(self.gather_tokens(tokens))
        fused = self.transformers[-1](fused, self.positions[-1](grid), generators)
        joint = self.joint(maps_of(fused, grid))
        x = self.coarsest(self.coarsest.shares([joint])[0])
        maps = [x]
        offset = 0 if self.first else 1
        for number in reversed(range(len(finer))):
            if number >= offset:
                gathered = self.gather[number - offset](finer[number])
                fusion = cast(Fusion, self.fusions[number - offset])
                x = self.levels[number](x, fusion(fusion.shares([gathered])[0]))
            else:
                x = self.levels[number](x, finer[number][0])
            maps.append(x)
        return maps[::-1]
