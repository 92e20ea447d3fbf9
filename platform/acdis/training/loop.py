"""Training: epochs over crops, a checkpoint after each, events on the way. Resuming is exact.

This is the door of the room: what the floors above use of a training stands in `__all__`.
"""

from __future__ import annotations

import time
from contextlib import closing
from pathlib import Path

import torch

from acdis import methods
from acdis.config import Experiment
from acdis.errors import UserError
from acdis.training import preflight
from acdis.training.batches import Cases, batches, steps_per_epoch
from acdis.training.checkpoints import Checkpoints
from acdis.training.divergence import Diverged
from acdis.training.events import Emit, EpochEnd, Event, Step
from acdis.training.group import Group
from acdis.training.run import (
    BEFORE,
    BEST,
    LAST,
    STATE,
    TrainingRun,
    begin,
    final_state,
    new_method,
    settle,
)
from acdis.training.step import optimiser_step
from acdis.training.validation import score_share, validate

__all__ = [
    "BEFORE",
    "BEST",
    "LAST",
    "STATE",
    "Cases",
    "Diverged",
    "Emit",
    "TrainingRun",
    "begin",
    "final_state",
    "new_method",
    "optimiser_step",
    "score_share",
    "train",
]


def train(experiment: Experiment, cases: Cases, folder: Path, group: Group, emit: Emit) -> TrainingRun:
    """Train to the last epoch, from `folder`'s checkpoint if it holds one; no epoch where parents are all.

    Args:
        experiment: with the method's options resolved and precision not `auto`.
        folder: where `last.pt` (and `best.pt`) stand; shared by all processes of the group.
        emit: called on rank 0; of an epoch whose checkpoint is on the disk on every rank, together.

    Raises:
        Diverged: a term of the loss is not finite.
        UserError: a step does not fit the memory, the checkpoints are damaged, belong to another model or
            differ between ranks, or the best weights are asked for without a case to validate on.
    """
    if experiment.training.selection == "best" and not cases.validation:
        raise UserError(
            "training.selection: 'best' needs validation cases; give data.split some, or choose 'last'"
        )
    tell: Emit = emit if group.leads else _nobody
    run = begin(experiment, folder, group)
    epochs = 0 if methods.put_together(experiment) else experiment.training.epochs
    if run.epoch < epochs:
        tell(preflight.project(run, cases))
    with Checkpoints(run, folder, emit) as checkpoints:
        for epoch in range(run.epoch, epochs):
            entry = _epoch(run, cases, epoch, tell, checkpoints)
            run.history.append(entry.as_dict())
            checkpoints.after_epoch(entry)
    return run


def _nobody(event: Event) -> None:
    """Who listens on the ranks that do not lead."""


def _epoch(run: TrainingRun, cases: Cases, epoch: int, tell: Emit, checkpoints: Checkpoints) -> EpochEnd:
    """One pass over the cases, then the validation if it is due; `epoch` counts from 0."""
    start = time.perf_counter()
    epochs = run.experiment.training.epochs
    run.model.train()
    steps = steps_per_epoch(run, cases)
    sums: dict[str, float] = {}
    rate = 0.0  # the first step's
    with closing(batches(run, cases, epoch)) as source:
        for number, samples in enumerate(source, 1):
            now = settle(run, epoch + (number - 1) / steps)
            rate = now if number == 1 else rate
            terms = optimiser_step(run, samples, epoch)
            for name, value in terms.items():
                sums[name] = sums.get(name, 0.0) + value / steps
            tell(Step(epoch + 1, epochs, number, steps, terms["loss"]))
            checkpoints.after_step(number)
    means = _average(sums, run.group)
    seconds = time.perf_counter() - start
    validation = validate(run, cases.validation, epoch, tell)
    return EpochEnd(epoch + 1, epochs, means, rate, seconds, validation, run.group.world)


def _average(values: dict[str, float], group: Group) -> dict[str, float]:
    """Mean over the processes."""
    names = sorted(values)
    sums = torch.tensor([values[name] for name in names], dtype=torch.float64, device=group.device)
    means = group.add(sums) / group.world
    return dict(zip(names, means.tolist(), strict=True))
