"""mmFormer: multimodal medical transformer (Zhang et al., MICCAI 2022). Torch only behind `model()`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from acdis.methods.mmformer.options import VERSION, Options

if TYPE_CHECKING:
    from acdis.methods.base import Method

__all__ = ["RECIPE", "VERSION", "Options", "model"]

#: Zhang et al.: Adam with AMSGrad at 2e-4, batch 8 over four GPUs, 1,000 passes, crops and windows of 128³.
RECIPE = {
    "data.crop": [128, 128, 128],
    "training.batch_size": 8,
    "training.epochs": 1000,
    "training.iterations": None,
    "training.learning_rate": 2e-4,
    "training.weight_decay": 1e-4,
    "training.amsgrad": True,
    "evaluation.window": [128, 128, 128],
    "evaluation.stride": [64, 64, 64],
    "method.options.grid": [8, 8, 8],
}


def model() -> type[Method]:
    """The network's class; imports torch."""
    from acdis.methods.mmformer.network import MmFormer

    return MmFormer
