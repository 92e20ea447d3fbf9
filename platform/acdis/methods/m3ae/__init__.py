"""M3AE: masked autoencoding with a learnt image, then fine-tuning (Liu et al., AAAI 2023); facts only.

Two trainings: a row with `stage: pretraining` and `scored: false`, and one that names it as its parent.
Torch only behind `model()`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

from pydantic import Field, PositiveFloat

from acdis.config import Triple
from acdis.methods.options import MethodOptions

if TYPE_CHECKING:
    from acdis.methods.base import Method

VERSION = 1

#: The authors' code, fine-tuning: Adam at 3e-4, half a cosine over 300 epochs of one pass, crops of 128³.
#: Pre-training: the same over 600 epochs, batch 2; it has no weight decay whatever is set.
RECIPE = {
    "data.crop": [128, 128, 128],
    "data.normalisation": "minmax",
    "data.augmentation.rotation": 0,
    "training.batch_size": 1,
    "training.epochs": 300,
    "training.iterations": None,
    "training.learning_rate": 3e-4,
    "training.weight_decay": 1e-4,
    "training.amsgrad": False,
    "evaluation.window": [128, 128, 128],
    "evaluation.stride": [64, 64, 64],
    "method.options.schedule": "cosine",
    "method.options.subsets": "by_count",
}


class Options(MethodOptions):
    """What only M3AE knows."""

    stage: Literal["finetuning", "pretraining"] = Field(
        "finetuning",
        description="pretraining: reconstruct masked cubes of all modalities and learn the image that fills "
        "holes; finetuning: segment, from a pre-trained parent (without one: from random weights, and zeros "
        "fill the holes)",
    )
    base_width: int = Field(
        16,
        ge=8,
        le=256,
        multiple_of=8,
        description="channels of the finest of four levels, doubled at each below (published: 16)",
    )
    volume: Triple = Field(
        (240, 240, 155),
        description="voxels of the learnt image: of the cases' whole volumes, where crops have their place. "
        "Beyond it the image is 0",
    )
    subsets: Literal["uniform", "by_count"] = Field(
        "uniform",
        description="subsets of a training: uniform over the 15 (RFNet), or as published a number of dropped "
        "modalities from 0 to 3 first, then as many of them",
    )
    schedule: Literal["poly", "cosine"] = Field(
        "poly", description="poly: the common recipe's; cosine: as published, to 0 over all epochs"
    )
    consistency: Literal["deep", "bottleneck"] = Field(
        "deep",
        description="what two views of a crop should agree in: the coarsest deep map's logits (the public "
        "code), or the coarsest features (the paper)",
    )
    consistency_weight: PositiveFloat = Field(0.1, description="of that agreement (published: 0.1)")
    kept: float = Field(
        0.125, gt=0, le=0.25, description="share of all cubes of 16³ seen in pre-training (published: 1/8)"
    )
    image_learning_rate: PositiveFloat = Field(
        5e-3, le=1.0, description="of the learnt image in pre-training (published: 5e-3)"
    )

    def without_effect(self) -> dict[str, str]:
        if self.stage == "pretraining":
            return dict.fromkeys(("consistency", "consistency_weight"), "in pre-training")
        return dict.fromkeys(("kept", "image_learning_rate"), "in fine-tuning")

    def needs_whole_cases(self) -> str | None:
        return "it reconstructs all four modalities, and draws its second views from them"

    def roles(self) -> tuple[str, ...]:
        return ("pretraining",) if self.stage == "finetuning" else ()

    def parent_methods(self, role: str) -> tuple[str, ...]:
        return ("m3ae",)

    def nothing_shared(self) -> str | None:
        return "the modalities meet at the input"

    def crop_rule(self) -> tuple[int, int]:
        return (16, 16) if self.stage == "pretraining" else (8, 16)  # whole cubes; three halvings


def model() -> Callable[[Options], Method]:
    """What builds the stage's network; imports torch."""
    from acdis.methods.m3ae.method import build

    return build
