"""Scoring while training: each process takes its share of the cases, all get the whole result."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch

from acdis.config import Evaluation, Experiment
from acdis.data.prepared_case import Entry
from acdis.evaluation.case_files import CaseFiles
from acdis.evaluation.examples import Example
from acdis.evaluation.metric_pool import processes_for
from acdis.evaluation.records import Record, summarise
from acdis.evaluation.scoring import score
from acdis.methods.base import Method
from acdis.training.events import Emit, Scoring
from acdis.training.group import Group
from acdis.training.run import TrainingRun
from acdis.vocabulary import REGIONS, SUBSETS, Subset, metric_name


def validate(run: TrainingRun, entries: Sequence[Entry], epoch: int, tell: Emit) -> dict[str, float]:
    """Mean Dice per region and their mean, without distances; empty in epochs that are not validated.

    Every rank tells its method what came of it, subset by subset.

    Args:
        epoch: counted from 0; the last one is always validated.
    """
    settings = run.experiment.training
    due = (epoch + 1) % settings.validate_every == 0 or epoch + 1 == settings.epochs
    if not entries or not (due or run.method.wants_validation(epoch)):
        return {}
    without_distances = run.experiment.evaluation.dice_alone().model_copy(update={"box": "all"})
    subsets = run.method.validated_on
    records = score_share(
        run.method, entries, run.experiment, without_distances, run.group, run.dtype, tell, subsets=subsets
    )
    summary = summarise(records, subsets)
    run.method.validated(epoch, {name: value for name, value in summary.items() if name.startswith("dice/")})
    means = {name: summary[name] for name in (metric_name("dice", region) for region in REGIONS)}
    return means | {"dice/mean": sum(means.values()) / len(means)}


def score_share(
    method: Method,
    entries: Sequence[Entry],
    experiment: Experiment,
    evaluation: Evaluation,
    group: Group,
    dtype: torch.dtype | None,
    tell: Emit,
    keep: Callable[[Example], None] | None = None,
    subsets: Sequence[Subset] = SUBSETS,
    files: CaseFiles | None = None,
) -> list[Record]:
    """Every process scores its share of the cases; all get every record, by case.

    Args:
        keep: called with each case's slice for a picture, of this process' share; all 15 subsets then.
        files: see `score`.
    """

    def on_case(done: int) -> None:
        tell(Scoring(min(done * group.world, len(entries)), len(entries)))

    mine = shares(entries, group.world)[group.rank]
    where = group.device, dtype
    choice, threads = experiment.scaling.metric_processes, torch.get_num_threads()
    processes = processes_for(choice, group.device, evaluation, len(mine), threads)
    records = score(
        method, mine, evaluation, *where, on_case, keep, subsets, experiment.data, files, processes
    )
    return sorted(group.gather(records), key=lambda record: record.case)


def shares(entries: Sequence[Entry], world: int) -> list[list[Entry]]:
    """The cases of each process, evened out by voxels: the largest first, each to who has least so far.

    No process has more than 4/3 - 1/(3 world) of what the best division would give it (Graham 1969); in a
    share cases stand in their order.
    """
    voxels = [math.prod(entry.meta.box.shape) for entry in entries]
    loads = [0] * world
    places: list[list[int]] = [[] for _ in range(world)]
    for index in sorted(range(len(entries)), key=lambda index: -voxels[index]):
        least = min(range(world), key=lambda rank: (loads[rank], len(places[rank])))
        loads[least] += voxels[index]
        places[least].append(index)
    return [[entries[index] for index in sorted(mine)] for mine in places]
