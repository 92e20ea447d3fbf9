"""Diagonal Gaussians of U-HVED (Dorent et al. 2019): products over a subset, and their divergences."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

EPSILON = 1e-7
_LIMIT = 50.0  # of a log-variance: exp stays finite in fp32


class Gaussian(NamedTuple):
    """Means and log-variances, alike in shape."""

    mean: Tensor
    logvar: Tensor


class Precise(NamedTuple):
    """Precisions (1 / variance) and means times precision: a product adds these up."""

    precision: Tensor
    weighted: Tensor


def split(maps: Tensor) -> Gaussian:
    """A map whose first half of the channels is the mean, the second the log-variance, held within ±50."""
    mean, logvar = maps.to(torch.promote_types(maps.dtype, torch.float32)).chunk(2, dim=1)
    return Gaussian(mean, logvar.clamp(-_LIMIT, _LIMIT))


def by_precision(part: Gaussian) -> Precise:
    """What a Gaussian adds to a product."""
    precision = 1 / (part.logvar.exp() + EPSILON)
    return Precise(precision, part.mean * precision)


def product(parts: Sequence[Precise], available: Tensor) -> Gaussian:
    """The product of a standard normal prior and the modalities' Gaussians that are available.

    Precisions add up, means are weighed by them; the prior bounds the variance by 1.

    Args:
        parts: per modality, `[B, C, D, H, W]`.
        available: bool `[B, M]`; what is not there is left out by selection, so that it may be NaN.
    """
    precision = torch.ones_like(parts[0].precision)
    weighted = torch.zeros_like(precision)
    for m, part in enumerate(parts):
        there = available[:, m, None, None, None, None]
        precision = precision + torch.where(there, part.precision, 0.0)
        weighted = weighted + torch.where(there, part.weighted, 0.0)
    return Gaussian(weighted / precision, (1 / precision + EPSILON).log())


def divergence(one: Gaussian, other: Gaussian) -> Tensor:
    """KL(one || other), mean over all elements of a sample: `[B, ...]` to `[B]`."""
    ratio = (one.logvar.exp() + (one.mean - other.mean).square()) / (other.logvar.exp() + EPSILON)
    return (other.logvar - one.logvar - 1 + ratio).flatten(1).mean(1) / 2


def disagreement(
    parts: Sequence[Precise], available: Tensor, subsets: Tensor, present: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """How far all subsets' products lie from the drawn one's, and from the prior; `[B]` each.

    Args:
        parts, available: as `product`; all modalities take part, whatever is available.
        subsets: bool `[S, M]`, every non-empty one.
        present: bool `[B, M]`, what a sample can have: its subsets are those of that. None: everything.

    Returns:
        The sum of KL(q_A || q_S) over the subsets divided by S - 1 (that of A itself is 0), and the mean of
        KL(q_S || N(0, 1)). With one subset alone the first is 0.
    """
    drawn = product(parts, available)
    between = torch.zeros(len(available), dtype=drawn.mean.dtype, device=drawn.mean.device)
    prior = torch.zeros_like(between)
    normal = Gaussian(torch.zeros_like(drawn.mean), torch.zeros_like(drawn.mean))
    if present is None:
        for subset in subsets:
            q = product(parts, subset.expand(len(available), -1))
            between = between + divergence(drawn, q)
            prior = prior + divergence(q, normal)
        return between / (len(subsets) - 1), prior / len(subsets)
    count = torch.zeros(len(available), dtype=torch.long, device=available.device)
    for subset in subsets:
        possible = ~(subset & ~present).any(1)
        q = product(parts, subset & present)  # what is not there reaches no gradient, not even times 0
        between = between + torch.where(possible, divergence(drawn, q), 0.0)
        prior = prior + torch.where(possible, divergence(q, normal), 0.0)
        count = count + possible
    return between / (count - 1).clamp(min=1), prior / count
