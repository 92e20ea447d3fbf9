"""One rank of a training, as a process of its own: `child.py JOB RANK`. Prints events, saves its results.

A job is a list of tasks, each the name of a function here and its arguments: starting a process takes longer
than most of them.
"""

import pickle
import sys
from dataclasses import replace
from pathlib import Path

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from acdis import machine
from acdis.data.loader import share_of
from acdis.methods.base import MAIN, Batch, Method
from acdis.training import loop, preflight
from acdis.training.batches import batches
from acdis.training.events import EpochEnd
from acdis.training.group import Group
from acdis.training.run import begin, new_method
from acdis.training.spread import losses_of
from acdis.training.step import accumulate, optimiser_step


class Enough(Exception):  # noqa: N818  it says what happened
    """Ends a training after an epoch, on every rank."""


def train(group, experiment, cases, folder, until=None):
    """All epochs, or until one is done: weights and history, or what the training was stopped by."""

    def tell(event):
        print(type(event).__name__, getattr(event, "epoch", ""), getattr(event, "step", ""))
        if isinstance(event, EpochEnd) and event.epoch == until:
            raise Enough

    folder.mkdir(exist_ok=True)
    try:
        run = loop.train(experiment, cases, folder, group, tell)
    except Enough:
        return {}
    except loop.Diverged as error:
        return {"diverged": str(error)}
    return {"weights": run.method.state_dict(), "history": run.history}


def gradients(group, experiment, cases, epoch, available, dtype):
    """Terms and gradients of the first batch (with running statistics), its samples having `available`.

    Half of the first sample is lesion and nothing of the others: a share's Dice is far from the batch's.
    """
    run = begin(experiment, Path("nowhere"), group)
    if dtype != torch.float32:
        method = new_method(experiment).to(dtype)
        wrapped = DistributedDataParallel(method, find_unused_parameters=True) if group.world > 1 else method
        run = replace(run, method=method, model=wrapped)
    drawn = next(batches(run, cases, 0))
    mine = share_of(len(available), group.rank, group.world)
    labels = torch.zeros_like(drawn.labels)
    for index, label in zip(mine, labels, strict=True):
        if index == 0:
            label[::2] = 3
    rows = torch.tensor([available[index] for index in mine], dtype=torch.bool)
    samples = replace(drawn, images=drawn.images.to(dtype), labels=labels, available=rows)
    run.model.train()
    terms = accumulate(run, samples, epoch)
    moved = {name: value for name, value in run.method.named_buffers() if value.is_floating_point()}
    return terms, moved | {name: parameter.grad for name, parameter in run.method.named_parameters()}


class Pooling(Method):
    """Pools sums of three shapes, one after the other, and makes of them what no mean over pieces gives."""

    def __init__(self):
        super().__init__()
        self.weights = torch.nn.Parameter(torch.arange(1.0, 5.0, dtype=torch.float64))

    def encode(self, images, origin=None):
        raise NotImplementedError

    def decode(self, features, available):
        raise NotImplementedError

    def forward(self, batch, epoch):
        values = self.weights * batch.images.mean((2, 3, 4))
        table = batch.pool(torch.stack([values.sum(0), values.square().sum(0)]))
        number = batch.pool(values.sin().sum())
        row = batch.pool(values.exp().sum(0))
        self.seen = torch.cat([table.flatten(), number.reshape(1), row]).detach()
        return {MAIN: {"pooled": (table[0] / table[1]).sum() * number + row.prod().log()}}


def pooled(group, count, cuts):
    """What each piece saw, and the gradient of the whole batch of `count` samples; `cuts` per rank."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(count, 4, 2, 2, 2, generator=generator, dtype=torch.float64)
    rows = list(share_of(count, group.rank, group.world))
    pieces, start = [], rows[0]
    for size in cuts[group.rank]:
        pieces.append(Batch(images[start : start + size], torch.zeros(size), torch.zeros(size)))
        start += size
    method, seen = Pooling(), []
    for piece, losses in zip(pieces, losses_of(method, pieces, 0, group, None, count), strict=True):
        seen.append(method.seen)
        (losses[MAIN]["pooled"] * len(piece.images) * group.world / count).backward()
    return seen, group.add(method.weights.grad) / group.world


def steps(group, experiment, cases, epochs):
    """Weights at the start and after one step in each of the epochs, counted from 0."""
    run = begin(experiment, Path("nowhere"), group)
    run.model.train()
    weights = [_weights(run)]
    for epoch in epochs:
        optimiser_step(run, next(batches(run, cases, epoch)), epoch)
        weights.append(_weights(run))
    return weights


def peaks(group, experiment, cases):
    """Bytes that a step takes over what is held before: predicted and measured."""
    run = begin(experiment, Path("nowhere"), group)
    samples = next(batches(run, cases, 0))
    run.model.train()
    machine.reset_peak()
    before = machine.resident()
    predicted = preflight.predicted_peak(run, samples)
    _, measured = preflight.measure(run, samples)
    return predicted - before, measured - before


def _weights(run):
    return {name: parameter.detach().clone() for name, parameter in run.method.named_parameters()}


def main():
    torch.set_num_threads(1)
    job, rank = pickle.loads(Path(sys.argv[1]).read_bytes()), int(sys.argv[2])
    world, folder = job["world"], job["folder"]
    if world > 1:
        dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=world)
    group = Group(rank, world)
    results = [globals()[task](group, **arguments) for task, arguments in job["tasks"]]
    (folder / f"results{rank}.pickle").write_bytes(pickle.dumps(results))
    if world > 1:
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
