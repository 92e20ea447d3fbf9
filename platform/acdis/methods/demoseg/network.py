"""The network of DeMoSeg (Yang et al., BIBM 2024): nnU-Net's U-Net behind one stem per modality."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from acdis.networks.block import Block
from acdis.networks.convolution import Conv3d
from acdis.vocabulary import MODALITIES

SLOPE = 0.01  # of LeakyReLU
#: Pairs of modalities by how near they stand: rank 1, 2, 3. Everyone is nearest to itself (rank 0).
RANKS = (
    (("T1", "T1ce"), ("T2", "FLAIR")),
    (("T1", "T2"), ("T1ce", "FLAIR")),
    (("T1", "FLAIR"), ("T1ce", "T2")),
)


def nearest() -> list[list[int]]:
    """For each of `MODALITIES`: the indices of all, by rank, itself first."""
    order = []
    for name in MODALITIES:
        partners = [
            one if name == other else other for pairs in RANKS for one, other in pairs if name in (one, other)
        ]
        order.append([MODALITIES.index(modality) for modality in (name, *partners)])
    return order


class ConvNormAct(nn.Sequential):
    """3³ convolution with bias, instance norm (with affine or without), LeakyReLU 0.01."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1, affine: bool = True) -> None:
        super().__init__(
            Conv3d(inputs, outputs, 3, stride, 1),
            nn.InstanceNorm3d(outputs, affine=affine),
            nn.LeakyReLU(SLOPE),
        )


class ChannelOrder(nn.Module):
    """CSSA's scores: which channel each channel is added to.

    An order has no gradient, so these weights stay as they are initialised: they are held as buffers'
    equals, in checkpoints and without an optimiser. In fp32 also under autocast, and sorted stably: rounded
    scores tie.

    Args:
        descending: the largest score first.
    """

    def __init__(self, width: int, descending: bool) -> None:
        super().__init__()
        self.descending = descending
        self.squeeze = nn.Linear(width, width // 4)
        self.widen = nn.Linear(width // 4, width)
        self.requires_grad_(False)

    @torch.no_grad()
    def forward(self, means: Tensor) -> Tensor:
        """`[B, C]` spatial means to channel numbers, `[B, C]`."""
        with torch.autocast(means.device.type, enabled=False):
            precise = means.to(self.squeeze.weight.dtype)
            scores = self.widen(F.leaky_relu(self.squeeze(precise), SLOPE)).sigmoid()
        return scores.argsort(dim=1, descending=self.descending, stable=True)


class ShuffledConv(nn.Module):
    """CSSA: convolve, norm, activate; add to each channel the one that the order names; norm, activate.

    Args:
        shuffled: without it nothing is added, and there are no scores.
    """

    def __init__(self, width: int, descending: bool, shuffled: bool) -> None:
        super().__init__()
        self.first = ConvNormAct(width, width, affine=False)
        self.order = ChannelOrder(width, descending) if shuffled else None
        self.second = nn.Sequential(nn.InstanceNorm3d(width, affine=True), nn.LeakyReLU(SLOPE))

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        if self.order is not None:
            # In fp32 also of maps in half precision: rounded means tie, and so would scores.
            means = x.mean((2, 3, 4), dtype=torch.promote_types(x.dtype, torch.float32))
            order = self.order(means)
            x = x + x.gather(1, order[:, :, None, None, None].expand_as(x))
        result: Tensor = self.second(x)
        return result


class Stage(Block):
    """A convolution that may halve the sides, then a shuffled one."""

    def __init__(self, inputs: int, outputs: int, stride: int, descending: bool, shuffled: bool) -> None:
        super().__init__()
        self.entry = ConvNormAct(inputs, outputs, stride)
        self.shuffle = ShuffledConv(outputs, descending, shuffled)

    def compute(self, *inputs: Tensor) -> Tensor:
        (x,) = inputs
        result: Tensor = self.shuffle(self.entry(x))
        return result

    def parts(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """What the entry gives, which the distillation reads, and the stage's result."""
        entered = self.run(self.entry, x)
        return entered, self.run(self.shuffle, entered)


class Stems(nn.Module):
    """One stage per modality; its channels are four groups, one for each modality that it may stand for."""

    def __init__(self, width: int, shuffled: bool) -> None:
        super().__init__()
        self.stages = nn.ModuleList(
            Stage(1, width, 1, descending=name != "T1", shuffled=shuffled) for name in MODALITIES
        )

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """`[B, 4, D, H, W]` to each modality's `[B, C, D, H, W]`."""
        return tuple(stage(images[:, m : m + 1]) for m, stage in enumerate(self.stages))

    def parts(self, images: Tensor) -> list[tuple[Tensor, Tensor]]:
        """`Stage.parts` of each modality."""
        stages = enumerate(cast(Sequence[Stage], self.stages))
        return [stage.parts(images[:, m : m + 1]) for m, stage in stages]


def fill_slots(stems: Sequence[Tensor], available: Tensor) -> Tensor:
    """Each modality's slot from the nearest modality that is there, `[B, C, D, H, W]`.

    Slot m takes group r of the modality with rank r to m, for the least r that `available`, bool [B, 4], has.
    """
    slots = []
    for order in nearest():
        groups = [stems[m].chunk(len(order), dim=1)[rank] for rank, m in enumerate(order)]
        slot = torch.zeros_like(groups[0])
        for rank, m in reversed(list(enumerate(order))):
            slot = torch.where(available[:, m, None, None, None, None], groups[rank], slot)
        slots.append(slot)
    return torch.cat([slots[MODALITIES.index(name)] for name in ("T1", "T1ce", "T2", "FLAIR")], dim=1)


def distillation(entries: Sequence[Tensor], available: Tensor) -> Tensor:
    """KL between what modality m keeps for j and what j says of itself, per sample `[B]`.

    For each ordered pair of available modalities: mean over channels and voxels of p (log p - q), q the
    log-softmax over the channels of m's group for j, p the softmax over those of j's own group; summed over
    the pairs, times 1/2 (the public code's sum over its batch of two, halved). No stop-gradient.

    Args:
        entries: of each modality, what its stem's first convolution, norm and activation gave.
    """
    groups = [[group.float() for group in entry.chunk(4, dim=1)] for entry in entries]
    total = entries[0].new_zeros(len(available), dtype=torch.promote_types(entries[0].dtype, torch.float32))
    for m, order in enumerate(nearest()):
        for rank, j in list(enumerate(order))[1:]:
            log_p, q = groups[j][0].log_softmax(1), groups[m][rank].log_softmax(1)
            pair = (log_p.exp() * (log_p - q)).mean((1, 2, 3, 4))
            total = total + torch.where(available[:, m] & available[:, j], pair, 0.0)
    return total / 2


class UNet(nn.Module):
    """nnU-Net's shape behind the slots: transposed convolutions up, a head per level.

    Args:
        widths: channels, fine to coarse; the first is the slots'.
        heads: of how many levels, the finest first, logits are made; none: of all but the lowest.
    """

    def __init__(self, widths: Sequence[int], classes: int, shuffled: bool, heads: int | None = None) -> None:
        super().__init__()
        pairs = list(itertools.pairwise(widths))
        self.encoder = nn.ModuleList(Stage(i, o, 2, False, shuffled) for i, o in pairs)
        self.rises = nn.ModuleList(nn.ConvTranspose3d(o, i, 2, stride=2, bias=False) for i, o in pairs)
        self.decoder = nn.ModuleList(Stage(2 * i, i, 1, False, shuffled) for i, _ in pairs)
        self.heads = nn.ModuleList(Conv3d(i, classes, 1, bias=False) for i, _ in pairs[:heads])

    def forward(self, x: Tensor, levels: int | None = None) -> list[Tensor]:
        """Logits, fine to coarse, each at its own size; of `levels` of them, the finest first, or of all."""
        skips = [x]
        for stage in self.encoder:
            skips.append(stage(skips[-1]))
        x = skips.pop()
        maps = []
        for rise, stage, skip in reversed(list(zip(self.rises, self.decoder, skips, strict=True))):
            x = stage(torch.cat([rise(x), skip], dim=1))
            maps.append(x)
        return [head(x) for head, x in zip(self.heads[:levels], reversed(maps), strict=False)]
