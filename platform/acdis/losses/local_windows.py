"""Where local windows lie (Eq. 1-3; rules: see `consistency`), dealt out to blocks of bounded size."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

from torch import Tensor

from acdis.errors import UserError

#: Voxels times channels worked on at a time: on a CPU what fits its caches, elsewhere what bounds the memory.
_PIECE_ON_CPU = 2**19
_PIECE = 2**25


class AxisRun(NamedTuple):
    """Windows of one size along one axis, `step` >= `size` voxels apart: no voxel lies in two of them."""

    start: int
    number: int
    size: int
    step: int


class Block(NamedTuple):
    """The windows of a run per axis: disjoint, all of one shape."""

    depth: AxisRun
    height: AxisRun
    width: AxisRun

    @property
    def windows(self) -> int:
        return math.prod(run.number for run in self)

    @property
    def voxels(self) -> int:
        return math.prod(run.size for run in self)

    def of(self, f: Tensor) -> Tensor:
        """View [B, nD, nH, nW, sD, sH, sW, C] of a tensor [B, C, D, H, W]: channels last, as features lie."""
        f = f.permute(0, 2, 3, 4, 1)
        for axis, (start, number, size, step) in enumerate(self, 1):
            f = f.narrow(axis, start, (number - 1) * step + size).unfold(axis, size, step)
        return f.movedim(4, 7)


def blocks(f: Tensor, window: int, stride: int | None) -> tuple[Block, ...]:
    """All windows of features [B, C, D, H, W] that hold two voxels or more, as blocks of bounded size."""
    stride = window if stride is None else stride
    if window < 2 or stride < 1:
        raise UserError(
            f"local window {window}, stride {stride}: the window needs 2 voxels a side, the stride 1"
        )
    batch, channels, *shape = f.shape
    budget = _PIECE_ON_CPU if f.device.type == "cpu" else _PIECE
    layer = batch * channels * window * shape[1] * shape[2]
    planned = _plan(tuple(shape), window, stride, max(1, budget // max(layer, 1)))
    if not planned:
        raise UserError(
            f"features of {'×'.join(map(str, shape))} voxels hold no local window of two voxels: "
            "use a larger crop or leave this level out"
        )
    return planned


@lru_cache(maxsize=256)
def _plan(shape: tuple[int, ...], window: int, stride: int, layers: int) -> tuple[Block, ...]:
    """Blocks of at most `layers` windows along the first axis."""
    depth, height, width = (runs(length, window, stride) for length in shape)
    pieces = [piece for run in depth for piece in _pieces(run, layers)]
    blocks = itertools.starmap(Block, itertools.product(pieces, height, width))
    return tuple(block for block in blocks if block.voxels > 1)


def runs(length: int, window: int, stride: int) -> list[AxisRun]:
    """The windows along an axis (see `consistency`), dealt out to runs whose windows do not overlap."""
    whole = (length - window) // stride + 1 if length >= window else 0
    turns = math.ceil(window / stride)  # every so many windows, one begins beyond the end of the first
    axis_runs = [
        AxisRun(first * stride, math.ceil((whole - first) / turns), window, turns * stride)
        for first in range(min(turns, whole))
    ]
    covered = (whole - 1) * stride + window if whole else 0
    rest = length - whole * stride  # voxels from the next start to the border
    if covered < length and rest > 0:
        axis_runs.append(AxisRun(whole * stride, 1, rest, rest))
    return axis_runs


def _pieces(run: AxisRun, most: int) -> Iterator[AxisRun]:
    """A run cut into runs of at most `most` windows."""
    for first in range(0, run.number, most):
        yield run._replace(start=run.start + first * run.step, number=min(most, run.number - first))
