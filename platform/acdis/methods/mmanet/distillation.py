"""MMANet's margin-aware distillation (MAD), a pure function of features; one number per sample."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

_SMALLEST = 1e-8  # probability in an entropy: 0 log 0 would be NaN
_NORM = 1e-12


def margin_weights(logits: Tensor) -> Tensor:
    """How unsure the teacher is in each row, as a share of the whole: `[B, R, classes]` to `[B, R]`.

    Rows near a border between classes have a high entropy, and those are what a student loses first.
    """
    probabilities = logits.softmax(2).clamp(min=_SMALLEST)
    entropy = -(probabilities * probabilities.log()).sum(2)
    return entropy / entropy.sum(1, keepdim=True)


def row_distances(student: Tensor, teacher: Tensor) -> Tensor:
    """Squared distances of the rows of two Gram matrices, each row of 2-norm 1: `[B, R, C]` to `[B, R]`."""
    one, other = (F.normalize(rows @ rows.transpose(1, 2), dim=2, eps=_NORM) for rows in (student, teacher))
    return (one - other).square().sum(2)


def margin_distillation(student: Tensor, teacher: Tensor, logits: Tensor, most: int = 10) -> Tensor:
    """MAD of one level, `[B]`: row distances, weighed by the teacher's entropy.

    Args:
        student, teacher: maps `[B, C, d, h, w]`; the teacher's without gradient.
        logits: the teacher's, `[B, classes, D, H, W]`; averaged to the level's grid, then softmax.
        most: voxels of a side; larger maps are averaged to it.
    """
    grid = tuple(min(side, most) for side in student.shape[2:])
    with torch.autocast(student.device.type, enabled=False):
        rows = [_rows(x, grid) for x in (student, teacher.detach(), logits.detach())]
        return (margin_weights(rows[2]) * row_distances(rows[0], rows[1])).sum(1)


def _rows(maps: Tensor, grid: Sequence[int]) -> Tensor:
    """`[B, C, ...]` to `[B, R, C]`, a row per voxel of the grid, in fp32 at least."""
    precise = maps.to(torch.promote_types(maps.dtype, torch.float32))
    depth, height, width = grid
    return F.adaptive_avg_pool3d(precise, (depth, height, width)).flatten(2).transpose(1, 2)
