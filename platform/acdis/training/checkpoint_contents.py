"""What a checkpoint says beside the weights, checked before the training counts on it.

PyTorch takes an optimiser's state as it comes: wrong shapes show at the first step, and other settings never.
"""

from __future__ import annotations

import copy
import math
from collections import defaultdict
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

import torch

from acdis import files
from acdis.training.events import EpochEntry

_NUMBERS = ("learning_rate", "seconds")
_TABLES = ("terms", "validation")


class StateOf(NamedTuple):
    """What an optimiser keeps of each parameter: names of tensors of its shape, and of single numbers."""

    like_weights: frozenset[str]
    numbers: frozenset[str]


def state_of(optimiser: torch.optim.Optimizer, group: Mapping[str, Any]) -> StateOf:
    """What it will keep of a parameter of this group, found out by a step on a parameter made up."""
    weight = torch.nn.Parameter(torch.zeros(2, 3))
    weight.grad = torch.ones_like(weight)
    twin = copy.copy(optimiser)
    twin.param_groups, twin.state = [{**group, "params": [weight]}], defaultdict(dict)
    twin.step()
    kept = {name: value for name, value in twin.state[weight].items() if isinstance(value, torch.Tensor)}
    like = frozenset(name for name, value in kept.items() if value.shape == weight.shape)
    return StateOf(like, frozenset(kept) - like)


def load_optimiser(
    optimiser: torch.optim.Optimizer, state: Mapping[str, Any], scheduled: Collection[str] = ("lr",)
) -> None:
    """Load an optimiser's state, of whatever kind it is.

    Args:
        scheduled: settings that are set anew before every step.

    Raises:
        ValueError, TypeError, LookupError: it is of other parameters, or of an optimiser with other settings.
    """
    _check_settings(optimiser.state_dict()["param_groups"], state["param_groups"], scheduled)
    owners = [(weight, group) for group in optimiser.param_groups for weight in group["params"]]
    due = {id(group): state_of(optimiser, group) for group in optimiser.param_groups}
    for index, values in state["state"].items():
        if index not in range(len(owners)):
            raise ValueError(f"the optimiser has a parameter {index!r}")
        parameter, group = owners[index]
        like, numbers = due[id(group)]
        if set(values) != like | numbers:
            raise ValueError(f"the optimiser's state is not {type(optimiser).__name__}'s")
        for name, value in values.items():
            shape = torch.Size() if name in numbers else parameter.shape
            if not isinstance(value, torch.Tensor) or value.shape != shape or not value.is_floating_point():
                raise ValueError(
                    f"the optimiser's {name} of parameter {index} is not of shape {tuple(shape)}"
                )
    optimiser.load_state_dict(dict(state))


def _check_settings(
    ours: list[dict[str, Any]], theirs: list[dict[str, Any]], scheduled: Collection[str]
) -> None:
    if len(ours) != len(theirs):
        raise ValueError(f"{len(theirs)} groups of parameters, {len(ours)} are due")
    for own, other in zip(ours, theirs, strict=True):
        for key in own.keys() | other.keys():
            if key not in scheduled and own[key] != other[key]:
                raise ValueError(f"the optimiser's {key} differs")
        if not isinstance(other["lr"], float):
            raise TypeError("the learning rate is no number")


def history(text: str, epochs: int) -> list[EpochEntry]:
    """The entries of the epochs that are done, counted from 1.

    Raises:
        ValueError, TypeError, LookupError: not what `EpochEnd.as_dict` gave, epoch after epoch.
    """
    entries = files.json_of(text.encode())
    if not isinstance(entries, list) or len(entries) > epochs:
        raise ValueError("the history has more epochs than the training")
    for number, entry in enumerate(entries, 1):
        values = [entry[key] for key in _NUMBERS] + [
            figure for key in _TABLES for figure in entry[key].values()
        ]
        if entry["epoch"] != number or not all(isinstance(value, int | float) for value in values):
            raise ValueError(f"the history of epoch {number} is not whole")
    return entries


def best(record: Mapping[str, float]) -> dict[str, float]:
    """`dice` and `epoch` of the best validation, or nothing.

    Raises:
        ValueError, TypeError: anything else.
    """
    if dict(record) and (set(record) != {"dice", "epoch"} or not all(map(math.isfinite, record.values()))):
        raise ValueError("the best epoch is none")
    return dict(record)
