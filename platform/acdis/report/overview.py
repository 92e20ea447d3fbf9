"""One picture of a patient's segmentation: three planes through the largest lesion, all modalities given."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from acdis.report.figures import colours, grey, legend, pyplot, save

_PLANES = ("sagittal", "coronal", "axial")
_OPACITY = 0.55


def draw(
    path: Path, images: Mapping[str, np.ndarray], classes: np.ndarray, spacing: tuple[float, ...], title: str
) -> None:
    """Write a PNG: a row per plane, each modality and then the segmentation over the first of them.

    Args:
        images: modality → [D, H, W], axes to the left, to the back and upwards.
        classes: uint8 [D, H, W], indices in `vocabulary.CLASSES`.
        spacing: mm per voxel.
    """
    plt = pyplot()
    centre = focus(classes, next(iter(images.values())) != 0)
    names = [*images, "segmentation"]
    figure, axes = plt.subplots(3, len(names), figsize=(2.4 * len(names), 7.4), squeeze=False)
    figure.subplots_adjust(left=0.05, right=0.99, bottom=0.06, top=0.92, wspace=0.03, hspace=0.06)
    for plane, row in enumerate(axes):
        across, along = (side for axis, side in enumerate(spacing) if axis != plane)
        labels = np.take(classes, centre[plane], axis=plane)
        panels = [grey(np.take(image, centre[plane], axis=plane)) for image in images.values()]
        over = np.where(
            (labels > 0)[..., None], _OPACITY * colours(labels) + (1 - _OPACITY) * panels[0], panels[0]
        )
        for axis, panel in zip(row, [*panels, over], strict=True):
            # Columns run to the left or to the back, rows upwards in sagittal and coronal planes.
            axis.imshow(
                panel.transpose(1, 0, 2), origin="upper" if plane == 2 else "lower", aspect=along / across
            )
            axis.set(xticks=[], yticks=[])
        row[0].set_ylabel(_PLANES[plane], fontsize=9)
    for axis, name in zip(axes[0], names, strict=True):
        axis.set_title(name, fontsize=9)
    legend(figure, "lower center")
    figure.suptitle(title, fontsize=9)
    save(figure, path)


def focus(classes: np.ndarray, brain: np.ndarray) -> tuple[int, int, int]:
    """The voxel that the planes go through: of the largest connected lesion the slice with most of it along
    each axis, of no lesion the middle of the brain."""
    from scipy.ndimage import label

    numbers, count = label(classes > 0)
    if count:
        mask = numbers == 1 + int(np.argmax(np.bincount(numbers.ravel())[1:]))
    else:
        mask = brain
        if not brain.any():
            return tuple(side // 2 for side in classes.shape)
    sums = [mask.sum(axis=tuple(other for other in range(3) if other != axis)) for axis in range(3)]
    if count:
        first, second, third = (int(profile.argmax()) for profile in sums)
    else:
        first, second, third = (int(np.flatnonzero(profile).mean()) for profile in sums)
    return first, second, third
