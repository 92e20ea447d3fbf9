"""Sliding windows over a case: every window is encoded once and decoded for every subset.

RFNet convention (METHOD.md, data protocol): windows of 80³ voxels at stride 40, the last one flush with the
edge, the mean of the softmax where windows overlap. A network knows less at a window's border, where it sees
one side alone; a mean that counts every voxel the same steps there, along straight lines. Gaussian weights
(MONAI's and nnU-Net's convention) let a window fade out instead.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal, NamedTuple

import torch
from torch import Tensor

from acdis import machine
from acdis.vocabulary import CLASSES, MODALITIES, REGION_LABELS, REGIONS, SUBSETS, subset_mask

if TYPE_CHECKING:
    from acdis.methods.base import Method

Start = tuple[int, int, int]
Progress = Callable[[int, int], None]
Weights = Literal["constant", "gaussian"]

#: Of all the maps of a level that are computed together.
_VOXELS_ON_CPU = 2**21
#: Of the Gaussian weights (MONAI): standard deviation over the window's side, and the least weight, lest the
#: corners of a volume, which lie in one window alone, are divided by next to nothing.
_SIGMA, _LEAST = 0.125, 1e-3


def windows(shape: Sequence[int], window: Sequence[int], stride: Sequence[int]) -> list[Start]:
    """First voxels of the windows that cover a volume; the last along an axis is flush with its edge.

    Args:
        shape: voxels of the volume (D, H, W), at least `window` along each axis.
        window: voxels of a window along each axis.
        stride: voxels between windows along each axis, 1 to `window`.

    Returns:
        Every start once, the last axis running fastest.

    Raises:
        ValueError: not three axes, a volume smaller than a window, or a stride that leaves voxels out.
    """
    if not len(shape) == len(window) == len(stride) == 3:
        raise ValueError(f"shape {shape}, window {window} and stride {stride} must have three axes each")
    first, second, third = (_starts(*axis) for axis in zip(shape, window, stride, strict=True))
    return list(itertools.product(first, second, third))


def _starts(size: int, window: int, stride: int) -> list[int]:
    """Starts along one axis."""
    if not 1 <= stride <= window <= size:
        raise ValueError(
            f"needs 1 <= stride <= window <= size, got stride {stride}, window {window}, size {size}"
        )
    return [*range(0, size - window, stride), size - window]


def subset_masks() -> Tensor:
    """The 15 subsets as bool [15, 4], in the order of `vocabulary.SUBSETS`."""
    return torch.tensor([subset_mask(subset) for subset in SUBSETS])


def predict(
    method: Method,
    images: Tensor,
    window: Sequence[int],
    stride: Sequence[int],
    subsets: Tensor | None = None,
    device: torch.device | str = "cpu",
    autocast: torch.dtype | None = None,
    memory: int | None = None,
    progress: Progress | None = None,
    corner: Sequence[int] = (0, 0, 0),
    weights: Weights = "constant",
) -> Tensor:
    """Probabilities of a whole case for every subset: the weighted mean of the windows' softmax.

    Of a method that gives regions the mean of their sigmoid; where it merges logits, softmax or sigmoid of
    the windows' mean logits.

    A volume smaller than a window is padded with zeros at its far end and the result cropped back, so a
    window's `origin` is its place in the whole volume. Evaluation mode, no gradients; modes are put back
    afterwards.

    Args:
        method: on `device`; its `encode` sees every window once. Small windows go through it together.
        images: [4, D, H, W], preprocessed, in the order of `MODALITIES`, on any device.
        window, stride: voxels (d, h, w) of a window, and between windows.
        subsets: bool [S, 4], which modalities are given; none: the 15 of the paper, in their order.
        device: where the windows are computed.
        autocast: bfloat16 or float16; none: as the weights are. Softmax and mean are always float32.
        memory: bytes that a round of windows may take, beside the weights and the result; none: a quarter of
            what is free. With less, fewer windows are computed together, or fewer subsets of one at a time.
        progress: called with (windows done, windows in all).
        corner: where the first voxel of `images` lies in the whole volume.
        weights: of a window's voxels in the mean, see `window_weights`.

    Returns:
        float32 [S, 4 classes or 3 regions, D, H, W] on `device`, or on the CPU where that has no room
        for them (S × 16 or 12 bytes per voxel).

    Raises:
        ValueError: shapes that do not fit, a subset without a modality, a result not finite.
    """
    subsets = subset_masks() if subsets is None else subsets.cpu()
    device = torch.device(device)
    _check(images, subsets)
    padded = pad(images, window)
    starts = windows(padded.shape[1:], window, stride)
    share = _share(method, len(subsets), math.prod(window), device, memory)
    place_of_sums = _place_of_sums(len(subsets) * _maps(method) * padded[0].numel() * 4, device)
    total = torch.zeros(len(subsets), _maps(method), *padded.shape[1:], device=place_of_sums)
    counts = torch.zeros(*padded.shape[1:], device=place_of_sums)
    weight = window_weights(window, weights).to(place_of_sums)
    padded = padded.to(device)
    mixed = torch.autocast(device.type, dtype=autocast, enabled=autocast is not None)
    with torch.no_grad(), _evaluating(method), mixed:
        for done in range(0, len(starts), share.windows):
            places = [_place(start, window) for start in starts[done : done + share.windows]]
            _add_windows(total, places, method, padded, corner, device, subsets, share.subsets, weight)
            for place in places:
                counts[place] += weight
            if progress is not None:
                progress(done + len(places), len(starts))
    if not total.sum().isfinite():
        raise ValueError("the prediction is not finite: the images or the method's weights hold NaN or inf")
    depth, height, width = images.shape[1:]
    mean = total.div_(counts)[..., :depth, :height, :width]
    return _probabilities(method, mean, dim=1) if method.merged == "logits" else mean


def regions_of(classes: Tensor) -> Tensor:
    """Probabilities of WT, TC, ET [3, ...] from those of the four classes [4, ...]."""
    return torch.stack([classes[list(REGION_LABELS[region])].sum(0) for region in REGIONS])


def window_weights(window: Sequence[int], weights: Weights) -> Tensor:
    """What each voxel of a window [d, h, w] counts in the mean: 1, or a Gaussian that is 1 at the centre.

    Its standard deviation is an eighth of the side along each axis, and no weight is below 0.001.
    """
    total = torch.ones(())
    if weights == "gaussian":
        for side in window:
            away = torch.arange(side) - (side - 1) / 2
            total = total[..., None] * torch.exp(-(away**2) / (2 * (_SIGMA * side) ** 2))
    return total.expand(*window).clamp(min=_LEAST)


def _maps(method: Method) -> int:
    return len(REGIONS if method.outputs == "regions" else CLASSES)


def _probabilities(method: Method, logits: Tensor, dim: int) -> Tensor:
    """Of each region for itself, or of the classes along `dim`."""
    return logits.float().sigmoid() if method.outputs == "regions" else logits.float().softmax(dim)


class AtOnce(NamedTuple):
    """How much is computed at a time."""

    windows: int
    subsets: int


def _share(method: Method, subsets: int, voxels: int, device: torch.device, memory: int | None) -> AtOnce:
    """What fits: all subsets of several windows, or as many as possible of one window, at least one."""
    bound = _free(device) // 4 if memory is None else memory
    # On a CPU more at a time than its caches hold is no faster.
    maps = max(1, _VOXELS_ON_CPU // voxels) if device.type == "cpu" else 2**20
    most = min(subsets, maps)
    fitting = next((n for n in range(most, 1, -1) if voxels * method.bytes_per_voxel(n) <= bound), 1)
    together = bound // (voxels * method.bytes_per_voxel(subsets)) if fitting == subsets else 1
    return AtOnce(max(1, min(together, maps // subsets)), fitting)


def _free(device: torch.device) -> int:
    """Bytes; of a GPU also what torch's allocator holds and nobody uses."""
    if device.type != "cuda":
        return machine.free()
    held = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return torch.cuda.mem_get_info(device)[0] + held


def _place_of_sums(size: int, device: torch.device) -> torch.device:
    """Where a case's sums are kept: on the device, unless they would take half of what is free there."""
    return device if 2 * size <= _free(device) else torch.device("cpu")


def _place(start: Start, window: Sequence[int]) -> tuple[slice, ...]:
    return tuple(slice(at, at + side) for at, side in zip(start, window, strict=True))


def _add_windows(
    total: Tensor,
    places: Sequence[tuple[slice, ...]],
    method: Method,
    images: Tensor,
    corner: Sequence[int],
    device: torch.device,
    subsets: Tensor,
    chunk: int,
    weight: Tensor,
) -> None:
    """Add what is merged of some windows, all subsets, to `total` [S, 4 or 3, D, H, W]."""
    crops = torch.stack([images[(slice(None), *place)] for place in places])
    starts = [[side.start + at for side, at in zip(place, corner, strict=True)] for place in places]
    origin = torch.tensor(starts, device=device)
    features = method.encode(crops.to(torch.float32), origin=origin)
    for first in range(0, len(subsets), chunk):
        part = subsets[first : first + chunk]
        logits = method.decode_subsets(features, part)
        expected = (len(part), len(places), _maps(method), *crops.shape[2:])
        if logits.shape != expected:
            raise ValueError(f"decode_subsets gave logits {tuple(logits.shape)} where {expected} is due")
        merged = logits.float() if method.merged == "logits" else _probabilities(method, logits, dim=2)
        merged = merged.to(total.device) * weight
        for at, place in enumerate(places):
            total[(slice(first, first + chunk), slice(None), *place)] += merged[:, at]


def _check(images: Tensor, subsets: Tensor) -> None:
    if images.ndim != 4 or len(images) != len(MODALITIES):
        raise ValueError(f"images must be [4, D, H, W], got {tuple(images.shape)}")
    if subsets.ndim != 2 or subsets.shape[1] != len(MODALITIES) or subsets.dtype != torch.bool:
        raise ValueError(f"subsets must be bool [S, 4], got {subsets.dtype} {tuple(subsets.shape)}")
    if not len(subsets) or not subsets.any(dim=1).all():
        raise ValueError("every subset must hold a modality, and there must be at least one subset")


def pad(images: Tensor, window: Sequence[int]) -> Tensor:
    """[4, D, H, W] with zeros at the far ends, at least `window` along each axis."""
    missing = [max(side - size, 0) for size, side in zip(images.shape[1:], window, strict=True)]
    if not any(missing):
        return images
    ends = itertools.chain.from_iterable((0, voxels) for voxels in reversed(missing))
    return torch.nn.functional.pad(images, tuple(ends))


@contextmanager
def _evaluating(method: torch.nn.Module) -> Iterator[None]:
    """Evaluation mode; afterwards every module's own mode again (a part may be frozen in evaluation mode)."""
    modes = [(module, module.training) for module in method.modules()]
    method.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
