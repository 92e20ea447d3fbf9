"""Prepared cases and a trained method go in, per-case records come out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
import torch

from acdis.config import Evaluation
from acdis.data.entry import Entry
from acdis.data.preprocess import labels_to_native, regions_to_native
from acdis.evaluation.examples import Example, Slices
from acdis.evaluation.metrics import score_case
from acdis.evaluation.records import Record
from acdis.evaluation.sliding import predict
from acdis.methods.base import Method
from acdis.vocabulary import SUBSETS, subset_mask


def score(
    method: Method,
    entries: Sequence[Entry],
    evaluation: Evaluation,
    device: torch.device,
    dtype: torch.dtype | None,
    on_case: Callable[[int], None] = lambda done: None,
    keep: Callable[[Example], None] | None = None,
) -> list[Record]:
    """Score cases on all 15 subsets × 3 regions, at the case's own spacing.

    Args:
        dtype: of autocast; none for fp32.
        on_case: called with the number of cases that are done.
        keep: called with each case's slice for a picture.
    """
    records: list[Record] = []
    for done, entry in enumerate(entries, 1):
        maps = label_maps(method, entry, evaluation, device, dtype)
        if keep:
            slices = Slices(entry)
            found = _score(entry, slices.watch(maps), evaluation)
            keep(slices.example(found))
        else:
            found = _score(entry, maps, evaluation)
        records += found
        on_case(done)
    return records


def _score(entry: Entry, maps: Iterable[np.ndarray], evaluation: Evaluation) -> list[Record]:
    truth, spacing = entry.native_labels(), entry.meta.native_spacing
    return score_case(entry.name, maps, truth, spacing, evaluation, patient=entry.patient)


def label_maps(
    method: Method,
    entry: Entry,
    evaluation: Evaluation,
    device: torch.device,
    dtype: torch.dtype | None,
    subsets: Sequence[tuple[str, ...]] = SUBSETS,
) -> Iterator[np.ndarray]:
    """Predicted labels [D, H, W] in the file's own grid, one subset after the other."""
    masks = torch.tensor([subset_mask(subset) for subset in subsets])
    images = torch.from_numpy(entry.whole()[0])
    labels_of = regions_to_native if method.outputs == "regions" else labels_to_native
    probabilities = predict(
        method,
        images,
        evaluation.window,
        evaluation.stride,
        masks,
        device,
        dtype,
        corner=entry.corner,
    )
    for subset_probabilities in probabilities:
        yield labels_of(subset_probabilities, entry.meta).numpy()
