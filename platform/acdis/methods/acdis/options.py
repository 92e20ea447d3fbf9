"""The switches of ACDIS. Where the paper is silent, a description says what the default follows and why."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, PositiveFloat, PositiveInt, field_validator, model_validator

from acdis.methods.options import MethodOptions

ConsistencyLoss = Literal["var", "covar", "mse", "kl"]
SynthesisLoss = Literal["mse", "adver", "var", "covar"]

CONSISTENCY: tuple[ConsistencyLoss, ...] = ("var", "covar", "mse", "kl")
SYNTHESIS: tuple[SynthesisLoss, ...] = ("mse", "adver", "var", "covar")
Channels = Annotated[int, Field(ge=1, le=4096)]
WINDOWED = frozenset({"var", "covar"})


class Options(MethodOptions):
    """What only ACDIS knows."""

    came_later: ClassVar[dict[str, Any]] = {"afeb_budget": "all", "discriminator_widths": [256, 512]}

    base_width: PositiveInt = Field(
        16, le=1024, description="channels of the finest level, doubled at each below (RFNet: 16/32/64/128)"
    )
    levels: int = Field(4, ge=2, le=6, description="levels of encoders and decoders (RFNet: 4)")
    padding: Literal["zeros", "reflect"] = Field(
        "zeros", description="of 3×3×3 convolutions; RFNet pads by reflection, zeros are faster"
    )
    norm: Literal["instance", "batch", "group"] = Field(
        "instance",
        description="of every convolution, without affine (RFNet: by instance). 'batch' has running "
        "statistics, the same in training over all workers and in every window of the evaluation: short "
        "trainings learn far more with it; 'group': 8 groups of channels per sample",
    )
    afeb: Literal["afeb", "conv"] = Field(
        "afeb",
        description="AFEB, or in its place 3×3×3 convolutions with as many parameters (Tables 2 and 3: "
        "ablation)",
    )
    afeb_budget: Literal["all", "without_positions"] = Field(
        "all",
        description="parameters that the convolutions in AFEB's place have: as many as the block (the "
        "paper), or as many as it has without its position encoding, which costs no arithmetic",
    )
    afeb_attention: Literal["all", "bottleneck"] = Field(
        "all",
        description="levels whose AFEB has its global branch; the paper gives an AFEB to every level and "
        "does not say how attention is afforded on the fine ones: there tokens are pooled",
    )
    afeb_tokens: PositiveInt = Field(
        10,
        le=40,
        description="attention runs over at most this³ tokens, which is what the bottleneck has at 80³; the "
        "paper gives no number",
    )
    mfsb: Literal["mfsb", "conv"] = Field(
        "mfsb",
        description="MFSB, or in its place convolutions with as many parameters, inputs, outputs and "
        "schedule (Tables 2 and 3: ablation)",
    )
    mfsb_kernel: Literal[1, 3] = Field(
        1,
        description="side of W3 and W4 (Eq. 7 and 8): the paper writes plain C×C matrices, so 1; 3 is the "
        "other reading of its word 'convolution' and has 3.4 times the parameters",
    )
    aux_fusion: Literal["tile", "adapter"] = Field(
        "tile",
        description="how f_Aux (C channels, as Eq. 1-3 need) enters D_Fuse (4C): tiled four times, or "
        "through a 1×1×1 convolution; the paper contradicts itself here",
    )
    consistency: tuple[ConsistencyLoss, ...] = Field(
        ("var", "covar"), description="losses between f_m and f_Aux, summed (Eq. 4; Table 2 varies them)"
    )
    consistency_levels: tuple[PositiveInt, ...] | None = Field(
        None,
        description="levels that they are taken at, 1 the finest; none: every level, because each has an "
        "AFEB; the paper does not say",
    )
    synthesis: tuple[SynthesisLoss, ...] = Field(
        ("mse",),
        description="losses between synthesised and real features, summed (Eq. 10; Table 3 varies them)",
    )
    synthesis_over: Literal["missing", "all"] = Field(
        "missing",
        description="modalities whose synthesis is judged: those that the sample lacks (what MFSB is for), "
        "or all",
    )
    synthesis_start: int = Field(
        20,
        ge=0,
        description="epochs before MFSB and its losses take part: 20, so from the 21st epoch on (Section "
        "4.1); until then zeros stand for what is missing",
    )
    hold_fused_map: bool = Field(
        False,
        description="hold the segmentation loss on the completed features back until synthesis starts, as "
        "RFNet does with its fusion loss; the paper's text contradicts itself",
    )
    window: int = Field(
        5,
        ge=2,
        description="voxels: side of the local windows of Eq. 1-3; the paper gives none, 5 divides 80, 40, "
        "20 and 10",
    )
    stride: PositiveInt | None = Field(
        None, description="voxels between windows; none: side by side, stride = window"
    )
    adversarial_weight: PositiveFloat = Field(
        1e-3, description="of L_Adver in the sum; the paper gives none, and at 1 it would drown the others"
    )
    discriminator_learning_rate: PositiveFloat = Field(
        1e-4, description="of the discriminator's own Adam; the paper gives none: as the network's"
    )

    discriminator_widths: tuple[Channels, Channels] | None = Field(
        None,
        description="channels of the discriminator's two inner maps; none: 2 and 4 times the bottleneck's, "
        "256 and 512 at the paper's scale; the paper gives none",
    )

    @field_validator("consistency", "synthesis", "consistency_levels")
    @classmethod
    def _in_order(cls, values: tuple[Any, ...] | None) -> tuple[Any, ...] | None:
        """One order for every spelling, so that equal choices have equal hashes."""
        if values is None:
            return None
        twice = sorted({value for value in values if values.count(value) > 1})
        if twice:
            raise ValueError(f"{twice[0]!r} is given twice")
        order = (*CONSISTENCY, *SYNTHESIS)  # the first place of a name counts
        return tuple(
            sorted(values, key=lambda value: value if isinstance(value, int) else order.index(value))
        )

    @model_validator(mode="after")
    def _consistent(self) -> Options:
        if self.consistency_levels is not None:
            if not self.consistency_levels:
                raise ValueError("consistency_levels is empty: name levels, or set consistency to []")
            if max(self.consistency_levels) > self.levels:
                raise ValueError(
                    f"consistency_levels {list(self.consistency_levels)}: there are {self.levels} levels"
                )
        return self

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels per level, fine to coarse."""
        return tuple(self.base_width * 2**level for level in range(self.levels))

    @property
    def judged_levels(self) -> tuple[int, ...]:
        """Levels of the consistency losses, counted from 0."""
        return tuple(level - 1 for level in self.consistency_levels or range(1, self.levels + 1))

    @property
    def judge_widths(self) -> tuple[int, int]:
        """Channels of the discriminator's inner maps."""
        return self.discriminator_widths or (2 * self.widths[-1], 4 * self.widths[-1])

    def without_effect(self) -> dict[str, str]:
        reasons: dict[str, str] = {}
        if self.afeb == "conv":
            reasons |= dict.fromkeys(("afeb_attention", "afeb_tokens"), "with method.options.afeb 'conv'")
        else:
            reasons["afeb_budget"] = "with method.options.afeb 'afeb'"
        if self.mfsb == "conv":
            reasons["mfsb_kernel"] = "with method.options.mfsb 'conv'"
        if not self.consistency:
            reasons["consistency_levels"] = "without a loss in method.options.consistency"
        if not self.synthesis:
            reasons["synthesis_over"] = "without a loss in method.options.synthesis"
        if self.synthesis_start == 0:
            reasons["hold_fused_map"] = "with method.options.synthesis_start 0"
        if not WINDOWED & {*self.consistency, *self.synthesis}:
            reasons |= dict.fromkeys(("window", "stride"), "without 'var' or 'covar' among the losses")
        if "adver" not in self.synthesis:
            names = ("adversarial_weight", "discriminator_learning_rate", "discriminator_widths")
            reasons |= dict.fromkeys(names, "without 'adver' in method.options.synthesis")
        return reasons

    def whole_batch(self) -> str | None:
        return "method.options.norm 'batch'" if self.norm == "batch" else None

    def needs_whole_cases(self) -> str | None:
        if self.norm != "batch":
            return None
        return (
            "method.options.norm 'batch' would count images that are not there in its statistics; "
            "choose 'instance' or 'group'"
        )

    def settled(self) -> dict[str, Any]:
        levels = [level + 1 for level in self.judged_levels]
        return {
            "consistency_levels": levels,
            "stride": self.stride or self.window,
            "discriminator_widths": list(self.judge_widths),
        }
