"""Where the data sets keep their files: finds cases by the names of folders and files, opens no image.

A case is a set of files that share a name and differ in the suffix. Which data set it is of, and so what its
labels mean and who the patient is, follows from the name of the task and from all cases together, never from
what one file holds. Other names than the built-in ones: `data.files`.
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from acdis import config
from acdis.data import nnunet, schemes
from acdis.data.patients import Patients
from acdis.data.problems import Note, Problem
from acdis.data.schemes import Scheme
from acdis.errors import UserError, shown
from acdis.vocabulary import MODALITIES

#: MSD's channels are FLAIR, T1w, T1gd, T2w: where each of `MODALITIES` lies among them.
MSD_CHANNELS = (0, 2, 1, 3)

SEGMENTATION = "segmentation"
_PARTS = (*MODALITIES, SEGMENTATION)


@dataclass(frozen=True)
class _Files:
    """How a data set names the files of a case: `<case><suffix>.nii.gz`.

    `scattered`: the parts of a case lie in folders of their own.
    """

    case: str
    suffixes: Mapping[str, str]
    scattered: bool = False

    @property
    def pattern(self) -> re.Pattern[str]:
        ends = "|".join(map(re.escape, self.suffixes))
        return re.compile(rf"(?P<name>{self.case})(?P<suffix>{ends})", re.IGNORECASE | re.DOTALL)


_BRATS = {
    "_flair": "FLAIR", "_t1ce": "T1ce", "_t1": "T1", "_t2": "T2", "_seg": SEGMENTATION,
    "-t2f": "FLAIR", "-t1c": "T1ce", "-t1n": "T1", "-t2w": "T2", "-seg": SEGMENTATION,
}  # fmt: skip
_UPENN = {"_flair": "FLAIR", "_t1gd": "T1ce", "_t1": "T1", "_t2": "T2", "_segm": SEGMENTATION}
_UCSF = {"_flair": "FLAIR", "_t1c": "T1ce", "_t1": "T1", "_t2": "T2", "_tumor_segmentation": SEGMENTATION}
#: The first that fits a file's name counts.
_NAMES = (
    _Files(r"UPENN-GBM-\d+_\d+", _UPENN, scattered=True),
    _Files(r"UCSF-PDGM-\d+(_FU\w+)?", _UCSF),
    _Files(".+", _BRATS),
)


@dataclass(frozen=True)
class _DataSet:
    """A row of docs/data.md's table: which names are of it, and what its labels mean ("": must be named)."""

    name: str
    cases: str
    scheme: str


_DATA_SETS = (
    _DataSet("brats_ped", r"BraTS-PED-.+", ""),
    _DataSet("brats_met", r"BraTS-MET-.+", "brats_met"),
    _DataSet("brats_ssa", r"BraTS-SSA-.+", "brats2023"),
    _DataSet("brats_men", r"BraTS-MEN-(?!RT).+", "brats2023"),
    _DataSet("brats_goat", r"BraTS-GoAT-.+", "brats2023"),
    _DataSet("brats2024", r"BraTS-GLI-\d+-[1-9]\d\d", "brats2024"),  # scans of 2024 count from 100
    _DataSet("brats2023", r"BraTS-GLI-.+", "brats2023"),
    _DataSet("unknown task", r"BraTS-[A-Za-z]+-.+", ""),
    _DataSet("upenn_gbm", r"UPENN-GBM-.+", "upenn_gbm"),
    _DataSet("ucsf_pdgm", r"UCSF-PDGM-.+", "ucsf_pdgm"),
    _DataSet("brats2018", r"Brats1[89].+", "brats2018"),
    _DataSet("brats2020", r"BraTS20_.+", "brats2020"),
)
_NIFTI = re.compile(r"(?P<stem>.+?)\.nii(\.gz)?", re.IGNORECASE | re.DOTALL)
_MAX_DEPTH = 5
#: Other names for a modality that people give their files; only ever proposed, never taken.
_LOOKS_LIKE = {
    "FLAIR": r"flair|t2f", "T1ce": r"t1[-_]?(ce|c|gd|post|contrast|km)", "T1": r"t1([-_]?(n|w|pre|native))?",
    "T2": r"t2w?", SEGMENTATION: r"seg|mask|label|tumou?r",
}  # fmt: skip
#: BraTS 2020's own package names this one segmentation otherwise.
_ODD_CASE, _ODD_SEGMENTATION = "BraTS20_Training_355", "W39_1998.09.19_Segm"


@dataclass(frozen=True)
class Case:
    """Files of one scan; `images` in the order of `MODALITIES` (MSD: the same 4-D file four times).

    `layout` names the data set, `scheme` says what its labels mean, `patient` who was scanned.
    """

    name: str
    images: tuple[Path, Path, Path, Path]
    segmentation: Path
    layout: str
    grade: str = ""
    scheme: Scheme = field(default=schemes.SCHEMES["brats2021"])
    patient: str = ""

    @property
    def files(self) -> tuple[Path, ...]:
        """Each file once: images, then the segmentation."""
        return tuple(dict.fromkeys((*self.images, self.segmentation)))


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
    items = list(_by_patterns(root, data.files) if data.files else _by_names(root))
    found = [item for item in items if isinstance(item, Case)]
    problems = [item for item in items if isinstance(item, Problem)]
    notes = [item for item in items if isinstance(item, Note)]
    if not found and not problems:
        raise UserError(
            f"{root}: no cases found; expected a folder per case with <case>_flair.nii.gz and so on (BraTS "
            "2018 to 2021), <case>-t2f.nii.gz (BraTS 2023 and later), imagesTr and labelsTr (MSD Task01, "
            "nnU-Net), UPENN-GBM or UCSF-PDGM; other names: data.files"
        )
    problems, blind = _without_truth(found, problems)
    notes += _left_out(blind)
    found, problems = _writable(found, problems)
    found, problems = _without_doubles(found, problems)
    named = _with_schemes(root, found, data)
    patients = Patients(data.patients)
    with_patients = [replace(case, patient=patients.of(case.name)) for case in named]
    return Finding(with_patients, problems, notes, blind)


def _by_names(root: Path) -> Iterator[Case | Problem | Note]:
    """Cases by the built-in names."""
    scattered: dict[str, dict[str, list[Path]]] = defaultdict(lambda: defaultdict(list))
    for folder, names in _folders(root):
        if folder.name == "imagesTr":
            yield from _training_images(folder)
            continue
        groups: dict[str, dict[str, list[Path]]] = defaultdict(lambda: defaultdict(list))
        strangers: list[str] = []
        elsewhere = False
        for name in names:
            hit = _named(_stem(name))
            if hit is None:
                strangers.append(name)
            elif hit[2]:
                scattered[hit[0]][hit[1]].append(folder / name)
                elsewhere = True
            else:
                groups[hit[0]][hit[1]].append(folder / name)
        strangers += _without_images(groups)
        if not groups and not elsewhere:
            yield Problem(folder.name, folder, _unknown_names(strangers))
        yield from _odd_segmentation(groups, folder, strangers)
        for name, parts in groups.items():
            yield from _assemble(name, folder, parts, strangers)
    for name, parts in scattered.items():
        yield from _assemble(name, next(iter(parts.values()))[0].parent, parts, ())


def _named(stem: str) -> tuple[str, str, bool] | None:
    """Case, part, and whether its parts are scattered; none for a name of no data set."""
    for files in _NAMES:
        match = files.pattern.fullmatch(stem)
        if match is not None:
            return match["name"], files.suffixes[match["suffix"].lower()], files.scattered
    return None


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
        if parts is not None and SEGMENTATION not in parts and _stem(name) == _ODD_SEGMENTATION:
            parts[SEGMENTATION] = [folder / name]
            yield Note(_ODD_CASE, f"its segmentation is {name}, as BraTS 2020 ships it")


def _assemble(
    name: str, folder: Path, parts: Mapping[str, list[Path]], strangers: Sequence[str]
) -> Iterator[Case | Problem]:
    whole = True
    for part in _PARTS:
        files = parts.get(part, [])
        if len(files) != 1:
            whole = False
            wanted = folder / _expected(name, part, parts)
            several = ", ".join(file.name for file in files)
            reason = f"several files for {part}: {several}" if files else _missing(part, strangers)
            yield Problem(name, wanted, reason)
    if whole:
        flair, t1ce, t1, t2 = (parts[modality][0] for modality in MODALITIES)
        yield Case(
            name, (flair, t1ce, t1, t2), parts[SEGMENTATION][0], _layout(name, folder, parts), _grade(folder)
        )


def _missing(part: str, strangers: Sequence[str]) -> str:
    """That a part is missing, and which file of another name may be it."""
    like = re.compile(rf".*(^|[-_.])({_LOOKS_LIKE[part]})[^-_]*", re.IGNORECASE)
    near = [name for name in strangers if like.fullmatch(_stem(name))]
    if not near:
        return f"{part} is missing"
    return f"{part} is missing; {', '.join(near[:3])} is not taken for it: rename it, or say so in data.files"


def _unknown_names(strangers: Sequence[str]) -> str:
    known = f"holds NIfTI files, but none is named as a known data set names them: {', '.join(strangers[:5])}"
    guesses = {
        part: name
        for part in _PARTS
        for name in strangers
        if re.fullmatch(rf".*(^|[-_.])({_LOOKS_LIKE[part]})", _stem(name), re.IGNORECASE)
    }
    if len(guesses) < 2:
        return known
    alike = ", ".join(f"{name} looks like {part}" for part, name in guesses.items())
    return f"{known}; {alike}: say so in data.files"


def _expected(name: str, part: str, parts: Mapping[str, list[Path]]) -> str:
    """The file's name as its neighbours are named."""
    given = {_stem(file.name).lower() for files in parts.values() for file in files}
    for files in _NAMES:
        if re.fullmatch(files.case, name, re.IGNORECASE | re.DOTALL):
            fitting = [suffix for suffix, what in files.suffixes.items() if what == part]
            marks = {stem.removeprefix(name.lower())[:1] for stem in given}
            return name + next((s for s in fitting if s[0] in marks), fitting[0]) + ".nii.gz"
    raise AssertionError(f"{name}: named by no data set")


def _layout(name: str, folder: Path, parts: Mapping[str, list[Path]]) -> str:
    """The data set by the case's name; other names by the dashes of 2023 or the folders of 2018."""
    for row in _DATA_SETS:
        if re.fullmatch(row.cases, name, re.IGNORECASE | re.DOTALL):
            return row.name
    if any(_stem(file.name)[len(name)] == "-" for files in parts.values() for file in files):
        return "brats2023"
    return "brats2018" if _grade(folder) else "brats2021"


def _grade(folder: Path) -> str:
    return next((part for part in reversed(folder.parts) if part in ("HGG", "LGG")), "")


def _with_schemes(root: Path, cases: list[Case], data: config.Data) -> list[Case]:
    """What the labels mean, for all cases of a data set alike.

    Raises:
        UserError: the names do not tell, and nothing else does.
    """
    if data.labels is not None:
        return [replace(case, scheme=schemes.from_labels(data.labels)) for case in cases]
    if data.scheme is not None:
        return [replace(case, scheme=schemes.named(data.scheme)) for case in cases]
    by_name = {row.name: row.scheme for row in _DATA_SETS}
    open_names = [case for case in cases if by_name.get(case.layout) == ""]
    if open_names:
        what = "2023 and 2024 label them otherwise" if open_names[0].layout == "brats_ped" else "unknown task"
        raise UserError(
            f"{root}: what the labels of {open_names[0].name} mean is not certain ({what}): name it by "
            f"data.scheme (one of {', '.join(schemes.SCHEMES)}), or write data.labels"
        )
    later = any(case.layout == "brats2024" for case in cases)
    return [_with_scheme(case, by_name.get(case.layout), later) for case in cases]


def _with_scheme(case: Case, scheme: str | None, later: bool) -> Case:
    if case.layout == "nnunet":
        return case  # its dataset.json has told
    if later and case.layout == "brats2023":  # a patient's first scan, in a set of scans after treatment
        return replace(case, layout="brats2024", scheme=schemes.SCHEMES["brats2024"])
    return replace(case, scheme=schemes.SCHEMES[scheme or case.layout])


def _by_patterns(root: Path, patterns: config.FilePatterns) -> Iterator[Case | Problem]:
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
        lacking = [part for part in _PARTS if len(parts.get(part, ())) != 1]
        for part in lacking:
            several = ", ".join(str(file.relative_to(root)) for file in parts.get(part, ()))
            reason = (
                f"data.files finds several files for {part}: {several}" if several else f"{part} is missing"
            )
            yield Problem(name, root / patterns.parts()[part].replace("{case}", name), reason)
        if not lacking:
            flair, t1ce, t1, t2 = (parts[modality][0] for modality in MODALITIES)
            yield Case(name, (flair, t1ce, t1, t2), parts[SEGMENTATION][0], "brats2021")


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
        found[0]
        for name, found in sorted(lacking.items())
        if name not in known and [each.reason for each in found] == [f"{SEGMENTATION} is missing"]
    ]
    if not cases:
        return problems, []
    return [problem for problem in problems if problem not in blind], blind


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
        names = sorted(name for name in files if not name.startswith(".") and _NIFTI.fullmatch(name))
        if names and (every or folder.name not in ("imagesTs", "labelsTr", "labelsTs")):
            yield folder, names


def _training_images(images: Path) -> Iterator[Case | Problem]:
    """`imagesTr` of nnU-Net (a file per channel, `dataset.json` beside it) or of MSD Task01 (a 4-D file)."""
    labels = images.parent / "labelsTr"
    found = {folder: _stems(folder) for folder in (images, labels)}
    channels = nnunet.channel_files(found[images])
    if channels:
        yield from _nnunet(images, channels, found[labels])
        return
    for name in sorted(found[images].keys() | found[labels].keys()):
        image, segmentation = (found[folder].get(name) for folder in (images, labels))
        if image is None:
            yield Problem(name, images / f"{name}.nii.gz", "the image with all modalities is missing")
        elif segmentation is None:
            yield Problem(name, labels / f"{name}.nii.gz", f"{SEGMENTATION} is missing")
        else:
            yield Case(name, (image, image, image, image), segmentation, "msd")


def _nnunet(
    images: Path, channels: Mapping[str, Mapping[int, Path]], labels: Mapping[str, Path]
) -> Iterator[Case | Problem]:
    description = nnunet.describe(images.parent / "dataset.json")
    for name in sorted(channels.keys() | labels.keys()):
        files = channels.get(name, {})
        missing = [m for m in MODALITIES if description.channels[m] not in files]
        for modality in missing:
            number = description.channels[modality]
            yield Problem(name, images / f"{name}_{number:04d}.nii.gz", f"{modality} is missing")
        if name not in labels:
            yield Problem(name, images.parent / "labelsTr" / f"{name}.nii.gz", f"{SEGMENTATION} is missing")
        elif not missing:
            flair, t1ce, t1, t2 = (files[description.channels[modality]] for modality in MODALITIES)
            paths = (flair, t1ce, t1, t2)
            yield Case(name, paths, labels[name], "nnunet", scheme=description.scheme)


def _stems(folder: Path) -> dict[str, Path]:
    files = sorted(folder.iterdir()) if folder.is_dir() else []
    return {
        _stem(file.name): file
        for file in files
        if not file.name.startswith(".") and _NIFTI.fullmatch(file.name)
    }


def _stem(name: str) -> str:
    match = _NIFTI.fullmatch(name)
    return match["stem"] if match else name


def _without_doubles(cases: Iterable[Case], problems: list[Problem]) -> tuple[list[Case], list[Problem]]:
    """Keep the first of each name; the others are problems, since a split file could not tell them apart."""
    kept: dict[str, Case] = {}
    for case in sorted(cases, key=lambda case: (case.name, str(case.segmentation))):
        first = kept.setdefault(case.name, case)
        if first is not case:
            reason = f"duplicate case: {case.name} is also in {first.segmentation.parent}"
            problems.append(Problem(case.name, case.segmentation.parent, reason))
    return list(kept.values()), sorted(problems, key=lambda problem: (problem.case, str(problem.path)))
