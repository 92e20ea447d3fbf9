"""M3AE's U-Net on all four modalities at once, and its learnt image (Liu et al., AAAI 2023)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from acdis.networks.block import Block
from acdis.networks.convolution import Conv3d

#: Cubes of a modality that are kept or masked whole, voxels of a side.
CUBE = 16


class Residual(Block):
    """x + two times (group norm of 8 groups, ReLU, 3³ convolution with bias)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.GroupNorm(min(8, width), width) for _ in range(2))
        self.convolutions = nn.ModuleList(Conv3d(width, width, 3, padding=1) for _ in range(2))

    def compute(self, *inputs: Tensor) -> Tensor:
        (x,) = inputs
        residual = x
        for norm, convolution in zip(self.norms, self.convolutions, strict=True):
            residual = convolution(F.relu(norm(residual)))
        return x + residual


class Maps(NamedTuple):
    """Logits `[B, outputs, D, H, W]` at the crop's size: the last map, and the deep ones, coarsest first;
    and the coarsest features, `[B, 8 C, D/8, H/8, W/8]`."""

    full: Tensor
    deep: tuple[Tensor, ...]
    bottleneck: Tensor


class UNet(nn.Module):
    """Four levels; skips are added, maps are enlarged by nearest neighbours.

    Args:
        inputs: channels of the image.
        outputs: channels of the last map (three regions, or four modalities in pre-training).
        width: channels of the finest level, doubled at each below.
        deep: also the two deep maps, which only training reads.
    """

    def __init__(self, inputs: int, outputs: int, width: int, deep: bool) -> None:
        super().__init__()
        widths = [width * 2**level for level in range(4)]
        self.entry = Conv3d(inputs, width, 3, padding=1)
        self.downs = nn.ModuleList(Conv3d(w, 2 * w, 3, stride=2, padding=1) for w in widths[:-1])
        self.encoder = nn.ModuleList(
            nn.Sequential(*(Residual(w) for _ in range(count)))
            for w, count in zip(widths, (1, 2, 2, 4), strict=True)
        )
        coarse_to_fine = widths[-2::-1]
        self.narrow = nn.ModuleList(Conv3d(2 * w, w, 1) for w in coarse_to_fine)
        self.decoder = nn.ModuleList(Residual(w) for w in coarse_to_fine)
        self.heads = nn.ModuleList(Conv3d(w, outputs, 1) for w in coarse_to_fine[:-1]) if deep else None
        self.last = Conv3d(width, outputs, 1)

    def forward(self, x: Tensor, deep_maps: bool = True) -> Maps:
        """`[B, inputs, D, H, W]`, sides multiples of 8; the deep maps may be left out."""
        size = x.shape[2:]
        x = self.encoder[0](self.entry(x))
        skips = [x]
        for down, stage in zip(self.downs, self.encoder[1:], strict=True):
            x = stage(down(x))
            skips.append(x)
        bottleneck, deep = x, []
        for level, (narrow, stage) in enumerate(zip(self.narrow, self.decoder, strict=True)):
            raised = F.interpolate(narrow(x), scale_factor=2, mode="nearest")
            x = stage(raised + skips[-2 - level])
            if deep_maps and self.heads is not None and level < len(self.heads):
                head = self.heads[level](x)
                deep.append(F.interpolate(head, size=size, mode="trilinear", align_corners=True))
        return Maps(self.last(x), tuple(deep), bottleneck)


def cubes_kept(kept: Sequence[int], survivors: Sequence[int], grid: Sequence[int]) -> Tensor:
    """Which cubes are seen, bool `[4, *grid]`.

    Args:
        kept: places in the list of all cubes of the surviving modalities, one after the other, row-major.
        survivors: the modalities that are not dropped whole.
        grid: cubes along each axis.
    """
    seen = torch.zeros(len(survivors), *grid, dtype=torch.bool)
    seen.view(-1)[torch.as_tensor(kept, dtype=torch.long)] = True
    whole = torch.zeros(4, *grid, dtype=torch.bool)
    whole[list(survivors)] = seen
    return whole
