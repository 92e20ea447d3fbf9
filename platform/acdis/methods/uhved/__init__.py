"""U-HVED: a variational encoder-decoder as a 3-D U-Net (Dorent et al. 2019). Torch only behind `model()`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field, PositiveFloat

from acdis.methods import uhemis

if TYPE_CHECKING:
    from acdis.methods.base import Method

VERSION = 1

#: Dorent et al. train it as they train U-HeMIS.
RECIPE = uhemis.RECIPE


class Options(uhemis.Options):
    """What only U-HVED knows. Its widths are fixed: 8, 16, 32, 64 channels, half means, half variances."""

    divergence_weight: PositiveFloat = Field(
        0.1,
        description="of the divergences between the subsets' latents, and from the prior (published: 0.1)",
    )
    reconstruction_weight: PositiveFloat = Field(
        0.1, description="of the squared error of the four reconstructed images (published: 0.1)"
    )


def model() -> type[Method]:
    """The network's class; imports torch."""
    from acdis.methods.uhved.network import UHVED

    return UHVED
