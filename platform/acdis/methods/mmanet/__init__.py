"""MMANet: a teacher on all modalities, and attention to the weakest subset (Wei et al., CVPR 2023).

Two trainings: a row with `stage: teacher`, `scored: false`, and one that names it as its parent. Torch only
behind `model()`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

from pydantic import Field, PositiveFloat, PositiveInt

from acdis.methods.options import MethodOptions

if TYPE_CHECKING:
    from acdis.methods.base import Method

VERSION = 1

#: The authors (2-D, NYUv2): SGD at 0.01 for a batch of 8, one cycle over 300 epochs; a student begins at 10.
RECIPE = {
    "training.batch_size": 8,
    "training.epochs": 300,
    "training.iterations": None,
    "training.learning_rate": 1e-2,
    "training.weight_decay": 1e-4,
    "method.options.optimiser": "sgd",
}


class Options(MethodOptions):
    """What only MMANet knows."""

    stage: Literal["student", "teacher"] = Field(
        "student",
        description="teacher: learns from all four modalities always; student: learns from subsets and from "
        "its parent, a trained teacher",
    )
    base_width: int = Field(
        16,
        ge=4,
        le=1024,
        multiple_of=4,
        description="channels of the finest level, doubled at each below: RFNet's, since the authors "
        "published no network for MRI",
    )
    levels: int = Field(4, ge=2, le=6, description="levels of encoders and decoder: RFNet's 4")
    padding: Literal["zeros", "reflect"] = Field(
        "reflect", description="of 3×3×3 convolutions: as RFNet by reflection"
    )
    distillation_weight: PositiveFloat = Field(
        4.0, description="of the margin-aware distillation, MAD (published: 4 and 10, by data set)"
    )
    regularisation_weight: PositiveFloat = Field(
        0.2, description="of the modality-aware regularisation, MAR (published: 0.2 and 0.1)"
    )
    begin_epoch: PositiveInt = Field(
        15,
        le=1_000_000,
        description="epochs before MAD and MAR take part and the weakest subset is known (published: 10 of "
        "300, which is 15 of 500)",
    )
    ranking_epochs: PositiveInt = Field(
        4, le=1_000_000, description="the last so many epochs before that rank the subsets (published: 4)"
    )
    optimiser: Literal["adam", "sgd"] = Field(
        "adam",
        description="adam: the common recipe's, poly decay; sgd: as published, Nesterov momentum 0.9 and one "
        "cycle: up in a tenth of the epochs, down by a cosine",
    )

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels per level, fine to coarse."""
        return tuple(self.base_width * 2**level for level in range(self.levels))

    def without_effect(self) -> dict[str, str]:
        if self.stage == "student":
            return {}
        only = ("distillation_weight", "regularisation_weight", "begin_epoch", "ranking_epochs")
        return dict.fromkeys(only, "on a teacher")

    def too_short(self, epochs: int) -> dict[str, str]:
        if self.stage == "teacher" or epochs > self.begin_epoch:
            return {}
        reason = f"neither MAD nor MAR would take part in {epochs} epochs"
        return {"begin_epoch": f"{self.begin_epoch}: {reason}; give a number below training.epochs"}

    def needs_whole_cases(self) -> str | None:
        return "its teacher sees all four modalities"

    def required_roles(self) -> tuple[str, ...]:
        return ("teacher",) if self.stage == "student" else ()

    def parent_methods(self, role: str) -> tuple[str, ...]:
        return ("mmanet",)

    def crop_rule(self) -> tuple[int, int]:
        # Instance norm needs two voxels; decoders enlarge to the skip's size, so any side will do.
        return 1, 2 ** (self.levels - 1) + 1


def model() -> Callable[[Options], Method]:
    """What builds the stage's network; imports torch."""
    from acdis.methods.mmanet.method import build

    return build
