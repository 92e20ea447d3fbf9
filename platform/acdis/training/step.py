"""One optimiser step on this process's share of a global batch."""

from __future__ import annotations

import torch
from torch import Tensor

from acdis.config import Experiment
from acdis.data.loader import Samples
from acdis.methods.base import Method, Terms
from acdis.training.batches import as_batch
from acdis.training.divergence import stop_if_diverged
from acdis.training.global_batch import losses_of, total
from acdis.training.run import TrainingRun


def optimiser_step(run: TrainingRun, samples: Samples, epoch: int) -> dict[str, float]:
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


def accumulate(run: TrainingRun, samples: Samples, epoch: int, watched: bool = True) -> dict[str, float]:
    """Forward and backward over the accumulation steps; gradients of the global batch's loss stay in `.grad`.

    Args:
        samples: this process's share of the batch.
        epoch: counted from 0.
        watched: stop if the loss is not finite.

    Returns:
        Each term, `loss`, and the method's diagnostics; the means over the ranks are the global batch's.

    Raises:
        Diverged: a term is not finite, on this process or another.
    """
    batch_size = run.experiment.training.batch_size
    cut = pieces_of(run.experiment, len(samples), run.group.world)
    pieces = [as_batch(samples[piece], run.group.device) for piece in cut]
    by_piece: list[dict[str, Tensor]] = []
    weights: list[float] = []
    forward = losses_of(run.model, pieces, epoch, run.group, run.dtype, batch_size)
    for piece, losses in zip(cut, forward, strict=True):
        # The mean over the ranks of what is added up here weighs each sample the same, also in uneven shares.
        weight = batch_size / ((piece.stop - piece.start) * run.group.world)
        loss = total(losses)
        (loss / weight).backward()
        by_piece.append(_named(losses, loss, run.method))
        weights.append(weight)
    values: dict[str, float] = {}
    for names, piece_values, weight in zip(map(tuple, by_piece), _as_floats(by_piece), weights, strict=True):
        terms = dict(zip(names, piece_values, strict=True))
        if watched:
            stop_if_diverged(run, samples, terms, epoch)
        for name, value in terms.items():
            values[name] = values.get(name, 0.0) + value / weight
    return values


def pieces_of(experiment: Experiment, share: int, world: int) -> list[slice]:
    """Accumulation steps: a rank's samples, cut so that a piece is no larger than with all workers.

    Fewer workers have larger shares and cut them into more pieces, so the batch stays what it is. All ranks
    have the same number of pieces: they exchange sums in each.
    """
    batch_size, scaling = experiment.training.batch_size, experiment.scaling
    usual = batch_size // (scaling.workers * scaling.accumulation)
    smallest, largest = batch_size // world, -(-batch_size // world)
    count = min(-(-largest // usual), smallest)
    start = 0
    cut = []
    for number in range(count):
        size = share // count + (number < share % count)
        cut.append(slice(start, start + size))
        start += size
    return cut


def _named(losses: Terms, loss: Tensor, method: Method) -> dict[str, Tensor]:
    """Terms, diagnostics and the sum, still on the device."""
    named = {"loss": loss} | {name: term for terms in losses.values() for name, term in terms.items()}
    return {name: value.detach() for name, value in (named | method.diagnostics).items()}


def _as_floats(by_piece: list[dict[str, Tensor]]) -> list[list[float]]:
    """The values of each piece in one transfer: a step waits for its device once, when all is on its way."""
    values = [value.float().reshape(()) for piece in by_piece for value in piece.values()]
    flat = iter(torch.stack(values).tolist())
    return [[next(flat) for _ in piece] for piece in by_piece]
