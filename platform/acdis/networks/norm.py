"""Instance norm without affine and LeakyReLU in one step that keeps channels-last maps as they are.

torch's instance norm copies a channels-last map to the default layout and back, and autograd keeps its input
beside the activation's result. Here the result alone is kept: from it and from the standard deviation the
backward pass works everything else out.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

EPSILON = 1e-5  # torch's
#: Values worked on at a time, per thread: what a core's caches hold.
_PIECE = 2**18
_HALF = (torch.bfloat16, torch.float16)
#: A sample of fewer values costs torch's batch norm more in calls than it saves.
_SMALL = 2**14


class InstanceNormAct(nn.Module):
    """LeakyReLU of (x - mean) / sqrt(var + 1e-5), mean and variance per sample and channel over space.

    `[B, C, D, H, W]` in and out, in the input's memory format and precision; statistics in float32 at least.

    Args:
        slope: of LeakyReLU below zero, above 0: at 0 what was negative could not be worked out again.

    Raises:
        ValueError: a map of one voxel, in training (torch's rule: there is nothing to normalise).
    """

    def __init__(self, slope: float) -> None:
        super().__init__()
        self.slope = slope

    def forward(self, x: Tensor) -> Tensor:
        if _channels_last(x):
            # On a GPU torch's own gives the default layout, and the next convolution copies it back.
            large = x.device.type == "cuda" or (x.dtype in _HALF and x[0].numel() >= _SMALL)
            result: Tensor = (_BatchInstanceNormAct if large else _InstanceNormAct).apply(x, self.slope)
            return result
        return F.leaky_relu(F.instance_norm(x, eps=EPSILON), self.slope, inplace=True)

    def extra_repr(self) -> str:
        return f"slope={self.slope}"


class GroupNormAct(nn.Module):
    """The same with mean and variance per sample and group of channels: 8 groups, or the next divisor below.

    Args:
        channels: C.
        slope: of LeakyReLU below zero; 1: no activation.
    """

    def __init__(self, channels: int, slope: float) -> None:
        super().__init__()
        self.groups = next(count for count in range(min(8, channels), 0, -1) if channels % count == 0)
        self.slope = slope

    def forward(self, x: Tensor) -> Tensor:
        precise = x.to(torch.promote_types(x.dtype, torch.float32))
        return F.leaky_relu(F.group_norm(precise, self.groups, eps=EPSILON), self.slope).to(x.dtype)

    def extra_repr(self) -> str:
        return f"groups={self.groups}, slope={self.slope}"


def _channels_last(x: Tensor) -> bool:
    """Whether the steps below take it; in a program that is exported torch's own operators stand instead."""
    if torch.compiler.is_exporting():
        return False
    last = torch.channels_last_3d
    return x.is_contiguous(memory_format=last) and not x.is_contiguous() and math.prod(x.shape[2:]) > 1


class _InstanceNormAct(torch.autograd.Function):
    """A channels-last map to its normalised and activated one. Two passes, in pieces that stay in cache."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, slope: float) -> Tensor:
        out = torch.empty_like(x)
        source, target = _voxels(x), _voxels(out)
        precise = torch.promote_types(x.dtype, torch.float32)
        mean = source.sum(1, keepdim=True, dtype=precise) / source.shape[1]
        # From deviations and not from E[x²] - E[x]², which loses digits.
        squares = torch.zeros_like(mean)
        for piece in _pieces(source):
            squares += (source[:, piece] - mean).square_().sum(1, keepdim=True)
        factor = (squares / source.shape[1] + EPSILON).rsqrt()
        for piece in _pieces(source):
            # The factor is positive, so it may come after the activation.
            torch.mul(F.leaky_relu_(source[:, piece] - mean, slope), factor, out=target[:, piece])
        ctx.save_for_backward(out, factor)
        ctx.slope = slope
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        """d = f (g' - mean(g') - x̂ mean(g' x̂)); g' is the gradient below the activation, x̂ its input."""
        out, factor = ctx.saved_tensors
        result = torch.empty_like(out)
        above = _voxels(gradient.contiguous(memory_format=torch.channels_last_3d))
        values, target = _voxels(out), _voxels(result)
        along, total = torch.zeros_like(factor), torch.zeros_like(factor)
        for piece in _pieces(values):
            below, normed = _below(above[:, piece], values[:, piece], ctx.slope, factor.dtype)
            total += below.sum(1, keepdim=True)
            along += below.mul_(normed).sum(1, keepdim=True)
        total, along = total / values.shape[1], along / values.shape[1]
        for piece in _pieces(values):
            below, normed = _below(above[:, piece], values[:, piece], ctx.slope, factor.dtype)
            torch.mul(below.sub_(total).sub_(normed.mul_(along)), factor, out=target[:, piece])
        return result, None


class _BatchInstanceNormAct(torch.autograd.Function):
    """The same by torch's batch norm, sample by sample: in bf16 on a CPU three to four times as fast.

    Not in float32 on a CPU: the kernel there adds up one value after the other, which costs 1e-4 on 80³
    voxels. That is nothing beside the rounding to bf16. A GPU's adds up in a tree.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, slope: float) -> Tensor:
        # float32 scale and shift make the kernel keep its statistics in float32.
        scale, shift = (
            x.new_ones(x.shape[1], dtype=torch.float32),
            x.new_zeros(x.shape[1], dtype=torch.float32),
        )
        by_sample = [
            torch.native_batch_norm(sample, scale, shift, None, None, True, 0.0, EPSILON)
            for sample in x.split(1)
        ]
        out = F.leaky_relu_(_joined([normed for normed, _, _ in by_sample]), slope)
        ctx.save_for_backward(out, torch.stack([factor for _, _, factor in by_sample]))
        ctx.slope = slope
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        """Batch norm's, on what is normalised already (mean 0, deviation 1), with f as its scale."""
        out, factors = ctx.saved_tensors
        gradient = gradient.contiguous(memory_format=torch.channels_last_3d)
        below = torch.ops.aten.leaky_relu_backward(gradient, out, ctx.slope, True)
        normed = F.leaky_relu(out, 1 / ctx.slope)
        zero, one = torch.zeros_like(factors[0]), torch.ones_like(factors[0])
        gradients = [
            torch.ops.aten.native_batch_norm_backward(
                above, values, factor, None, None, zero, one, True, EPSILON, [True, False, False]
            )[0]
            for above, values, factor in zip(below.split(1), normed.split(1), factors, strict=True)
        ]
        return _joined(gradients), None


def _joined(samples: list[Tensor]) -> Tensor:
    return samples[0] if len(samples) == 1 else torch.cat(samples)


def _below(gradient: Tensor, values: Tensor, slope: float, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """The gradient before the activation and the activation's input, new tensors, from its result."""
    gradient, values = gradient.to(dtype), values.to(dtype)
    below = torch.ops.aten.leaky_relu_backward(gradient, values, slope, True)
    return below, F.leaky_relu(values, 1 / slope)


def _voxels(x: Tensor) -> Tensor:
    """View `[B, D·H·W, C]` of a channels-last map."""
    return x.permute(0, 2, 3, 4, 1).flatten(1, 3)


def _pieces(voxels: Tensor) -> Iterator[slice]:
    """Slices of voxels that the threads' caches hold."""
    batch, number, channels = voxels.shape
    size = max(1, torch.get_num_threads() * _PIECE // (batch * channels))
    return (slice(first, first + size) for first in range(0, number, size))
