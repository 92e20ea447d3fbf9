"""GSS: group self-support (Qiu et al., ICCV 2023) on RFNet's network. Torch only behind `model()`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field, PositiveFloat, PositiveInt

from acdis.methods import rfnet

if TYPE_CHECKING:
    from acdis.methods.base import Method

VERSION = 1

#: Qiu et al.: five rounds of 300 epochs of 150 steps behind a trained RFNet.
RECIPE = {
    "data.crop": [80, 80, 80],
    "training.batch_size": 2,
    "training.epochs": 1500,
    "training.iterations": 150,
    "training.learning_rate": 2e-4,
    "training.weight_decay": 1e-4,
    "training.amsgrad": True,
    "training.poly_power": 0.9,
    "method.options.rounds": 5,
}


class Options(rfnet.Options):
    """RFNet's, and what only GSS knows. The network is trained already, so nothing waits for an epoch."""

    fusion_start: int = Field(
        0, ge=0, le=0, description="none: the fused map is trained from the first epoch"
    )
    mono_weight: PositiveFloat = Field(
        0.7, description="of the mono decoder's losses in the sum (published: 0.7)"
    )
    soft_weight: PositiveFloat = Field(
        1.92, description="of the cross-entropy with the soft target (published: 0.3 · 8² / 10 = 1.92)"
    )
    target: Literal["sound", "published"] = Field(
        "sound",
        description="how the modalities' predictions make the soft target. published: with the public code's "
        "two slips (members that agree under one leader give 0; two sure leaders 2 max − 0.3 (max − min))",
    )
    masked: float = Field(
        0.2,
        ge=0,
        lt=1,
        description="share of voxels that are drawn and emptied in target and prediction, per modality "
        "(published: 0.2; drawn with replacement, so 18.1 % are)",
    )
    rounds: PositiveInt = Field(
        1,
        description="times that the learning rate starts anew and falls, each over an equal share of the "
        "epochs (published: 5 of 300 epochs each)",
    )

    def needs_whole_cases(self) -> str | None:
        return "its soft target is made of what all four modalities predict alone"

    def required_roles(self) -> tuple[str, ...]:
        return ("start",)

    def parent_methods(self, role: str) -> tuple[str, ...]:
        return "rfnet", "gss"

    def without_effect(self) -> dict[str, str]:
        return {"fusion_start": "where the network is trained already"}

    def too_short(self, epochs: int) -> dict[str, str]:
        if epochs % self.rounds == 0:
            return {}
        return {"rounds": f"{self.rounds}: {epochs} training.epochs are no multiple of it"}


def model() -> type[Method]:
    """The network's class; imports torch."""
    from acdis.methods.gss.network import GSS

    return GSS
