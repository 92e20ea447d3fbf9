"""One slice of a case, with what the method predicts from several subsets: the material of a picture.

Slices are taken while the case is scored, so they cost no second prediction; those of the worst cases stay.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from acdis import files
from acdis.data.entry import Entry
from acdis.evaluation.records import Record
from acdis.vocabulary import SUBSETS, subset_name

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


@dataclass(frozen=True)
class Example:
    """The axial slice of a case with the largest lesion.

    Attributes:
        dice: mean over subsets and regions of the whole case, by which the worst are chosen.
        images: [4, D, H] at the working spacing.
        truth: [D', H'] at the file's.
        predictions: [S, D', H'], of the subsets `SHOWN`.
    """

    case: str
    dice: float
    images: np.ndarray
    truth: np.ndarray
    predictions: np.ndarray


class Slices:
    """Takes the slice of one case from the label maps that its scoring goes through."""

    def __init__(self, entry: Entry) -> None:
        self._entry, self._truth = entry, entry.native_labels()
        self._at = _largest_lesion(self._truth)
        self._predictions: dict[tuple[str, ...], np.ndarray] = {}

    def watch(self, maps: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """Label maps [D', H', W'] of all subsets, passed on as they are."""
        for subset, labels in zip(SUBSETS, maps, strict=True):
            if subset in SHOWN:
                self._predictions[subset] = labels[:, :, self._at].copy()
            yield labels

    def example(self, records: Sequence[Record]) -> Example:
        """Of the case, when all its maps have passed.

        Args:
            records: of the case.
        """
        images = self._entry.images()[:, :, :, _largest_lesion(self._entry.labels())]
        return Example(
            self._entry.name,
            float(np.mean([record.dice for record in records])),
            np.array(images, dtype=np.float32),
            self._truth[:, :, self._at].copy(),
            np.stack([self._predictions[subset] for subset in SHOWN]),
        )


class Worst:
    """The `KEPT` worst cases of those that were added, the worst first."""

    def __init__(self, examples: Iterable[Example] = ()) -> None:
        self.examples = sorted(examples, key=lambda each: (each.dice, each.case))[:KEPT]

    def add(self, example: Example) -> None:
        """One more; the best goes where there are too many."""
        self.examples = Worst([*self.examples, example]).examples

    def save(self, folder: Path) -> None:
        """One `CASE.npz` each, which `acdis.report.figures.read_example` reads; others are removed."""
        folder.mkdir(parents=True, exist_ok=True)
        written = {_write(folder, example) for example in self.examples}
        for path in set(folder.glob("*.npz")) - written:
            path.unlink()


def _write(folder: Path, example: Example) -> Path:
    path = folder / f"{example.case}.npz"
    content = {
        "case": np.array(example.case),
        "images": example.images,
        "truth": example.truth,
        "predictions": example.predictions,
        "subsets": np.array([subset_name(subset) for subset in SHOWN]),
    }
    with files.replacing(path) as stream:
        np.savez_compressed(stream, allow_pickle=False, **content)
    return path


def _largest_lesion(labels: np.ndarray) -> int:
    """The axial slice of it."""
    return int((np.asarray(labels) > 0).sum((0, 1)).argmax())
