"""Training transforms on one crop, in RFNet's order: random crop, rotation, intensity, flips.

Pure functions: every draw comes from the `numpy.random.Generator` that is passed in, so a crop depends on
that generator's seed alone. Intensities are z-scores, places are voxels, angles are whole degrees.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from acdis import config

Array = npt.NDArray[Any]
Start = tuple[int, int, int]

PLANES = ((0, 1), (0, 2), (1, 2))
_FILL = {"background": 0.0, "minus_one": -1.0}


def random_crop_start(
    shape: Sequence[int],
    crop: Sequence[int],
    generator: np.random.Generator,
    lesion_voxels: Array | None = None,
    lesion_share: float = 0.0,
) -> Start:
    """First voxel of a crop that lies inside the volume.

    Uniform over all places (RFNet convention). With probability `lesion_share` the crop is centred on one
    of `lesion_voxels` instead, and moved inside where it would stick out; a case without lesion voxels
    stays uniform. The centre voxel of a crop of n voxels is number n // 2.

    Args:
        shape: (D, H, W) of the volume, voxels.
        crop: sides of the crop, voxels.
        lesion_voxels: integer [N, 3]; only looked at when a crop is to be centred.

    Raises:
        ValueError: the crop is larger than the volume.
    """
    room = np.asarray(shape, dtype=np.int64) - np.asarray(crop, dtype=np.int64)
    if room.min() < 0:
        raise ValueError(f"a crop of {tuple(crop)} voxels does not fit into a volume of {tuple(shape)}")
    start = generator.integers(0, room + 1)
    # Nothing is drawn at share 0: such crops are the same whether or not lesion voxels are known.
    centred = lesion_share > 0 and generator.random() < lesion_share
    if centred and lesion_voxels is not None and len(lesion_voxels):
        centre = np.asarray(lesion_voxels[generator.integers(len(lesion_voxels))], dtype=np.int64)
        start = np.clip(centre - np.asarray(crop) // 2, 0, room)
    d, h, w = (int(value) for value in start)
    return d, h, w


def rotate(
    array: Array, degrees: float, plane: tuple[int, int], *, nearest: bool = False, fill: float = 0.0
) -> Array:
    """Turn [C, D, H, W] about its centre in the plane of two spatial axes, keeping shape and dtype.

    At multiples of 90 degrees it is `numpy.rot90(array, degrees // 90, axes)` of those axes. Linear, or the
    nearest voxel for labels; what comes in from outside is `fill`, and linear values blend into it.

    A 2-D `grid_sample` with all channels and slices as its channels: at 4×80³ one core takes 10–15 ms,
    `monai.transforms.Rotate` (which samples in 3-D) 35 ms and `scipy.ndimage.rotate` 58–70 ms; MONAI's import
    would cost each worker 5 s besides. The tests compare it with MONAI's.
    """
    first, second = plane
    turned = np.moveaxis(array, (first + 1, second + 1), (-2, -1))
    height, width = turned.shape[-2:]
    # Copies are NumPy's: torch would start a team of threads for each thread of the loader.
    flat = np.array(turned, dtype=np.float32, order="C").reshape(1, -1, height, width)
    if fill:
        flat -= np.float32(fill)
    sampled = F.grid_sample(
        torch.from_numpy(flat),
        _rotation_grid(height, width, degrees),
        mode="nearest" if nearest else "bilinear",
        padding_mode="zeros",
        align_corners=False,
    ).numpy()
    if fill:
        sampled += np.float32(fill)
    back = np.moveaxis(sampled.reshape(turned.shape), (-2, -1), (first + 1, second + 1))
    return np.ascontiguousarray(back, dtype=array.dtype)


def _rotation_grid(height: int, width: int, degrees: float) -> torch.Tensor:
    """Where each voxel of the turned plane comes from: [1, height, width, 2], x before y, in [-1, 1]."""
    angle = np.deg2rad(degrees)
    y, x = np.meshgrid(
        np.arange(height) - (height - 1) / 2, np.arange(width) - (width - 1) / 2, indexing="ij"
    )
    from_y = np.cos(angle) * y + np.sin(angle) * x
    from_x = np.cos(angle) * x - np.sin(angle) * y
    # align_corners=False: -1 and 1 are the outer faces of the border voxels.
    grid = np.stack((2 * from_x / width, 2 * from_y / height), axis=-1)
    return torch.from_numpy(grid.astype(np.float32)[None])


def change_intensity(images: Array, scale: Array, shift: Array) -> Array:
    """`images` × scale + shift; images [4, D, H, W], scale and shift [4, 1, 1, 1] or [4, D, 1, 1].

    It covers the whole crop: the background too, also where that was 0 (RFNet convention).
    """
    changed = images * scale.astype(np.float32)
    changed += shift.astype(np.float32)
    return changed


def flip(array: Array, axes: Sequence[int]) -> Array:
    """Mirror [C, D, H, W] along the spatial `axes` (0, 1, 2); a view."""
    return np.flip(array, axis=tuple(axis + 1 for axis in axes))


def augment(
    images: Array, labels: Array, options: config.Augmentation, generator: np.random.Generator
) -> tuple[Array, Array, tuple[bool, ...]]:
    """Rotation, intensity, flips, in RFNet's order; a part whose option is 0 draws nothing.

    Args:
        images: float32 [4, D, H, W].
        labels: uint8 [D, H, W]; takes part in rotation (nearest voxel, 0 comes in) and flips.

    Returns:
        images and labels of the same shapes and dtypes, perhaps views (the arguments are not changed), and
        the axes along which they were flipped.
    """
    labels = labels[None]
    if options.rotation:
        plane = PLANES[generator.integers(len(PLANES))]
        degrees = int(generator.integers(-options.rotation, options.rotation))
        nearest = options.rotation_images == "nearest"
        images = rotate(images, degrees, plane, nearest=nearest, fill=_FILL[options.rotation_fill])
        labels = rotate(labels, degrees, plane, nearest=True)
    if options.intensity_scale or options.intensity_shift:
        scale, shift = draw_intensity(images.shape, options, generator)
        images = change_intensity(images, scale, shift)
    drawn = generator.random(3) < options.flip if options.flip else np.zeros(3, dtype=bool)
    axes = np.flatnonzero(drawn).tolist()
    return flip(images, axes), flip(labels, axes)[0], tuple(drawn.tolist())


def draw_intensity(
    shape: Sequence[int], options: config.Augmentation, generator: np.random.Generator
) -> tuple[Array, Array]:
    """Scale U(1 - s, 1 + s) and shift U(-t, t) per modality, or per modality and slice of the first axis.

    Args:
        shape: of the images, [4, D, H, W].

    Returns:
        scale and shift, each [4, 1, 1, 1], or [4, D, 1, 1] per slice (RFNet convention).
    """
    size = (shape[0], shape[1] if options.intensity_per_slice else 1, 1, 1)
    scale = generator.uniform(1 - options.intensity_scale, 1 + options.intensity_scale, size)
    shift = generator.uniform(-options.intensity_shift, options.intensity_shift, size)
    return scale, shift
