"""What training may see, and how it comes to the device."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass

import torch

from acdis.data.entry import Entry
from acdis.data.loader import Samples, epoch_batches, iterations_per_epoch
from acdis.methods.base import Batch
from acdis.training.run import Run


@dataclass(frozen=True)
class Cases:
    """What training may see. There are no test cases here, so nothing can be chosen by them."""

    train: Sequence[Entry]
    validation: Sequence[Entry] = ()


def batches(run: Run, cases: Cases, epoch: int) -> Generator[Samples, None, None]:
    """This process's share of each batch of an epoch, counted from 0; closing it ends its threads."""
    experiment = run.experiment
    yield from epoch_batches(
        cases.train,
        experiment.data,
        seed=experiment.seed,
        epoch=epoch,
        batch_size=experiment.training.batch_size,
        iterations=experiment.training.iterations,
        rank=run.group.rank,
        world=run.group.world,
        threads=experiment.scaling.loader_threads,
        sample_subsets=run.method.sample_subsets,
    )


def steps_per_epoch(run: Run, cases: Cases) -> int:
    """Optimiser steps of an epoch."""
    settings = run.experiment.training
    return iterations_per_epoch(len(cases.train), settings.batch_size, settings.iterations)


def as_batch(samples: Samples, device: torch.device) -> Batch:
    """The samples on the device, as the methods want them."""
    return Batch(
        images=samples.images.to(device, memory_format=torch.channels_last_3d),
        labels=samples.labels.to(device).long(),  # an eighth of the bytes goes to the device
        available=samples.available.to(device),
        origin=samples.origin.to(device),
        flips=samples.flips.to(device),
        keys=samples.keys,
    )
