"""Validates cases and reads them: every problem of every case in one go, each with file and reason."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from acdis.data import nifti
from acdis.data.layouts import LABELS, MSD_CHANNELS, Case, Finding, Problem, find
from acdis.errors import UserError
from acdis.vocabulary import MODALITIES

__all__ = [
    "Case",
    "CaseReport",
    "Finding",
    "Problem",
    "Volume",
    "check",
    "copies",
    "find",
    "image_digest",
    "read",
]

#: Grids of one case may lie this far apart at their corners, in voxels: headers round differently.
_SHIFT_TOLERANCE = 0.1


@dataclass(frozen=True)
class CaseReport:
    """What `check` found: voxels, mm per voxel, labels as in the file; None or empty where unreadable."""

    case: Case
    shape: tuple[int, ...] | None
    spacing: tuple[float, float, float] | None
    labels: tuple[float, ...]
    problems: tuple[Problem, ...]
    digest: str = field(default="", repr=False)


@dataclass(frozen=True)
class Volume:
    """A case in memory: images float32 [4, D, H, W] in the order of `MODALITIES`, labels uint8 [D, H, W].

    D, H, W are the file's own axes i, j, k; labels index `CLASSES`; `affine` (4×4) takes voxel indices to
    mm; `spacing` is mm per voxel.
    """

    images: np.ndarray
    labels: np.ndarray
    affine: np.ndarray
    spacing: tuple[float, float, float]


@dataclass(frozen=True)
class _Part:
    """One modality, or the segmentation, as its file has it: voxels [D, H, W] and affine."""

    name: str
    path: Path
    voxels: np.ndarray
    affine: np.ndarray


def check(
    cases: Sequence[Case], processes: int, progress: Callable[[int, int], None] | None = None
) -> list[CaseReport]:
    """Read every case and report everything that is wrong with it, in the order of `cases`.

    Takes about 0.6 GB per case at work. The `processes` are threads: decompression and NumPy release the
    interpreter's lock, so threads are as quick, and nothing has to be started or sent.
    """
    reports: dict[str, CaseReport] = {}
    pool = ThreadPoolExecutor(max(1, processes))
    try:
        pending = [pool.submit(_report, case) for case in cases]
        for done, future in enumerate(as_completed(pending), start=1):
            report = future.result()
            reports[report.case.name] = report
            if progress is not None:
                progress(done, len(cases))
    finally:  # on Ctrl-C too: what has not begun is dropped
        pool.shutdown(wait=False, cancel_futures=True)
    same = copies({name: report.digest for name, report in reports.items() if report.digest})
    return [_with_copy(reports[case.name], same) for case in cases]


def read(case: Case) -> Volume:
    """Load a case, validated as by `check`.

    Raises:
        UserError: with file and reason of each problem.
    """
    report, volume = _inspect(case)
    if volume is None:
        raise UserError("; ".join(map(str, report.problems)))
    return volume


def image_digest(volume: Volume) -> str:
    """SHA-256 of the voxels, whatever file format and compression they came in."""
    return hashlib.sha256(volume.images.data).hexdigest()


def copies(digests: Mapping[str, str]) -> dict[str, str]:
    """Name -> digest of the images, to: name -> the first other name that has the same images."""
    first: dict[str, str] = {}
    return {
        name: first[digest]
        for name, digest in sorted(digests.items())
        if first.setdefault(digest, name) != name
    }


def _with_copy(report: CaseReport, same: Mapping[str, str]) -> CaseReport:
    name = report.case.name
    if name not in same:
        return report
    problem = Problem(name, report.case.images[0].parent, f"duplicate case: the same images as {same[name]}")
    return replace(report, problems=(*report.problems, problem))


def _report(case: Case) -> CaseReport:
    report, volume = _inspect(case)
    if volume is None:
        return report
    return replace(report, digest=image_digest(volume))


def _inspect(case: Case) -> tuple[CaseReport, Volume | None]:
    """Everything that is wrong with a case, and the volume if nothing is."""
    problems: list[Problem] = []
    parts = _load(case, problems)
    shape = parts[0].voxels.shape if parts else None
    spacing = nifti.voxel_sizes(parts[0].affine) if parts else None
    problems += [Problem(case.name, part.path, reason) for part, reason in _part_problems(parts)]
    problems += [Problem(case.name, part.path, reason) for part, reason in _grid_problems(parts)]
    values: tuple[float, ...] = ()
    segmentation = next((part for part in parts if part.name not in MODALITIES), None)
    if segmentation is not None:
        values = _values(segmentation.voxels)
        problems += _label_problems(case, values)
    if shape is None or spacing is None or segmentation is None or problems:
        return CaseReport(case, shape, spacing, values, tuple(problems)), None
    images = np.stack([part.voxels for part in parts if part is not segmentation])
    volume = Volume(images, _remap(segmentation.voxels, case.layout), parts[0].affine, spacing)
    return CaseReport(case, shape, spacing, values, ()), volume


def _load(case: Case, problems: list[Problem]) -> list[_Part]:
    """The parts that can be read, images as float32 in C order; the others go to `problems`."""
    parts: list[_Part] = []
    names = (
        [("all modalities", case.images[0])]
        if case.layout == "msd"
        else zip(MODALITIES, case.images, strict=True)
    )
    for name, path in (*names, ("segmentation", case.segmentation)):
        many = name == "all modalities"
        try:
            voxels, affine = nifti.load(path, dimensions=4 if many else 3)
        except nifti.UnreadableError as error:
            problems.append(Problem(case.name, path, str(error)))
            continue
        if not many:
            parts.append(_Part(name, path, voxels if name == "segmentation" else _single(voxels), affine))
        elif voxels.shape[3] != len(MODALITIES):
            problems.append(Problem(case.name, path, f"has {voxels.shape[3]} channels where 4 are due"))
        else:
            channels = zip(MODALITIES, MSD_CHANNELS, strict=True)
            parts += [
                _Part(modality, path, _single(voxels[..., index]), affine) for modality, index in channels
            ]
    return parts


def _single(voxels: np.ndarray) -> np.ndarray:
    """float32 in C order; what is too large for float32 becomes inf and is reported as such."""
    with np.errstate(over="ignore", invalid="ignore"):
        return np.ascontiguousarray(voxels, dtype=np.float32)


def _part_problems(parts: list[_Part]) -> Iterator[tuple[_Part, str]]:
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


def _grid_problems(parts: list[_Part]) -> Iterator[tuple[_Part, str]]:
    """Shapes and affines that differ from the first part's."""
    for part in parts[1:]:
        first = parts[0]
        if part.path == first.path:
            continue
        if part.voxels.shape != first.voxels.shape:
            yield part, f"{part.name} has shape {part.voxels.shape}, {first.name} has {first.voxels.shape}"
            continue
        shift = _corner_shift(first.affine, part.affine, first.voxels.shape)
        if shift > _SHIFT_TOLERANCE * min(nifti.voxel_sizes(first.affine)):
            yield (
                part,
                f"{part.name} has another affine than {first.name}: the grids lie up to {shift:.3g} mm apart",
            )


def _corner_shift(one: np.ndarray, other: np.ndarray, shape: tuple[int, ...]) -> float:
    """mm between the places that two affines give to the corners of one array, at most."""
    corners = np.array([(*corner, 1) for corner in np.ndindex(2, 2, 2)], dtype=np.float64)
    corners[:, :3] *= np.array(shape) - 1
    return float(np.linalg.norm((corners @ (one - other).T)[:, :3], axis=1).max())


def _values(voxels: np.ndarray) -> tuple[float, ...]:
    """Different finite values of a segmentation, sorted; small whole numbers are counted: quicker."""
    if voxels.dtype.kind == "f":
        voxels = voxels[np.isfinite(voxels)]
    with np.errstate(invalid="ignore"):
        small = voxels.astype(np.uint8)
    if np.array_equal(small, voxels):
        return tuple(
            float(value) for value in np.flatnonzero(np.bincount(small.ravel(order="K"), minlength=1))
        )
    return tuple(float(value) for value in np.unique(voxels))


def _label_problems(case: Case, values: tuple[float, ...]) -> list[Problem]:
    known = LABELS[case.layout]
    unknown = [value for value in values if value not in known]
    if not unknown:
        return []
    shown = ", ".join(f"{value:g}" for value in unknown[:5]) + (" …" if len(unknown) > 5 else "")
    reason = f"segmentation has unknown label {shown}; {case.layout} has {', '.join(map(str, known))}"
    return [Problem(case.name, case.segmentation, reason)]


def _remap(voxels: np.ndarray, layout: str) -> np.ndarray:
    """Labels of the file to indices in `vocabulary.CLASSES`."""
    table = np.zeros(max(LABELS[layout]) + 1, dtype=np.uint8)
    for before, after in LABELS[layout].items():
        table[before] = after
    return np.ascontiguousarray(table[voxels.astype(np.uint8)])
