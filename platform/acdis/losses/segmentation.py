"""Segmentation losses: weighted cross-entropy and Dice on probabilities (Eq. 11; RFNet convention).

Why not MONAI's `DiceLoss` and `DiceCELoss`:

- Dice sums run over the whole batch (RFNet). When a batch is spread over ranks or accumulation steps the sums
  have to meet before the division; MONAI's forward has no place between the two. (With one share it agrees:
  `DiceLoss(batch=True, smooth_nr=0, smooth_dr=1e-7)`, and a test compares them.)
- RFNet weights a class by 1 - its share of the crop, anew for each sample; MONAI's weights are fixed.
- RFNet clamps probabilities to [0.005, 1] before the logarithm; `DiceCELoss` works on logits without a clamp.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from acdis.losses import Reduction, full_precision, reduce_samples, same_shape
from acdis.vocabulary import CLASSES

_SMALLEST_PROBABILITY = 0.005
_DICE_EPSILON = 1e-7


def one_hot(labels: Tensor) -> Tensor:
    """Labels 0..3 of any integer type, [B, D, H, W] -> float32 [B, 4, D, H, W].

    Raises:
        RuntimeError: a label outside 0..3 (on the CPU; a CUDA device asserts).
    """
    batch, *space = labels.shape
    target = torch.zeros(batch, len(CLASSES), *space, device=labels.device)
    return target.scatter_(1, labels.long().unsqueeze(1), 1.0)


def weighted_cross_entropy(probabilities: Tensor, target: Tensor, reduction: Reduction = "mean") -> Tensor:
    """Cross-entropy with class weights of each sample's own: 1 - share of the class in the crop.

    The logarithm is taken of probabilities clamped to [0.005, 1]; below 0.005 no gradient flows. Sum over
    classes, mean over voxels and batch (RFNet convention).

    Args:
        probabilities: softmax, [B, 4, D, H, W].
        target: one-hot, same shape.
        reduction: "mean" (scalar) or "sample" ([B]).
    """
    same_shape(probabilities, target)
    probabilities, target = full_precision(probabilities, target)
    space = (2, 3, 4)
    weights = 1 - target.mean(space)
    logarithms = probabilities.clamp(_SMALLEST_PROBABILITY, 1).log()
    likelihood = (target * logarithms).mean(space)
    return reduce_samples(-(weights * likelihood).sum(1), reduction)


def _unpooled(sums: Tensor) -> Tensor:
    return sums


def dice_loss(
    probabilities: Tensor,
    target: Tensor,
    pool: Callable[[Tensor], Tensor] = _unpooled,
    judged: Tensor | None = None,
) -> Tensor:
    """1 - mean over the 4 classes of 2 I / (P + T + 1e-7), the sums over batch and space (RFNet convention).

    There is no value per sample: the sums of a batch are divided once. When this process holds one share of
    the batch, `pool` turns its sums, one tensor [3, 4] (intersection I, prediction P, truth T; a column per
    class), into the whole batch's. It must return what `straight_through` returns: then every share has the
    whole batch's loss as its value, and the mean of the shares' gradients (what DDP and accumulation take) is
    the whole batch's gradient.

    Args:
        probabilities: softmax, [B, 4, D, H, W].
        target: one-hot, same shape.
        pool: from this share's sums to the whole batch's; called exactly once.
        judged: bool [B], the samples that count; none: all. Where no sample of the batch does, the loss is 0.
    """
    same_shape(probabilities, target)
    probabilities, target = full_precision(probabilities, target)
    if judged is not None:  # selected, not multiplied: 0 x NaN is NaN
        those = judged[:, None, None, None, None]
        probabilities, target = (torch.where(those, values, 0.0) for values in (probabilities, target))
    space = (0, 2, 3, 4)
    sums = torch.stack([(probabilities * target).sum(space), probabilities.sum(space), target.sum(space)])
    intersection, prediction, truth = pool(sums)
    loss = 1 - (2 * intersection / (prediction + truth + _DICE_EPSILON)).mean()
    return loss if judged is None else torch.where(truth.sum() > 0, loss, 0.0)


def class_probabilities(logits: Tensor) -> Tensor:
    """Softmax over the classes, `[B, 4, D, H, W]`, in float32 also under autocast (float64 stays)."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32)).softmax(dim=1)


def map_terms(
    probabilities: Tensor,
    target: Tensor,
    pool: Callable[[Tensor], Tensor] = _unpooled,
    judged: Tensor | None = None,
) -> dict[str, Tensor]:
    """L_WCE and L_Dice of one map (Eq. 11); probabilities and one-hot target `[B, 4, D, H, W]`.

    Args:
        judged: bool [B], the samples that have the map; none: all. The others count 0 in L_WCE's mean over
            the batch, and are left out of the sums of L_Dice.
    """
    if judged is None:
        entropy = weighted_cross_entropy(probabilities, target)
    else:
        entropy = torch.where(judged, weighted_cross_entropy(probabilities, target, "sample"), 0.0).mean()
    return {"wce": entropy, "dice": dice_loss(probabilities, target, pool, judged)}


def summed_map_terms(
    maps: Iterable[Tensor],
    target: Tensor,
    pool: Callable[[Tensor], Tensor] = _unpooled,
    judged: Tensor | None = None,
) -> dict[str, Tensor]:
    """The sum over several maps (probabilities), each with Dice sums of its own, pooled in their order.

    Args:
        judged: bool [B, maps], see `map_terms`.
    """
    by_map = [
        map_terms(probabilities, target, pool, None if judged is None else judged[:, number])
        for number, probabilities in enumerate(maps)
    ]
    return {name: torch.stack([terms[name] for terms in by_map]).sum() for name in by_map[0]}


def straight_through(local: Tensor, total: Tensor, shares: float) -> Tensor:
    """`shares * local + (total - shares * local).detach()`: `total`'s value, `shares * local`'s gradient.

    With S the sum of the shares' S_k, the whole batch's gradient is L'(S) (dS_1 + ... + dS_n). A share's own
    gradient through this function is L'(S) n dS_k, and the mean of those over the n shares is the same.

    Args:
        local: this share's sums, any shape.
        total: the sums of all shares, this one included; no gradient flows into it.
        shares: number of shares, n. Of uneven ones: how many of this one's size would make up the whole, if
            the mean over the shares is weighted by their sizes.
    """
    scaled = shares * local
    # The difference is 0 to the bit, so that the value is `total` without rounding, the same on every share.
    return (scaled - scaled.detach()) + total.detach()
