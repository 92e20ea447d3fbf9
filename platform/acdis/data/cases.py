"""Validates cases and reads them: every problem of every case in one go, each with file and reason."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from acdis.data import background, nifti, orientation, truth
from acdis.data.case import Case
from acdis.data.images_tr import MSD_CHANNELS
from acdis.data.layouts import Finding, find
from acdis.data.parts import (
    Part,
    equal_parts,
    grid_problems,
    header_notes,
    on_background,
    part_problems,
    single,
)
from acdis.data.problems import Note, Problem
from acdis.data.schemes import Scheme, meanings
from acdis.errors import UserError
from acdis.vocabulary import MODALITIES

__all__ = [
    "Case",
    "CaseReport",
    "Finding",
    "Note",
    "Problem",
    "Volume",
    "check",
    "copies",
    "find",
    "image_digest",
    "read",
    "read_labels",
]

#: Labels so near to a whole number are taken for it: files that scale or resample round.
_LABEL_TOLERANCE = 0.01


@dataclass(frozen=True)
class CaseReport:
    """What `check` found: voxels, mm per voxel, labels as in the file; None or empty where unreadable.

    `orientation`: what the file's axes run towards, such as "LPS"; `notes`: what was taken for what.
    """

    case: Case
    shape: tuple[int, ...] | None
    spacing: tuple[float, float, float] | None
    labels: tuple[float, ...]
    problems: tuple[Problem, ...]
    orientation: str = ""
    notes: tuple[Note, ...] = ()
    digest: str = field(default="", repr=False)
    enhancing: bool = field(default=False, repr=False)
    lesion: float = field(default=0.0, repr=False)  # mm³


@dataclass(frozen=True)
class Volume:
    """A case in memory: images float32 [4, D, H, W] in the order of `MODALITIES`, labels uint8 [D, H, W].

    The images of modalities that the case lacks are 0.

    The axes run as BraTS's do, to the left, to the back and upwards (`orientation.AXES`), whichever way the
    file's run; labels index `CLASSES`; the background is 0; `affine` (4×4) takes voxel indices to mm;
    `spacing` is mm per voxel; `notes`: what was taken for what.
    """

    images: np.ndarray
    labels: np.ndarray
    affine: np.ndarray
    spacing: tuple[float, float, float]
    notes: tuple[str, ...] = ()


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


def read_labels(case: Case) -> tuple[np.ndarray, np.ndarray]:
    """The segmentation alone: indices in `CLASSES`, uint8 [D, H, W] in the file's axes, and its affine, 4×4.

    Raises:
        UserError: it cannot be read, or holds labels that its scheme does not know, NaN or inf.
    """
    try:
        voxels, affine, apart = nifti.load(case.segmentation, dimensions=3)
    except nifti.UnreadableError as error:
        raise UserError(f"{case.segmentation}: {error}") from None
    part = _rounded(Part("segmentation", case.segmentation, voxels, affine, apart), [])
    problems = [Problem(case.name, part.path, reason) for _, reason in part_problems([part])]
    if problems := problems or _label_problems(case, part.path, _values(part.voxels)):
        raise UserError("; ".join(map(str, problems)))
    return _remap(part.voxels, case.scheme), affine


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
    problem = Problem(
        name, report.case.folder, f"duplicate case: the same images as {same[name]}", same[name]
    )
    return replace(report, problems=(*report.problems, problem))


def _report(case: Case) -> CaseReport:
    report, volume = _inspect(case)
    if volume is None:
        return report
    lesion = float(np.count_nonzero(volume.labels) * math.prod(volume.spacing))
    enhancing = bool((volume.labels == 3).any())
    return replace(report, digest=image_digest(volume), enhancing=enhancing, lesion=lesion)


def _inspect(case: Case) -> tuple[CaseReport, Volume | None]:
    """Everything that is wrong with a case, and the volume if nothing is."""
    problems: list[Problem] = []
    parts = _load(case, problems)
    shape = parts[0].voxels.shape if parts else None
    spacing = nifti.voxel_sizes(parts[0].affine) if parts else None
    axes = orientation.axes(parts[0].affine) if parts else ""
    notes = list(header_notes(parts))
    parts = [on_background(part, notes) for part in parts]
    problems += [Problem(case.name, part.path, reason) for part, reason in part_problems(parts)]
    problems += [Problem(case.name, part.path, reason) for part, reason in grid_problems(parts)]
    problems += [Problem(case.name, part.path, reason) for part, reason in equal_parts(parts)]
    values: tuple[float, ...] = ()
    segmentation = next((part for part in parts if part.name not in MODALITIES), None)
    if segmentation is not None:
        segmentation = _rounded(segmentation, notes)
        values = _values(segmentation.voxels)
        problems += _label_problems(case, segmentation.path, values)
        notes += _outside(case.scheme, segmentation.voxels)
    if shape is None or spacing is None or segmentation is None or problems:
        told = tuple(Note(case.name, text) for text in notes)
        return CaseReport(case, shape, spacing, values, tuple(problems), axes, told), None
    there = {part.name: part.voxels for part in parts}
    nothing = np.zeros(shape, dtype=np.float32)
    images = np.stack([there.get(name, nothing) for name in MODALITIES])
    classes = _remap(segmentation.voxels, case.scheme)
    brain = (images != 0).any(axis=0)
    notes += background.doubts(brain, spacing)
    wrong, doubts = truth.against_brain(classes > 0, brain)
    notes += doubts
    told = tuple(Note(case.name, text) for text in notes)
    untrue = tuple(Problem(case.name, segmentation.path, reason) for reason in wrong)
    report = CaseReport(case, shape, spacing, values, untrue, axes, told)
    return report, None if untrue else _volume(images, classes, parts[0].affine, tuple(notes))


def _volume(images: np.ndarray, classes: np.ndarray, affine: np.ndarray, notes: tuple[str, ...]) -> Volume:
    """The arrays with BraTS's axes."""
    if orientation.axes(affine) != orientation.AXES:
        images = np.ascontiguousarray([orientation.to_lps(image, affine)[0] for image in images])
        turned, affine = orientation.to_lps(classes, affine)
        classes = np.ascontiguousarray(turned)
    return Volume(images, classes, affine, nifti.voxel_sizes(affine), notes)


def _rounded(part: Part, notes: list[str]) -> Part:
    """Labels that lie next to whole numbers as whole numbers; others stay, and are refused later."""
    voxels = part.voxels
    if voxels.dtype.kind != "f" or not np.isfinite(voxels).all():
        return part
    whole = np.rint(voxels)
    off = np.abs(voxels - whole)
    if not off.any() or off.max() > _LABEL_TOLERANCE:
        return part
    count = np.count_nonzero(off)
    notes.append(
        f"segmentation: {count:,} voxels lie up to {off.max():.2g} off a whole number and are rounded"
    )
    return replace(part, voxels=whole)


def _outside(scheme: Scheme, voxels: np.ndarray) -> Iterator[str]:
    for value, what in scheme.outside:
        if count := int(np.count_nonzero(voxels == value)):
            yield f"segmentation: {count:,} voxels of {what} (label {value}) belong to none of WT, TC and ET"


def _load(case: Case, problems: list[Problem]) -> list[Part]:
    """The parts that can be read, images as float32 in C order; the others go to `problems`."""
    parts: list[Part] = []
    given = case.given
    names = given.items()
    if case.layout == "msd":  # one file, whichever of its channels the case has
        names = {"all modalities": next(iter(given.values()))}.items()
    for name, path in (*names, ("segmentation", case.segmentation)):
        many = name == "all modalities"
        try:
            voxels, affine, apart = nifti.load(path, dimensions=4 if many else 3)
        except nifti.UnreadableError as error:
            problems.append(Problem(case.name, path, str(error)))
            continue
        if not many:
            own = voxels if name == "segmentation" else single(voxels)
            parts.append(Part(name, path, own, affine, apart))
        elif voxels.shape[3] != len(MODALITIES):
            problems.append(Problem(case.name, path, f"has {voxels.shape[3]} channels where 4 are due"))
        else:
            channels = zip(MODALITIES, MSD_CHANNELS, strict=True)
            parts += [
                Part(modality, path, single(voxels[..., index]), affine, apart)
                for modality, index in channels
                if modality in given
            ]
    return parts


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
    return tuple(float(str(value)) for value in np.unique(voxels))  # of float32 no more digits than it has


def _label_problems(case: Case, path: Path, values: tuple[float, ...]) -> list[Problem]:
    unknown = [value for value in values if value not in case.scheme.values]
    if not unknown:
        return []
    shown = ", ".join(map(_in_full, unknown[:5])) + (" …" if len(unknown) > 5 else "")
    known = ", ".join(map(str, case.scheme.values))
    reason = f"segmentation has unknown label {shown}; {case.scheme.name} has {known}"
    broken = [value for value in unknown if value != np.rint(value)]
    elsewhere = [f"{_in_full(value)} is {what}" for value in unknown[:5] if (what := meanings(value))]
    if broken:
        reason += f" ({_in_full(broken[0])} is no whole number: averaged when it was resampled, or scaled?)"
    elif elsewhere:
        reason += f" ({'; '.join(elsewhere)}: name the scheme by data.scheme, or write data.labels)"
    else:
        reason += " (of no data set that is known: if it is meant, write data.labels)"
    return [Problem(case.name, path, reason)]


def _in_full(value: float) -> str:
    """All digits, and none where there are none."""
    return np.format_float_positional(value, trim="-")


def _remap(voxels: np.ndarray, scheme: Scheme) -> np.ndarray:
    """Labels of the file to indices in `vocabulary.CLASSES`."""
    lowest = min(scheme.values)  # below 0 an index would count from the table's end
    table = np.zeros(max(scheme.values) - lowest + 1, dtype=np.uint8)
    for before, after in scheme.classes:
        table[before - lowest] = after
    places = voxels.astype(np.int64)
    return np.ascontiguousarray(table[places - lowest if lowest else places])
