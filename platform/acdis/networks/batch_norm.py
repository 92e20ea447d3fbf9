"""Batch norm without affine and LeakyReLU, its statistics over the whole batch on all processes.

torch's `SyncBatchNorm` refuses CPUs. Here the processes' counts, means and squared deviations are joined by
one exchange forward and one backward, through torch.distributed's default group.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from acdis.networks.norm import EPSILON

MOMENTUM = 0.1  # torch's: what a step counts in the running statistics


@dataclass
class _Use:
    """Of the batch's statistics, now."""

    counted: bool = True
    together: bool = True


_use = _Use()


@contextmanager
def statistics(counted: bool = True, together: bool = True) -> Iterator[None]:
    """What norms do in training while this lasts.

    Args:
        counted: the running statistics move. Off for maps that inference never sees, and for what activation
            checkpointing computes a second time.
        together: over all processes; off where one of them computes alone.
    """
    global _use
    before = _use
    _use = replace(before, counted=before.counted and counted, together=before.together and together)
    try:
        yield
    finally:
        _use = before


class BatchNormAct(nn.Module):
    """LeakyReLU of (x - mean) / sqrt(var + 1e-5), mean and variance per channel over the batch and space.

    `[B, C, D, H, W]` in and out, in the input's precision; statistics in float32 at least. In training they
    are those of the batch over all processes, and the running ones move by a tenth towards them (variance
    unbiased, as torch has it); in evaluation the running ones are used.

    Args:
        channels: C.
        slope: of LeakyReLU below zero, above 0; 1: no activation.
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int, slope: float) -> None:
        super().__init__()
        self.slope = slope
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            shape = (1, -1, 1, 1, 1)
            precise = torch.promote_types(x.dtype, torch.float32)
            factor = (self.running_var + EPSILON).rsqrt().view(shape)
            normed = (x.to(precise) - self.running_mean.view(shape)) * factor
            return F.leaky_relu_(normed, self.slope).to(x.dtype)
        result, mean, squares, count = _BatchNormAct.apply(x, self.slope, _use.together)
        if _use.counted:
            with torch.no_grad():
                self.running_mean.lerp_(mean.to(self.running_mean.dtype), MOMENTUM)
                self.running_var.lerp_((squares / (count - 1)).to(self.running_var.dtype), MOMENTUM)
        out: Tensor = result
        return out

    def extra_repr(self) -> str:
        return f"{len(self.running_mean)}, slope={self.slope}"


class _BatchNormAct(torch.autograd.Function):
    """The normalised and activated map; the batch's mean, sum of squared deviations and voxels per channel.

    Of the map only the result is kept: from it and the deviation backward works everything else out.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, slope: float, together: bool) -> tuple[Tensor, ...]:
        values = _rows(x)
        precise = torch.promote_types(x.dtype, torch.float32)
        mean = values.sum(0, dtype=precise) / len(values)
        squares = (values - mean).square_().sum(0)
        count = torch.full((), float(len(values)), dtype=torch.float64, device=x.device)
        together = together and dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1
        if together:
            mean, squares, count = _joined(mean, squares, count)
        factor = (squares / count.to(precise) + EPSILON).rsqrt()
        out = F.leaky_relu_((values - mean).mul_(factor), slope).to(x.dtype)
        ctx.save_for_backward(out, factor, count.to(precise))
        ctx.slope, ctx.together = slope, together
        ctx.mark_non_differentiable(mean, squares, count)
        return _map(out, x), mean, squares, count

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor, *_: None) -> tuple[Tensor, None, None]:
        """d = f (g' - mean(g') - x̂ mean(g' x̂)), means over the whole batch; g' is below the activation."""
        out, factor, count = ctx.saved_tensors
        values = out.to(factor.dtype)
        above = _rows(gradient).to(factor.dtype)
        below = torch.ops.aten.leaky_relu_backward(above, values, ctx.slope, True)
        normed = F.leaky_relu(values, 1 / ctx.slope)
        sums = torch.stack([below.sum(0), (below * normed).sum(0)])
        if ctx.together:
            dist.all_reduce(sums)
        total, along = sums / count
        result = below.sub_(total).sub_(normed.mul_(along)).mul_(factor).to(gradient.dtype)
        return _map(result, gradient), None, None


def _joined(mean: Tensor, squares: Tensor, count: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Of all processes together; in float64, in which mean² x count loses nothing that matters."""
    own = mean.double()
    sums = torch.cat([count.reshape(1), count * own, squares.double() + count * own.square()])
    dist.all_reduce(sums)
    everyone, channels = sums[0], len(mean)
    whole = sums[1 : 1 + channels] / everyone
    rest = (sums[1 + channels :] - everyone * whole.square()).clamp(min=0)
    return whole.to(mean.dtype), rest.to(mean.dtype), everyone


def _rows(x: Tensor) -> Tensor:
    """`[B D H W, C]`; a view of a channels-last map."""
    return x.permute(0, 2, 3, 4, 1).reshape(-1, x.shape[1])


def _map(rows: Tensor, like: Tensor) -> Tensor:
    """Rows as a channels-last map of the shape of `like`."""
    B, C, *space = like.shape
    return rows.view(B, *space, C).permute(0, 4, 1, 2, 3)
