"""One optimiser step on this process's share of a global batch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from acdis.data.loader import Sample
from acdis.methods.base import Method, Terms
from acdis.training.batches import as_batch
from acdis.training.divergence import stop_if_diverged
from acdis.training.run import Run
from acdis.training.spread import losses_of, total


def optimiser_step(run: Run, samples: Sequence[Sample], epoch: int) -> dict[str, float]:
    """One step on this process's share of the global batch; returns the terms and their sum, `loss`.

    Args:
        epoch: counted from 0.

    Raises:
        Diverged: a term is not finite, on this process or another.
    """
    for optimiser in run.optimisers.values():
        optimiser.zero_grad(set_to_none=True)  # None, not 0: Adam leaves what is not active alone
    values = accumulate(run, samples, epoch)
    for optimiser in run.optimisers.values():
        optimiser.step()
    return values


def accumulate(run: Run, samples: Sequence[Sample], epoch: int, watched: bool = True) -> dict[str, float]:
    """Forward and backward over the accumulation steps; gradients of the global batch's loss stay in `.grad`.

    Args:
        samples: this process's share of the batch.
        epoch: counted from 0.
        watched: stop if the loss is not finite.

    Returns:
        Each term's mean over this process's accumulation steps, `loss`, and the method's diagnostics.

    Raises:
        Diverged: a term is not finite, on this process or another.
    """
    count = run.experiment.scaling.accumulation
    size = len(samples) // count
    pieces = [as_batch(samples[at : at + size], run.group.device) for at in range(0, len(samples), size)]
    values: dict[str, float] = {}
    for losses in losses_of(run.model, pieces, epoch, run.group, run.dtype):
        loss = total(losses)
        piece = _as_floats(losses, loss, run.method)
        if watched:
            stop_if_diverged(run, samples, piece, epoch)
        (loss / count).backward()
        for name, value in piece.items():
            values[name] = values.get(name, 0.0) + value / count
    return values


def _as_floats(losses: Terms, loss: Tensor, method: Method) -> dict[str, float]:
    """Terms, diagnostics and the sum in one transfer from the device."""
    named = {"loss": loss} | {name: term for terms in losses.values() for name, term in terms.items()}
    named |= method.diagnostics
    values = torch.stack([value.detach().float().reshape(()) for value in named.values()]).tolist()
    return dict(zip(named, values, strict=True))
