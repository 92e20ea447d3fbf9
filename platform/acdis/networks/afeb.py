"""Anatomical Feature Enhancement Block (paper, Section 3.1.2 and Figure 3) and its convolutional stand-in.

The paper draws an embedding, an attention and a convolutional branch and their fusion; sizes are our choice.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from acdis.networks.block import Block
from acdis.networks.unet import ConvNormAct, Norm, Padding, norm_act

HEADS = 8  # at most


def heads(channels: int) -> int:
    """The largest divisor of `channels` that is not above 8."""
    return next(count for count in range(min(HEADS, channels), 0, -1) if channels % count == 0)


class GlobalBranch(nn.Module):
    """Pre-norm self-attention over at most `side`³ tokens: `[B, C, D, H, W]` in and out.

    A side longer than `side` is average-pooled to it and the result enlarged again. The position encoding is
    learned on a grid of `side`³ and interpolated to any other grid. The norm is the
    encoder's, over the tokens.
    """

    def __init__(self, channels: int, side: int = 10) -> None:
        super().__init__()
        self.side = side
        self.heads = heads(channels)
        self.position = nn.Parameter(torch.empty(1, channels, side, side, side))
        self.norm: nn.Module = nn.InstanceNorm3d(channels, affine=False)
        # No biases: the softmax cancels the keys', and the norm behind the fusion a constant per channel.
        self.qkv = nn.Linear(channels, 3 * channels, bias=False)
        self.out = nn.Linear(channels, channels, bias=False)
        self.reset_parameters()

    def norm_by(self, norm: Norm) -> None:
        """Choose how the tokens are normalised before they attend: as the encoder's maps."""
        if norm != "instance":
            self.norm = norm_act(norm, self.position.shape[1], slope=1.0)

    def reset_parameters(self) -> None:
        """The position encoding: a truncated normal of deviation 0.02."""
        nn.init.trunc_normal_(self.position, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        grid = [min(length, self.side) for length in x.shape[2:]]
        pooled = x if grid == list(x.shape[2:]) else F.adaptive_avg_pool3d(x, (grid[0], grid[1], grid[2]))
        tokens = pooled + resize(self.position, grid)
        tokens = tokens + self._attend(self.norm(tokens))
        return resize(tokens.to(x.dtype), x.shape[2:])

    def _attend(self, grid: Tensor) -> Tensor:
        B, C = grid.shape[:2]
        # [B, N, 3C] -> three of [B, heads, N, C / heads]
        parts = self.qkv(grid.flatten(2).transpose(1, 2)).unflatten(2, (3, self.heads, C // self.heads))
        query, key, value = parts.permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).reshape(B, -1, C)
        attended: Tensor = self.out(mixed)
        return attended.transpose(1, 2).reshape(grid.shape)


class AFEB(Block):
    """Embedding, global and local branch, fusion, residual: `[B, C, D, H, W]` in and out.

    Args:
        channels: C.
        attention: without it the block has its local branch alone.
        side: at most `side`³ tokens attend to each other.
    """

    def __init__(
        self, channels: int, attention: bool = True, side: int = 10, padding: Padding = "zeros"
    ) -> None:
        super().__init__()
        self.embed = ConvNormAct(channels, channels, kernel=1)
        self.distant = GlobalBranch(channels, side) if attention else None
        self.local = ConvNormAct(channels, channels, padding=padding)
        self.fuse = ConvNormAct(2 * channels if attention else channels, channels, kernel=1)

    def compute(self, *inputs: Tensor) -> Tensor:
        (x,) = inputs
        embedded = self.embed(x)
        branches = self.local(embedded)
        if self.distant is not None:
            branches = torch.cat([self.distant(embedded), branches], dim=1)
        result: Tensor = x + self.fuse(branches)
        return result


class ConvAFEB(Block):
    """Stand-in for AFEB in the ablation: x + conv(conv(x)) with 3³ convolutions C → w → C.

    Args:
        channels: C.
        budget: number of parameters to meet; w is the width that comes nearest.
    """

    def __init__(self, channels: int, budget: int, padding: Padding = "zeros") -> None:
        super().__init__()
        self.width = max(1, round(budget / (2 * 27 * channels)))
        self.pair = nn.Sequential(
            ConvNormAct(channels, self.width, padding=padding),
            ConvNormAct(self.width, channels, padding=padding),
        )

    def compute(self, *inputs: Tensor) -> Tensor:
        (x,) = inputs
        result: Tensor = x + self.pair(x)
        return result


def resize(x: Tensor, size: list[int] | torch.Size) -> Tensor:
    """Trilinear, cell centres kept in place: the inverse of average pooling as far as there is one."""
    if list(x.shape[2:]) == list(size):
        return x
    return F.interpolate(x, size=list(size), mode="trilinear", align_corners=False)
