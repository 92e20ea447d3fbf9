"""GSS's group self-support (Qiu et al., ICCV 2023): a soft target from what the modalities predict alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor

from acdis.vocabulary import MODALITIES

TEMPERATURE = 8.0
LEADER_SURE, MEMBERS_SURE, PULL = 0.75, 0.85, 0.3
#: Which modality sees a class best, in the order of `CLASSES`; all others are its members.
LEADERS = (("FLAIR",), ("T1ce",), ("FLAIR", "T2"), ("T1ce",))
Variant = Literal["sound", "published"]
_SMALLEST_PROBABILITY = 0.005  # of a logarithm (RFNet convention)


def soft_target(logits: Tensor, variant: Variant = "sound") -> Tensor:
    """`[M, B, 4, D, H, W]` mono-modal logits to one target `[B, 4, D, H, W]` that sums to 1; no gradient.

    Per voxel and class: where the leader is sure (p > 0.75) its q, p softened by a temperature of 8; else,
    where all members are sure (p > 0.85), their mean q; else the least q of all. Two leaders: both sure, the
    larger q; one sure, the larger one pulled by 0.3 of the difference towards the smaller.

    Args:
        variant: "published" has the public code's two slips: with one leader, members that are sure give 0;
            two leaders that are both sure give twice the larger q less 0.3 of the difference.
    """
    with torch.no_grad():
        precise = logits.to(torch.promote_types(logits.dtype, torch.float32))
        p, q = precise.softmax(2), (precise / TEMPERATURE).softmax(2)
        by_class = [_class(p[:, :, c], q[:, :, c], leaders, variant) for c, leaders in enumerate(LEADERS)]
        raw = torch.stack(by_class, dim=1)
        return raw / raw.sum(1, keepdim=True)


def _class(p: Tensor, q: Tensor, leaders: Sequence[str], variant: Variant) -> Tensor:
    lead = [MODALITIES.index(name) for name in leaders]
    follow = [m for m in range(len(MODALITIES)) if m not in lead]
    rule = single if len(lead) == 1 else double
    return rule(p[lead], q[lead], p[follow], q[follow], variant)


def single(p: Tensor, q: Tensor, p_members: Tensor, q_members: Tensor, variant: Variant) -> Tensor:
    """One leader, `[1, ...]`, and its members, `[3, ...]`."""
    least = torch.minimum(q[0], q_members.amin(0))
    agreed = q_members.mean(0) if variant == "sound" else torch.zeros_like(least)
    held = torch.where((p_members > MEMBERS_SURE).all(0), agreed, least)
    return torch.where(p[0] > LEADER_SURE, q[0], held)


def double(p: Tensor, q: Tensor, p_members: Tensor, q_members: Tensor, variant: Variant) -> Tensor:
    """Two leaders, `[2, ...]`, and their members, `[2, ...]`."""
    high, low = q.amax(0), q.amin(0)
    pulled = high - PULL * (high - low)
    sure = p > LEADER_SURE
    both = high if variant == "sound" else high + pulled
    least = torch.minimum(low, q_members.amin(0))
    held = torch.where((p_members > MEMBERS_SURE).all(0), q_members.mean(0), least)
    return torch.where(sure.all(0), both, torch.where(sure.any(0), pulled, held))


def masked(
    target: Tensor, soft: Tensor, share: float, draw: Callable[[int], Tensor]
) -> tuple[Tensor, Tensor]:
    """Target and prediction `[B, 4, D, H, W]` with a share of the voxels set to 0 in all classes.

    Voxels are drawn with replacement, sample by sample, so that a share of 0.2 empties 18.1 %.

    Args:
        draw: number of draws to `[B, draws]` places of voxels, counted row-major.
    """
    voxels = target[0, 0].numel()
    kept = torch.ones(len(target), voxels, dtype=torch.bool, device=target.device)
    kept.scatter_(1, draw(int(share * voxels)), False)
    kept = kept.view(len(target), 1, *target.shape[2:])
    return torch.where(kept, target, 0.0), torch.where(kept, soft, 0.0)


def soft_cross_entropy(soft: Tensor, target: Tensor) -> Tensor:
    """Weighted cross-entropy with a soft target, `[B, 4, D, H, W]` both; mean over voxels and batch.

    As `losses.segmentation.weighted_cross_entropy`, but a class's share is taken of what the target holds:
    masked voxels hold nothing.
    """
    space = (2, 3, 4)
    shares = target.sum(space)
    weights = 1 - shares / shares.sum(1, keepdim=True)
    likelihood = (target * soft.clamp(_SMALLEST_PROBABILITY, 1).log()).mean(space)
    return -(weights * likelihood).sum(1).mean()
