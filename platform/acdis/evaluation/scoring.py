"""Prepared cases and a trained method go in, per-case records come out."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

import numpy as np
import torch

from acdis.config import Data, Evaluation
from acdis.data.given import by_given
from acdis.data.prepared_case import Entry
from acdis.data.preprocess import Meta, labels_to_native, regions_to_native, to_native_region
from acdis.evaluation.calibration import Counts, counts
from acdis.evaluation.case_files import CaseFiles
from acdis.evaluation.examples import SHOWN, Example, Slices
from acdis.evaluation.incomplete import subsets_of
from acdis.evaluation.map_scores import LabelMap, MapScores
from acdis.evaluation.metric_pool import MetricPool
from acdis.evaluation.metrics import region_mask
from acdis.evaluation.post_processing import post_process
from acdis.evaluation.records import Record
from acdis.evaluation.sliding import predict, regions_of
from acdis.methods.base import Method
from acdis.vocabulary import REGIONS, SUBSETS, Subset, subset_mask

_Counter = Callable[[torch.Tensor, Meta], Counts]


@dataclass
class _Case:
    """A case whose maps are predicted: what is there of it, or what is still computed."""

    entry: Entry
    known: tuple[list[Record], Example | None] | None
    slices: Slices | None = None
    maps: list[tuple[Subset, Future[MapScores]]] = field(default_factory=list)

    def is_ready(self) -> bool:
        return all(future.done() for _, future in self.maps)

    def found(self, files: CaseFiles | None) -> tuple[list[Record], Example | None]:
        """Its records and its slice, which are on disk then."""
        if self.known is not None:
            return self.known
        records: list[Record] = []
        for subset, future in self.maps:
            scores = future.result()
            records += scores.records
            if self.slices and scores.picture is not None:
                self.slices.add(subset, scores.picture)
        scored = records, self.slices.example(records) if self.slices else None
        if files:
            files.write(*scored)
        return scored


def score(
    method: Method,
    entries: Sequence[Entry],
    evaluation: Evaluation,
    device: torch.device,
    dtype: torch.dtype | None,
    on_case: Callable[[int], None] = lambda done: None,
    keep: Callable[[Example], None] | None = None,
    subsets: Sequence[Subset] = SUBSETS,
    data: Data | None = None,
    files: CaseFiles | None = None,
    processes: int = 0,
) -> list[Record]:
    """Score cases on subsets × 3 regions, at the case's own spacing; of the subsets those that a case has.

    Args:
        dtype: of autocast; none for fp32.
        on_case: called with the number of cases that are done.
        keep: called with each case's slice for a picture; needs all 15 subsets.
        data: how the cases were prepared; `evaluation.box` "given" needs it.
        files: cases that are there already are not scored again.
        processes: that compute metrics while the next case is predicted (`metric_pool.processes_for`); cases
            are done in their order, and the records are those of 0.

    Raises:
        MetricsLost, MetricsFailed: such a process is gone, or cannot compute.
    """
    records: list[Record] = []
    started: deque[_Case] = deque()
    done = 0

    def finish() -> None:
        nonlocal done
        case_records, example = started.popleft().found(files)
        records.extend(case_records)
        if keep and example:
            keep(example)
        done += 1
        on_case(done)

    with MetricPool(processes) as pool:
        for entry in entries:
            case = _Case(entry, files.read(entry.name, keep is not None) if files else None)
            if case.known is None:
                case.slices = Slices(entry) if keep else None
                at = case.slices.at if case.slices else None
                count = _counter(method, entry) if "calibration" in evaluation.metrics else None
                own = subsets_of(entry.modalities, subsets)
                maps = _predicted_maps(method, entry, evaluation, device, dtype, own, data, count)
                for subset, (labels, counted) in zip(own, maps, strict=True):
                    shown = at if subset in SHOWN else None
                    given = LabelMap(entry, subset, labels, evaluation, shown, counted)
                    case.maps.append((subset, pool.submit(given)))
            started.append(case)
            while started and started[0].is_ready():
                finish()
        while started:
            finish()
    return records


def label_maps(
    method: Method,
    entry: Entry,
    evaluation: Evaluation,
    device: torch.device,
    dtype: torch.dtype | None,
    subsets: Sequence[Subset] = SUBSETS,
    data: Data | None = None,
) -> Iterator[np.ndarray]:
    """Predicted labels [D, H, W] in the grid of the case, post-processed, one subset after the other.

    Args:
        data: how the case was prepared; with `evaluation.box` "given" each subset is prepared anew by it.

    Raises:
        UserError: with "given", the files that the case was prepared from cannot be read any more.
    """
    for labels, _ in _predicted_maps(method, entry, evaluation, device, dtype, subsets, data):
        yield post_process(labels, evaluation.post_processing, entry.meta.native_spacing)


def _predicted_maps(
    method: Method,
    entry: Entry,
    evaluation: Evaluation,
    device: torch.device,
    dtype: torch.dtype | None,
    subsets: Sequence[Subset],
    data: Data | None,
    count: _Counter | None = None,
) -> Iterator[tuple[np.ndarray, Counts | None]]:
    """As `label_maps`, not post-processed; with what `count` makes of the probabilities."""
    labels_of = regions_to_native if method.outputs == "regions" else labels_to_native
    place = device, dtype

    def of(probabilities: torch.Tensor, meta: Meta) -> tuple[np.ndarray, Counts | None]:
        return labels_of(probabilities, meta).cpu().numpy(), count(probabilities, meta) if count else None

    if evaluation.box == "all":
        images = torch.from_numpy(entry.whole()[0])
        for probabilities in _predicted(method, images, entry.meta, evaluation, subsets, *place):
            yield of(probabilities, entry.meta)
        return
    if entry.source is None or data is None:
        raise ValueError(f"{entry.name}: its files are not known, so no subset can be prepared by itself")
    maps: dict[Subset, tuple[np.ndarray, Counts | None]] = {}
    for alike, prepared, meta in by_given(entry.source, data, subsets):
        for subset in alike:  # one by one, as `prediction` has it: together they would be rounded otherwise
            (probabilities,) = _predicted(
                method, torch.from_numpy(prepared), meta, evaluation, [subset], *place
            )
            maps[subset] = of(probabilities, meta)
    yield from (maps[subset] for subset in subsets)


def _counter(method: Method, entry: Entry) -> _Counter:
    """Counts the bins of a case's probabilities [4 or 3, d, h, w], over the voxels of the file in the box."""
    truth = entry.native_labels()

    def count(probabilities: torch.Tensor, meta: Meta) -> Counts:
        native, where = to_native_region(probabilities, meta)
        of_regions = native if method.outputs == "regions" else regions_of(native)
        labels = truth[where]
        pairs = zip(REGIONS, of_regions.clamp(0, 1).cpu().numpy(), strict=True)
        return np.stack([counts(mine, region_mask(labels, region)) for region, mine in pairs])

    return count


def _predicted(
    method: Method,
    images: torch.Tensor,
    meta: Meta,
    evaluation: Evaluation,
    subsets: Sequence[Subset],
    device: torch.device,
    dtype: torch.dtype | None,
) -> torch.Tensor:
    masks = torch.tensor([subset_mask(subset) for subset in subsets])
    return predict(
        method,
        images,
        evaluation.window,
        evaluation.stride,
        masks,
        device,
        dtype,
        corner=meta.box.start,
        weights=evaluation.window_weights,
    )
