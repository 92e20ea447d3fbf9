"""The parts of ShaSpec (Wang et al., CVPR 2023): encoders of 3-D ResNet-50 shape, composition, decoder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from acdis.networks.block import Block
from acdis.networks.convolution import Conv3d

SLOPE = 0.01  # of LeakyReLU
#: Bottlenecks of each layer, and their inner widths in multiples of the stem's.
BLOCKS = (3, 4, 6, 3)
INNER = (1, 2, 4, 5)
DILATIONS = (2, 4, 8)


class StandardConv3d(Conv3d):
    """A convolution without bias whose weights are standardised per output channel before each use.

    Minus their mean, divided by sqrt(unbiased variance + 1e-12), in fp32 also under autocast.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int | tuple[int, int, int] = 1,
                 dilation: int = 1) -> None:  # fmt: skip
        padding = dilation * (kernel // 2)
        super().__init__(inputs, outputs, kernel, stride, padding, dilation=dilation, bias=False)

    def forward(self, input: Tensor) -> Tensor:
        rows = self.weight.flatten(1)
        rows = rows - rows.mean(1, keepdim=True)
        standard = rows / (rows.var(1, keepdim=True, unbiased=True) + 1e-12).sqrt()
        return self._convolve(input, standard.view_as(self.weight), None)


class NormAct(nn.Module):
    """Instance norm with affine, LeakyReLU 0.01 unless told otherwise."""

    def __init__(self, width: int, active: bool = True) -> None:
        super().__init__()
        self.norm = nn.InstanceNorm3d(width, affine=True)
        self.active = active

    def forward(self, x: Tensor) -> Tensor:
        normed: Tensor = self.norm(x)
        return F.leaky_relu(normed, SLOPE) if self.active else normed


def conv_norm(inputs: int, outputs: int, kernel: int, stride: int | tuple[int, int, int] = 1,
              dilation: int = 1, active: bool = True) -> nn.Sequential:  # fmt: skip
    """Standardised convolution, norm, activation."""
    return nn.Sequential(StandardConv3d(inputs, outputs, kernel, stride, dilation), NormAct(outputs, active))


class Bottleneck(Block):
    """1³, 3³ and 1³ convolutions beside a shortcut; four times as wide at the end."""

    def __init__(self, inputs: int, inner: int, stride: int, first: bool) -> None:
        super().__init__()
        outputs = 4 * inner
        self.body = nn.Sequential(
            conv_norm(inputs, inner, 1),
            conv_norm(inner, inner, 3, stride),
            conv_norm(inner, outputs, 1, active=False),
        )
        self.shortcut = conv_norm(inputs, outputs, 1, stride, active=False) if first else nn.Identity()

    def compute(self, *inputs: Tensor) -> Tensor:
        (x,) = inputs
        return F.leaky_relu(self.body(x) + self.shortcut(x), SLOPE)


class BasicBlock(Block):
    """x + two 3³ convolutions, activated."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(conv_norm(width, width, 3), conv_norm(width, width, 3, active=False))

    def compute(self, *inputs: Tensor) -> Tensor:
        (x,) = inputs
        return F.leaky_relu(self.body(x) + x, SLOPE)


class Encoded(NamedTuple):
    """What an encoder makes of an image.

    Attributes:
        feature: `[B, C, d, h, w]`, of the coarsest grid.
        mean: `[B, C]`, the spatial mean that ASPP takes, before its convolution.
        skips: L0 to L3, fine to coarse.
    """

    feature: Tensor
    mean: Tensor
    skips: tuple[Tensor, ...]


class PyramidPooling(nn.Module):
    """ASPP: a 1³ and three dilated 3³ convolutions beside the spatial mean, side by side, then a 1³ one.

    The public network normalises the mean's branch over a single value, which PyTorch refuses and which would
    leave nothing but the norm's bias. Here that branch has no norm.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        kernels = ((1, 1), *((3, dilation) for dilation in DILATIONS))
        self.branches = nn.ModuleList(
            conv_norm(width, width, kernel, dilation=dilation) for kernel, dilation in kernels
        )
        self.pooled = StandardConv3d(width, width, 1)
        self.join = conv_norm((len(kernels) + 1) * width, width, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The feature, and the mean before its convolution, `[B, C]`."""
        mean = x.mean((2, 3, 4), keepdim=True)
        wide = F.leaky_relu(self.pooled(mean), SLOPE).expand(-1, -1, *x.shape[2:])
        feature: Tensor = self.join(torch.cat([*(branch(x) for branch in self.branches), wide], dim=1))
        return feature, mean.flatten(1)


class Encoder(nn.Module):
    """`[B, 1, D, H, W]` to `Encoded`.

    Args:
        width: of the stem (published: 64); the feature has four times as many channels.
        stride: of the stem (published: 1, 2, 2).
        counts: bottlenecks of each layer.
    """

    def __init__(self, width: int, stride: tuple[int, int, int], counts: Sequence[int] = BLOCKS) -> None:
        super().__init__()
        self.stem = conv_norm(1, width, 7, stride)
        layers, inputs = [], width
        for number, (count, factor) in enumerate(zip(counts, INNER, strict=True)):
            inner = width * factor
            blocks = []
            for block in range(count):
                blocks.append(Bottleneck(inputs, inner, 2 if number and not block else 1, first=block == 0))
                inputs = 4 * inner
            layers.append(nn.Sequential(*blocks))
        self.layers = nn.ModuleList(layers)
        self.reduce = conv_norm(inputs, 4 * width, 1)
        self.pool = PyramidPooling(4 * width)

    def forward(self, image: Tensor) -> Encoded:
        x = self.stem(image)
        skips = [x]
        x = F.max_pool3d(x, 3, stride=2, padding=1)
        for layer in self.layers:
            x = layer(x)
            skips.append(x)
        feature, mean = self.pool(self.reduce(x))
        return Encoded(feature, mean, tuple(skips[:-1]))


class Composition(nn.Module):
    """A modality's fused feature: the shared one plus a 3³ convolution of shared and specific."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.convolution = StandardConv3d(2 * width, width, 3)

    def forward(self, shared: Tensor, specific: Tensor) -> Tensor:
        result: Tensor = shared + self.convolution(torch.cat([shared, specific], dim=1))
        return result


class Decoder(nn.Module):
    """Fused features and the shared encoder's skips, each of four modalities side by side, to region logits.

    Args:
        width: of the stem.
        finest: channels of the finest map (published: 32).
        enlarge: factors of the last, trilinear enlargement: the stem's stride.
    """

    def __init__(self, width: int, regions: int, count: int, enlarge: tuple[int, int, int]) -> None:
        super().__init__()
        self.enlarge = tuple(float(factor) for factor in enlarge)
        coarse = [count * 4 * width, 4 * width, 2 * width, width]
        fine = [4 * width, 2 * width, width, width // 2]
        skips = [count * factor * width for factor in (16, 8, 4, 1)]
        self.rises = nn.ModuleList(
            nn.ConvTranspose3d(i, o, 2, stride=2, bias=False) for i, o in zip(coarse, fine, strict=True)
        )
        self.skips = nn.ModuleList(conv_norm(i, o, 1) for i, o in zip(skips, fine, strict=True))
        self.blocks = nn.ModuleList(BasicBlock(o) for o in fine)
        self.head = Conv3d(width // 2, regions, 1, bias=False)

    def forward(self, fused: Tensor, skips: Sequence[Tensor]) -> Tensor:
        """`skips` fine to coarse; logits `[B, regions, D, H, W]`."""
        x = fused
        for rise, narrow, block, skip in zip(
            self.rises, self.skips, self.blocks, reversed(skips), strict=True
        ):
            x = block(rise(x) + narrow(skip))
        logits = self.head(x)
        return F.interpolate(logits, scale_factor=self.enlarge, mode="trilinear", align_corners=False)
