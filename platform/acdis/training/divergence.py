"""A loss that is not finite ends the training, on every process, with what is known about the cause."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TypedDict

import torch

from acdis.data.loader import Samples
from acdis.networks.batch_norm import statistics
from acdis.training.batches import as_batch
from acdis.training.global_batch import autocast
from acdis.training.run import TrainingRun

Values = Mapping[str, float]


class Diverged(RuntimeError):  # noqa: N818  it says what happened
    """A term of the loss became NaN or infinite; the message names term, case and epoch."""


class _Finding(TypedDict):
    """What one process sees: terms of the batch that are not finite, and of each of its cases alone."""

    batch: dict[str, float]
    alone: dict[str, dict[str, float]]


def stop_if_diverged(run: TrainingRun, samples: Samples, values: Values, epoch: int) -> None:
    """Raise on all processes if the loss of one is not finite.

    They decide together: one that waited for another's gradients would wait for ever. Dice sums are shared,
    so a NaN of one case is in every process's loss; to find the case, each sample is tried alone.

    Args:
        samples: all that this process has of the batch.
        values: terms of the loss and `loss`, their sum, of what was just computed.
        epoch: counted from 0.

    Raises:
        Diverged: with terms, cases and the epoch, counted from 1.
    """
    here = not math.isfinite(values["loss"])
    if run.group.world > 1:
        here = bool(run.group.add(torch.tensor(float(here))).item())
    if not here:
        return
    alone: dict[str, dict[str, float]] = {name: {} for name in samples.names}
    for sample in samples:  # a case may be in a batch twice
        alone[sample.names[0]] |= _terms_alone(run, sample, epoch)
    finding = _Finding(batch=_not_finite(values), alone=alone)
    raise Diverged(_sentence(run.group.gather([finding]), epoch))


def _sentence(findings: Sequence[_Finding], epoch: int) -> str:
    cases = {name: terms for finding in findings for name, terms in finding["alone"].items()}
    guilty = [name for name, terms in cases.items() if terms]
    not_finite = [cases[name] for name in guilty] or [finding["batch"] for finding in findings]
    terms = {name: value for values in not_finite for name, value in values.items()}
    value = "NaN" if any(map(math.isnan, terms.values())) else "infinite"
    named = ", ".join(guilty) or f"{', '.join(cases)} (together; each alone is finite)"
    return f"the loss became {value} in term {', '.join(terms)}, case {named}, epoch {epoch + 1}"


def _terms_alone(run: TrainingRun, sample: Samples, epoch: int) -> dict[str, float]:
    """Terms that are not finite when this process computes one sample without the others."""
    lonely = statistics(counted=False, together=False)  # the others may have more samples to try, or fewer
    with torch.no_grad(), lonely, autocast(run.group.device, run.dtype):
        losses = run.method(as_batch(sample, run.group.device), epoch)
    return _not_finite({name: term.item() for terms in losses.values() for name, term in terms.items()})


def _not_finite(values: Values) -> dict[str, float]:
    return {name: value for name, value in values.items() if name != "loss" and not math.isfinite(value)}
