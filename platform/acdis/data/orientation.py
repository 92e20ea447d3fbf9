"""Which way a volume's axes run, and how they are made BraTS's own: left, back, upwards (LPS)."""

from __future__ import annotations

import math

import numpy as np

#: What an index grows towards, axis by axis, in every prepared case.
AXES = "LPS"


def axes(affine: np.ndarray) -> str:
    """What each array axis of a 4×4 affine runs towards, such as "LPS"; of oblique ones the nearest."""
    from nibabel.orientations import aff2axcodes

    return "".join(aff2axcodes(affine))


def to_lps(voxels: np.ndarray, affine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Permute and flip [D, H, W, ...] so that its axes run as `AXES`; nothing is interpolated.

    Returns:
        The array (as it is where nothing is to be done) and the affine that takes its indices to the same mm.
    """
    from nibabel.orientations import (
        apply_orientation,
        axcodes2ornt,
        inv_ornt_aff,
        io_orientation,
        ornt_transform,
    )

    if axes(affine) == AXES:
        return voxels, affine
    change = ornt_transform(io_orientation(affine), axcodes2ornt(tuple(AXES)))
    turned: np.ndarray = apply_orientation(voxels, change)
    return turned, affine @ inv_ornt_aff(change, voxels.shape[:3])


def from_lps(voxels: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """Undo `to_lps`: [D, H, W, ...] with axes as `AXES` to those of the file that had this affine."""
    from nibabel.orientations import apply_orientation, axcodes2ornt, io_orientation, ornt_transform

    if axes(affine) == AXES:
        return voxels
    turned: np.ndarray = apply_orientation(
        voxels, ornt_transform(axcodes2ornt(tuple(AXES)), io_orientation(affine))
    )
    return turned


def tilt(affine: np.ndarray) -> float:
    """Degrees by which the axes lie off the scanner's, at most: 0 for a grid that is not oblique."""
    directions = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    return math.degrees(math.acos(min(1.0, float(np.abs(directions).max(axis=0).min()))))
