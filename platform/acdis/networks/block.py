"""Pieces of network that can be computed again backward: less memory, more time, the same numbers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from acdis.networks.batch_norm import statistics


class Block(nn.Module, ABC):
    """A piece of network that can recompute its activations backward; subclasses write `compute`."""

    checkpointing = False

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.run(self.compute, *inputs)

    def run(self, part: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
        """`part` of the block's work, for a caller that needs what lies between two parts."""
        if self.checkpointing and self.training and torch.is_grad_enabled():
            # Nothing in these blocks is random, so the random state need not be kept.
            result: Tensor = checkpoint(
                part, *inputs, use_reentrant=False, preserve_rng_state=False, context_fn=_twice
            )
            return result
        return part(*inputs)

    @abstractmethod
    def compute(self, *inputs: Tensor) -> Tensor:
        """The block's work."""


def _twice() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """Around a block's first computing and its second, which counts in no running statistics."""
    return nullcontext(), statistics(counted=False)


def set_checkpointing(module: nn.Module, on: bool) -> None:
    """Activation checkpointing in every block of `module`: less memory, more time, the same numbers."""
    for part in module.modules():
        if isinstance(part, Block):
            part.checkpointing = on
