"""A plain residual U-Net on four channels: the baseline that a method for missing modalities has to beat.

Options here, torch only behind `model()`. No source of its own: the pieces are RFNet's encoder and decoder,
what is missing is zero in the input, and training leaves modalities out ("modality dropout").
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, PositiveInt

from acdis.methods.options import MethodOptions

if TYPE_CHECKING:
    from acdis.methods.base import Method

VERSION = 1

Rate = Annotated[float, Field(ge=0, lt=1)]


class NetworkOptions(MethodOptions):
    """The network, whatever it is trained on."""

    base_width: PositiveInt = Field(
        16,
        le=1024,
        description="channels of the finest level, doubled at each below: as the encoders of ACDIS and RFNet",
    )
    levels: int = Field(4, ge=2, le=6, description="levels of encoder and decoder: as ACDIS and RFNet")
    padding: Literal["zeros", "reflect"] = Field("zeros", description="of 3×3×3 convolutions")
    norm: Literal["instance", "batch", "group"] = Field(
        "instance",
        description="of every convolution, without affine. 'batch' has running statistics: short trainings "
        "learn far more with it; 'group': 8 groups of channels per sample",
    )

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels per level, fine to coarse."""
        return tuple(self.base_width * 2**level for level in range(self.levels))

    def nothing_shared(self) -> str | None:
        return "the modalities meet at the input"

    def whole_batch(self) -> str | None:
        return "method.options.norm 'batch'" if self.norm == "batch" else None


class Options(NetworkOptions):
    """The network, and which subsets it is trained on."""

    drop_rates: tuple[Rate, Rate, Rate, Rate] | None = Field(
        None,
        description="probability that FLAIR, T1ce, T1, T2 are left out of a sample, each for itself; "
        "a draw that leaves nothing is drawn again. None: uniform over the 15 subsets, as RFNet",
    )

    def needs_whole_cases(self) -> str | None:
        if self.drop_rates is None or min(self.drop_rates) > 0:
            return None
        return "method.options.drop_rates with a 0 leaves a modality in every subset; give all four a rate"


def model() -> type[Method]:
    """The network's class; imports torch."""
    from acdis.methods.unet.network import UNet

    return UNet
