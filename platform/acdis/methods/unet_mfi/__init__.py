"""UNet-MFI: modality-adaptive feature interaction (Zhao et al., MICCAI 2022). Torch only behind `model()`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from acdis.methods.options import MethodOptions

if TYPE_CHECKING:
    from acdis.methods.base import Method

VERSION = 1

#: The authors' code: Adam at 5e-5 with poly decay, 1,200 epochs of one pass, batch 1, crops of 128³.
RECIPE = {
    "data.crop": [128, 128, 128],
    "data.normalisation": "clip",
    "data.background": "normalised",
    "data.augmentation.intensity_scale": 0.0,
    "data.augmentation.intensity_shift": 0.0,
    "training.batch_size": 1,
    "training.epochs": 1200,
    "training.iterations": None,
    "training.learning_rate": 5e-5,
    "training.weight_decay": 1e-5,
    "training.amsgrad": False,
    "training.poly_power": 0.9,
    "evaluation.window": [120, 120, 120],
    "evaluation.stride": [40, 40, 40],
}


class Options(MethodOptions):
    """What only UNet-MFI knows."""

    base_width: int = Field(
        32,
        ge=4,
        le=256,
        multiple_of=4,
        description="channels of the finest of four levels, doubled at each below (published: 32); groups of "
        "8 channels (of fewer all) are normalised together",
    )
    mask_softmax: bool = Field(
        False,
        description="weigh the available modalities alone where features are exchanged; published: all four, "
        "those that are missing with the features of an image of zeros",
    )

    def needs_whole_cases(self) -> str | None:
        return None

    def crop_rule(self) -> tuple[int, int]:
        return 8, 8  # three halvings


def model() -> type[Method]:
    """The network's class; imports torch."""
    from acdis.methods.unet_mfi.method import UNetMFI

    return UNetMFI
