"""Optimisers and schedules that published recipes ask for, beside the common recipe's Adam."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import nn

from acdis.config import Training


class ClippedSGD(torch.optim.SGD):
    """Nesterov SGD whose gradients' common 2-norm is cut to `most` before a step."""

    def __init__(self, parameters: Iterable[nn.Parameter], most: float, **settings: Any) -> None:
        super().__init__(parameters, nesterov=True, **settings)
        for group in self.param_groups:  # with the settings that a checkpoint keeps and checks
            group["most"] = most

    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        for group in self.param_groups:
            nn.utils.clip_grad_norm_(group["params"], group["most"])
        return super().step(closure)


def sgd(
    groups: Mapping[str, list[nn.Parameter]], recipe: Training, momentum: float, most: float = math.inf
) -> dict[str, torch.optim.Optimizer]:
    """Nesterov SGD of the recipe's rate and decay over each group.

    Args:
        most: 2-norm to which all gradients together are cut; infinite: not at all.
    """
    settings: dict[str, Any] = {
        "lr": recipe.learning_rate,
        "momentum": momentum,
        "weight_decay": recipe.weight_decay,
    }
    if math.isinf(most):
        return {name: torch.optim.SGD(group, nesterov=True, **settings) for name, group in groups.items()}
    return {name: ClippedSGD(group, most, **settings) for name, group in groups.items()}


def cosine(epochs: float, recipe: Training) -> float:
    """Half a cosine from 1 to 0 over all epochs: the share that is left of a rate, epoch by epoch."""
    return (1 + math.cos(math.pi * math.floor(epochs) / recipe.epochs)) / 2


def one_cycle(epochs: float, recipe: Training, warm_up: float, start: float, end: float) -> float:
    """The share of the largest rate: from 1/start up, then down to 1/(start end), both by half a cosine.

    As torch's OneCycleLR stepped once per epoch.

    Args:
        warm_up: share of the epochs in which it rises.
        start: the largest rate divided by the first.
        end: the first rate divided by the last.
    """
    now, last = float(math.floor(epochs)), float(recipe.epochs - 1)
    top = warm_up * recipe.epochs - 1
    low, high, final = 1 / start, 1.0, 1 / (start * end)
    if now <= top:
        return _between(low, high, now / top if top > 0 else 1.0)
    return _between(high, final, (now - top) / (last - top))


def _between(first: float, last: float, share: float) -> float:
    """Half a cosine from one value to another."""
    return last + (first - last) * (1 + math.cos(math.pi * share)) / 2
