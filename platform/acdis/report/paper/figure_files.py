"""From cells and a case to the files of their figures."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from acdis.cells import Cell
from acdis.config import Experiment
from acdis.data.cases import Case, read
from acdis.data.prepared_case import Entry
from acdis.report.paper import blocks, drawing, figure_arrays
from acdis.report.paper.figure_arrays import Crop, Segmentations
from acdis.report.paper.slices import Style, Subject
from acdis.vocabulary import MODALITIES, Subset

FLAIR, T1CE = MODALITIES[:2]
_ORDER = {False: 0, None: 1, True: 2}


@dataclass(frozen=True)
class CaseView:
    """A trained cell, and a case prepared as it was trained."""

    cell: Cell
    experiment: Experiment
    entry: Entry
    case: Case

    @property
    def side(self) -> int:
        """Voxels of its local windows."""
        return int(self.experiment.method.options.get("window", figure_arrays.WINDOW))


class Figure(NamedTuple):
    """A figure that was drawn, and the cell that it is filed under.

    Attributes:
        files: it in every format, and its caption.
    """

    cell: Cell
    files: Sequence[Path]


@dataclass(frozen=True)
class Shown:
    """What is shown of the case, and how.

    Attributes:
        style: formats, dots per inch, titles.
        subsets: the rows of Figure 5.
        index: axial slice, of the file; none: the one with most tumour.
    """

    style: Style
    subsets: Sequence[Subset]
    index: int | None


@dataclass(frozen=True)
class _CellOutput:
    """What one cell gave: its features at the finest level and its predictions."""

    sight: CaseView
    features: list[Tensor]
    segmentations: Segmentations

    @property
    def distils(self) -> bool | None:
        """Whether it has ACD, see `blocks.distils`."""
        return blocks.distils(self.sight.experiment)


def draw(
    sights: Sequence[CaseView],
    folder: Callable[[Cell], Path],
    say: Callable[[str], None],
    shown: Shown,
) -> Iterator[Figure]:
    """Every figure that these cells can give, as it is written; what is left out is said, and why.

    Figures of several cells are filed under the first.

    Args:
        folder: where a cell's figures go.

    Raises:
        UserError: damaged weights, or a slice that the case does not have or in which there is no brain.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    entry, index = sights[0].entry, shown.index
    voxel = None if index is None else figure_arrays.prepared_slice(entry, index)
    crop = figure_arrays.crop_of(entry, sights[0].experiment, voxel)
    at = figure_arrays.native_slice(entry) if index is None else index
    outputs = []
    for sight in sights:
        say(f"{sight.cell.name}: {blocks.blocks(sight.experiment)}")
        method = figure_arrays.load_method(sight.cell, sight.experiment, device)
        features = figure_arrays.finest(method, crop, device)
        segmentations = figure_arrays.segmentations(
            method, sight.entry, sight.experiment, device, at, shown.subsets
        )
        outputs.append(_CellOutput(sight, features, segmentations))
        own = Album(sight, folder(sight.cell), crop, say, shown)
        yield from own.figure1(features)
        yield from own.figure7(lambda method=method: figure_arrays.synthesis(method, crop, device))  # type: ignore[misc]
    joint = Album(sights[0], folder(sights[0].cell), crop, say, shown)
    yield from joint.figure5(outputs, at)
    yield from joint.figure6(outputs)


@dataclass(frozen=True)
class Album:
    """The figures filed under one cell."""

    sight: CaseView
    folder: Path
    crop: Crop
    say: Callable[[str], None]
    shown: Shown

    def figure1(self, features: Sequence[Tensor]) -> Iterator[Figure]:
        """Windows across modalities; none where the method has no features of single modalities."""
        if not features:
            self._leave_out(1, f"the method {self.sight.experiment.method.name} has no features per modality")
            return
        windows = figure_arrays.windows(features, self.crop, self.sight.side)
        yield self._figure(1, drawing.figure1, self._subject(), self._images(), self._truth(), windows)

    def figure7(self, compute: Callable[[], figure_arrays.Synthesis | None]) -> Iterator[Figure]:
        """Synthesised against true features; none without MFSB."""
        reason = blocks.no_synthesis(self.sight.experiment)
        synthesis = None if reason else compute()
        if synthesis is None:
            self._leave_out(7, reason or "these weights are from before MFSB took part")
            return
        yield self._figure(7, drawing.figure7, self._subject(), self._truth(), synthesis)

    def figure5(self, outputs: Sequence[_CellOutput], at: int) -> Iterator[Figure]:
        """Segmentations, a column per cell, on the file's own grid cut to the brain."""
        volume = read(self.sight.case)
        box = _brain_box(volume.images[..., at])
        subjects = [_subject(output.sight, at) for output in outputs]
        segmentations = [
            Segmentations(output.segmentations.labels[(..., *box)], output.segmentations.dice)
            for output in outputs
        ]
        images, truth = volume.images[..., at][(..., *box)], volume.labels[..., at][box]
        drawn = subjects, images, truth, self.shown.subsets, segmentations
        yield self._figure(5, drawing.figure5, *drawn)

    def figure6(self, outputs: Sequence[_CellOutput]) -> Iterator[Figure]:
        """FLAIR's feature; none unless a cell with ACD and one without are given. Without comes first."""
        if not {True, False} <= {output.distils for output in outputs}:
            reason = "it compares a cell with ACD (AFEB, L_Var or L_Covar) and one without: name both"
            self._leave_out(6, reason)
            return
        chosen = sorted(
            (output for output in outputs if output.features), key=lambda output: _ORDER[output.distils]
        )
        features = [
            figure_arrays.feature(output.features, self.crop, FLAIR, self.sight.side) for output in chosen
        ]
        subjects = [_subject(output.sight, self._index()) for output in chosen]
        image_like = figure_arrays.image_likeness(self.crop, FLAIR, T1CE, self.sight.side)
        drawn = self._images(), self._truth(), features, image_like, self.sight.side
        yield self._figure(6, drawing.figure6, subjects, *drawn)

    def _figure(self, number: int, draw: Callable[..., list[Path]], *shown: Any) -> Figure:
        """Drawn; a slice that was asked for stands in the name, so that it takes no other's place."""
        index = self.shown.index
        name = f"figure{number}-{self.sight.entry.name}" + ("" if index is None else f"-slice{index}")
        return Figure(self.sight.cell, draw(self.folder / name, self.shown.style, *shown))

    def _leave_out(self, number: int, reason: str) -> None:
        self.say(f"{self.sight.cell.name}: Figure {number} is left out: {reason}")

    def _subject(self) -> Subject:
        return _subject(self.sight, self._index())

    def _index(self) -> int:
        asked = self.shown.index
        return figure_arrays.file_slice(self.sight.entry, self.crop) if asked is None else asked

    def _images(self) -> np.ndarray:
        images: np.ndarray = self.crop.images[..., self.crop.at].numpy()
        return images

    def _truth(self) -> np.ndarray:
        return self.crop.labels[..., self.crop.at]


def _subject(sight: CaseView, index: int) -> Subject:
    roles = sight.cell.roles()
    row = f"{roles[0]['spec']} {roles[0]['row']}" if roles else sight.cell.name
    name = f"{row}, seed {sight.experiment.seed}"
    phantom = sight.experiment.data.phantoms is not None
    return Subject(name, sight.cell.name, blocks.blocks(sight.experiment), sight.entry.name, index, phantom)


def _brain_box(images: np.ndarray) -> tuple[slice, slice]:
    """The smallest box of a slice [4, D, H] that holds what is not 0, one voxel wider; all of it if empty."""
    brain = (images != 0).any(0)
    if not brain.any():
        return slice(None), slice(None)
    sides = (np.flatnonzero(brain.any(axis)) for axis in (1, 0))
    rows, columns = (slice(max(int(side[0]) - 1, 0), int(side[-1]) + 2) for side in sides)
    return rows, columns
