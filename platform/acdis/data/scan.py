"""A patient's images without a segmentation: any non-empty subset of the modalities, on one grid."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from acdis.data import background, nifti, orientation, together
from acdis.data.parts import (
    Part,
    equal_parts,
    grid_problems,
    header_notes,
    on_background,
    part_problems,
    single,
)
from acdis.data.resample import Spacing
from acdis.errors import UserError
from acdis.vocabulary import MODALITIES

#: ml: an infant's brain has more.
_SMALLEST_BRAIN = 250.0
#: Different values of a scan inside the brain; a mask or a segmentation has a handful.
_FEWEST_VALUES = 16
#: Hounsfield units: air is at −1000, and no MRI is that far below its background.
_AIR = -300.0
#: Factor between spacings from which a scan is said to be unlike the training's.
_UNLIKE = 1.5


@dataclass(frozen=True)
class Scan:
    """What there is of one patient.

    Attributes:
        given: modality → file, all that were given, in the order of `MODALITIES`.
        files: those of them that are used: an empty image counts as missing.
        images: float32 [K, D, H, W] of these, a background of 0, axes as `orientation.AXES`.
        affine: 4×4, indices of `images` to mm.
        file_affine: 4×4 of the first file, whose grid predictions are written in.
        spacing: mm per voxel of `images`.
        notes: what was taken for what, and what is unlike a brain's MRI.
    """

    given: dict[str, Path]
    files: dict[str, Path]
    images: np.ndarray
    affine: np.ndarray
    file_affine: np.ndarray
    spacing: Spacing
    notes: tuple[str, ...]

    @property
    def modalities(self) -> tuple[str, ...]:
        """Those that are given, in the order of `MODALITIES`: a subset of the vocabulary's."""
        return tuple(self.files)

    @property
    def brain(self) -> np.ndarray:
        """bool [D, H, W]: where any given modality is not background."""
        mask: np.ndarray = (self.images != 0).any(axis=0)
        return mask

    def in_file_axes(self, voxels: np.ndarray) -> np.ndarray:
        """[D, H, W] on the grid of `images` as the files have it."""
        return orientation.from_lps(voxels, self.file_affine)


def read(given: Mapping[str, Path], resample: bool = False, training_spacing: float | None = None) -> Scan:
    """Read and check a patient's files.

    Args:
        given: modality → file.
        resample: bring what lies on another grid to the first file's, linearly; else it is an error.
        training_spacing: mm per voxel that the model has learned from, to warn where this scan's is far off.

    Raises:
        UserError: one line with everything that is wrong: nothing given, a file given twice, a file that
            cannot be read or is no 3-D volume, NaN, grids that differ, only empty or constant images.
    """
    files = _named(given)
    parts, problems = [], []
    for name, path in files.items():
        try:
            voxels, affine, apart = nifti.load(path, dimensions=3)
        except nifti.UnreadableError as error:
            problems.append(f"{path}: {name} {error}")
        else:
            parts.append(Part(name, path, single(voxels), affine, apart))
    _refuse(problems)
    file_affine = parts[0].affine
    notes = list(header_notes(parts))
    notes += [
        f"{part.name}: looks like a CT in Hounsfield units, not like an MRI: the result means nothing"
        for part in parts
        if np.nanmin(part.voxels) < _AIR and background.background(part.voxels) < _AIR
    ]
    _refuse([f"{part.path}: {problem}" for part in parts if (problem := _not_finite(part))])
    parts = [on_background(part, notes) for part in parts]
    off_grid = {part.name: reason for part, reason in grid_problems(parts)}
    if off_grid and not resample:
        first = next(part for part in parts if part.name in off_grid)
        _refuse([f"{first.path}: {off_grid[first.name]}; --resample brings it to the first one's grid"])
    parts = [_on_grid_of(parts[0], part, notes) if part.name in off_grid else part for part in parts]
    empty = [part.name for part in parts if not part.voxels.any()]
    if len(empty) == len(parts):
        raise UserError(
            f"{parts[0].path}: every voxel of {', '.join(empty)} is 0; nothing is left to segment"
        )
    notes += [f"{name} is empty: every voxel is 0; it counts as missing" for name in empty]
    parts = [part for part in parts if part.name not in empty]
    _refuse(
        [f"{part.path}: {reason}" for part, reason in (*part_problems(parts), *equal_parts(parts))],
    )
    turned = [orientation.to_lps(part.voxels, file_affine) for part in parts]
    images, affine = np.ascontiguousarray([voxels for voxels, _ in turned]), turned[0][1]
    spacing = nifti.voxel_sizes(affine)
    scan = Scan(
        files, {part.name: part.path for part in parts}, images, affine, file_affine, spacing, tuple(notes)
    )
    return replace(scan, notes=(*notes, *_doubts(scan, training_spacing)))


def _named(given: Mapping[str, Path]) -> dict[str, Path]:
    unknown = [name for name in given if name not in MODALITIES]
    if unknown:
        raise UserError(f"{unknown[0]!r} is no modality; give any of {', '.join(MODALITIES)}")
    files = {name: Path(given[name]) for name in MODALITIES if name in given}
    if not files:
        raise UserError(f"no image given; give at least one of {', '.join(MODALITIES)}")
    seen: dict[Path, str] = {}
    for name, path in files.items():
        other = seen.setdefault(path.resolve(), name)
        if other != name:
            raise UserError(f"{path}: given as {other} and as {name}; give each modality its own file")
    return files


def _refuse(problems: list[str]) -> None:
    if problems:
        raise UserError("; ".join(problems))


def _not_finite(part: Part) -> str:
    wrong = part.voxels.size - int(np.count_nonzero(np.isfinite(part.voxels)))
    return f"{part.name} holds NaN or inf in {wrong} voxels" if wrong else ""


def _on_grid_of(first: Part, part: Part, notes: list[str]) -> Part:
    """The part, linearly interpolated at the places of the first part's voxels; 0 beyond its own volume."""
    from scipy.ndimage import affine_transform

    matrix = np.linalg.inv(part.affine) @ first.affine
    voxels = affine_transform(
        part.voxels, matrix[:3, :3], matrix[:3, 3], output_shape=first.voxels.shape, order=1
    )
    notes.append(f"{part.name}: lies on another grid than {first.name} and is resampled to it")
    return Part(part.name, part.path, single(voxels), first.affine, 0.0)


def _doubts(scan: Scan, training_spacing: float | None) -> Iterator[str]:
    """Why these may be no masked, co-registered brain at a scale that the model knows; no reason to stop."""
    brain = scan.brain
    yield from background.doubts(brain, scan.spacing)
    volume = brain.sum() * math.prod(scan.spacing) / 1000
    if volume < _SMALLEST_BRAIN:
        yield f"{volume:,.0f} ml are not background, less than a brain has: is all of it there?"
    for name, image in zip(scan.modalities, scan.images, strict=True):
        inside = image[brain]
        if len(np.unique(inside[:100_000])) < _FEWEST_VALUES:
            yield f"{name}: has next to no different intensities; is it a mask or a segmentation?"
    named = dict(zip(scan.modalities, scan.images, strict=True))
    yield from together.registration(named, scan.spacing)
    yield from together.swapped(named)
    if training_spacing:
        ratios = [max(own / training_spacing, training_spacing / own) for own in scan.spacing]
        if max(ratios) > _UNLIKE:
            own = " × ".join(f"{side:g}" for side in scan.spacing)
            yield f"voxels of {own} mm; the model has learned from {training_spacing:g} mm: expect less"
