"""The network of UNet-MFI (Zhao, Yang, Sun, MICCAI 2022): four 3-D U-Nets that exchange channel attention."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from acdis.networks.block import Block
from acdis.networks.convolution import Conv3d


class Residual(Block):
    """x + two times (group norm of 8 channels a group, ReLU, 3³ convolution with bias)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.GroupNorm(max(1, width // 8), width) for _ in range(2))
        self.convolutions = nn.ModuleList(Conv3d(width, width, 3, padding=1) for _ in range(2))

    def compute(self, *inputs: Tensor) -> Tensor:
        (x,) = inputs
        residual = x
        for norm, convolution in zip(self.norms, self.convolutions, strict=True):
            residual = convolution(F.relu(norm(residual)))
        return x + residual


class Rise(nn.Module):
    """1³ convolution, then a transposed one of 2³ that doubles the sides."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.settle = Conv3d(inputs, inputs, 1)
        self.enlarge = nn.ConvTranspose3d(inputs, outputs, 2, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.enlarge(self.settle(x))
        return result


class Exchange(nn.Module):
    """MFI: each modality's map plus a sum of all four, weighed channel by channel.

    For query i and source j a perceptron reads the spatial means of j and of i and whether j is given; a
    softmax over the sources makes weights of what it says. One perceptron serves all pairs: the public code
    holds four and uses the first.
    """

    def __init__(self, width: int, masked: bool) -> None:
        super().__init__()
        self.masked = masked
        self.hidden = nn.Linear(4 * width, 2 * width)
        self.score = nn.Linear(2 * width, width)

    def weights(self, maps: Sequence[Tensor], available: Tensor) -> Tensor:
        """`[B, 4 queries, 4 sources, C]` from maps `[B, C, D, H, W]` and `available`, bool [B, 4]."""
        means = torch.stack([x.mean((2, 3, 4)) for x in maps], dim=1)
        _, M, C = means.shape
        source, query = means[:, None].expand(-1, M, -1, -1), means[:, :, None].expand(-1, -1, M, -1)
        given = available.to(means.dtype)[:, None, :, None].expand(-1, M, -1, 2 * C)
        scores = self.score(F.leaky_relu(self.hidden(torch.cat([source, query, given], dim=3)), 0.01))
        scores = scores.to(torch.promote_types(scores.dtype, torch.float32))
        if self.masked:
            scores = scores.masked_fill(~available[:, None, :, None], -torch.inf)
        return scores.softmax(dim=2)

    def forward(self, maps: Sequence[Tensor], available: Tensor) -> list[Tensor]:
        weights = self.weights(maps, available).to(maps[0].dtype)[..., None, None, None]
        return [_added(x, weights[:, i], maps) for i, x in enumerate(maps)]


def _added(x: Tensor, weights: Tensor, maps: Sequence[Tensor]) -> Tensor:
    """x and the weighed maps; `weights` `[B, 4 sources, C, 1, 1, 1]`."""
    for j, source in enumerate(maps):
        x = torch.addcmul(x, weights[:, j], source)
    return x


class Entry(nn.Module):
    """A modality's finest level: what no other modality has a part in."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.convolution = Conv3d(1, width, 3, padding=1)
        self.residual = Residual(width)
        self.down = Conv3d(width, 2 * width, 3, stride=2, padding=1)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """The skip at full size and the map below it."""
        skip = self.residual(self.convolution(image))
        return skip, self.down(skip)


class Modality(nn.Module):
    """One modality's U-Net below its finest level; `width` is that level's."""

    def __init__(self, width: int, regions: int) -> None:
        super().__init__()
        second, third, fourth = 2 * width, 4 * width, 8 * width
        self.encoder = nn.ModuleList(Residual(w) for w in (second, third, fourth))
        self.downs = nn.ModuleList(
            Conv3d(i, o, 3, stride=2, padding=1) for i, o in ((second, third), (third, fourth))
        )
        self.rises = nn.ModuleList(Rise(2 * w, w) for w in (third, second, width))
        self.decoder = nn.ModuleList(Residual(w) for w in (third, second, width))
        self.head = Conv3d(width, regions, 1)


class Encoded(NamedTuple):
    """The finest level of each modality for its image and for an empty one, which stands for a missing image.

    Attributes:
        skips, downs: per modality, `[B, C, D, H, W]` and half as wide.
        empty_skips, empty_downs: the same for an image of zeros, `[1, C, D, H, W]`.
    """

    skips: tuple[Tensor, ...]
    downs: tuple[Tensor, ...]
    empty_skips: tuple[Tensor, ...]
    empty_downs: tuple[Tensor, ...]


class Outputs(NamedTuple):
    """Region logits `[B, 3, D, H, W]`: the five of full size (four modalities, joint), the deep ones."""

    full: list[Tensor]
    deep: list[Tensor]


class Networks(nn.Module):
    """Four U-Nets, their exchanges, and the heads."""

    def __init__(self, width: int, count: int, regions: int, masked: bool) -> None:
        super().__init__()
        self.entries = nn.ModuleList(Entry(width) for _ in range(count))
        self.modalities = nn.ModuleList(Modality(width, regions) for _ in range(count))
        self.exchanges = nn.ModuleList(Exchange(factor * width, masked) for factor in (2, 4, 8, 4, 2))
        self.deep = nn.ModuleList(Conv3d(f * width, regions, 3, padding=1) for f in (4, 2))
        self.joint = Conv3d(count * regions, regions, 1)

    def enter(self, images: Tensor) -> Encoded:
        """`[B, 4, D, H, W]` to what does not depend on the subset."""
        given = [entry(images[:, m : m + 1]) for m, entry in enumerate(self.entries)]
        empty = [entry(torch.zeros_like(images[:1, :1])) for entry in self.entries]
        return Encoded(
            tuple(skip for skip, _ in given),
            tuple(down for _, down in given),
            tuple(skip for skip, _ in empty),
            tuple(down for _, down in empty),
        )

    def forward(self, encoded: Encoded, available: Tensor) -> Outputs:
        """From the finest level on; `available` is bool [B, 4]."""
        skips = _chosen(available, encoded.skips, encoded.empty_skips)
        return self._below(skips, _chosen(available, encoded.downs, encoded.empty_downs), available)

    def train_on(self, images: Tensor, available: Tensor) -> Outputs:
        """The same of images `[B, 4, D, H, W]` at once: those that are missing are emptied first."""
        emptied = torch.where(available[:, :, None, None, None], images, 0.0)
        pairs = [entry(emptied[:, m : m + 1]) for m, entry in enumerate(self.entries)]
        skips, downs = zip(*pairs, strict=True)
        return self._below(list(skips), list(downs), available)

    def _below(self, finest: list[Tensor], x: list[Tensor], available: Tensor) -> Outputs:
        """From the skips of the finest level and the maps below it."""
        skips = [finest]
        x = self.exchanges[0](x, available)
        for level in range(2):
            x = self._each("encoder", level, x)
            skips.append(x)
            x = self.exchanges[level + 1](self._each("downs", level, x), available)
        x = self._each("encoder", 2, x)
        deep = []
        for level, skip in enumerate(reversed(skips)):
            x = [rise + s for rise, s in zip(self._each("rises", level, x), skip, strict=True)]
            if level < 2:
                scale = 4 // 2**level
                deep += [F.interpolate(self.deep[level](u), scale_factor=scale, mode="nearest") for u in x]
            x = self._each("decoder", level, x)
            if level < 2:
                x = self.exchanges[level + 3](x, available)
        full = [cast(Modality, net).head(u) for net, u in zip(self.modalities, x, strict=True)]
        return Outputs([*full, self.joint(torch.cat(full, dim=1))], deep)

    def _each(self, part: str, level: int, maps: Sequence[Tensor]) -> list[Tensor]:
        """The same part of each modality's network on its own map."""
        return [getattr(net, part)[level](x) for net, x in zip(self.modalities, maps, strict=True)]


def _chosen(available: Tensor, given: Sequence[Tensor], empty: Sequence[Tensor]) -> list[Tensor]:
    """Selected, not multiplied: what is missing may be NaN."""
    return [
        torch.where(available[:, m, None, None, None, None], x, zero)
        for m, (x, zero) in enumerate(zip(given, empty, strict=True))
    ]
