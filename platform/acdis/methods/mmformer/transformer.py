"""The transformer blocks of mmFormer, within a modality and across them; tokens are `[B, N, width]`."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

#: One per sample; none: nothing is dropped.
Generators = Sequence[torch.Generator] | None


def tokens_of(maps: Tensor) -> Tensor:
    """`[B, C, D, H, W]` to `[B, D H W, C]`, voxels in row-major order."""
    return maps.flatten(2).transpose(1, 2)


def maps_of(tokens: Tensor, grid: Sequence[int]) -> Tensor:
    """The inverse of `tokens_of`, in channels-last memory."""
    return tokens.unflatten(1, tuple(grid)).permute(0, 4, 1, 2, 3)


def drop(x: Tensor, share: float, generators: Generators) -> Tensor:
    """Dropout whose draws belong to the samples, so that they are the same wherever a sample is computed.

    Args:
        x: `[B, ...]`.
        share: of the values that become 0; the others are divided by 1 - share.
        generators: one per sample; none: x as it is.
    """
    if generators is None or share == 0:
        return x
    draws = [
        torch.rand(x.shape[1:], generator=generator, device=generator.device) for generator in generators
    ]
    kept = torch.stack(draws).to(x.device) >= share
    return torch.where(kept, x / (1 - share), 0.0)


class Positions(nn.Module):
    """A learnt vector for each voxel of the training crop's coarsest grid; other grids read between them."""

    def __init__(self, grid: tuple[int, int, int], width: int) -> None:
        super().__init__()
        self.grid = grid
        self.table = nn.Parameter(torch.zeros(grid[0] * grid[1] * grid[2], width))

    def forward(self, grid: Sequence[int]) -> Tensor:
        """`[N, width]` for a grid of N voxels."""
        if tuple(grid) == self.grid:
            return self.table
        volume = maps_of(self.table[None], self.grid)
        volume = volume.to(torch.promote_types(volume.dtype, torch.float32))
        resized = F.interpolate(volume, size=tuple(grid), mode="trilinear", align_corners=False)
        return tokens_of(resized)[0].to(self.table.dtype)


class SelfAttention(nn.Module):
    """Multi-head self-attention; queries, keys and values come from one linear map without bias."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, generators: Generators) -> Tensor:
        B, N, width = x.shape
        q, k, v = self.qkv(x).view(B, N, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        if generators is None:
            mixed = F.scaled_dot_product_attention(q, k, v)
        else:
            weights = (q @ k.transpose(-1, -2) * (width // self.heads) ** -0.5).softmax(-1)
            mixed = drop(weights, self.dropout, generators).to(v.dtype) @ v
        return drop(self.out(mixed.transpose(1, 2).reshape(B, N, width)), self.dropout, generators)


class TransformerBlock(nn.Module):
    """x + positions; + attention of its norm; + two linear maps with GELU of its norm. No norm at the end."""

    def __init__(self, width: int, heads: int, inner: int, dropout: float) -> None:
        super().__init__()
        self.dropout = dropout
        self.attention_norm = nn.LayerNorm(width)
        self.attention = SelfAttention(width, heads, dropout)
        self.feed_norm = nn.LayerNorm(width)
        self.widen = nn.Linear(width, inner)
        self.narrow = nn.Linear(inner, width)

    def forward(self, x: Tensor, positions: Tensor, generators: Generators) -> Tensor:
        """`[B, N, width]` in and out; `positions` `[N, width]`."""
        x = x + positions
        x = x + drop(self.attention(self.attention_norm(x), generators), self.dropout, generators)
        inner = drop(F.gelu(self.widen(self.feed_norm(x))), self.dropout, generators)
        return x + drop(self.narrow(inner), self.dropout, generators)


def side_by_side(tokens: Sequence[Tensor], view: str) -> Tensor:
    """The modalities' tokens `[B, N, width]` next to each other, `[B, N, 4 width]`.

    Args:
        view: "aligned": the four tokens of one position. "published": mmFormer's code reads the concatenated
            sequence anew, four tokens a row, so a row holds four neighbouring positions of one modality.
    """
    if view == "aligned":
        return torch.cat(tuple(tokens), dim=2)
    sequence = torch.cat(tuple(tokens), dim=1)
    return sequence.reshape(len(sequence), -1, len(tokens) * sequence.shape[2])
