"""From a validated volume to what a model reads, and back: resample, crop to the brain, normalise.

Pure functions. Box and normalisation are RFNet's convention (METHOD.md, "Data protocol of the field").
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from acdis import config
from acdis.data.cases import Volume
from acdis.data.nifti import MAX_VOXELS
from acdis.data.resample import (
    Spacing,
    Voxels,
    centres,
    interpolate,
    labels,
    linear,
    resampled_shape,
    working_spacing,
)
from acdis.errors import UserError

if TYPE_CHECKING:  # opening prepared cases, as `plan` does, takes no torch
    from torch import Tensor

#: To be raised whenever the same files and options give other arrays: prepared cases are then made anew.
PREPROCESS_VERSION = 2  # axes as BraTS's, labels by scheme, a background of 0


@dataclass(frozen=True)
class Box:
    """Voxels `start <= index < stop` on each axis; may reach beyond the volume, which is then padded."""

    start: Voxels
    stop: Voxels

    @property
    def shape(self) -> Voxels:
        """Voxels per side."""
        return _triple(stop - start for start, stop in zip(self.start, self.stop, strict=True))


@dataclass(frozen=True)
class Meta:
    """Where a prepared case lies in its file's volume: what `to_native` needs.

    `box` counts in voxels of the working grid, of which the whole volume has `full_shape` at `spacing` (mm);
    `native_shape`, `native_spacing` (mm) and `affine` (4×4, rows) are the file's.
    """

    box: Box
    full_shape: Voxels
    spacing: Spacing
    native_shape: Voxels
    native_spacing: Spacing
    affine: tuple[tuple[float, ...], ...]

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        plain = {
            name: getattr(self, name)
            for name in ("full_shape", "spacing", "native_shape", "native_spacing", "affine")
        }
        return {"box": [self.box.start, self.box.stop], **plain}

    def is_sound(self) -> bool:
        """Whether such a case can be: sides, spacings and the affine within what is read from files."""
        shapes = (self.box.shape, self.full_shape, self.native_shape)
        sides = all(min(shape) > 0 and math.prod(shape) <= MAX_VOXELS for shape in shapes)
        spacings = all(0 < millimetres < math.inf for millimetres in (*self.spacing, *self.native_spacing))
        rows = [len(row) == 4 and all(map(math.isfinite, row)) for row in self.affine]
        return sides and spacings and rows == [True] * 4

    @classmethod
    def from_dict(cls, tree: dict[str, Any]) -> Meta:
        """Undo `as_dict`, also after JSON made lists of the tuples."""
        start, stop = tree["box"]
        return cls(
            box=Box(_triple(start), _triple(stop)),
            full_shape=_triple(tree["full_shape"]),
            spacing=_floats(tree["spacing"]),
            native_shape=_triple(tree["native_shape"]),
            native_spacing=_floats(tree["native_spacing"]),
            affine=tuple(tuple(float(value) for value in row) for row in tree["affine"]),
        )


@dataclass(frozen=True)
class Prepared:
    """images float32 [4, D, H, W] and labels uint8 [D, H, W] on `meta.box`, at the working spacing."""

    images: np.ndarray
    labels: np.ndarray
    meta: Meta


def preprocess(volume: Volume, data: config.Data) -> Prepared:
    """Resample to `data.spacing`, crop to the brain's box grown to `data.min_size`, normalise each modality.

    The brain is where any modality is not 0. RFNet takes a sum above 0, which is the same on BraTS, whose
    intensities are never negative, but would lose half the brain on images that are normalised already.

    Raises:
        UserError: a spacing or a `min_size` that makes too many voxels, or no brain left at that spacing.
    """
    brain = (volume.images != 0).any(axis=0)
    images, meta = on_brain(volume.images, brain, volume.spacing, volume.affine, data)
    classes = volume.labels
    if meta.spacing != volume.spacing:
        classes = labels(classes, volume.spacing, meta.spacing, meta.full_shape)
    return Prepared(images, crop(classes, meta.box), meta)


def on_brain(
    images: np.ndarray, brain: np.ndarray, native: Spacing, affine: np.ndarray, data: config.Data
) -> tuple[np.ndarray, Meta]:
    """`preprocess` without labels: what is known of a patient who is to be segmented.

    Args:
        images: float32 [K, D, H, W] of as many modalities as there are, a background of 0.
        brain: bool [D, H, W], what box, mean and standard deviation are taken from.
        native: mm per voxel.
        affine: 4×4, to be kept with the case.

    Returns:
        float32 [K, d, h, w] on the box at the working spacing, and where the box lies.

    Raises:
        UserError: as `preprocess`.
    """
    native_shape = _triple(brain.shape)
    spacing = working_spacing(native, data.spacing)
    full_shape = resampled_shape(native_shape, native, spacing)
    images, brain = _resample(images, brain, (native, spacing, full_shape))
    if not brain.any():
        raise UserError(f"no brain is left at data.spacing {data.spacing} mm; choose a smaller spacing")
    box = brain_box(brain, data.least, data.last_slice)
    if math.prod(box.shape) > MAX_VOXELS:
        raise UserError(
            f"data.min_size {data.min_size} makes a box of {box.shape} voxels; choose a smaller one"
        )
    rows = tuple(tuple(float(value) for value in row) for row in affine)
    meta = Meta(box, full_shape, spacing, native_shape, native, rows)
    inside = crop(brain, box)
    images = cut_at_percentiles(crop(images, box), inside, data.cut) if data.cut else crop(images, box)
    rule = between if data.normalisation == "minmax" else normalise
    normalised = rule(images, inside, keep_background=data.background == "normalised")
    return normalised, meta


def brain_box(brain: np.ndarray, min_size: Voxels, last_slice: bool = True) -> Box:
    """Box of the True voxels of [D, H, W], sides grown to at least `min_size` (RFNet convention).

    It grows to both sides alike, is shifted inside the volume where that can be, and reaches beyond the
    volume on both sides where the volume is smaller than `min_size`. Without `last_slice` it ends one voxel
    earlier on each axis before it grows (RFNet's code).
    """
    sides = [
        _side(np.flatnonzero(brain.any(axis=others)), brain.shape[axis], min_size[axis], last_slice)
        for axis, others in _AXES
    ]
    return Box(_triple(start for start, _ in sides), _triple(stop for _, stop in sides))


_AXES = ((0, (1, 2)), (1, (0, 2)), (2, (0, 1)))


def _side(occupied: np.ndarray, length: int, min_size: int, last_slice: bool) -> tuple[int, int]:
    start, stop = int(occupied[0]), int(occupied[-1]) + last_slice
    size = max(stop - start, min_size)
    if size > length:
        start = (length - size) // 2
    else:
        start = min(max(start - (size - (stop - start)) // 2, 0), length - size)
    return start, start + size


def crop(array: np.ndarray, box: Box) -> np.ndarray:
    """A copy of [..., D, H, W] on the box; zeros where the box reaches beyond the volume."""
    out = np.zeros((*array.shape[:-3], *box.shape), dtype=array.dtype)
    source, target = _overlap(box, _triple(array.shape[-3:]))
    out[target] = array[source]
    return out


def normalise(images: np.ndarray, brain: np.ndarray, keep_background: bool) -> np.ndarray:
    """z-score each modality of [4, D, H, W] with mean and std of the voxels in `brain` [D, H, W].

    Outside the brain: 0, or with `keep_background` the same z-score, as RFNet has it.
    """
    out = np.empty_like(images)
    for modality, image in enumerate(images):
        inside = image[brain].astype(np.float64)
        std = max(
            float(inside.std()), 1e-8
        )  # a constant modality is refused before; resampling may flatten one
        out[modality] = (image - inside.mean()) / std
    if not keep_background:
        out *= brain
    return out


def cut_at_percentiles(images: np.ndarray, brain: np.ndarray, percentiles: tuple[float, float]) -> np.ndarray:
    """[4, D, H, W], each modality cut below and above at percentiles of its voxels in `brain` [D, H, W]."""
    bounds = [np.percentile(image[brain], percentiles).astype(images.dtype) for image in images]
    return np.stack([np.clip(image, *limits) for image, limits in zip(images, bounds, strict=True)])


def between(images: np.ndarray, brain: np.ndarray, keep_background: bool) -> np.ndarray:
    """Each modality of [4, D, H, W] so that its voxels in `brain` [D, H, W] lie between 0 and 1.

    Outside the brain: 0, or with `keep_background` the same scale.
    """
    out = np.empty_like(images)
    for modality, image in enumerate(images):
        inside = image[brain].astype(np.float64)
        out[modality] = (image - inside.min()) / max(float(np.ptp(inside)), 1e-8)
    if not keep_background:
        out *= brain
    return out


def to_native(probabilities: Tensor, meta: Meta, regions: bool = False) -> Tensor:
    """Probabilities of classes [K, D, H, W] on the box to the file's grid, [K, *native_shape], float32.

    Linear where the spacing differs; outside the box the background (channel 0) is certain, and of `regions`
    there is none.
    """
    region, where = to_native_region(probabilities, meta)
    out = region.new_zeros((region.shape[0], *meta.native_shape))
    if not regions:
        out[0] = 1
    out[:, *where] = region
    return out


def labels_to_native(probabilities: Tensor, meta: Meta) -> Tensor:
    """Most probable class of [K, D, H, W] on the box, uint8 on the file's grid, background outside the box.

    The same as `to_native(...).argmax(0)`, at a fraction of memory and time.
    """
    import torch

    region, where = to_native_region(probabilities, meta)
    out = torch.zeros(meta.native_shape, dtype=torch.uint8, device=region.device)
    best, classes = region[0], out[where]
    for index in range(1, region.shape[0]):  # five times as quick as argmax over the first axis
        classes.masked_fill_(region[index] > best, index)
        best = torch.maximum(best, region[index])
    return out


def regions_to_native(probabilities: Tensor, meta: Meta) -> Tensor:
    """Labels of the regions WT, TC, ET, [3, D, H, W] on the box, uint8 on the file's grid, made nested.

    ET where its probability is above a half, else NCR/NET where TC's is, else ED where WT's is, else nothing.
    """
    import torch

    region, where = to_native_region(probabilities, meta)
    out = torch.zeros(meta.native_shape, dtype=torch.uint8, device=region.device)
    classes = out[where]
    for probability, label in zip(region, (2, 1, 3), strict=True):  # ED, NCR/NET, ET: each over those before
        classes.masked_fill_(probability > 0.5, label)
    return out


def to_native_region(probabilities: Tensor, meta: Meta) -> tuple[Tensor, tuple[slice, slice, slice]]:
    """As `to_native`, but only the voxels whose centres lie in the box: [K, ...], and where they lie."""
    out = probabilities.float()
    where: list[slice] = []
    for axis in (2, 1, 0):  # the axis that is contiguous in memory first, while the array is small
        start, stop = meta.box.start[axis], meta.box.stop[axis]
        ratio = meta.native_spacing[axis] / meta.spacing[axis]
        low, high = (
            min(max(math.ceil(edge / ratio - 0.5), 0), meta.native_shape[axis]) for edge in (start, stop)
        )
        where.append(slice(low, high))
        out = interpolate(out, axis - 3, centres(range(low, high), ratio) - start)
    return out, (where[2], where[1], where[0])


def _resample(
    images: np.ndarray, brain: np.ndarray, grid: tuple[Spacing, Spacing, Voxels]
) -> tuple[np.ndarray, np.ndarray]:
    """Images [K, D, H, W] and brain [D, H, W] on the working grid; `grid`: spacing before, after, shape."""
    if grid[0] == grid[1]:
        return images, brain
    import torch

    # Half of a voxel must be brain: a hull of averages with the background would distort mean and std.
    inside = linear(torch.from_numpy(brain).float()[None], *grid)[0].numpy() >= 0.5
    return linear(torch.from_numpy(images), *grid).numpy(), inside


def _overlap(box: Box, shape: Voxels) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """The voxels that both have: as index of the volume, and as index of the box."""
    low = [max(start, 0) for start in box.start]
    high = [min(stop, side) for stop, side in zip(box.stop, shape, strict=True)]
    volume = (..., *map(slice, low, high))
    inside = (..., *(slice(a - s, b - s) for a, b, s in zip(low, high, box.start, strict=True)))
    return volume, inside


def _triple(values: Any) -> Voxels:
    first, second, third = (int(value) for value in values)
    return first, second, third


def _floats(values: Any) -> Spacing:
    first, second, third = (float(value) for value in values)
    return first, second, third
