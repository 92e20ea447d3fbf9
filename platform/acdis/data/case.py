"""The files of one scan."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from acdis.data import schemes
from acdis.data.schemes import Scheme

SEGMENTATION = "segmentation"
NIFTI = re.compile(r"(?P<stem>.+?)\.nii(\.gz)?", re.IGNORECASE | re.DOTALL)


@dataclass(frozen=True)
class Case:
    """Files of one scan; `images` in the order of `MODALITIES` (MSD: the same 4-D file four times).

    `layout` names the data set, `scheme` says what its labels mean, `patient` who was scanned. Where names
    are of no known data set, `layout` is the one that its files are read as (a part of fingerprints), and
    `naming` says how they were found.
    """

    name: str
    images: tuple[Path, Path, Path, Path]
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
    def files(self) -> tuple[Path, ...]:
        """Each file once: images, then the segmentation."""
        return tuple(dict.fromkeys((*self.images, self.segmentation)))


def stem(name: str) -> str:
    """A file's name without what says that it is NIfTI."""
    match = NIFTI.fullmatch(name)
    return match["stem"] if match else name
