"""U-HeMIS: HeMIS as a 3-D U-Net (Dorent et al. 2019). Options here, torch only behind `model()`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field, PositiveInt

from acdis.methods.options import MethodOptions

if TYPE_CHECKING:
    from acdis.methods.base import Method

VERSION = 1

#: Dorent et al.: Adam at 1e-3, a quarter of it every 10,000 of 60,000 iterations, batch 1, windows of 112³.
RECIPE = {
    "data.crop": [112, 112, 112],
    "training.batch_size": 1,
    "training.epochs": 600,
    "training.iterations": 100,
    "training.learning_rate": 1e-3,
    "training.weight_decay": 0.0,
    "training.amsgrad": False,
    "method.options.quarter_every": 100,
    "method.options.subsets": "by_count",
}


class Options(MethodOptions):
    """What only U-HeMIS knows. Its widths are fixed: 8, 16, 32, 64 channels inside the four levels."""

    subsets: Literal["uniform", "by_count"] = Field(
        "uniform",
        description="subsets of a training: uniform over the 15 (RFNet), or as Dorent et al. a number of "
        "modalities from 1 to 4 first, then as many of them",
    )
    quarter_every: PositiveInt | None = Field(
        None,
        description="epochs after which the learning rate is divided by 4, again and again (Dorent et al.: "
        "10,000 iterations); none: the recipe's poly decay",
    )

    def needs_whole_cases(self) -> str | None:
        return None

    def crop_rule(self) -> tuple[int, int]:
        return 8, 16  # three halvings, and instance norm needs two voxels


def model() -> type[Method]:
    """The network's class; imports torch."""
    from acdis.methods.uhemis.network import UHeMIS

    return UHeMIS
