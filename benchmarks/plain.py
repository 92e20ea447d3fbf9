"""ACDIS the plain way: the yardstick of speed, and the reference that fast paths are tested against.

The weights of an `ACDIS`, and torch's own operations in the order in which the paper draws them: four
encoders one after the other, modalities concatenated before D_Fuse, six separate decoder calls, local windows
unfolded, float32 in torch's default memory format. No result is shared between subsets.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from acdis.losses import segmentation
from acdis.methods.base import Batch
from acdis.vocabulary import MODALITIES

Pyramid = list[Tensor]
COUNT = len(MODALITIES)


def conv_norm_act(block: Any, x: Tensor) -> Tensor:
    conv = block[0]
    x = F.conv3d(x, conv.weight, None, conv.stride, conv.padding)
    return F.leaky_relu(F.instance_norm(x), 0.2, inplace=True)


def encode(encoder: Any, x: Tensor) -> Pyramid:
    pyramid = []
    for level in encoder.levels:
        x = conv_norm_act(level.entry, x)
        x = x + conv_norm_act(level.pair[1], conv_norm_act(level.pair[0], x))
        pyramid.append(x)
    return pyramid


def enhance(block: Any, x: Tensor) -> Tensor:
    """AFEB; its attention is torch's in any case."""
    embedded = conv_norm_act(block.embed, x)
    branches = [block.distant(embedded)] if block.distant is not None else []
    joined = torch.cat([*branches, conv_norm_act(block.local, embedded)], dim=1)
    return x + conv_norm_act(block.fuse, joined)


def synthesise(block: Any, known: Tensor) -> Tensor:
    """Eq. 5-9."""
    weight = torch.sigmoid(block.weigh(known.mean(dim=(2, 3, 4))))
    features = F.conv3d(weight[:, :, None, None, None] * known, block.reduce.weight)
    alpha = torch.sigmoid(F.conv3d(features, block.scale.weight))
    beta = torch.sigmoid(F.conv3d(features, block.shift.weight))
    return (1 + alpha) * features + beta


def decode(decoder: Any, pyramid: Sequence[Tensor]) -> Tensor:
    *skips, x = pyramid
    for level, skip in zip(reversed(decoder.levels), reversed(skips), strict=True):
        x = F.interpolate(x, size=skip.shape[2:], mode="trilinear", align_corners=True)
        x = torch.cat([conv_norm_act(level.rise, x), skip], dim=1)
        x = conv_norm_act(level.settle, conv_norm_act(level.merge, x))
    return F.conv3d(x, decoder.head.weight, decoder.head.bias)


def fuse(method: Any, wide: Sequence[Tensor]) -> Tensor:
    decoder = method.fusion_decoder
    *skips, coarsest = wide
    return decode(decoder.decoder, [*skips, conv_norm_act(decoder.squeeze, coarsest)])


def extract(method: Any, images: Tensor) -> tuple[list[Pyramid], list[Pyramid]]:
    """Features before and after AFEB, modality by modality."""
    before = [encode(encoder, images[:, m : m + 1]) for m, encoder in enumerate(method.encoders)]
    after = [
        [enhance(block, f) for block, f in zip(blocks, pyramid, strict=True)]
        for blocks, pyramid in zip(method.enhancers, before, strict=True)
    ]
    return before, after


def complete(method: Any, after: Sequence[Pyramid], available: Tensor) -> tuple[Pyramid, list[Any]]:
    """f_comp of each level, `[B, 4C, …]`, and (modality, level, synthesised) of all that is missing."""
    levels, made = [], []
    for level in range(len(after[0])):
        given = [available[:, m, None, None, None, None] for m in range(COUNT)]
        known = [torch.where(given[m], after[m][level], 0.0) for m in range(COUNT)]
        wide, parts = torch.cat(known, dim=1), list(known)
        for m in (m for m in range(COUNT) if not available[:, m].all()):
            synthesised = synthesise(method.synthesisers[m][level], wide)
            made.append((m, level, synthesised))
            parts[m] = torch.where(given[m], known[m], synthesised)
        levels.append(torch.cat(parts, dim=1))
    return levels, made


def predict(method: Any, images: Tensor, available: Tensor) -> Tensor:
    """Logits `[B, 4, D, H, W]`, everything anew for this subset, bool `[B, 4]`."""
    _, after = extract(method, images)
    return fuse(method, complete(method, after, available)[0])


def loss(method: Any, batch: Batch) -> Tensor:
    """Eq. 12 with L_ACCT and L_Syn, of an epoch in which every block is at work."""
    images = batch.images.contiguous()
    before, after = extract(method, images)
    auxiliary = encode(method.auxiliary_encoder, images)
    levels, made = complete(method, after, batch.available)
    maps = [decode(method.auxiliary_decoder, pyramid) for pyramid in before]
    maps += [fuse(method, [torch.cat([f] * COUNT, dim=1) for f in auxiliary]), fuse(method, levels)]
    total = sum((map_loss(logits, batch.labels) for logits in maps), torch.zeros(()))
    pairs = [(f, aux) for pyramid in after for f, aux in zip(pyramid, auxiliary, strict=True)]
    total = total + torch.stack([acct(f, aux) for f, aux in pairs]).mean()
    return total + synthesis(made, after, batch.available)


def map_loss(logits: Tensor, labels: Tensor) -> Tensor:
    probabilities, target = logits.softmax(dim=1), segmentation.one_hot(labels)
    weighted = segmentation.weighted_cross_entropy(probabilities, target)
    return weighted + segmentation.dice_loss(probabilities, target)


def acct(f_m: Tensor, f_aux: Tensor, side: int = 5) -> Tensor:
    """Eq. 1-4, whole windows unfolded; those at a border that 5 does not divide are smaller."""
    var, covar = [], []
    for m, aux in zip(unfold(f_m.sigmoid(), side), unfold(f_aux.detach().sigmoid(), side), strict=True):
        sigma_m, sigma_aux = m.std(-1), aux.std(-1)
        products = (m - m.mean(-1, keepdim=True)) * (aux - aux.mean(-1, keepdim=True))
        covariance = products.sum(-1) / (m.shape[-1] - 1)
        var.append(1 - (2 * sigma_m * sigma_aux + 1e-6) / (sigma_m**2 + sigma_aux**2 + 1e-6))
        covar.append(1 - (covariance.abs() + 1e-6) / (sigma_m * sigma_aux + 1e-6))
    return torch.cat([v.flatten() for v in var]).mean() + torch.cat([v.flatten() for v in covar]).mean()


def unfold(f: Tensor, side: int) -> Iterator[Tensor]:
    """Windows `[B, C, windows…, voxels]` of one size after the other, those of two voxels or more."""
    for runs in itertools.product(*([*_runs(length, side)] for length in f.shape[2:])):
        part = f
        for axis, (first, last, size) in enumerate(runs, 2):
            part = part.narrow(axis, first, last - first).unfold(axis, size, size)
        if part[0, 0, 0, 0, 0].numel() > 1:
            yield part.flatten(5)


def _runs(length: int, side: int) -> Iterator[tuple[int, int, int]]:
    """(first voxel, end, size) of the whole windows along an axis, and of the one that the border cuts."""
    whole = length // side * side
    if whole:
        yield 0, whole, side
    if whole < length:
        yield whole, length, length - whole


def synthesis(made: Sequence[Any], after: Sequence[Pyramid], available: Tensor) -> Tensor:
    """L_Syn: per sample the mean over what it lacks, then over levels and the batch."""
    missing = (~available).sum(1).clamp(min=1)
    total = torch.zeros(len(available))
    for m, level, synthesised in made:
        error = (synthesised - after[m][level].detach()).square().mean(dim=(1, 2, 3, 4))
        total = total + torch.where(available[:, m], 0.0, error) / missing
    return total.mean() / len(after[0])
