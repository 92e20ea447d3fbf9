"""RFNet: Region-aware Fusion Network (Ding et al., ICCV 2021). Options here, torch only behind `model()`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field, PositiveFloat

from acdis.methods.options import MethodOptions

if TYPE_CHECKING:
    from acdis.methods.base import Method

VERSION = 3

#: Its public code: what it trains with, and what it does to images (images and labels are rotated alike).
RECIPE = {
    "data.augmentation.rotation_images": "nearest",
    "data.augmentation.rotation_fill": "minus_one",
    "data.augmentation.intensity_per_slice": True,
    "data.background": "normalised",
    "data.last_slice": False,
    "training.epochs": 300,
    "training.iterations": 150,
    "training.batch_size": 2,
    "training.learning_rate": 2e-4,
    "training.weight_decay": 1e-4,
    "training.amsgrad": True,
    "training.poly_power": 0.9,
}


class Options(MethodOptions):
    """What only RFNet knows; every option has an effect beside every other."""

    base_width: int = Field(
        16,
        ge=4,
        le=1024,
        multiple_of=4,
        description="channels of the finest level, doubled at each below (RFNet: 16/32/64/128); its blocks "
        "take halves and quarters of it",
    )
    levels: int = Field(4, ge=2, le=6, description="levels of encoders and decoders (RFNet: 4)")
    padding: Literal["zeros", "reflect"] = Field(
        "reflect", description="of 3×3×3 convolutions (RFNet: by reflection); zeros are faster"
    )
    fusion_start: int = Field(
        20,
        ge=0,
        description="epochs before the loss on the fused map takes part (RFNet's region_fusion_start_epoch: "
        "20). Until then the last layers are as initialised and predictions are noise: a shorter training "
        "needs a lower number",
    )
    mono_weight: PositiveFloat = Field(
        1.0,
        description="of the mono decoder's losses in the sum (RFNet's public code: 1); GSS, which trains the "
        "same network, has 0.7",
    )
    region_weight: PositiveFloat = Field(
        1.0,
        description="of the region maps' losses in the sum (RFNet's public code: 1)",
    )

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels per level, fine to coarse."""
        return tuple(self.base_width * 2**level for level in range(self.levels))

    def needs_whole_cases(self) -> str | None:
        return None

    def too_short(self, epochs: int) -> dict[str, str]:
        if epochs > self.fusion_start:
            return {}
        reason = f"the fused map would never be trained in {epochs} epochs, and predictions would be noise"
        return {"fusion_start": f"{self.fusion_start}: {reason}; give a number below training.epochs"}


def model() -> type[Method]:
    """The network's class; imports torch."""
    from acdis.methods.rfnet.network import RFNet

    return RFNet
