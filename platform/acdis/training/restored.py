"""What a checkpoint says beside the weights, checked before the training counts on it.

PyTorch takes an optimiser's state as it comes: wrong shapes show at the first step, and other settings never.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import torch

from acdis.training.events import EpochEntry

_NUMBERS = ("learning_rate", "seconds")
_TABLES = ("terms", "validation")


def load_optimiser(optimiser: torch.optim.Optimizer, state: Mapping[str, Any]) -> None:
    """Load Adam's state.

    Raises:
        ValueError, TypeError, LookupError: it is of other parameters, or of an optimiser with other settings.
    """
    _check_settings(optimiser.state_dict()["param_groups"], state["param_groups"])
    parameters = [each for group in optimiser.param_groups for each in group["params"]]
    for index, values in state["state"].items():
        if index not in range(len(parameters)):
            raise ValueError(f"the optimiser has a parameter {index!r}")
        parameter = parameters[index]
        for name, value in values.items():
            due = torch.Size() if name == "step" else parameter.shape
            if not isinstance(value, torch.Tensor) or value.shape != due or not value.is_floating_point():
                raise ValueError(f"the optimiser's {name} of parameter {index} is not of shape {tuple(due)}")
    wanted = {"step", "exp_avg", "exp_avg_sq"} | (
        {"max_exp_avg_sq"} if optimiser.defaults["amsgrad"] else set()
    )
    if any(set(values) != wanted for values in state["state"].values()):
        raise ValueError("the optimiser's state is not Adam's")
    optimiser.load_state_dict(dict(state))


def _check_settings(ours: list[dict[str, Any]], theirs: list[dict[str, Any]]) -> None:
    if len(ours) != len(theirs):
        raise ValueError(f"{len(theirs)} groups of parameters, {len(ours)} are due")
    for own, other in zip(ours, theirs, strict=True):
        for key in own.keys() | other.keys():
            if key != "lr" and own[key] != other[key]:  # the rate is set anew every epoch
                raise ValueError(f"the optimiser's {key} differs")
        if not isinstance(other["lr"], float):
            raise TypeError("the learning rate is no number")


def history(text: str, epochs: int) -> list[EpochEntry]:
    """The entries of the epochs that are done, counted from 1.

    Raises:
        ValueError, TypeError, LookupError: not what `EpochEnd.as_dict` gave, epoch after epoch.
    """
    entries = json.loads(text)
    if not isinstance(entries, list) or len(entries) > epochs:
        raise ValueError("the history has more epochs than the training")
    for number, entry in enumerate(entries, 1):
        values = [entry[key] for key in _NUMBERS] + [each for key in _TABLES for each in entry[key].values()]
        if entry["epoch"] != number or not all(isinstance(value, int | float) for value in values):
            raise ValueError(f"the history of epoch {number} is not whole")
    return entries


def best(found: Mapping[str, float]) -> dict[str, float]:
    """`dice` and `epoch` of the best validation, or nothing.

    Raises:
        ValueError, TypeError: anything else.
    """
    if dict(found) and (set(found) != {"dice", "epoch"} or not all(map(math.isfinite, found.values()))):
        raise ValueError("the best epoch is none")
    return dict(found)
