"""Region maps, region-aware fusion and the fusion decoder built of them (RFNet: Ding et al., ICCV 2021).

Features are those of all M modalities side by side, zeros for the missing ones, `[B, M C, D, H, W]`. A
*region map* is a probability for each of K regions (the classes, background included), `[B, K, D, H, W]`; in
every voxel they sum to 1. There is a map and a fusion per level.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from acdis.networks.block import Block
from acdis.networks.convolution import Conv3d
from acdis.networks.unet import SLOPE, ConvNormAct, Decoder, DecoderLevel, Padding

MAP_WIDTH = 16  # channels before a region map's classes (RFNet)
WEIGHT_WIDTH = 128  # hidden units behind a region's weights (RFNet)
_SMALLEST_MASS = 1e-7


class RegionMap(Block):
    """The generator of region maps (RFNet's PRM): features, and the decoder's map where there is one.

    1³ M C → C/4, 3³, 1³ → C; beside it the decoder's map of `decoded` channels; 1³ → 16, 1³ → K, softmax.
    The result is float32 also under autocast (float64 stays).
    """

    def __init__(
        self, channels: int, decoded: int, regions: int, padding: Padding = "zeros", modalities: int = 4
    ) -> None:
        super().__init__()
        inner = max(1, channels // 4)
        self.gather = nn.Sequential(
            ConvNormAct(modalities * channels, inner, kernel=1),
            ConvNormAct(inner, inner, padding=padding),
            ConvNormAct(inner, channels, kernel=1),
        )
        self.judge = nn.Sequential(
            ConvNormAct(channels + decoded, MAP_WIDTH, kernel=1), Conv3d(MAP_WIDTH, regions, 1)
        )

    def compute(self, *inputs: Tensor) -> Tensor:
        features, *decoded = inputs
        logits = self.judge(torch.cat([self.gather(features), *decoded], dim=1))
        probabilities: Tensor = logits.to(torch.promote_types(logits.dtype, torch.float32)).softmax(dim=1)
        return probabilities


class RegionFusion(Block):
    """Region-aware fusion (RFNet's RFM): features and a region map to `[B, C, D, H, W]`.

    Per region the features are averaged over it; from these means and the region's mass two layers give a
    weight in (0, 1) to each modality. The weighted sums of the modalities, each inside its region, become
    one half of the output, a shortcut from the plain features the other. Each half: 1³ → C, 3³, 1³ → C/2.
    """

    def __init__(
        self,
        channels: int,
        regions: int,
        padding: Padding = "zeros",
        modalities: int = 4,
        hidden: int = WEIGHT_WIDTH,
    ) -> None:
        super().__init__()
        self.weigh = nn.ModuleList(
            nn.Sequential(
                nn.Linear(modalities * channels + 1, hidden),
                nn.LeakyReLU(SLOPE, inplace=True),
                nn.Linear(hidden, modalities),
            )
            for _ in range(regions)
        )
        half = channels // 2
        self.inside = _half(regions * channels, channels, channels - half, padding)
        self.shortcut = _half(modalities * channels, channels, half, padding)

    def compute(self, *inputs: Tensor) -> Tensor:
        features, regions = inputs
        mixed = mix(features, regions, self.weights(features, regions))
        return torch.cat([self.inside(mixed), self.shortcut(features)], dim=1)

    def weights(self, features: Tensor, regions: Tensor) -> Tensor:
        """What each modality counts in each region: `[B, K, M]`, in (0, 1)."""
        means, mass = region_means(features, regions)
        described = torch.cat([means, mass[..., None]], dim=2).unbind(dim=1)
        given = [layers(one) for layers, one in zip(self.weigh, described, strict=True)]
        return torch.sigmoid(torch.stack(given, dim=1))


class RegionDecoder(nn.Module):
    """D_Fuse of RFNet: on each level, coarse to fine, a region map and what the features are fused to by it.

    A region map steers the fusion detached: it learns from its own loss alone.

    Args:
        widths: channels C per level, fine to coarse, of one modality's features and of the decoder's maps.
        classes: K.
    """

    def __init__(
        self, widths: Sequence[int], classes: int, padding: Padding = "zeros", modalities: int = 4
    ) -> None:
        super().__init__()
        coarsest = len(widths) - 1
        self.maps = nn.ModuleList(
            RegionMap(width, width if level < coarsest else 0, classes, padding, modalities)
            for level, width in enumerate(widths)
        )
        self.fusions = nn.ModuleList(RegionFusion(width, classes, padding, modalities) for width in widths)
        self.decoder = Decoder(widths, classes, padding)

    def forward(self, pyramid: Sequence[Tensor], held: bool = False) -> tuple[Tensor | None, list[Tensor]]:
        """Logits at the finest level, and the region maps, coarse to fine.

        Args:
            pyramid: features `[B, M C, D, H, W]` per level, fine to coarse.
            held: stop at the finest region map. What lies behind it takes no part; there are no logits.
        """
        x, maps = self._coarsest(pyramid[-1])
        for level in reversed(range(len(pyramid) - 1)):
            features, step = pyramid[level], cast(DecoderLevel, self.decoder.levels[level])
            lifted = step.run(step.lift, x, features)
            maps.append(self.maps[level](features, lifted))
            if held and level == 0:
                return None, maps
            fused = self.fusions[level](features, maps[-1].detach())
            x = step.run(step.join, lifted, step.share(fused))
        return self.decoder.head(x), maps

    def _coarsest(self, features: Tensor) -> tuple[Tensor, list[Tensor]]:
        regions = self.maps[-1](features)
        return self.fusions[-1](features, regions.detach()), [regions]


def region_means(features: Tensor, regions: Tensor) -> tuple[Tensor, Tensor]:
    """The features' mean over each region, and how much of the map each region takes up.

    Sums run over as many voxels as a crop has, so they are taken in float32 also under autocast.

    Args:
        features: `[B, N, D, H, W]`.
        regions: `[B, K, D, H, W]`.

    Returns:
        `[B, K, N]`: mean of features × probability over (mean of the probability + 1e-7); and that mean, the
        region's mass, `[B, K]`.
    """
    dtype = torch.promote_types(features.dtype, torch.float32)
    with torch.autocast(features.device.type, enabled=False):
        inside, values = regions.flatten(2).to(dtype), features.flatten(2).to(dtype)
        mass = inside.mean(dim=2)
        means = torch.einsum("bkv,bnv->bkn", inside, values) / inside.shape[2]
        return means / (mass[..., None] + _SMALLEST_MASS), mass


def mix(features: Tensor, regions: Tensor, weights: Tensor) -> Tensor:
    """Per region the weighted sum of the modalities' features inside it, region after region.

    Args:
        features: `[B, M C, D, H, W]`.
        regions: `[B, K, D, H, W]`.
        weights: `[B, K, M]`.

    Returns:
        `[B, K C, D, H, W]`.
    """
    # Weighed first: the product with every region's probability would be K times the features.
    parts = features.unflatten(1, (weights.shape[2], -1)).flatten(3)
    mixed = torch.einsum("bkm,bmcv->bkcv", weights.to(parts.dtype), parts)
    mixed = mixed * regions.flatten(2)[:, :, None].to(mixed.dtype)
    return mixed.flatten(1, 2).unflatten(2, features.shape[2:])


def _half(inputs: int, channels: int, outputs: int, padding: Padding) -> nn.Sequential:
    return nn.Sequential(
        ConvNormAct(inputs, channels, kernel=1),
        ConvNormAct(channels, channels, padding=padding),
        ConvNormAct(channels, outputs, kernel=1),
    )
