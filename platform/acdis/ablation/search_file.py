"""What a search file may say: keys and their values, how they are drawn, and when a trial is given up."""

from __future__ import annotations

import json
from typing import Any, Literal

from pydantic import Field, PositiveInt, field_validator, model_validator

from acdis.config import Config

#: Mean over the validation cases and the 15 subsets: of all regions, or of one.
Objective = Literal["dice/mean", "dice/WT/mean", "dice/TC/mean", "dice/ET/mean"]


class Domain(Config):
    """The values of one key: a range from `low` to `high`, or choices."""

    low: int | float | None = None
    high: int | float | None = None
    log: bool = Field(False, description="even in the logarithm: for values that range over magnitudes")
    step: int | float | None = Field(None, description="low, low + step, …; whole numbers have a step of 1")
    choices: tuple[Any, ...] | None = Field(None, min_length=1)

    @model_validator(mode="after")
    def _one_kind(self) -> Domain:
        ends = (self.low, self.high)
        if (self.choices is None) == (ends == (None, None)) or (self.choices is None and None in ends):
            raise ValueError("give low and high, or choices")
        if self.choices is not None and (self.log or self.step is not None):
            raise ValueError("log and step belong to low and high, not to choices")
        if self.choices is not None and len(set(self.texts)) != len(self.choices):
            raise ValueError("a choice is listed twice")
        if self.low is not None and self.high is not None:
            self._check_range(self.low, self.high)
        return self

    def _check_range(self, low: float, high: float) -> None:
        if low >= high:
            raise ValueError(f"low {low} must be below high {high}")
        if self.log and low <= 0:
            raise ValueError(f"log needs a low above 0, not {low}")
        if self.step is not None and self.log:
            raise ValueError("give either log or step, not both")
        if self.step is not None and not 0 < self.step <= high - low:
            raise ValueError(f"step {self.step} must be above 0 and at most high - low")

    @property
    def whole(self) -> bool:
        """Whether the range is one of whole numbers."""
        return self.choices is None and all(
            isinstance(end, int) for end in (self.low, self.high, self.step or 1)
        )

    @property
    def texts(self) -> tuple[str, ...]:
        """The choices as JSON: samplers know names, not lists."""
        return tuple(json.dumps(choice, sort_keys=True) for choice in self.choices or ())

    @property
    def corners(self) -> tuple[Any, ...]:
        """Both ends, or every choice."""
        return self.choices if self.choices is not None else (self.low, self.high)


class Pruner(Config):
    """When a trial is stopped before its end, by the validation Dice of its epochs."""

    name: Literal["median", "asha", "none"] = "median"
    startup_trials: int | None = Field(None, ge=0, description="median: trials that are never pruned (5)")
    warmup_epochs: int | None = Field(None, ge=0, description="median: epochs that are never judged (0)")
    min_epochs: PositiveInt | None = Field(None, description="asha: epochs that every trial gets (1)")
    reduction: int | None = Field(None, ge=2, description="asha: one in so many goes on (4)")

    @model_validator(mode="after")
    def _own(self) -> Pruner:
        own = {"median": ("startup_trials", "warmup_epochs"), "asha": ("min_epochs", "reduction"), "none": ()}
        for key in ("startup_trials", "warmup_epochs", "min_epochs", "reduction"):
            if getattr(self, key) is not None and key not in own[self.name]:
                raise ValueError(f"{key} has no effect with pruner {self.name!r}: remove it")
        return self


class Settings(Config):
    """The `search:` part of the file."""

    trials: PositiveInt = Field(description="trainings in all, those of earlier starts included")
    seed: int = Field(0, ge=0, description="of the sampler")
    sampler: Literal["tpe", "random"] = "tpe"
    objective: Objective = Field("dice/mean", description="on the validation cases, of the weights kept")
    pruner: Pruner = Field(default_factory=Pruner)
    space: dict[str, Domain] = Field(min_length=1)

    @field_validator("space", mode="after")
    @classmethod
    def _apart(cls, space: dict[str, Domain]) -> dict[str, Domain]:
        for key in space:
            inner = next((other for other in space if other.startswith(f"{key}.")), None)
            if inner:
                raise ValueError(f"{inner} is part of {key}: search one of them")
        return space


class SearchFile(Config):
    """A search as it stands in the file."""

    title: str | None = Field(None, min_length=1)
    base: str | None = Field(None, description="experiment file that the search changes")
    set: dict[str, Any] = Field(default_factory=dict, description="dotted config keys, for every trial")
    search: Settings
