"""Losses: pure functions of tensors, in float32 also under autocast (float64 stays float64)."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, dtype, float32, float64

#: "mean": a scalar over the batch; "sample": [B], whose mean is that scalar.
Reduction = Literal["mean", "sample"]


def precision(*tensors: Tensor) -> dtype:
    """What to compute in: float64 where one of the tensors is, float32 otherwise."""
    return float64 if any(tensor.dtype == float64 for tensor in tensors) else float32


def full_precision(*tensors: Tensor) -> tuple[Tensor, ...]:
    """The tensors, all in `precision` of them."""
    return tuple(tensor.to(precision(*tensors)) for tensor in tensors)


def reduce_samples(values: Tensor, reduction: Reduction) -> Tensor:
    """Mean of [B, ...] over all but the batch ("sample", [B]) or over all ("mean", scalar).

    An empty batch gives 0, not NaN: no sample, no loss.
    """
    samples = values.flatten(1).mean(1) if values.ndim > 1 else values
    if reduction == "sample":
        return samples
    if reduction == "mean":
        return samples.sum() / max(len(samples), 1)
    raise ValueError(f"reduction must be 'mean' or 'sample', not {reduction!r}")


def same_shape(first: Tensor, second: Tensor) -> None:
    """Refuse two tensors that would otherwise be broadcast in silence."""
    if first.shape != second.shape:
        raise ValueError(f"shapes differ: {tuple(first.shape)} and {tuple(second.shape)}")
