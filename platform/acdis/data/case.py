"""The files of one scan."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from acdis.data import schemes
from acdis.data.problems import Note
from acdis.data.schemes import Scheme
from acdis.vocabulary import MODALITIES

SEGMENTATION = "segmentation"
NIFTI = re.compile(r"(?P<stem>.+?)\.nii(\.gz)?", re.IGNORECASE | re.DOTALL)


@dataclass(frozen=True)
class Case:
    """Files of one scan; `images` in the order of `MODALITIES` (MSD: the same 4-D file four times), none for
    a modality that the case lacks.

    `layout` names the data set, `scheme` says what its labels mean, `patient` who was scanned. Where names
    are of no known data set, `layout` is the one that its files are read as (a part of fingerprints), and
    `naming` says how they were found.
    """

    name: str
    images: tuple[Path | None, Path | None, Path | None, Path | None]
    segmentation: Path
    layout: str
    scheme: Scheme = field(default=schemes.SCHEMES["brats2021"])
    patient: str = ""
    naming: str = ""

    @property
    def data_set(self) -> str:
        """For people: which it is, and whose labels it has where those are not its own."""
        name = self.naming or self.layout
        return name if self.scheme.name == name else f"{name}, labels as {self.scheme.name}"

    @property
    def given(self) -> dict[str, Path]:
        """Modality -> file, in the order of `MODALITIES`, of those that the case has: one at least."""
        files = zip(MODALITIES, self.images, strict=True)
        return {modality: path for modality, path in files if path is not None}

    @property
    def modalities(self) -> tuple[str, ...]:
        """Those that the case has, in the order of `MODALITIES`."""
        return tuple(self.given)

    @property
    def folder(self) -> Path:
        """Where its first image lies."""
        return next(iter(self.given.values())).parent

    @property
    def files(self) -> tuple[Path, ...]:
        """Each file once: images, then the segmentation."""
        return tuple(dict.fromkeys((*self.given.values(), self.segmentation)))

    def only(self, modalities: Collection[str]) -> Case:
        """The case as if it had no other modality than these."""
        flair, t1ce, t1, t2 = (self.given.get(name) if name in modalities else None for name in MODALITIES)
        return replace(self, images=(flair, t1ce, t1, t2))


def without(parts: Mapping[str, object]) -> list[str]:
    """Modalities that a case has no file for, where it may go without them: it has another one."""
    absent = [modality for modality in MODALITIES if not parts.get(modality)]
    return absent if len(absent) < len(MODALITIES) else []


def said(name: str, absent: Sequence[str]) -> Iterator[Note]:
    """That a case takes part without these modalities."""
    if absent:
        yield Note(name, f"has no {' and no '.join(absent)}, and takes part without (data.incomplete)")


def stem(name: str) -> str:
    """A file's name without what says that it is NIfTI."""
    match = NIFTI.fullmatch(name)
    return match["stem"] if match else name
