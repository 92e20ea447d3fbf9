"""One slice of a case, with what the method predicts from several subsets: the material of a picture.

Slices are taken while the case is scored, so they cost no second prediction; those of the worst cases stay.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from acdis import files
from acdis.data.prepared_case import Entry
from acdis.data.preprocess import Meta
from acdis.errors import UserError
from acdis.evaluation.records import Record
from acdis.vocabulary import MODALITIES, Subset, subset_name

#: From one modality to all: FLAIR alone, T1ce alone, without T1ce, two, all.
SHOWN = (
    ("FLAIR",),
    ("T1ce",),
    ("FLAIR", "T1", "T2"),
    ("FLAIR", "T1ce"),
    ("FLAIR", "T1ce", "T1", "T2"),
)
#: Cases whose slices are kept: a picture is 1 MB at most, and nobody looks at hundreds.
KEPT = 10
#: Most bytes of what a file holds: at 1,024 voxels a side images, truth and predictions take some 23 MB.
LARGEST = 2**26


@dataclass(frozen=True)
class Example:
    """The axial slice of a case with the largest lesion.

    Attributes:
        dice: mean over subsets and regions of the whole case, by which the worst are chosen.
        images: [4, D, H] at the working spacing.
        truth: [D', H'] at the file's, cut to about what the images show.
        predictions: [S, D', H'].
        subsets: of the predictions, by name.
    """

    case: str
    dice: float
    images: np.ndarray
    truth: np.ndarray
    predictions: np.ndarray
    subsets: tuple[str, ...] = tuple(subset_name(subset) for subset in SHOWN)


class Slices:
    """Takes the slice of one case from the label maps that are scored.

    Attributes:
        at: its place along the third axis.
    """

    def __init__(self, entry: Entry) -> None:
        self._entry, self._truth = entry, entry.native_labels()
        self.at = _largest_lesion(self._truth)
        self._predictions: dict[tuple[str, ...], np.ndarray] = {}

    def add(self, subset: Subset, labels: np.ndarray) -> None:
        """The slice [D', H'] of one subset's label map."""
        if subset in SHOWN:
            self._predictions[subset] = labels

    def example(self, records: Sequence[Record]) -> Example:
        """Of the case, when all its slices are there.

        Args:
            records: of the case.
        """
        images = self._entry.images()[:, :, :, _largest_lesion(self._entry.labels())]
        frame = _frame(self._entry.meta)
        return Example(
            self._entry.name,
            float(np.mean([record.dice for record in records])),
            np.array(images, dtype=np.float32),
            self._truth[:, :, self.at][frame].copy(),
            np.stack([self._predictions[subset][frame] for subset in SHOWN]),
        )


class Worst:
    """The `KEPT` worst cases of those that were added, the worst first."""

    def __init__(self, examples: Iterable[Example] = ()) -> None:
        self.examples = sorted(examples, key=lambda example: (example.dice, example.case))[:KEPT]

    def add(self, example: Example) -> None:
        """One more; the best goes where there are too many."""
        self.examples = Worst([*self.examples, example]).examples

    def save(self, folder: Path) -> None:
        """One `CASE.npz` each, which `read_example` reads; others are removed."""
        folder.mkdir(parents=True, exist_ok=True)
        written = {write_example(folder, example) for example in self.examples}
        for path in set(folder.glob("*.npz")) - written:
            path.unlink()


def write_example(folder: Path, example: Example) -> Path:
    """One slice as `CASE.npz`, which `read_example` reads."""
    path = folder / f"{example.case}.npz"
    content = {
        "case": np.array(example.case),
        "images": example.images,
        "truth": example.truth,
        "predictions": example.predictions,
        "subsets": np.array(example.subsets),
    }
    with files.replacing(path) as stream:
        np.savez_compressed(stream, allow_pickle=False, **content)
    return path


def read_example(path: Path) -> Example:
    """A slice as `write_example` wrote it; its Dice is not in the file and becomes NaN.

    Raises:
        UserError: the file is not as the evaluation wrote it.
    """
    try:
        with files.opened(path) as file, files.archive(file) as listed:
            if (size := sum(entry.file_size for entry in listed.infolist())) > LARGEST:
                raise ValueError(f"holds {size:,} bytes, {LARGEST:,} at most")
        with files.opened(path) as file, np.load(file, allow_pickle=False) as content:
            images, truth, predictions = content["images"], content["truth"], content["predictions"]
            case, subsets = str(content["case"]), [str(name) for name in content["subsets"]]
        shapes = (images.ndim, images.shape[0], predictions.shape)
        if shapes != (3, len(MODALITIES), (len(subsets), *truth.shape)) or not np.isfinite(images).all():
            raise ValueError(f"of shapes {images.shape}, {truth.shape}, {predictions.shape}")
    except Exception as error:  # a damaged archive fails anywhere in NumPy's or Python's reader
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise UserError(f"{path}: cannot be read ({reason}); evaluate the run again") from None
    return Example(case, float("nan"), images, truth, predictions, tuple(subsets))


def _frame(meta: Meta) -> tuple[slice, slice]:
    """Where the box of the images lies in an axial slice of the file, to a voxel."""
    sides = zip(
        meta.box.start, meta.box.stop, meta.spacing, meta.native_spacing, meta.native_shape, strict=True
    )
    first, second, _ = (
        slice(max(0, round(start * own / file)), min(length, round(stop * own / file)))
        for start, stop, own, file, length in sides
    )
    return first, second


def _largest_lesion(labels: np.ndarray) -> int:
    """The axial slice of it."""
    return int((np.asarray(labels) > 0).sum((0, 1)).argmax())
