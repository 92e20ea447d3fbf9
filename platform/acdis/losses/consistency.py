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

from collections.abc import Collection, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from acdis.losses import Reduction, full_precision, precision, reduce_samples, same_shape
from acdis.losses.local_windows import Block, blocks

EPSILON = 1e-6


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
    return window_losses_of([f_m], f_aux, window, stride, names, reduction)[0]


def window_losses_of(
    f_ms: Sequence[Tensor],
    f_aux: Tensor,
    window: int = 5,
    stride: int | None = None,
    names: Collection[str] = ("var", "covar"),
    reduction: Reduction = "mean",
) -> list[dict[str, Tensor]]:
    """`window_losses` of several modalities against one f_Aux, whose statistics are taken once."""
    for f_m in f_ms:
        same_shape(f_m, f_aux)
    if unknown := set(names) - {"var", "covar"}:
        raise ValueError(f"unknown window losses {sorted(unknown)}: 'var' and 'covar' exist")
    sigma_aux, *statistics = _Statistics.apply(f_aux.detach(), window, stride, *f_ms)
    half = len(f_ms)
    pairs = zip(statistics[:half], statistics[half:], strict=True)
    return [_losses(sigma_m, sigma_aux, covariance, names, reduction) for sigma_m, covariance in pairs]


def _losses(
    sigma_m: Tensor, sigma_aux: Tensor, covariance: Tensor, names: Collection[str], reduction: Reduction
) -> dict[str, Tensor]:
    losses = {"flat": reduce_samples(((sigma_m == 0) | (sigma_aux == 0)).to(sigma_m), reduction)}
    if "var" in names:
        losses["var"] = reduce_samples(_contrast(sigma_m, sigma_aux), reduction)
    if "covar" in names:
        losses["covar"] = reduce_samples(_structure(sigma_m * sigma_aux, covariance), reduction)
    return losses


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
    """f_Aux and some f_m before the sigmoid -> σ_aux, each σ_m, each covariance, all [B, windows, C].

    Gradients flow to the f_m only.

    Written by hand because autograd would keep several float32 copies of the features, per modality and
    level, for the backward pass. This keeps the inputs alone and works the deviations out again.
    """

    @staticmethod
    def forward(
        ctx: Any, f_aux: Tensor, window: int, stride: int | None, *f_ms: Tensor
    ) -> tuple[Tensor, ...]:
        dtype = precision(f_aux, *f_ms)
        by_block = []
        for block in blocks(f_aux, window, stride):
            aux, sigma_aux = _spread(block, f_aux, dtype)
            spreads = [_spread(block, f_m, dtype) for f_m in f_ms]
            covariances = [_covariance(block, m, sigma_m, aux, sigma_aux) for m, sigma_m in spreads]
            by_block.append((sigma_aux, *(sigma_m for _, sigma_m in spreads), *covariances))
        sigma_aux, *others = (torch.cat(values, dim=1) for values in zip(*by_block, strict=True))
        ctx.save_for_backward(f_aux, *f_ms, *others[: len(f_ms)])
        ctx.windows = window, stride
        ctx.mark_non_differentiable(sigma_aux)
        ctx.set_materialize_grads(False)
        return sigma_aux, *others

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, _: None, *above: Tensor | None) -> tuple[Tensor | None, ...]:
        f_aux, *saved = ctx.saved_tensors
        count = len(saved) // 2
        f_ms, sigmas, d_covariances = saved[:count], saved[count:], above[count:]
        # dσ/dx_i = (x_i - mean) / ((n - 1) σ), with 0 in place of 1/σ on flat windows; NaN stays NaN.
        per_sigma = [
            None if d_sigma is None else torch.where(sigma == 0, 0, d_sigma / sigma)
            for d_sigma, sigma in zip(above[:count], sigmas, strict=True)
        ]
        gradients = [torch.zeros_like(f_m, dtype=sigmas[0].dtype) for f_m in f_ms]
        done = 0
        for block in blocks(f_aux, *ctx.windows):
            here = slice(done, done := done + block.windows)
            aux = _deviations(_sigmoid(block, f_aux, sigmas[0].dtype))
            for f_m, gradient, *parts in zip(f_ms, gradients, per_sigma, d_covariances, strict=True):
                weights = [None if part is None else part[:, here, None] for part in parts]
                view = block.of(gradient)
                view.add_(_gradient(block, f_m, aux, *weights).view(view.shape))
        return (
            None,
            None,
            None,
            *(gradient.to(f_m.dtype) for gradient, f_m in zip(gradients, f_ms, strict=True)),
        )


def _gradient(block: Block, f_m: Tensor, aux: Tensor, d_sigma: Tensor | None, d_cov: Tensor | None) -> Tensor:
    """Gradient to f_m, [B, windows, n, C], from that to σ_m (divided by σ_m) and that to the covariance.

    `aux` are the deviations of f_Aux.
    """
    values = _sigmoid(block, f_m, aux.dtype)
    slope = (1 - values).mul_(values).div_(block.voxels - 1)
    total = torch.zeros_like(values) if d_sigma is None else _deviations(values).mul_(d_sigma)
    if d_cov is not None:  # dcov/dx_i = (y_i - mean of y) / (n - 1)
        total.addcmul_(aux, d_cov)
    return total.mul_(slope)


def _spread(block: Block, f: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Deviations of the sigmoid features, [B, windows, n, C], and their unbiased σ, [B, windows, C]."""
    features = _windows(block, f)
    # Looked at in every window, not only in suspects: a search would wait for the device. By a sum, which
    # takes a tenth of what comparing takes.
    flat = (features - features[:, :, :1]).abs_().sum(2, dtype=dtype) == 0
    deviations = _deviations(features.to(dtype, copy=f.dtype == dtype).sigmoid_())
    return deviations, deviations.square().sum(2).div_(block.voxels - 1).sqrt_().masked_fill_(flat, 0)


def _covariance(block: Block, m: Tensor, sigma_m: Tensor, aux: Tensor, sigma_aux: Tensor) -> Tensor:
    """[B, windows, C] from the deviations of both, of which `m` is spent; 0 where one of them is flat."""
    covariance = m.mul_(aux).sum(2).div_(block.voxels - 1)
    return covariance.masked_fill_((sigma_m == 0) | (sigma_aux == 0), 0)


def _sigmoid(block: Block, f: Tensor, dtype: torch.dtype) -> Tensor:
    """The windows' sigmoid features, a new tensor [B, windows, n, C]."""
    return _windows(block, f).to(dtype, copy=f.dtype == dtype).sigmoid_()


def _windows(block: Block, f: Tensor) -> Tensor:
    """[B, windows, n, C]; a copy wherever windows do not lie in memory one after the other."""
    return block.of(f).flatten(1, 3).flatten(2, 4)


def _deviations(values: Tensor) -> Tensor:
    """Values minus their mean over the window, in place."""
    return values.sub_(values.mean(2, keepdim=True))
