"""How the data sets name the files of a case, and what other names may stand for."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from acdis.data.case import SEGMENTATION, stem
from acdis.vocabulary import MODALITIES

PARTS = (*MODALITIES, SEGMENTATION)


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
#: Other names for a modality that people give their files; only ever proposed, never taken.
_LOOKS_LIKE = {
    "FLAIR": r"flair|t2f", "T1ce": r"t1[-_]?(ce|c|gd|post|contrast|km)", "T1": r"t1([-_]?(n|w|pre|native))?",
    "T2": r"t2w?", SEGMENTATION: r"seg|mask|label|tumou?r|truth|gt|manual|glistr",
}  # fmt: skip


def named(stem: str) -> tuple[str, str, bool] | None:
    """Case, part, and whether its parts are scattered; none for a name of no data set."""
    for files in _NAMES:
        match = files.pattern.fullmatch(stem)
        if match is not None:
            return match["name"], files.suffixes[match["suffix"].lower()], files.scattered
    return None


def missing(part: str, strangers: Sequence[str]) -> str:
    """That a part is missing, and which file of another name may be it."""
    like = re.compile(rf".*(^|[-_.])({_LOOKS_LIKE[part]})[^-_]*", re.IGNORECASE)
    near = [name for name in strangers if like.fullmatch(stem(name))]
    if not near:
        return f"{part} is missing"
    return f"{part} is missing; {', '.join(near[:3])} is not taken for it: rename it, or say so in data.files"


def unknown(strangers: Sequence[str]) -> str:
    """That no file of a folder is named as a data set names them, and what they look like."""
    known = f"holds NIfTI files, but none is named as a known data set names them: {', '.join(strangers[:5])}"
    guesses = {
        part: name
        for part in PARTS
        for name in strangers
        if re.fullmatch(rf".*(^|[-_.])({_LOOKS_LIKE[part]})", stem(name), re.IGNORECASE)
    }
    if len(guesses) < 2:
        return known
    alike = ", ".join(f"{name} looks like {part}" for part, name in guesses.items())
    return f"{known}; {alike}: say so in data.files"


def expected(name: str, part: str, parts: Mapping[str, list[Path]]) -> str:
    """The file's name as its neighbours are named."""
    given = {stem(file.name).lower() for files in parts.values() for file in files}
    for files in _NAMES:
        if re.fullmatch(files.case, name, re.IGNORECASE | re.DOTALL):
            fitting = [suffix for suffix, what in files.suffixes.items() if what == part]
            marks = {stem.removeprefix(name.lower())[:1] for stem in given}
            return name + next((s for s in fitting if s[0] in marks), fitting[0]) + ".nii.gz"
    raise AssertionError(f"{name}: named by no data set")
