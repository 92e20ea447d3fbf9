"""Ranks of trainings, each a process of its own that prints events and saves its results.

Torch is imported once, which takes longer than most tasks: every rank is a fork of this process, made before
it has computed anything. It takes lines of JSON, `["start", folder, rank]` and `["wait", process]`, and
answers each with the process or its exit code. A job has a list of tasks per rank, each the name of a
function here and its arguments. What a rank says stands in `said0.txt` and `errors0.txt` of the job's folder.
"""

import json
import os
import pickle
import signal
import sys
import traceback
from dataclasses import replace
from pathlib import Path

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from acdis import machine
from acdis.data.loader import share_of
from acdis.methods.acdis.network import ACDIS
from acdis.methods.base import MAIN, Batch, Method
from acdis.training import loop, preflight
from acdis.training.batches import batches
from acdis.training.events import EpochEnd, Step
from acdis.training.global_batch import losses_of
from acdis.training.group import Group
from acdis.training.run import begin, new_method, state_of, write
from acdis.training.step import accumulate, optimiser_step


class Enough(Exception):  # noqa: N818  it says what happened
    """Ends a training after an epoch, on every rank."""


def train(group, experiment, cases, folder, until=None, killed_at=()):
    """All epochs, or until one is done: weights and history, or what the training was stopped by.

    `killed_at`: the epoch and step after which the process gets SIGKILL.
    """

    def tell(event):
        print(type(event).__name__, getattr(event, "epoch", ""), getattr(event, "step", ""), flush=True)
        if isinstance(event, Step) and (event.epoch, event.step) == killed_at:
            os.kill(os.getpid(), signal.SIGKILL)
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


def taken_up(group, experiment, cases, folder, kind, settings):
    """States of such an optimiser: after a first step, which is saved; else as the checkpoint gave them."""
    mine, usual = getattr(torch.optim, kind), ACDIS.optimisers
    ACDIS.optimisers = lambda self, recipe: {
        name: mine(parameters, lr=recipe.learning_rate, **settings)
        for name, parameters in self.parameter_groups().items()
    }
    try:
        folder.mkdir(exist_ok=True)
        run = begin(experiment, folder, group)
        if not run.history:
            run.model.train()
            optimiser_step(run, next(batches(run, cases, 0)), 0)
            run.history = [{"epoch": 1, "learning_rate": 1.0, "seconds": 1.0, "terms": {}, "validation": {}}]
            write(folder, state_of(run))
        return {name: optimiser.state_dict() for name, optimiser in run.optimisers.items()}
    finally:
        ACDIS.optimisers = usual


def heard(group, experiment, cases, folder):
    """Epochs and summaries of the validations that the method is told of."""
    found, usual = [], ACDIS.validated
    ACDIS.validated = lambda self, epoch, summary: found.append((epoch, dict(summary)))
    try:
        folder.mkdir(exist_ok=True)
        loop.train(experiment, cases, folder, group, lambda event: None)
        return found
    finally:
        ACDIS.validated = usual


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


def work(folder, rank):
    job = pickle.loads((folder / "job.pickle").read_bytes())
    world = job["world"]
    if world > 1:
        dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=world)
    group = Group(rank, world)
    results = [globals()[task](group, **arguments) for task, arguments in job["tasks"][rank]]
    (folder / f"results{rank}.pickle").write_bytes(pickle.dumps(results))
    if world > 1:
        dist.destroy_process_group()


def be(folder, rank):
    """This process is the rank, and ends with its work."""
    code = 1
    try:
        for descriptor, name in ((1, "said"), (2, "errors")):
            with (folder / f"{name}{rank}.txt").open("w") as file:
                os.dup2(file.fileno(), descriptor)
        work(folder, rank)
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def main():
    torch.set_num_threads(1)
    for line in sys.stdin:
        what, *words = json.loads(line)
        if what == "start":
            answer = os.fork()
            if not answer:
                be(Path(words[0]), words[1])
        else:
            answer = os.waitstatus_to_exitcode(os.waitpid(words[0], 0)[1])
        print(answer, flush=True)


if __name__ == "__main__":
    main()
