"""IM-Fuse's fusion of four modalities by a Mamba block (Pipoli et al., MICCAI 2025); tokens `[B, N, C]`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from acdis.methods.imfuse.scan import selective_scan
from acdis.methods.mmformer.transformer import maps_of, tokens_of
from acdis.networks.block import Block

Scan = Literal["forward", "both"]
_TAPS = 4  # of the causal convolution
_LARGEST_STATE = 256
_STEPS = (0.001, 0.1)  # of the scan, at the start: log-uniform between the two
_SMALLEST_STEP = 1e-4


class Step(nn.Linear):
    """The step size of each channel of the scan, before softplus."""

    def reset_parameters(self) -> None:
        """Weights uniform within 1 / sqrt(inputs); biases that give log-uniform steps from 0.001 to 0.1."""
        bound = self.in_features**-0.5
        nn.init.uniform_(self.weight, -bound, bound)
        low, high = (math.log(step) for step in _STEPS)
        with torch.no_grad():
            steps = torch.empty_like(self.bias).uniform_(low, high).exp().clamp(min=_SMALLEST_STEP)
            self.bias.copy_(steps + torch.log(-torch.expm1(-steps)))  # the inverse of softplus


class Mamba(nn.Module):
    """`[B, L, C]` to the same: gate, causal convolution over the sequence, selective scan."""

    def __init__(self, width: int, scan: Scan) -> None:
        super().__init__()
        self.scan = scan
        inner, state, rank = 2 * width, min(width, _LARGEST_STATE), math.ceil(width / 16)
        self.sizes = (rank, state, state)
        self.enter = nn.Linear(width, 2 * inner, bias=False)
        self.convolution = nn.Conv1d(inner, inner, _TAPS, groups=inner, padding=_TAPS - 1)
        self.select = nn.Linear(inner, rank + 2 * state, bias=False)
        self.step = Step(rank, inner)
        self.logarithms = nn.Parameter(torch.empty(inner, state))
        self.past = nn.Parameter(torch.empty(inner))
        self.leave = nn.Linear(inner, width, bias=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Of its own: decays 1, 2, … of the states, and 1 past them."""
        with torch.no_grad():
            self.logarithms.copy_(torch.arange(1.0, self.logarithms.shape[1] + 1).log())
        nn.init.ones_(self.past)

    def forward(self, x: Tensor) -> Tensor:
        if self.scan == "forward":
            return self._run(x)
        return (self._run(x) + self._run(x.flip(1)).flip(1)) / 2

    def _run(self, x: Tensor) -> Tensor:
        values, gate = self.enter(x).chunk(2, dim=2)
        u = F.silu(self.convolution(values.transpose(1, 2))[..., : x.shape[1]].transpose(1, 2))
        raw, into, out = self.select(u).split(self.sizes, dim=2)
        y = selective_scan(u, F.softplus(self.step(raw)), -self.logarithms.exp(), into, out, self.past)
        result: Tensor = self.leave(y * F.silu(gate))
        return result


class FusionTokens(nn.Module):
    """A learnt vector for each voxel of a level, into which the modalities are gathered."""

    def __init__(self, grid: tuple[int, int, int], width: int) -> None:
        super().__init__()
        self.grid = grid
        self.table = nn.Parameter(torch.empty(math.prod(grid), width))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.normal_(self.table)

    def forward(self, grid: Sequence[int]) -> Tensor:
        """`[N, C]`; other grids than the training crop's read between its voxels."""
        if tuple(grid) == self.grid:
            return self.table
        volume = maps_of(self.table[None], self.grid)
        return tokens_of(F.interpolate(volume, size=tuple(grid), mode="trilinear", align_corners=False))[0]


class MambaFusion(Block):
    """MFB: the four modalities' maps and a learnt one as one sequence; the learnt tokens come out as a map.

    Args:
        interleaved: voxel by voxel, each with its five tokens (I-MFB); else map after map.
    """

    def __init__(self, grid: tuple[int, int, int], width: int, interleaved: bool, scan: Scan) -> None:
        super().__init__()
        self.interleaved = interleaved
        self.tokens = FusionTokens(grid, width)
        self.mamba_norm, self.mamba = nn.LayerNorm(width), Mamba(width, scan)
        self.head_norm, self.head = nn.LayerNorm(width), nn.Linear(width, width)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:  # type: ignore[override]
        """`[B, C, D, H, W]` of each modality, zeros where it is missing, to one, in fp32 at least."""
        return self.run(self.compute, *maps)

    def compute(self, *maps: Tensor) -> Tensor:
        grid = maps[0].shape[2:]
        with torch.autocast(maps[0].device.type, enabled=False):
            precise = self.tokens.table.dtype
            parts = [tokens_of(x).to(precise) for x in maps]
            parts.append(self.tokens(grid).expand(len(maps[0]), -1, -1))
            axis = 2 if self.interleaved else 1
            sequence = torch.stack(parts, dim=axis)
            shape = sequence.shape
            sequence = sequence.flatten(1, 2)
            sequence = sequence + self.mamba(self.mamba_norm(sequence))
            fused = sequence.view(shape).select(axis, len(maps))
            fused = fused + self.head(self.head_norm(fused))
        return maps_of(fused, grid)
