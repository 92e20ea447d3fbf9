"""ShaSpec: shared and specific features (Wang et al., CVPR 2023). Torch only behind `model()`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt

from acdis.methods.options import MethodOptions

if TYPE_CHECKING:
    from acdis.methods.base import Method

VERSION = 1

#: The authors' code: SGD at 0.01, batch 1, 80,000 iterations on all modalities and 100,000 on subsets.
RECIPE = {
    "data.min_size": [160, 160, 128],
    "data.crop": [160, 160, 80],
    "data.lesion_crops": 0.5,
    "data.augmentation.rotation": 0,
    "data.augmentation.intensity_scale": 0.0,
    "data.augmentation.intensity_shift": 0.0,
    "training.batch_size": 1,
    "training.epochs": 1800,
    "training.iterations": 100,
    "training.learning_rate": 1e-2,
    "training.weight_decay": 0.0,
    "training.poly_power": 0.9,
    "evaluation.window": [160, 160, 80],
    "evaluation.stride": [107, 107, 54],
    "method.options.optimiser": "sgd",
    "method.options.subsets": "by_count",
    "method.options.warm_up": 800,
}

Counts = tuple[PositiveInt, PositiveInt, PositiveInt, PositiveInt]


class Options(MethodOptions):
    """What only ShaSpec knows."""

    base_width: int = Field(
        64,
        ge=4,
        le=256,
        multiple_of=2,
        description="channels of the encoders' stems (published: 64)",
    )
    bottlenecks: Counts = Field(
        (3, 4, 6, 3), description="residual blocks of the encoders' four layers (published: 3, 4, 6, 3)"
    )
    stem: Literal["strided", "full"] = Field(
        "strided",
        description="strided: in two axes, as published; sides are padded with zeros to multiples of 16 and "
        "32. full: stride 1, so that 80³ has the published grids; 2.8 times the work",
    )
    shared_weight: PositiveFloat = Field(
        0.1, description="of the differences between shared features (published: 0.1)"
    )
    domain_weight: PositiveFloat = Field(
        0.02, description="of telling modalities apart by specific features (published: 0.02)"
    )
    domain_samples: Literal["all", "available"] = Field(
        "all",
        description="specific features that are told apart: all, also the answers to images of zeros that "
        "stand for missing ones (published), or those of available modalities",
    )
    warm_up: NonNegativeInt = Field(
        0, le=1_000_000, description="first epochs on all modalities (published: 4/9 of the training)"
    )
    subsets: Literal["uniform", "by_count"] = Field(
        "uniform",
        description="subsets after that: uniform over the 15 (RFNet), or as published a number of modalities "
        "from 1 to 4 first, then as many of them",
    )
    optimiser: Literal["adam", "sgd"] = Field(
        "adam",
        description="adam: the common recipe's; sgd: as published, Nesterov momentum 0.99, poly decay per "
        "iteration, over the warm-up alone first",
    )

    @property
    def stride(self) -> tuple[int, int, int]:
        """Of the stem."""
        return (1, 2, 2) if self.stem == "strided" else (1, 1, 1)

    def too_short(self, epochs: int) -> dict[str, str]:
        if epochs > self.warm_up:
            return {}
        reason = f"no subset would ever be trained on in {epochs} epochs"
        return {"warm_up": f"{self.warm_up}: {reason}; give a number below training.epochs"}

    def needs_whole_cases(self) -> str | None:
        if self.warm_up == 0:
            return None
        return f"method.options.warm_up {self.warm_up} begins with all four modalities; set it to 0"

    def crop_rule(self) -> tuple[int, int]:
        return 1, 32  # padded as it needs; the coarsest map has two voxels then


def model() -> type[Method]:
    """The network's class; imports torch."""
    from acdis.methods.shaspec.method import ShaSpec

    return ShaSpec
