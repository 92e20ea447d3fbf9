"""The discriminator of Table 3's adversarial loss, at the bottleneck, shared by the modalities."""

from __future__ import annotations

from torch import Tensor, nn

from acdis.networks.convolution import Conv3d
from acdis.networks.unet import SLOPE


class PatchDiscriminator(nn.Sequential):
    """Features `[B, C, D, H, W]` to one logit per voxel `[B, 1, D, H, W]`: real (positive) or synthesised.

    3³ convolutions at stride 1 with LeakyReLU 0.2 between: our choice, not the paper's.

    Args:
        hidden: channels of the two maps between.
    """

    def __init__(self, channels: int, hidden: tuple[int, int]) -> None:
        first, second = hidden
        super().__init__(
            Conv3d(channels, first, 3, padding=1),
            nn.LeakyReLU(SLOPE, inplace=True),
            Conv3d(first, second, 3, padding=1),
            nn.LeakyReLU(SLOPE, inplace=True),
            Conv3d(second, 1, 3, padding=1),
        )

    def forward(self, features: Tensor) -> Tensor:
        logits: Tensor = super().forward(features)
        return logits
