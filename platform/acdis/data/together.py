"""Whether a patient's images go together: one place, and each the modality that it is given as."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping

import numpy as np

from acdis.data.resample import Spacing

#: Dice of two images' brains below which they are said not to lie together; in BraTS it is 1.
LEAST_DICE = 0.9
#: mm between the centres of two images' brains beyond which they are said not to lie together.
MOST_APART = 10.0
#: Of an image's brightest voxels, and of those that count as dark: CSF is about as much of a brain.
_BRIGHT, _DARK = 0.05, 0.2
#: Share of voxels bright as FLAIR and dark as T2 from which they are swapped. Of seven BraTS 2021 cases and
#: sixteen phantoms none has more than 0.04; swapped none has less than 0.3.
_SWAPPED = 0.15
_ENOUGH = 200_000


def registration(images: Mapping[str, np.ndarray], spacing: Spacing) -> Iterator[str]:
    """Doubts for pairs of images [D, H, W] whose brains, what is not 0, lie apart; `spacing` in mm.

    Misplaced images that were masked by one common mask are not found.
    """
    masks = {name: image != 0 for name, image in images.items()}
    centres = {name: _centre(mask) * spacing for name, mask in masks.items()}
    for one, other in itertools.combinations(masks, 2):
        first, second = masks[one], masks[other]
        dice = 2 * np.count_nonzero(first & second) / (np.count_nonzero(first) + np.count_nonzero(second))
        apart = float(np.linalg.norm(centres[one] - centres[other]))
        if dice < LEAST_DICE or apart > MOST_APART:
            yield (
                f"{one} and {other}: their brains overlap by a Dice of {dice:.2f}, their centres are "
                f"{apart:.0f} mm apart: are they co-registered and masked alike?"
            )


def _centre(mask: np.ndarray) -> np.ndarray:
    """Mean index of the voxels that are set, along each axis."""
    lines = [mask.sum(axis=tuple({0, 1, 2} - {axis})) for axis in range(3)]
    return np.array([np.average(np.arange(len(line)), weights=line) for line in lines])


def swapped(images: Mapping[str, np.ndarray]) -> Iterator[str]:
    """A doubt where FLAIR and T2 are each other's: CSF is bright on T2 and dark on FLAIR, and next to nothing
    is the other way round. T1 and T1ce cannot be told by a rule as plain."""
    if not {"FLAIR", "T2"} <= images.keys():
        return
    both = (images["FLAIR"] != 0) & (images["T2"] != 0)
    flair, t2 = images["FLAIR"][both], images["T2"][both]
    step = max(1, len(flair) // _ENOUGH)
    flair, t2 = flair[::step], t2[::step]
    if flair.size and _contrary(flair, t2) > max(_SWAPPED, 3 * _contrary(t2, flair)):
        yield (
            "FLAIR and T2 look swapped: what is brightest in the one given as FLAIR is dark in the one given "
            "as T2, as CSF is the other way round"
        )


def _contrary(one: np.ndarray, other: np.ndarray) -> float:
    """Share of the brightest voxels of one that are among the darkest of the other."""
    bright = one > np.quantile(one, 1 - _BRIGHT)
    if not bright.any():
        return 0.0
    return float((other[bright] < np.quantile(other, _DARK)).mean())
