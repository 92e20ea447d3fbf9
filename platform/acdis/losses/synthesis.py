"""Losses of the feature synthesis: L_Syn (Eq. 10) and the adversarial terms of Table 3.

The variance and covariance rows of Table 3 are `consistency.window_losses` on the synthesised features.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from acdis.losses import Reduction, full_precision, reduce_samples, same_shape


def mse(f_hat: Tensor, f: Tensor, reduction: Reduction = "mean") -> Tensor:
    """L_Syn: mean squared error between synthesised and real features, no sigmoid; `f` is detached.

    Eq. 10 prints a 2-norm, the text says mean squared error: the text is followed. To average over the
    missing modalities only, weight the "sample" values. An empty batch gives 0.

    Args:
        f_hat: synthesised features, [B, C, D, H, W].
        f: the real features, same shape; no gradient flows into them.
        reduction: "mean" (scalar) or "sample" ([B]).
    """
    same_shape(f_hat, f)
    f_hat, f = full_precision(f_hat, f.detach())
    return reduce_samples((f_hat - f).square(), reduction)


def adversarial_real(logits: Tensor, reduction: Reduction = "mean") -> Tensor:
    """Binary cross-entropy of the discriminator's logits with "real": mean of -log sigmoid(logits).

    On logits of real features a term of the discriminator's loss; on logits of synthesised ones the
    generator's loss (the non-saturating form).

    Args:
        logits: [B, 1, D, H, W], one per patch.
        reduction: "mean" (scalar) or "sample" ([B]).
    """
    return _binary_cross_entropy(logits, 1.0, reduction)


def adversarial_fake(logits: Tensor, reduction: Reduction = "mean") -> Tensor:
    """Binary cross-entropy of the discriminator's logits with "fake": mean of -log(1 - sigmoid(logits)).

    On logits of synthesised, detached features the other term of the discriminator's loss.

    Args:
        logits: [B, 1, D, H, W], one per patch.
        reduction: "mean" (scalar) or "sample" ([B]).
    """
    return _binary_cross_entropy(logits, 0.0, reduction)


def _binary_cross_entropy(logits: Tensor, truth: float, reduction: Reduction) -> Tensor:
    (logits,) = full_precision(logits)
    values = F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, truth), reduction="none")
    return reduce_samples(values, reduction)
