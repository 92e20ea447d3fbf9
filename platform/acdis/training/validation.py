"""Scoring while training: each process takes its share of the cases, all get the whole result."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from acdis.config import Evaluation, Experiment
from acdis.data.entry import Entry
from acdis.evaluation.examples import Example
from acdis.evaluation.records import Record, summarise
from acdis.evaluation.scoring import score
from acdis.methods.base import Method
from acdis.training.events import Emit, Scoring
from acdis.training.group import Group
from acdis.training.run import Run


def validate(run: Run, entries: Sequence[Entry], epoch: int, tell: Emit) -> dict[str, float]:
    """Mean Dice per region and their mean, without distances; empty in epochs that are not validated.

    Every rank tells its method what came of it, subset by subset.

    Args:
        epoch: counted from 0; the last one is always validated.
    """
    settings = run.experiment.training
    due = (epoch + 1) % settings.validate_every == 0 or epoch + 1 == settings.epochs
    if not entries or not (due or run.method.wants_validation(epoch)):
        return {}
    without_distances = run.experiment.evaluation.model_copy(update={"hd95": False})
    records = score_share(run.method, entries, run.experiment, without_distances, run.group, run.dtype, tell)
    summary = summarise(records)
    run.method.validated(epoch, {name: value for name, value in summary.items() if name.startswith("dice/")})
    means = {
        name: value for name, value in summary.items() if name.startswith("dice/") and name.endswith("/mean")
    }
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
) -> list[Record]:
    """Every process scores its share of the cases; all get every record, by case.

    Args:
        keep: called with each case's slice for a picture, of this process' share.
    """

    def on_case(done: int) -> None:
        tell(Scoring(min(done * group.world, len(entries)), len(entries)))

    mine = entries[group.rank :: group.world]
    records = score(method, mine, evaluation, group.device, dtype, on_case, keep)
    return sorted(group.gather(records), key=lambda record: record.case)
