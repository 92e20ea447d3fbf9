"""M3AE's learnt image: what fills the holes that missing modalities and masked cubes leave."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class LearntImage(nn.Module):
    """An image of all modalities in the coordinates of whole volumes: `voxels` is `[1, 4, *volume]`.

    Args:
        learns: whether it is trained: normal at the start then; else 0 until a parent's is taken over.
    """

    def __init__(self, count: int, volume: Sequence[int], learns: bool) -> None:
        super().__init__()
        self.voxels = nn.Parameter(torch.empty(1, count, *volume), requires_grad=learns)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        if self.voxels.requires_grad:
            nn.init.normal_(self.voxels)
        else:
            nn.init.zeros_(self.voxels)

    def forward(self, origin: Tensor, flips: Tensor | None, size: Sequence[int]) -> Tensor:
        """The image where crops of `size` voxels lie, `[B, 4, *size]`; see `cut_out`."""
        return cut_out(self.voxels[0], origin, flips, size)

    def unevenness(self) -> Tensor:
        """2-norm over the whole image of its differences from each modality's spatial mean."""
        means = self.voxels.mean((2, 3, 4), keepdim=True)
        return torch.linalg.vector_norm((self.voxels - means).float())


def cut_out(volume: Tensor, origin: Tensor, flips: Tensor | None, size: Sequence[int]) -> Tensor:
    """Crops of a volume, each turned round as its sample was; 0 beyond the volume's edges.

    Args:
        volume: `[C, D, H, W]`.
        origin: int [B, 3], the crops' first voxels; may lie outside.
        flips: bool [B, 3], axes along which augmentation turned the crop round; none: no axis.
        size: voxels (d, h, w) of a crop.

    Returns:
        `[B, C, d, h, w]`.
    """
    places, inside = [], torch.ones((), dtype=torch.bool, device=volume.device)
    for axis, (side, most) in enumerate(zip(size, volume.shape[1:], strict=True)):
        steps = torch.arange(side, device=volume.device)[None]
        if flips is not None:
            steps = torch.where(flips[:, axis : axis + 1], side - 1 - steps, steps)
        at = (origin[:, axis : axis + 1] + steps).view(-1, *(side if a == axis else 1 for a in range(3)))
        inside = inside & (at >= 0) & (at < most)
        places.append(at.clamp(0, most - 1))
    crops = volume[:, places[0], places[1], places[2]]
    return torch.where(inside, crops, crops.new_zeros(())).transpose(0, 1)
