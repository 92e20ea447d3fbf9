"""DeMoSeg: decoupled modalities before a U-Net (Yang et al., BIBM 2024). Torch only behind `model()`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from acdis.methods.options import MethodOptions

if TYPE_CHECKING:
    from acdis.methods.base import Method

VERSION = 1

#: The authors' code: nnU-Net's SGD, 1,000 epochs of 250 iterations, batch 2, crops of 128³, five halvings.
RECIPE = {
    "data.crop": [128, 128, 128],
    "data.augmentation.rotation": 30,
    "data.augmentation.intensity_scale": 0.25,
    "data.augmentation.intensity_shift": 0.0,
    "training.batch_size": 2,
    "training.epochs": 1000,
    "training.iterations": 250,
    "training.learning_rate": 1e-2,
    "training.weight_decay": 3e-5,
    "training.poly_power": 0.9,
    "evaluation.window": [128, 128, 128],
    "evaluation.stride": [64, 64, 64],
    "method.options.halvings": 5,
    "method.options.optimiser": "sgd",
}


class Options(MethodOptions):
    """What only DeMoSeg knows."""

    base_width: int = Field(
        32,
        ge=8,
        le=256,
        multiple_of=4,
        description="channels of the finest level, in four groups; 2, 4, 8, 10 and 10 times as many below "
        "(published: 32, at most 320)",
    )
    halvings: Literal[4, 5] = Field(
        4, description="of the sides; published: 5, which 80³ cannot have (96³ and 128³ can)"
    )
    cssa: Literal["published", "plain"] = Field(
        "published",
        description="published: to each channel another is added, by an order of scores whose weights never "
        "learn, because an order has no gradient; plain: nothing is added",
    )
    kl: bool = Field(
        True,
        description="distil what a modality says of itself into what others keep for it (in the paper's "
        "figure and the newest code; the code of 2024 has none)",
    )
    optimiser: Literal["adam", "sgd"] = Field(
        "adam",
        description="adam: the common recipe's; sgd: as published, Nesterov momentum 0.99 and gradients cut "
        "to a norm of 12",
    )

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels per level, fine to coarse."""
        return tuple(self.base_width * factor for factor in (1, 2, 4, 8, 10, 10)[: self.halvings + 1])

    def needs_whole_cases(self) -> str | None:
        return None

    def crop_rule(self) -> tuple[int, int]:
        step = 2**self.halvings
        return step, 2 * step  # instance norm needs two voxels


def model() -> type[Method]:
    """The network's class; imports torch."""
    from acdis.methods.demoseg.method import DeMoSeg

    return DeMoSeg
