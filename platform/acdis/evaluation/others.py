"""Scores of segmentations that another tool has predicted: the same records, by the same rules."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from acdis.config import Evaluation
from acdis.data import predictions
from acdis.data.prepared_case import Entry
from acdis.errors import UserError
from acdis.evaluation.case_files import CaseFiles
from acdis.evaluation.metrics import score_case
from acdis.evaluation.post_processing import post_process
from acdis.evaluation.records import Record
from acdis.vocabulary import Subset


def score(
    predicted: Mapping[Subset, Mapping[str, Path]],
    scheme: str | None,
    entries: Sequence[Entry],
    evaluation: Evaluation,
    on_case: Callable[[int], None] = lambda done: None,
    files: CaseFiles | None = None,
) -> list[Record]:
    """Score cases on the predicted subsets × 3 regions, at the case's own spacing.

    Args:
        predicted: by subset and case; `evaluation.post_processing` is done to them as to a method's.
        scheme: what their labels mean; none: as in the case's segmentation.
        on_case: called with the number of cases that are done.
        files: cases that are there already are not scored again.

    Raises:
        UserError: a prediction is not as it must be; see `data.predictions.read`.
    """
    subsets = tuple(predicted)
    records: list[Record] = []
    for done, entry in enumerate(entries, 1):
        known = files.read(entry.name, pictured=False) if files else None
        scored = known[0] if known else None
        if scored is None:
            maps = _label_maps(predicted, scheme, entry, evaluation)
            truth, spacing = entry.native_labels(), entry.meta.native_spacing
            scored = score_case(entry.name, maps, truth, spacing, evaluation, subsets, entry.patient)
            if files:
                files.write(scored, None)
        records += scored
        on_case(done)
    return records


def _label_maps(
    predicted: Mapping[Subset, Mapping[str, Path]], scheme: str | None, entry: Entry, evaluation: Evaluation
) -> Iterator[np.ndarray]:
    if entry.source is None:
        raise UserError(f"{entry.name}: the files that it was prepared from are not known; give --root")
    for paths in predicted.values():
        labels = predictions.read(paths[entry.name], entry.source, scheme)
        yield post_process(labels, evaluation.post_processing, entry.meta.native_spacing)
