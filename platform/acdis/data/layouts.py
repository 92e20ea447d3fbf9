"""Where the data sets keep their files: finds cases by the names of folders and files, opens no image.

A case is a set of files that share a name and differ in the suffix. Which data set it is of, and so what its
labels mean: `data_sets`. Other names than the built-in ones: `data.files`.
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from acdis import config
from acdis.data import data_sets, file_names
from acdis.data.case import NIFTI, SEGMENTATION, Case, said, stem, without
from acdis.data.images_tr import training_images
from acdis.data.patients import Patients, alike
from acdis.data.problems import Note, Problem
from acdis.data.schemes import Scheme
from acdis.errors import UserError, shown
from acdis.vocabulary import MODALITIES

_MAX_DEPTH = 5
#: BraTS 2020's own package names this one segmentation otherwise.
_ODD_CASE, _ODD_SEGMENTATION = "BraTS20_Training_355", "W39_1998.09.19_Segm"


@dataclass(frozen=True)
class Finding:
    """What lies in a folder.

    Attributes:
        cases: complete, sorted by name.
        problems: what is wrong with others by their names alone.
        notes: what was taken for what, and what was left out.
        blind: cases that lack nothing but a segmentation, beside others that have theirs.
    """

    cases: list[Case]
    problems: list[Problem]
    notes: list[Note] = field(default_factory=list)
    blind: list[Problem] = field(default_factory=list)


def find(root: Path, data: config.Data | None = None) -> Finding:
    """Look for cases under `root`, at most five folders deep, symbolic links included.

    Args:
        data: whose `files`, `labels`, `scheme` and `patients` say what the names alone do not.

    Raises:
        UserError: `root` is no folder, nothing under it looks like a case, or its labels can mean two things.
    """
    data = data or config.Data()
    if not os.path.isdir(root):  # unlike pathlib's it is false for names that cannot be
        raise UserError(f"{root}: is not a folder; give the folder that holds the cases")
    told = data_sets.told(data)
    items = list(
        _by_patterns(root, data.files, data.incomplete)
        if data.files
        else _by_names(root, told, data.incomplete)
    )
    cases = [item for item in items if isinstance(item, Case)]
    problems = [item for item in items if isinstance(item, Problem)]
    notes = [item for item in items if isinstance(item, Note)]
    apart = [item for item in items if isinstance(item, _Apart)]
    whole = {case.name for case in cases}
    imaged = whole | {problem.case for problem in _without_truth(cases, problems)[1]}
    others = [folder for folder in apart if _belongs(folder, whole, imaged)]
    problems += [problem for folder in apart if folder not in others for problem in folder.problems]
    notes += _beside(root, others, imaged)
    if not cases and not problems:
        raise UserError(
            f"{root}: no cases found; expected a folder per case with <case>_flair.nii.gz and so on (BraTS "
            "2018 to 2021), <case>-t2f.nii.gz (BraTS 2023 and later), imagesTr and labelsTr (MSD Task01, "
            "nnU-Net), UPENN-GBM or UCSF-PDGM; other names: data.files"
        )
    problems, blind = _without_truth(cases, problems)
    notes += _left_out(blind)
    cases, problems = _writable(cases, problems)
    cases, problems = _without_doubles(cases, problems)
    cases = data_sets.with_schemes(root, cases, data)
    notes += [*data_sets.assumed(cases, data), *data_sets.contradicted(cases, data)]
    patients = Patients(data.patients)
    notes += _perhaps_scans(cases, data)
    with_patients = [replace(case, patient=patients.of(case.name)) for case in cases]
    return Finding(with_patients, problems, notes, blind)


def given_by_case(root: Path) -> dict[str, dict[str, Path]]:
    """Modality → file of every case below `root`, as many as there are, by the built-in names.

    Raises:
        UserError: `root` is no folder, holds no image that is named as a known data set names it, or one
            modality of a case twice.
    """
    if not os.path.isdir(root):
        raise UserError(f"{root}: is not a folder; give the folder that holds the patient's files")
    cases: dict[str, dict[str, Path]] = defaultdict(dict)
    for folder, names in _folders(root):
        for name in names:
            hit = file_names.named(stem(name))
            if hit is None or hit[1] == SEGMENTATION:
                continue
            path = folder / name
            other = cases[hit[0]].setdefault(hit[1], path)
            if other != path:
                raise UserError(f"{path}: {hit[1]} of {hit[0]} is also {other}; keep one of the two")
    if not cases:
        raise UserError(
            f"{root}: no images found; expected <case>_flair.nii.gz and so on (BraTS 2018 to 2021) "
            "or <case>-t2f.nii.gz (BraTS 2023 and later); other names: --flair, --t1ce, --t1, --t2"
        )
    return dict(sorted(cases.items()))


@dataclass(frozen=True)
class _Apart:
    """A folder of files that are no case: what is wrong with it, unless they belong to cases elsewhere."""

    folder: Path
    names: tuple[str, ...]
    problems: tuple[Problem, ...]


def _by_names(
    root: Path, labelled: Scheme | None, incomplete: bool
) -> Iterator[Case | Problem | Note | _Apart]:
    """Cases by the built-in names; `labelled` is what the configuration says of labels."""
    scattered: dict[str, dict[str, list[Path]]] = defaultdict(lambda: defaultdict(list))
    for folder, names in _folders(root):
        if folder.name == "imagesTr":
            yield from training_images(folder, labelled, incomplete)
            continue
        groups: dict[str, dict[str, list[Path]]] = defaultdict(lambda: defaultdict(list))
        strangers: list[str] = []
        elsewhere = False
        for name in names:
            hit = file_names.named(stem(name))
            if hit is None:
                strangers.append(name)
            elif hit[2]:
                scattered[hit[0]][hit[1]].append(folder / name)
                elsewhere = True
            else:
                groups[hit[0]][hit[1]].append(folder / name)
        strangers += _without_images(groups)
        yield from _odd_segmentation(groups, folder, strangers)
        assembled = [
            item
            for name, parts in groups.items()
            for item in _assemble(name, folder, parts, strangers, incomplete)
        ]
        if not groups and not elsewhere:
            unknown = Problem(folder.name, folder, file_names.unknown(strangers))
            yield _Apart(folder, tuple(strangers), (unknown,))
        elif all(set(parts) == {SEGMENTATION} for parts in groups.values()) and not elsewhere:
            problems = tuple(item for item in assembled if isinstance(item, Problem))
            yield _Apart(folder, tuple(names), problems)
        else:
            yield from assembled
    for name, parts in scattered.items():
        yield from _assemble(name, next(iter(parts.values()))[0].parent, parts, (), incomplete)


def _without_images(groups: dict[str, dict[str, list[Path]]]) -> list[str]:
    """Names of segmentations that no image stands beside, such as predictions: those are no cases."""
    if all(set(parts) == {SEGMENTATION} for parts in groups.values()):
        return []
    lone = [name for name, parts in groups.items() if set(parts) == {SEGMENTATION}]
    return [file.name for name in lone for file in groups.pop(name)[SEGMENTATION]]


def _odd_segmentation(
    groups: Mapping[str, dict[str, list[Path]]], folder: Path, strangers: list[str]
) -> Iterator[Note]:
    for name in strangers:
        parts = groups.get(_ODD_CASE)
        if parts is not None and SEGMENTATION not in parts and stem(name) == _ODD_SEGMENTATION:
            parts[SEGMENTATION] = [folder / name]
            yield Note(_ODD_CASE, f"its segmentation is {name}, as BraTS 2020 ships it")


def _assemble(
    name: str, folder: Path, parts: Mapping[str, list[Path]], strangers: Sequence[str], incomplete: bool
) -> Iterator[Case | Problem | Note]:
    whole = True
    absent = without(parts) if incomplete else []
    for part in file_names.PARTS:
        files = parts.get(part, [])
        if len(files) != 1 and part not in absent:
            whole = False
            wanted = folder / file_names.expected(name, part, parts)
            several = ", ".join(file.name for file in files)
            reason = f"several files for {part}: {several}" if files else file_names.missing(part, strangers)
            yield Problem(name, wanted, reason)
    if whole:
        yield from said(name, absent)
        flair, t1ce, t1, t2 = (next(iter(parts.get(modality, ())), None) for modality in MODALITIES)
        layout, known = data_sets.of_case(name, folder, parts)
        yield Case(
            name,
            (flair, t1ce, t1, t2),
            parts[SEGMENTATION][0],
            layout,
            naming="" if known else data_sets.OTHER_NAMES,
        )


def _by_patterns(
    root: Path, patterns: config.FilePatterns, incomplete: bool
) -> Iterator[Case | Problem | Note]:
    """Cases by `data.files`: `{case}` is the name, `*` anything within one folder's or file's name."""
    expressions = {part: _expression(pattern, part) for part, pattern in patterns.parts().items()}
    groups: dict[str, dict[str, list[Path]]] = defaultdict(lambda: defaultdict(list))
    for folder, names in _folders(root, every=True):
        for name in names:
            path = folder / name
            for part, expression in expressions.items():
                match = expression.fullmatch(path.relative_to(root).as_posix())
                if match is not None:
                    groups[match["case"]][part].append(path)
    for name, parts in sorted(groups.items()):
        absent = without(parts) if incomplete else []
        lacking = [part for part in file_names.PARTS if len(parts.get(part, ())) != 1 and part not in absent]
        for part in lacking:
            several = ", ".join(str(file.relative_to(root)) for file in parts.get(part, ()))
            reason = (
                f"data.files finds several files for {part}: {several}" if several else f"{part} is missing"
            )
            yield Problem(name, root / patterns.parts()[part].replace("{case}", name), reason)
        if not lacking:
            yield from said(name, absent)
            flair, t1ce, t1, t2 = (next(iter(parts.get(modality, ())), None) for modality in MODALITIES)
            paths = (flair, t1ce, t1, t2)
            yield Case(name, paths, parts[SEGMENTATION][0], "brats2021", naming="data.files")


def _expression(pattern: str, part: str) -> re.Pattern[str]:
    """A pattern of `data.files` as a regular expression over paths below the root.

    Raises:
        UserError: it does not say where the case's name stands.
    """
    if "{case}" not in pattern:
        raise UserError(f"data.files.{part}: {pattern!r} has no {{case}}: say where the case's name stands")
    pieces = [re.escape(piece).replace(r"\*", "[^/]*") for piece in pattern.split("{case}")]
    return re.compile(f"{pieces[0]}(?P<case>[^/]+?){'(?P=case)'.join(pieces[1:])}", re.DOTALL)


def _without_truth(cases: list[Case], problems: list[Problem]) -> tuple[list[Problem], list[Problem]]:
    """The problems, and apart from them cases that lack their segmentation alone where others have theirs."""
    lacking: dict[str, list[Problem]] = defaultdict(list)
    for problem in problems:
        lacking[problem.case].append(problem)
    known = {case.name for case in cases}
    blind = [
        own[0]
        for name, own in sorted(lacking.items())
        if name not in known and [problem.reason for problem in own] == [f"{SEGMENTATION} is missing"]
    ]
    if not cases:
        return problems, []
    return [problem for problem in problems if problem not in blind], blind


def _perhaps_scans(cases: Sequence[Case], data: config.Data) -> Iterator[Note]:
    """Names of no known data set that look as if patients were scanned several times; nobody has said so."""
    names = alike(case.name for case in cases if case.naming or case.layout == "nnunet")
    patients = Patients(None)
    names = [name for name in names if patients.of(name) == name]
    if names and data.patients is None:
        few = ", ".join(names[:3]) + (" …" if len(names) > 3 else "")
        yield Note(
            f"{len(names)} that only a last number tells from others ({few})",
            "each counts as a patient of its own; if they are scans of fewer, say so by data.patients",
        )


def _belongs(apart: _Apart, whole: Collection[str], imaged: Collection[str]) -> bool:
    """Whether every file is of a case with images elsewhere, and segmentations of one that has its own."""
    for name in apart.names:
        case, hit = stem(name), file_names.named(stem(name))
        begins = {case, *(case[: mark.start()] for mark in re.finditer(r"[-_.]", case))}
        if hit[0] not in whole if hit is not None else begins.isdisjoint(imaged):
            return False
    return True


def _beside(root: Path, others: Sequence[_Apart], imaged: Collection[str]) -> Iterator[Note]:
    if others:
        folders = [apart.folder.parent if apart.folder.name in imaged else apart.folder for apart in others]
        places = list(dict.fromkeys(str(folder.relative_to(root)) for folder in folders))
        count = sum(len(apart.names) for apart in others)
        yield Note(
            f"{count} files in {', '.join(places[:5])}" + (" …" if len(places) > 5 else ""),
            "left out: they are of cases that are found, and named otherwise than these cases' images and "
            "segmentations; if any should count, say so in data.files",
        )


def _left_out(blind: Sequence[Problem]) -> Iterator[Note]:
    if blind:
        few = ", ".join(problem.case for problem in blind[:3]) + (" …" if len(blind) > 3 else "")
        who = f"{len(blind)} without a segmentation"
        yield Note(who, f"left out, they can neither train nor be scored: {few}")


def _writable(cases: list[Case], problems: list[Problem]) -> tuple[list[Case], list[Problem]]:
    """Names go into tables, queries and other files' names: control characters and what is no text do not."""
    bad = [case for case in cases if not case.name.isprintable()]
    problems += [
        Problem(shown(case.name), case.segmentation.parent, "its name is no plain text; rename its files")
        for case in bad
    ]
    return [case for case in cases if case not in bad], problems


def _folders(root: Path, every: bool = False) -> Iterator[tuple[Path, list[str]]]:
    """Folders with NIfTI files in them, and those files' names; a link back to a parent is not followed.

    Args:
        every: also those that hold what MSD and nnU-Net keep apart.
    """
    seen: set[str] = set()
    for place, folders, files in os.walk(root, followlinks=True):
        folder, real = Path(place), os.path.realpath(place)
        if real in seen or len(folder.relative_to(root).parts) > _MAX_DEPTH:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        names = sorted(name for name in files if not name.startswith(".") and NIFTI.fullmatch(name))
        if names and (every or folder.name not in ("imagesTs", "labelsTr", "labelsTs")):
            yield folder, names


def _without_doubles(cases: Iterable[Case], problems: list[Problem]) -> tuple[list[Case], list[Problem]]:
    """Keep the first of each name; the others are problems, since a split file could not tell them apart."""
    kept: dict[str, Case] = {}
    for case in sorted(cases, key=lambda case: (case.name, str(case.segmentation))):
        first = kept.setdefault(case.name, case)
        if first is not case:
            other = str(first.segmentation.parent)
            reason = f"duplicate case: {case.name} is also in {other}"
            problems.append(Problem(case.name, case.segmentation.parent, reason, other))
    return list(kept.values()), sorted(problems, key=lambda problem: (problem.case, str(problem.path)))
