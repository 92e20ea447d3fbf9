"""The scores of one label map: what scoring asks of a CPU, as work that a process can be handed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from acdis.config import Evaluation
from acdis.data.prepared_case import Entry
from acdis.evaluation.calibration import Counts
from acdis.evaluation.metrics import CaseTruth
from acdis.evaluation.post_processing import post_process
from acdis.evaluation.records import Record
from acdis.vocabulary import Subset, subset_name


@dataclass(frozen=True)
class LabelMap:
    """What a method predicts of a case from one subset.

    Attributes:
        labels: uint8 [D, H, W] on the file's grid, not post-processed.
        slice_at: along the third axis, of the slice that is wanted for a picture; none: no slice.
        calibration: [3, 3, BINS], `calibration.counts` of the probabilities behind them, region by region;
            none: not wanted.
    """

    entry: Entry
    subset: Subset
    labels: np.ndarray
    evaluation: Evaluation
    slice_at: int | None = None
    calibration: Counts | None = None

    def __str__(self) -> str:
        return f"{self.entry.name}, {subset_name(self.subset)}"


@dataclass(frozen=True)
class MapScores:
    """A record per region, and the slice [D, H] of the post-processed labels."""

    records: list[Record]
    picture: np.ndarray | None


class Scorer:
    """Scores label maps; what they are scored against is kept as long as the maps are of one case."""

    def __init__(self) -> None:
        self._of: Path | None = None

    def __call__(self, given: LabelMap) -> MapScores:
        """Post-processed, then scored.

        Raises:
            ValueError: as `score_case`.
        """
        entry, evaluation = given.entry, given.evaluation
        spacing = entry.meta.native_spacing
        if self._of != entry.path:
            self._truth = CaseTruth(entry.name, entry.native_labels(), spacing, entry.patient)
            self._of = entry.path
        labels = post_process(given.labels, evaluation.post_processing, spacing)
        picture = None if given.slice_at is None else labels[:, :, given.slice_at].copy()
        return MapScores(self._truth.score(given.subset, labels, evaluation, given.calibration), picture)
