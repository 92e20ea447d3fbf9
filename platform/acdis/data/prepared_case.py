"""A prepared case as it lies on disk: its arrays by memory map, and whether all is as it was written."""

from __future__ import annotations

import io
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from acdis import files
from acdis.data.cases import Case
from acdis.data.preprocess import Meta
from acdis.errors import UserError
from acdis.vocabulary import CLASSES, MODALITIES

#: Lesion voxels kept to centre crops on: a random sample of this many is as good as all of them.
MAX_LESION_VOXELS = 10_000

ARRAYS = ("image.npy", "label.npy", "native_label.npy", "lesion.npy")


@dataclass(frozen=True)
class Entry:
    """A prepared case on disk.

    Attributes:
        meta: where its box lies in the file's volume.
        patient: who was scanned.
        voxels: SHA-256 of the images' voxels, the same for copies under other names.
        notes: what was taken for what when it was prepared.
        source: the files that it was prepared from, where they are known.
        modalities: those that it has, in the order of `MODALITIES`; the images of others are 0.
    """

    name: str
    path: Path
    fingerprint: str
    meta: Meta
    patient: str = ""
    voxels: str = ""
    notes: tuple[str, ...] = ()
    source: Case | None = None
    modalities: tuple[str, ...] = MODALITIES

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for another process."""
        return {
            "name": self.name,
            "path": str(self.path),
            "fingerprint": self.fingerprint,
            "meta": self.meta.as_dict(),
            "patient": self.patient,
            "voxels": self.voxels,
            "modalities": self.modalities,
        }

    @classmethod
    def from_dict(cls, tree: dict[str, Any]) -> Entry:
        """Undo `as_dict`."""
        return cls(
            tree["name"],
            Path(tree["path"]),
            tree["fingerprint"],
            Meta.from_dict(tree["meta"]),
            tree["patient"],
            tree["voxels"],
            modalities=tuple(tree["modalities"]),
        )

    @property
    def corner(self) -> tuple[int, int, int]:
        """Where the box begins in the whole volume, voxels of the working grid; may be negative."""
        return self.meta.box.start

    def images(self) -> np.ndarray:
        """float32 [4, D, H, W] on the box, a read-only memory map: only what is indexed is read."""
        return np.load(self.path / "image.npy", mmap_mode="r", allow_pickle=False)

    def labels(self) -> np.ndarray:
        """uint8 [D, H, W] on the box, a read-only memory map."""
        return np.load(self.path / "label.npy", mmap_mode="r", allow_pickle=False)

    def native_labels(self) -> np.ndarray:
        """uint8 on the file's own grid, a read-only memory map: what predictions are scored against."""
        return np.load(self.path / "native_label.npy", mmap_mode="r", allow_pickle=False)

    def whole(self) -> tuple[np.ndarray, np.ndarray]:
        """`images` and `native_labels` in memory.

        Raises:
            UserError: as `check_values`.
        """
        images, truth = np.array(self.images()), np.array(self.native_labels())
        check_values(self.name, images, truth)
        return images, truth

    def lesion_voxels(self) -> np.ndarray:
        """int32 [N, 3], N ≤ 10,000: a seeded sample of lesion voxels, as indices in the box; may be empty."""
        return np.load(self.path / "lesion.npy", allow_pickle=False)


def check_values(name: str, images: np.ndarray, labels: np.ndarray) -> None:
    """What a disk has damaged must not be learned or scored; takes a millisecond for a crop.

    Raises:
        UserError: NaN or inf in the images, or a label that is none.
    """
    wrong = "NaN or inf" if not np.isfinite(images).all() else ""
    if labels.size and labels.max() >= len(CLASSES):
        wrong = f"label {labels.max()}"
    if wrong:
        raise UserError(
            f"{name}: damaged in the cache ({wrong}); remove its folder in cache/, it is made again"
        )


def open_entry(folder: Path, name: str, mark: str) -> Entry | None:
    """The entry, or None if anything about the folder is not as it was written."""
    try:
        record: dict[str, Any] = files.read_json(folder / "case.json")
        if (record["name"], record["fingerprint"]) != (name, mark):
            return None
        if any((folder / file).stat().st_size != record["sizes"][file] for file in ARRAYS):
            return None
        meta = Meta.from_dict(record["meta"])
        voxels, notes = record["voxels"], record["notes"]
        if not (meta.is_sound() and all(isinstance(text, str) for text in (voxels, *notes))):
            return None
        if not _arrays_fit(folder, meta):
            return None
        return Entry(name, folder, mark, meta, voxels=voxels, notes=tuple(notes))
    except Exception:  # a damaged header fails anywhere in NumPy's parser, with any error
        return None


def _is_array(file: Path, dtype: str, shape: tuple[int, ...]) -> bool:
    """Whether a file holds such an array. NumPy parses a header as Python, which is most of the time that
    opening a whole data set takes: the bytes that NumPy writes today are compared first."""
    usual = _header(dtype, shape)
    with file.open("rb", buffering=0) as stream:
        if stream.read(len(usual)) == usual:
            return True
    array = np.load(file, mmap_mode="r", allow_pickle=False)
    return bool(array.dtype == np.dtype(dtype) and array.shape == shape)


@lru_cache(maxsize=4096)
def _header(dtype: str, shape: tuple[int, ...]) -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": dtype, "fortran_order": False, "shape": shape})
    return stream.getvalue()


def _arrays_fit(folder: Path, meta: Meta) -> bool:
    """Whether each array has the type and shape that the record says; reads their headers alone."""
    due = {
        "image.npy": ("<f4", (4, *meta.box.shape)),
        "label.npy": ("|u1", tuple(meta.box.shape)),
        "native_label.npy": ("|u1", tuple(meta.native_shape)),
    }
    if not all(_is_array(folder / file, *expected) for file, expected in due.items()):
        return False
    lesion = np.load(folder / "lesion.npy", allow_pickle=False)
    if (
        lesion.dtype != np.int32
        or lesion.ndim != 2
        or lesion.shape[1] != 3
        or len(lesion) > MAX_LESION_VOXELS
    ):
        return False
    return bool(((lesion >= 0) & (lesion < meta.box.shape)).all())
