"""Sliding windows over a case: every window is encoded once and decoded for every subset.

RFNet convention (METHOD.md, data protocol): windows of 80³ voxels at stride 40, the last one flush with the
edge, the mean of the softmax where windows overlap.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from acdis.vocabulary import CLASSES, MODALITIES, SUBSETS, subset_mask

if TYPE_CHECKING:
    from acdis.methods.base import Method

Start = tuple[int, int, int]
Progress = Callable[[int, int], None]


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
    chunk: int = len(SUBSETS),
    progress: Progress | None = None,
) -> Tensor:
    """Class probabilities of a whole case for every subset: the mean of the windows' softmax.

    A volume smaller than a window is padded with zeros at its far end and the result cropped back, so a
    window's `origin` is its place in `images`. Evaluation mode, no gradients; modes are put back afterwards.

    Args:
        method: on `device`; its `encode` is called once per window, its `decode_subsets` once per chunk.
        images: [4, D, H, W], preprocessed, in the order of `MODALITIES`, on any device.
        window, stride: voxels (d, h, w) of a window, and between windows.
        subsets: bool [S, 4], which modalities are given; none: the 15 of the paper, in their order.
        device: where the windows are computed.
        autocast: bfloat16 or float16; none: as the weights are. Softmax and mean are always float32.
        chunk: subsets decoded at a time: fewer for less memory. Logits of all 15 take 123 MB at 80³.
        progress: called with (windows done, windows in all).

    Returns:
        float32 [S, 4 classes, D, H, W] on the CPU (S × 16 bytes per voxel).

    Raises:
        ValueError: shapes that do not fit, a subset without a modality, chunk < 1, a result not finite.
    """
    subsets = subset_masks() if subsets is None else subsets.cpu()
    _check(images, subsets, chunk)
    padded = _pad(images, window)
    starts = windows(padded.shape[1:], window, stride)
    total = torch.zeros(len(subsets), len(CLASSES), *padded.shape[1:])
    counts = torch.zeros(*padded.shape[1:])
    mixed = torch.autocast(torch.device(device).type, dtype=autocast, enabled=autocast is not None)
    with torch.no_grad(), _evaluating(method), mixed:
        for done, start in enumerate(starts, 1):
            place = tuple(slice(at, at + side) for at, side in zip(start, window, strict=True))
            _add_window(total, place, method, padded, subsets, device, chunk)
            counts[place] += 1
            if progress is not None:
                progress(done, len(starts))
    if not total.sum().isfinite():
        raise ValueError("the prediction is not finite: the images or the method's weights hold NaN or inf")
    depth, height, width = images.shape[1:]
    return total.div_(counts)[..., :depth, :height, :width]


def _add_window(
    total: Tensor,
    place: tuple[slice, ...],
    method: Method,
    images: Tensor,
    subsets: Tensor,
    device: torch.device | str,
    chunk: int,
) -> None:
    """Add the softmax of one window, all subsets, to `total` [S, 4, D, H, W]."""
    crop = images[(slice(None), *place)]
    origin = torch.tensor([[side.start for side in place]], device=device)
    features = method.encode(crop[None].to(device, torch.float32), origin=origin)
    for first in range(0, len(subsets), chunk):
        part = subsets[first : first + chunk]
        logits = method.decode_subsets(features, part.to(device))
        expected = (len(part), 1, len(CLASSES), *crop.shape[1:])
        if logits.shape != expected:
            raise ValueError(f"decode_subsets gave logits {tuple(logits.shape)} where {expected} is due")
        probabilities = logits[:, 0].float().softmax(dim=1)
        total[(slice(first, first + chunk), slice(None), *place)] += probabilities.cpu()


def _check(images: Tensor, subsets: Tensor, chunk: int) -> None:
    if images.ndim != 4 or len(images) != len(MODALITIES):
        raise ValueError(f"images must be [4, D, H, W], got {tuple(images.shape)}")
    if subsets.ndim != 2 or subsets.shape[1] != len(MODALITIES) or subsets.dtype != torch.bool:
        raise ValueError(f"subsets must be bool [S, 4], got {subsets.dtype} {tuple(subsets.shape)}")
    if not len(subsets) or not subsets.any(dim=1).all():
        raise ValueError("every subset must hold a modality, and there must be at least one subset")
    if chunk < 1:
        raise ValueError(f"chunk must be at least 1, got {chunk}")


def _pad(images: Tensor, window: Sequence[int]) -> Tensor:
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
