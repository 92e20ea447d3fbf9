"""One process group: who am I, and what do all of us have together. Alone, every call is a no-op."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

Item = TypeVar("Item")


@dataclass(frozen=True)
class Group:
    """This process among those that train together.

    Attributes:
        rank: 0 writes files and emits events.
        world: number of processes.
        device: where this one computes.
    """

    rank: int = 0
    world: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def leads(self) -> bool:
        """Whether this process writes."""
        return self.rank == 0

    def add(self, tensor: Tensor) -> Tensor:
        """Sum over the processes: a new tensor on `device` (NCCL wants it there), without gradient."""
        total = tensor.detach().to(self.device, copy=True)
        if self.world > 1:
            dist.all_reduce(total)
        return total

    def gather(self, items: list[Item]) -> list[Item]:
        """Everyone's items, in the order of the ranks."""
        if self.world == 1:
            return items
        everyone: list[list[Item] | None] = [None] * self.world
        dist.all_gather_object(everyone, items)
        return [item for part in everyone for item in part or []]

    def wait(self) -> None:
        """Until all are here."""
        if self.world > 1:
            dist.barrier()
