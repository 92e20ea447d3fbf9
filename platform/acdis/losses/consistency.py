"""Anatomical consistency: L_Var and L_Covar in local windows (Eq. 1-4), and L_MSE and L_KL of Table 2.

All take features before the sigmoid, [B, C, D, H, W], and hold `f_aux` fixed (detached): it is the label.

Windows: along each axis a window starts at 0, s, 2s, ... (s the stride) as long as the start lies inside and
the window covers a voxel that the one before did not. All have `window` voxels a side but the last, which the
border may cut; such a partial window has its own n. A window of one voxel has no variance and is left out.
Without a stride the windows tile (s = window); a smaller stride makes them overlap, a larger one leaves out
the voxels between them. In a mean all windows weigh the same, whole or partial.

Statistics are per window and channel, unbiased (n - 1), in float32 under autocast (float64 stays float64),
from deviations and not from E[x²] - E[x]²; a window of equal values has σ = 0 to the bit. There the
derivative of σ is taken as 0: both losses are even in a flat window's deviations, so it is the symmetric one.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Iterator
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from acdis.errors import UserError
from acdis.losses import Reduction, full_precision, precision, reduce_samples, same_shape

EPSILON = 1e-6
#: Voxels times channels worked on at a time: on a CPU what fits its caches, elsewhere what bounds the memory.
_PIECE_ON_CPU = 2**19
_PIECE = 2**25


def variance_loss(
    f_m: Tensor, f_aux: Tensor, window: int = 5, stride: int | None = None, reduction: Reduction = "mean"
) -> Tensor:
    """L_Var, Eq. 1: 1 - (2 σ_m σ_aux + ε) / (σ_m² + σ_aux² + ε), mean over windows and channels.

    Arguments and errors as in `window_losses`.
    """
    return window_losses(f_m, f_aux, window, stride, ("var",), reduction)["var"]


def covariance_loss(
    f_m: Tensor, f_aux: Tensor, window: int = 5, stride: int | None = None, reduction: Reduction = "mean"
) -> Tensor:
    """L_Covar, Eq. 2 and 3: 1 - (|σ_m,aux| + ε) / (σ_m σ_aux + ε), mean over windows and channels.

    Arguments and errors as in `window_losses`.
    """
    return window_losses(f_m, f_aux, window, stride, ("covar",), reduction)["covar"]


def window_losses(
    f_m: Tensor,
    f_aux: Tensor,
    window: int = 5,
    stride: int | None = None,
    names: Collection[str] = ("var", "covar"),
    reduction: Reduction = "mean",
) -> dict[str, Tensor]:
    """The window losses asked for, from one pass of statistics; their sum is L_ACCT (Eq. 4).

    Args:
        f_m: features of one modality before the sigmoid, [B, C, D, H, W].
        f_aux: features of E_Aux before the sigmoid, same shape; no gradient flows into them.
        window: side of the cubic window, voxels of the feature map, at least 2.
        stride: voxels between windows; None: `window`.
        names: of "var" (Eq. 1) and "covar" (Eq. 3).
        reduction: "mean" (scalar) or "sample" ([B]).

    Returns:
        The losses by name, and "flat": the share of windows where f_m or f_aux is flat (σ = 0), detached;
        there Eq. 3 has nothing to compare.

    Raises:
        UserError: window or stride too small, or the features so small that no window holds two voxels.
    """
    same_shape(f_m, f_aux)
    if unknown := set(names) - {"var", "covar"}:
        raise ValueError(f"unknown window losses {sorted(unknown)}: 'var' and 'covar' exist")
    sigma_m, sigma_aux, covariance = _Statistics.apply(f_m, f_aux.detach(), window, stride)
    losses = {"flat": reduce_samples(((sigma_m == 0) | (sigma_aux == 0)).to(sigma_m), reduction)}
    if "var" in names:
        losses["var"] = reduce_samples(_contrast(sigma_m, sigma_aux), reduction)
    if "covar" in names:
        losses["covar"] = reduce_samples(_structure(sigma_m * sigma_aux, covariance), reduction)
    return losses


def flat_share(
    f: Tensor, window: int = 5, stride: int | None = None, reduction: Reduction = "mean"
) -> Tensor:
    """Share of windows (over channels too) in which the sigmoid features are flat, σ = 0. No gradient.

    Arguments and errors as in `window_losses`.
    """
    with torch.no_grad():
        values = (_sigmoid(block, f, precision(f)) for block in _blocks(f, window, stride))
        sigma = torch.cat([_sigma(_deviations(value)) for value in values], -1)
    return reduce_samples((sigma == 0).to(sigma), reduction)


def mse_loss(f_m: Tensor, f_aux: Tensor, reduction: Reduction = "mean") -> Tensor:
    """L_MSE of Table 2: mean squared error of sigmoid features; `f_aux` detached.

    Arguments as in `window_losses`.
    """
    same_shape(f_m, f_aux)
    f_m, f_aux = full_precision(f_m, f_aux.detach())
    return reduce_samples((f_m.sigmoid() - f_aux.sigmoid()).square(), reduction)


def kl_loss(f_m: Tensor, f_aux: Tensor, reduction: Reduction = "mean") -> Tensor:
    """L_KL of Table 2: KL(p_aux || p_m), mean over batch and channels; `f_aux` detached.

    p is the softmax over space of a channel's features (before the sigmoid) at temperature 1. The paper does
    not say which way round: as in distillation, the teacher's distribution comes first, so that p_m has to
    cover all of p_aux. The sum over voxels is not divided by their number.

    Arguments as in `window_losses`.
    """
    same_shape(f_m, f_aux)
    f_m, f_aux = full_precision(f_m, f_aux.detach())
    log_m, log_aux = (F.log_softmax(f.flatten(2), dim=-1) for f in (f_m, f_aux))
    return reduce_samples(F.kl_div(log_m, log_aux, reduction="none", log_target=True).sum(-1), reduction)


def _contrast(sigma_m: Tensor, sigma_aux: Tensor) -> Tensor:
    """Eq. 1, its fraction joined: 1 - (2ab + ε) / (a² + b² + ε) loses digits where a is near b."""
    return (sigma_m - sigma_aux).square() / (sigma_m.square() + sigma_aux.square() + EPSILON)


def _structure(product: Tensor, covariance: Tensor) -> Tensor:
    """Eq. 3, its fraction joined; `product` is σ_m σ_aux."""
    return (product - covariance.abs()) / (product + EPSILON)


class _Statistics(torch.autograd.Function):
    """Features before the sigmoid -> (σ_m, σ_aux, covariance), each [B, C, windows]; a gradient to f_m only.

    Written by hand because autograd would keep several float32 copies of the features, per modality and
    level, for the backward pass. This keeps the inputs alone and works the deviations out again.
    """

    @staticmethod
    def forward(ctx: Any, f_m: Tensor, f_aux: Tensor, window: int, stride: int | None) -> tuple[Tensor, ...]:
        dtype = precision(f_m, f_aux)
        found = []
        for block in _blocks(f_m, window, stride):
            m, aux = (_deviations(_sigmoid(block, f, dtype)) for f in (f_m, f_aux))
            found.append((_sigma(m), _sigma(aux), m.mul_(aux).sum(-1) / (block.voxels - 1)))
        sigma_m, sigma_aux, covariance = (torch.cat(values, -1) for values in zip(*found, strict=True))
        ctx.save_for_backward(f_m, f_aux, sigma_m)
        ctx.windows = window, stride
        ctx.mark_non_differentiable(sigma_aux)
        ctx.set_materialize_grads(False)
        return sigma_m, sigma_aux, covariance

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, d_sigma: Tensor | None, _: None, d_covariance: Tensor | None
    ) -> tuple[Tensor, None, None, None]:
        f_m, f_aux, sigma = ctx.saved_tensors
        # dσ/dx_i = (x_i - mean) / ((n - 1) σ), with 0 in place of 1/σ on flat windows; NaN stays NaN.
        per_sigma = None if d_sigma is None else torch.where(sigma == 0, 0, d_sigma / sigma)
        gradient = torch.zeros_like(f_m, dtype=sigma.dtype)
        done = 0
        for block in _blocks(f_m, *ctx.windows):
            here = slice(done, done := done + block.windows)
            weights = [None if part is None else part[..., here, None] for part in (per_sigma, d_covariance)]
            view = block.of(gradient)
            view.add_(_gradient(block, f_m, f_aux, *weights).view(view.shape))
        return gradient.to(f_m.dtype), None, None, None


def _gradient(
    block: _Block, f_m: Tensor, f_aux: Tensor, d_sigma: Tensor | None, d_cov: Tensor | None
) -> Tensor:
    """Gradient to f_m, [B, C, windows, n], from that to σ_m (divided by σ_m) and that to the covariance."""
    dtype = precision(f_m, f_aux)
    values = _sigmoid(block, f_m, dtype)
    slope = (1 - values).mul_(values).div_(block.voxels - 1)
    total = torch.zeros_like(values) if d_sigma is None else _deviations(values).mul_(d_sigma)
    if d_cov is not None:  # dcov/dx_i = (y_i - mean of y) / (n - 1)
        total.addcmul_(_deviations(_sigmoid(block, f_aux, dtype)), d_cov)
    return total.mul_(slope)


def _sigmoid(block: _Block, f: Tensor, dtype: torch.dtype) -> Tensor:
    """The windows' sigmoid features, a new tensor [B, C, windows, n].

    The CPU's vector and scalar code for the sigmoid differ in the last bit, so that equal features would not
    always stay equal: those that equal their window's first take its value.
    """
    windows = block.of(f).to(dtype, memory_format=torch.contiguous_format, copy=True)
    features = windows.flatten(2, 4).flatten(3)
    equal = features == features[..., :1]
    values = features.sigmoid_()
    return torch.where(equal, values[..., :1], values)


def _deviations(values: Tensor) -> Tensor:
    """Values minus their mean over the last axis, in place.

    The first value is taken off before: equal values then leave exact zeros, whatever the mean's rounding.
    """
    values.sub_(values[..., :1].clone())
    return values.sub_(values.mean(-1, keepdim=True))


def _sigma(deviations: Tensor) -> Tensor:
    """Unbiased standard deviation over the last axis."""
    return torch.linalg.vector_norm(deviations, dim=-1) / math.sqrt(deviations.shape[-1] - 1)


class _Run(NamedTuple):
    """Windows of one size along one axis, `step` >= `size` voxels apart: no voxel lies in two of them."""

    start: int
    number: int
    size: int
    step: int


class _Block(NamedTuple):
    """The windows of a run per axis: disjoint, all of one shape."""

    depth: _Run
    height: _Run
    width: _Run

    @property
    def windows(self) -> int:
        return math.prod(run.number for run in self)

    @property
    def voxels(self) -> int:
        return math.prod(run.size for run in self)

    def of(self, f: Tensor) -> Tensor:
        """View [B, C, nD, nH, nW, sD, sH, sW] of a tensor [B, C, D, H, W]."""
        for axis, (start, number, size, step) in enumerate(self, 2):
            f = f.narrow(axis, start, (number - 1) * step + size).unfold(axis, size, step)
        return f


def _blocks(f: Tensor, window: int, stride: int | None) -> tuple[_Block, ...]:
    """All windows of features [B, C, D, H, W] that hold two voxels or more, as blocks of bounded size."""
    stride = window if stride is None else stride
    if window < 2 or stride < 1:
        raise UserError(
            f"local window {window}, stride {stride}: the window needs 2 voxels a side, the stride 1"
        )
    batch, channels, *shape = f.shape
    budget = _PIECE_ON_CPU if f.device.type == "cpu" else _PIECE
    layer = batch * channels * window * shape[1] * shape[2]
    blocks = _plan(tuple(shape), window, stride, max(1, budget // max(layer, 1)))
    if not blocks:
        raise UserError(
            f"features of {'×'.join(map(str, shape))} voxels hold no local window of two voxels: "
            "use a larger crop or leave this level out"
        )
    return blocks


@lru_cache(maxsize=256)
def _plan(shape: tuple[int, ...], window: int, stride: int, layers: int) -> tuple[_Block, ...]:
    """Blocks of at most `layers` windows along the first axis."""
    depth, height, width = (_runs(length, window, stride) for length in shape)
    pieces = [piece for run in depth for piece in _pieces(run, layers)]
    blocks = itertools.starmap(_Block, itertools.product(pieces, height, width))
    return tuple(block for block in blocks if block.voxels > 1)


def _runs(length: int, window: int, stride: int) -> list[_Run]:
    """The windows along an axis (head of this file), dealt out to runs whose windows do not overlap."""
    whole = (length - window) // stride + 1 if length >= window else 0
    turns = math.ceil(window / stride)  # every so many windows, one begins beyond the end of the first
    runs = [
        _Run(first * stride, math.ceil((whole - first) / turns), window, turns * stride)
        for first in range(min(turns, whole))
    ]
    covered = (whole - 1) * stride + window if whole else 0
    rest = length - whole * stride  # voxels from the next start to the border
    if covered < length and rest > 0:
        runs.append(_Run(whole * stride, 1, rest, rest))
    return runs


def _pieces(run: _Run, most: int) -> Iterator[_Run]:
    """A run cut into runs of at most `most` windows."""
    for first in range(0, run.number, most):
        yield run._replace(start=run.start + first * run.step, number=min(most, run.number - first))
