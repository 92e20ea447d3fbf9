"""One global batch, however it is spread over processes and accumulation steps: the same loss and gradients.

Every term of a method's losses is a mean over samples, except Dice, whose sums run over the whole batch. So
a method passes its Dice sums through `Batch.pool`, and this file gives it a pool that knows the others' sums.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from acdis.losses.segmentation import straight_through
from acdis.methods.base import Batch, Method, Terms
from acdis.training.group import Group


def losses_of(
    model: nn.Module,
    pieces: Sequence[Batch],
    epoch: int,
    group: Group,
    dtype: torch.dtype | None,
    batch_size: int,
) -> Iterator[Terms]:
    """The losses of each piece of this process's share, Dice sums taken over the global batch.

    With one piece the sums are exchanged during its forward pass. With several, a first pass without
    gradients collects them: a Dice over the batch is not the mean of the pieces' Dice. The caller goes
    backward through each piece's losses before it asks for the next.

    Args:
        model: the method, or its DDP wrapper.
        pieces: this process's share of the batch, cut into accumulation steps.
        epoch: counted from 0.
        dtype: of autocast; none for fp32.
        batch_size: samples of the global batch.
    """
    totals = None if len(pieces) == 1 else _first_pass(model, pieces, epoch, group, dtype)
    for number, piece in enumerate(pieces):
        shares = batch_size / len(piece.images)
        pool = _Exchange(group, shares) if totals is None else _Replay(totals, shares)
        # Only the last backward pass exchanges gradients; they add up in between.
        last = number == len(pieces) - 1
        quiet = (
            contextlib.nullcontext()
            if last or not isinstance(model, DistributedDataParallel)
            else model.no_sync()
        )
        with quiet:
            with autocast(group.device, dtype):
                losses: Terms = model(replace(piece, pool=pool), epoch)
            yield losses


def total(losses: Terms) -> Tensor:
    """The plain sum of all terms of all optimisers (Eq. 12): their parameters are disjoint, so one backward
    pass serves them all."""
    return torch.stack([term for terms in losses.values() for term in terms.values()]).sum()


def autocast(device: torch.device, dtype: torch.dtype | None) -> torch.autocast:
    """Mixed precision, or nothing for fp32."""
    return torch.autocast(device.type, dtype=dtype, enabled=dtype is not None)


class _Exchange:
    """Sums over the processes, while the forward pass runs.

    Args:
        shares: how many pieces of this one's size would make up the batch.
    """

    def __init__(self, group: Group, shares: float) -> None:
        self.group, self.shares = group, shares

    def __call__(self, local: Tensor) -> Tensor:
        if self.group.world == 1:
            return local
        return straight_through(local, self.group.add(local), self.shares)


class _Record:
    """Notes the sums of a pass without gradients, in the order of the calls."""

    def __init__(self) -> None:
        self.sums: list[Tensor] = []

    def __call__(self, local: Tensor) -> Tensor:
        self.sums.append(local.detach())
        return local


class _Replay:
    """Gives the sums of the global batch, in the order in which the first pass called."""

    def __init__(self, totals: Sequence[Tensor], shares: float) -> None:
        self.totals = iter(totals)
        self.shares = shares

    def __call__(self, local: Tensor) -> Tensor:
        return straight_through(local, next(self.totals), self.shares)


def _first_pass(
    model: nn.Module, pieces: Sequence[Batch], epoch: int, group: Group, dtype: torch.dtype | None
) -> list[Tensor]:
    """What was pooled, summed over the global batch, in the order of the calls."""
    method = bare(model)
    records = []
    with torch.no_grad(), autocast(group.device, dtype):
        for piece in pieces:
            record = _Record()
            method(replace(piece, pool=record), epoch)
            records.append(record.sums)
    here = [torch.stack(calls).sum(0) for calls in zip(*records, strict=True)]
    if not here:
        return []
    # One exchange for all of them, whatever their shapes.
    everywhere = group.add(torch.cat([sums.flatten() for sums in here]))
    parts = everywhere.split([sums.numel() for sums in here])
    return [part.view_as(sums) for part, sums in zip(parts, here, strict=True)]


def bare(model: nn.Module) -> Method:
    """The method without its DDP wrapper."""
    inner = model.module if isinstance(model, DistributedDataParallel) else model
    assert isinstance(inner, Method)
    return inner
