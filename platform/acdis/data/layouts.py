"""Where the datasets keep their files: finds cases by the names of folders and files, opens none.

Layouts: BraTS 2018 and 2019 (HGG and LGG folders), 2020 and 2021 (`_flair _t1ce _t1 _t2 _seg`), 2023 (`-t2f
-t1c -t1n -t2w -seg`), and MSD Task01 (`imagesTr`, `labelsTr`). A case is a set of files that share a name and
differ in the suffix.
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from acdis.errors import UserError, shown
from acdis.vocabulary import MODALITIES

#: Label in the file -> index in `vocabulary.CLASSES` (METHOD.md, "Data protocol of the field").
LABELS: Mapping[str, Mapping[int, int]] = {
    "brats2018": {0: 0, 1: 1, 2: 2, 4: 3},
    "brats2020": {0: 0, 1: 1, 2: 2, 4: 3},
    "brats2021": {0: 0, 1: 1, 2: 2, 4: 3},
    "brats2023": {0: 0, 1: 1, 2: 2, 3: 3},
    "msd": {0: 0, 1: 2, 2: 1, 3: 3},  # 1 oedema, 2 non-enhancing, 3 enhancing
}
#: MSD's channels are FLAIR, T1w, T1gd, T2w: where each of `MODALITIES` lies among them.
MSD_CHANNELS = (0, 2, 1, 3)

_SEGMENTATION = "segmentation"
_SUFFIXES = {
    "_flair": "FLAIR", "_t1ce": "T1ce", "_t1": "T1", "_t2": "T2", "_seg": _SEGMENTATION,
    "-t2f": "FLAIR", "-t1c": "T1ce", "-t1n": "T1", "-t2w": "T2", "-seg": _SEGMENTATION,
}  # fmt: skip
_NIFTI = re.compile(r"(?P<stem>.+?)\.nii(\.gz)?", re.IGNORECASE | re.DOTALL)
_NAMED = re.compile(rf"(?P<name>.+)(?P<suffix>{'|'.join(_SUFFIXES)})", re.IGNORECASE | re.DOTALL)
_MAX_DEPTH = 5


@dataclass(frozen=True)
class Case:
    """Files of one patient; `images` in the order of `MODALITIES` (MSD: the same 4-D file four times)."""

    name: str
    images: tuple[Path, Path, Path, Path]
    segmentation: Path
    layout: str
    grade: str = ""

    @property
    def files(self) -> tuple[Path, ...]:
        """Each file once: images, then the segmentation."""
        return tuple(dict.fromkeys((*self.images, self.segmentation)))


@dataclass(frozen=True)
class Problem:
    """Why a case cannot be used."""

    case: str
    path: Path
    reason: str

    def __str__(self) -> str:
        return shown(f"{self.path}: {self.reason}")


@dataclass(frozen=True)
class Finding:
    """Complete cases sorted by name, and what is wrong with others by their names alone."""

    cases: list[Case]
    problems: list[Problem]


def find(root: Path) -> Finding:
    """Look for cases under `root`, at most five folders deep, symbolic links included.

    Raises:
        UserError: `root` is no folder, or nothing under it looks like a case.
    """
    if not os.path.isdir(root):  # unlike pathlib's it is false for names that cannot be
        raise UserError(f"{root}: is not a folder; give the folder that holds the cases")
    cases: list[Case] = []
    problems: list[Problem] = []
    for folder, names in _folders(root):
        for item in _msd(folder) if folder.name == "imagesTr" else _brats(folder, names):
            if isinstance(item, Case):
                cases.append(item)
            else:
                problems.append(item)
    if not cases and not problems:
        raise UserError(
            f"{root}: no cases found; expected a folder per case with <case>_flair.nii.gz and so on "
            "(BraTS 2018 to 2021), <case>-t2f.nii.gz (BraTS 2023), or imagesTr and labelsTr (MSD Task01)"
        )
    return _without_doubles(*_writable(cases, problems))


def _writable(cases: list[Case], problems: list[Problem]) -> tuple[list[Case], list[Problem]]:
    """Names go into tables, queries and other files' names: control characters and what is no text do not."""
    bad = [case for case in cases if not case.name.isprintable()]
    problems += [
        Problem(shown(case.name), case.segmentation.parent, "its name is no plain text; rename its files")
        for case in bad
    ]
    return [case for case in cases if case not in bad], problems


def _folders(root: Path) -> Iterator[tuple[Path, list[str]]]:
    """Folders with NIfTI files in them, and those files' names; a link back to a parent is not followed."""
    seen: set[str] = set()
    for place, folders, files in os.walk(root, followlinks=True):
        folder, real = Path(place), os.path.realpath(place)
        if real in seen or len(folder.relative_to(root).parts) > _MAX_DEPTH:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        names = sorted(name for name in files if not name.startswith(".") and _NIFTI.fullmatch(name))
        if names and folder.name not in ("imagesTs", "labelsTr", "labelsTs"):
            yield folder, names


def _brats(folder: Path, names: list[str]) -> Iterator[Case | Problem]:
    """Cases of one folder: files `<case><suffix>`, usually of one case."""
    groups: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    strangers: list[str] = []
    dashed: set[str] = set()
    for name in names:
        match = _NAMED.fullmatch(_stem(name))
        if match is None:
            strangers.append(name)
            continue
        suffix = match["suffix"].lower()
        groups[match["name"]][_SUFFIXES[suffix]].append(name)
        if suffix.startswith("-"):
            dashed.add(match["name"])
    if not groups:
        yield Problem(
            folder.name,
            folder,
            f"holds NIfTI files, but none is named as BraTS names them: {', '.join(names[:5])}",
        )
    if len(groups) == 1:
        _adopt_segmentation(next(iter(groups.values())), strangers)
    for name, parts in groups.items():
        yield from _assemble(name, folder, parts, "brats2023" if name in dashed else _layout(name, folder))


def _adopt_segmentation(parts: dict[str, list[str]], strangers: list[str]) -> None:
    """BraTS 2020's own package names one segmentation W39_1998.09.19_Segm.nii (in BraTS20_Training_355)."""
    segmentations = [name for name in strangers if "seg" in name.lower()]
    if not parts[_SEGMENTATION] and len(segmentations) == 1:
        parts[_SEGMENTATION] = segmentations


def _assemble(
    name: str, folder: Path, parts: Mapping[str, list[str]], layout: str
) -> Iterator[Case | Problem]:
    whole = True
    for part in (*MODALITIES, _SEGMENTATION):
        files = parts.get(part, [])
        if len(files) != 1:
            whole = False
            wanted = _expected(name, part, layout)
            yield Problem(
                name,
                folder / wanted,
                f"{part} is missing" if not files else f"several files for {part}: {', '.join(files)}",
            )
    if whole:
        flair, t1ce, t1, t2 = (folder / parts[modality][0] for modality in MODALITIES)
        yield Case(name, (flair, t1ce, t1, t2), folder / parts[_SEGMENTATION][0], layout, _grade(folder))


def _expected(name: str, part: str, layout: str) -> str:
    mark = "-" if layout == "brats2023" else "_"
    suffix = next(suffix for suffix, what in _SUFFIXES.items() if what == part and suffix[0] == mark)
    return f"{name}{suffix}.nii.gz"


def _layout(name: str, folder: Path) -> str:
    """2018, 2020 and 2021 differ in names only; 2019's names and folders are like 2018's."""
    lower = name.lower()
    if lower.startswith(("brats18", "brats19")) or (_grade(folder) and not lower.startswith("brats20")):
        return "brats2018"
    return "brats2020" if lower.startswith("brats20_") else "brats2021"


def _grade(folder: Path) -> str:
    return next((part for part in reversed(folder.parts) if part in ("HGG", "LGG")), "")


def _msd(images: Path) -> Iterator[Case | Problem]:
    """MSD Task01: one 4-D image per case in imagesTr, its segmentation under the same name in labelsTr."""
    labels = images.parent / "labelsTr"
    found = {folder: _stems(folder) for folder in (images, labels)}
    for name in sorted(found[images].keys() | found[labels].keys()):
        image, segmentation = (found[folder].get(name) for folder in (images, labels))
        if image is None:
            yield Problem(name, images / f"{name}.nii.gz", "the image with all modalities is missing")
        elif segmentation is None:
            yield Problem(name, labels / f"{name}.nii.gz", "segmentation is missing")
        else:
            yield Case(name, (image, image, image, image), segmentation, "msd")


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


def _without_doubles(cases: list[Case], problems: list[Problem]) -> Finding:
    """Keep the first of each name; the others are problems, since a split file could not tell them apart."""
    kept: dict[str, Case] = {}
    for case in sorted(cases, key=lambda case: (case.name, str(case.segmentation))):
        first = kept.setdefault(case.name, case)
        if first is not case:
            reason = f"duplicate case: {case.name} is also in {first.segmentation.parent}"
            problems.append(Problem(case.name, case.segmentation.parent, reason))
    return Finding(
        list(kept.values()), sorted(problems, key=lambda problem: (problem.case, str(problem.path)))
    )
