"""What training may see, and how it comes to the device."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass

import torch

from acdis.data.loader import Samples, epoch_batches, iterations_per_epoch
from acdis.data.prepared_case import Entry
from acdis.methods.base import Batch
from acdis.training.run import TrainingRun


@dataclass(frozen=True)
class Cases:
    """What training may see. There are no test cases here, so nothing can be chosen by them."""

    train: Sequence[Entry]
    validation: Sequence[Entry] = ()


def batches(run: TrainingRun, cases: Cases, epoch: int) -> Generator[Samples, None, None]:
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
        pinned=run.group.device.type == "cuda",
    )


def steps_per_epoch(run: TrainingRun, cases: Cases) -> int:
    """Optimiser steps of an epoch."""
    settings = run.experiment.training
    return iterations_per_epoch(len(cases.train), settings.batch_size, settings.iterations)


def as_batch(samples: Samples, device: torch.device) -> Batch:
    """The samples on the device, as the methods want them."""
    later = device.type == "cuda"  # from pinned memory, see the loader: the next kernels may be asked for
    images = samples.images.to(device, non_blocking=later)
    return Batch(
        images=images.contiguous(memory_format=torch.channels_last_3d),
        labels=samples.labels.to(device, non_blocking=later).long(),  # an eighth of the bytes goes there
        available=samples.available.to(device, non_blocking=later),
        origin=samples.origin.to(device, non_blocking=later),
        flips=samples.flips.to(device, non_blocking=later),
        keys=samples.keys,
        present=None if samples.present is None else samples.present.to(device, non_blocking=later),
    )
