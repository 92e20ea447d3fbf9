"""What the loop tells whoever listens: progress displays, trackers, status files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypedDict


@dataclass(frozen=True)
class Projection:
    """Before the first epoch: what a measured step says about the whole run.

    Attributes:
        epoch: epochs that are done already (after a restart: those of the checkpoint).
        epochs: epochs in all.
        step_seconds: one optimiser step of the costliest epoch, measured.
        remaining_seconds: for all epochs that are left, validations not counted.
        peak_bytes: memory at the peak of such a step, with as few modalities as there can be.
    """

    epoch: int
    epochs: int
    step_seconds: float
    remaining_seconds: float
    peak_bytes: int


@dataclass(frozen=True)
class Step:
    """After each optimiser step; epochs and steps are counted from 1."""

    epoch: int
    epochs: int
    step: int
    steps: int
    loss: float


@dataclass(frozen=True)
class Saving:
    """Just before an epoch's checkpoint is written: who may no longer write raises. Epochs count from 1."""

    epoch: int


class EpochEntry(TypedDict):
    """An `EpochEnd` as plain values."""

    epoch: int
    epochs: int
    terms: dict[str, float]
    learning_rate: float
    seconds: float
    validation: dict[str, float]
    workers: int


@dataclass(frozen=True)
class EpochEnd:
    """After each epoch, once its checkpoint is on disk. Epochs are counted from 1.

    Attributes:
        terms: mean over the epoch of each term of the loss and of what the method reports beside it.
        seconds: of its steps, without the validation.
        validation: mean Dice per region and their mean, where this epoch was validated.
        workers: processes that trained it together.
    """

    epoch: int
    epochs: int
    terms: dict[str, float]
    learning_rate: float
    seconds: float
    validation: dict[str, float] = field(default_factory=dict)
    workers: int = 1

    def as_dict(self) -> EpochEntry:
        """Plain values, as the checkpoint and the history file keep them."""
        return EpochEntry(
            epoch=self.epoch,
            epochs=self.epochs,
            terms=dict(self.terms),
            learning_rate=self.learning_rate,
            seconds=self.seconds,
            validation=dict(self.validation),
            workers=self.workers,
        )


@dataclass(frozen=True)
class Scoring:
    """While cases are scored: how many of how many are done."""

    done: int
    cases: int


Event = Projection | Step | Saving | EpochEnd | Scoring
Emit = Callable[[Event], None]
