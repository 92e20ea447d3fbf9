"""Images of one scan as their files have them: what is wrong with each, and with all of them together."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from acdis.data import background, nifti, orientation
from acdis.vocabulary import MODALITIES

#: Grids of one case may lie this far apart at their corners, in voxels: headers round differently.
_SHIFT_TOLERANCE = 0.1
_OBLIQUE = 5.0  # degrees


@dataclass(frozen=True)
class Part:
    """One modality, or the segmentation, as its file has it: voxels [D, H, W] and affine."""

    name: str
    path: Path
    voxels: np.ndarray
    affine: np.ndarray
    apart: float


def header_notes(parts: Sequence[Part]) -> Iterator[str]:
    """What the headers say twice and not alike, and grids that are oblique."""
    for part in parts:
        if math.isnan(part.apart):
            yield (
                f"{part.name}: neither sform nor qform is set, so which way its axes run is a guess; "
                "left and right may be swapped"
            )
        if part.apart > _SHIFT_TOLERANCE * min(nifti.voxel_sizes(part.affine)):
            yield f"{part.name}: sform and qform lie up to {part.apart:.3g} mm apart; the sform is taken"
    if parts and (tilt := orientation.tilt(parts[0].affine)) > _OBLIQUE:
        yield f"its grid is oblique by {tilt:.0f}°; the axes are taken for the nearest ones"


def on_background(part: Part, notes: list[str]) -> Part:
    """The part with a background of 0: where the border shares another value, that is taken away."""
    if part.name not in MODALITIES or not (value := background.background(part.voxels)):
        return part
    notes.append(f"{part.name}: the background is {value:g} and not 0; it is taken away")
    return replace(part, voxels=part.voxels - np.float32(value))


def equal_parts(parts: Sequence[Part]) -> Iterator[tuple[Part, str]]:
    """Modalities that hold the voxels of another."""
    seen: dict[str, Part] = {}
    for part in parts:
        if part.name in MODALITIES and part.voxels.any():
            first = seen.setdefault(hashlib.sha256(part.voxels.tobytes()).hexdigest(), part)
            if first is not part:
                yield part, f"{part.name} holds the same voxels as {first.name}: one of the two is a copy"


def single(voxels: np.ndarray) -> np.ndarray:
    """float32 in C order; what is too large for float32 becomes inf and is reported as such."""
    with np.errstate(over="ignore", invalid="ignore"):
        return np.ascontiguousarray(voxels, dtype=np.float32)


def part_problems(parts: list[Part]) -> Iterator[tuple[Part, str]]:
    """NaN and inf, empty volumes, modalities that are constant over the brain and so cannot be normalised."""
    images = [part for part in parts if part.name in MODALITIES]
    same_shape = len({part.voxels.shape for part in images}) == 1
    brain = np.any([part.voxels != 0 for part in images], axis=0) if same_shape else None
    for part in parts:
        wrong = 0
        if part.voxels.dtype.kind == "f":
            wrong = part.voxels.size - int(np.count_nonzero(np.isfinite(part.voxels)))
        if wrong:
            yield part, f"{part.name} holds NaN or inf in {wrong} voxels"
        elif part.name in MODALITIES:
            inside = part.voxels[brain] if brain is not None else part.voxels
            if not part.voxels.any():
                yield part, f"{part.name} is empty: every voxel is 0"
            elif inside.min() == inside.max():
                yield part, f"{part.name} is constant: every voxel of the brain is {inside.flat[0]:g}"


def grid_problems(parts: list[Part]) -> Iterator[tuple[Part, str]]:
    """Shapes and affines that differ from the first part's."""
    for part in parts[1:]:
        first = parts[0]
        if part.path == first.path:
            continue
        if part.voxels.shape != first.voxels.shape:
            yield (
                part,
                f"{part.name} has shape {part.voxels.shape}, {first.name} has {first.voxels.shape}"
                + _turned(first, part),
            )
            continue
        shift = nifti.corner_shift(first.affine, part.affine, first.voxels.shape)
        if shift > _SHIFT_TOLERANCE * min(nifti.voxel_sizes(first.affine)):
            yield (
                part,
                f"{part.name} has another affine than {first.name}: the grids lie up to {shift:.3g} mm apart"
                + _turned(first, part),
            )


def _turned(first: Part, part: Part) -> str:
    """That their axes run otherwise, where that may be all."""
    one, other = orientation.axes(first.affine), orientation.axes(part.affine)
    return f" (its axes run {other}, those of {first.name} {one}: reorient it)" if one != other else ""
