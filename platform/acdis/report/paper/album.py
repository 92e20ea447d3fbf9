"""From cells and a case to the files of their figures."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from acdis.ablation.cells import Cell
from acdis.config import Experiment
from acdis.data.cases import Case, read
from acdis.data.entry import Entry
from acdis.evaluation.examples import SHOWN
from acdis.report.paper import drawing, material, words
from acdis.report.paper.canvas import Subject
from acdis.report.paper.material import Crop, Segmentations
from acdis.vocabulary import MODALITIES

FLAIR, T1CE = MODALITIES[:2]
_ORDER = {False: 0, None: 1, True: 2}


@dataclass(frozen=True)
class Sight:
    """A trained cell, and a case prepared as it was trained."""

    cell: Cell
    experiment: Experiment
    entry: Entry
    case: Case

    @property
    def side(self) -> int:
        """Voxels of its local windows."""
        return int(self.experiment.method.options.get("window", material.WINDOW))


class Figure(NamedTuple):
    """A figure that was drawn, and the cell that it is filed under."""

    cell: Cell
    path: Path


@dataclass(frozen=True)
class _Look:
    """What one cell gave: its features at the finest level and its predictions."""

    sight: Sight
    features: list[Tensor]
    segmentations: Segmentations

    @property
    def distils(self) -> bool | None:
        """Whether it has ACD, see `words.distils`."""
        return words.distils(self.sight.experiment)


def draw(
    sights: Sequence[Sight], folder: Callable[[Cell], Path], say: Callable[[str], None]
) -> Iterator[Figure]:
    """Every figure that these cells can give, as it is written; what is left out is said, and why.

    Figures of several cells are filed under the first.

    Args:
        folder: where a cell's figures go.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    crop = material.crop_of(sights[0].entry, sights[0].experiment)
    at = material.native_slice(sights[0].entry)
    looks = []
    for sight in sights:
        say(f"{sight.cell.name}: {words.blocks(sight.experiment)}")
        method = material.load_method(sight.cell, sight.experiment, device)
        features = material.finest(method, crop, device)
        found = material.segmentations(method, sight.entry, sight.experiment, device, at)
        looks.append(_Look(sight, features, found))
        own = Album(sight, folder(sight.cell), crop, say)
        yield from own.figure1(features)
        yield from own.figure7(lambda method=method: material.synthesis(method, crop, device))  # type: ignore[misc]
    joint = Album(sights[0], folder(sights[0].cell), crop, say)
    yield from joint.figure5(looks, at)
    yield from joint.figure6(looks)


@dataclass(frozen=True)
class Album:
    """The figures filed under one cell."""

    sight: Sight
    folder: Path
    crop: Crop
    say: Callable[[str], None]

    def figure1(self, features: Sequence[Tensor]) -> Iterator[Figure]:
        """Windows across modalities; none where the method has no features of single modalities."""
        if not features:
            self._leave_out(1, f"the method {self.sight.experiment.method.name} has no features per modality")
            return
        found = material.windows(features, self.crop, self.sight.side)
        figure = self._figure(1)
        drawing.figure1(figure.path, self._subject(), self._images(), self._truth(), found)
        yield figure

    def figure7(self, compute: Callable[[], material.Synthesis | None]) -> Iterator[Figure]:
        """Synthesised against true features; none without MFSB."""
        reason = words.no_synthesis(self.sight.experiment)
        found = None if reason else compute()
        if found is None:
            self._leave_out(7, reason or "these weights are from before MFSB took part")
            return
        figure = self._figure(7)
        drawing.figure7(figure.path, self._subject(), self._truth(), found)
        yield figure

    def figure5(self, looks: Sequence[_Look], at: int) -> Iterator[Figure]:
        """Segmentations, a column per cell, on the file's own grid cut to the brain."""
        volume = read(self.sight.case)
        box = _brain_box(volume.images[..., at])
        subjects = [_subject(look.sight, at) for look in looks]
        found = [
            Segmentations(look.segmentations.labels[(..., *box)], look.segmentations.dice) for look in looks
        ]
        images, truth = volume.images[..., at][(..., *box)], volume.labels[..., at][box]
        figure = self._figure(5)
        drawing.figure5(figure.path, subjects, images, truth, SHOWN, found)
        yield figure

    def figure6(self, looks: Sequence[_Look]) -> Iterator[Figure]:
        """FLAIR's feature; none unless a cell with ACD and one without are given. Without comes first."""
        if not {True, False} <= {look.distils for look in looks}:
            reason = "it compares a cell with ACD (AFEB, L_Var or L_Covar) and one without: name both"
            self._leave_out(6, reason)
            return
        chosen = sorted((look for look in looks if look.features), key=lambda look: _ORDER[look.distils])
        found = [material.feature(look.features, self.crop, FLAIR, self.sight.side) for look in chosen]
        subjects = [_subject(look.sight, self._index()) for look in chosen]
        image_like = material.image_likeness(self.crop, FLAIR, T1CE, self.sight.side)
        figure = self._figure(6)
        shown = self._images(), self._truth(), found, image_like, self.sight.side
        drawing.figure6(figure.path, subjects, *shown)
        yield figure

    def _figure(self, number: int) -> Figure:
        return Figure(self.sight.cell, self.folder / f"figure{number}-{self.sight.entry.name}.png")

    def _leave_out(self, number: int, reason: str) -> None:
        self.say(f"{self.sight.cell.name}: Figure {number} is left out: {reason}")

    def _subject(self) -> Subject:
        return _subject(self.sight, self._index())

    def _index(self) -> int:
        return material.file_slice(self.sight.entry, self.crop)

    def _images(self) -> np.ndarray:
        images: np.ndarray = self.crop.images[..., self.crop.at].numpy()
        return images

    def _truth(self) -> np.ndarray:
        return self.crop.labels[..., self.crop.at]


def _subject(sight: Sight, index: int) -> Subject:
    roles = sight.cell.roles()
    row = f"{roles[0]['spec']} {roles[0]['row']}" if roles else sight.cell.name
    name = f"{row}, seed {sight.experiment.seed}"
    phantom = sight.experiment.data.phantoms is not None
    return Subject(name, sight.cell.name, words.blocks(sight.experiment), sight.entry.name, index, phantom)


def _brain_box(images: np.ndarray) -> tuple[slice, slice]:
    """The smallest box of a slice [4, D, H] that holds what is not 0, one voxel wider; all of it if empty."""
    brain = (images != 0).any(0)
    if not brain.any():
        return slice(None), slice(None)
    sides = (np.flatnonzero(brain.any(axis)) for axis in (1, 0))
    rows, columns = (slice(max(int(side[0]) - 1, 0), int(side[-1]) + 2) for side in sides)
    return rows, columns
