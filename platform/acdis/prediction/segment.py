"""From a scan and models to the classes of every voxel of its own grid.

Box, mask and normalisation come from the given modalities alone: `evaluation.box: given` scores the same.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from acdis import machine
from acdis.config import PostProcessing
from acdis.data.preprocess import (
    Meta,
    labels_to_native,
    on_brain,
    regions_to_native,
    to_native,
)
from acdis.data.scan import Scan
from acdis.errors import UserError
from acdis.evaluation import sliding
from acdis.evaluation.post_processing import post_process
from acdis.evaluation.sliding import regions_of
from acdis.prediction.model import Model
from acdis.vocabulary import MODALITIES, SUBSETS, Subset, subset_mask

Progress = Callable[[int, int], None]
#: Bytes of a round of windows on a CPU, where more is no faster: a patient takes less than 4 GB in all.
_ROUND = 2**31
_FLIPS = [axes for n in range(4) for axes in itertools.combinations((0, 1, 2), n)]


@dataclass(frozen=True)
class Segmented:
    """On the scan's grid, axes as BraTS's.

    Attributes:
        classes: uint8 [D, H, W], indices in `vocabulary.CLASSES`.
        regions: float32 [3, D, H, W], the probability of each of `REGIONS`; none where not asked for.
        entropy: float32 [D, H, W], 0 (certain) to 1 (all equally likely); none where not asked for.
        over_subsets: float32 [D, H, W], the share of the smaller subsets of what is given whose label is
            another; none where not asked for, or where one modality is given.
        over_cells: float32 [D, H, W], the share of the models whose own label is another; none where not
            asked for, or of one model.
    """

    classes: np.ndarray
    regions: np.ndarray | None = None
    entropy: np.ndarray | None = None
    over_subsets: np.ndarray | None = None
    over_cells: np.ndarray | None = None


def segment(
    models: Sequence[Model],
    scan: Scan,
    flips: bool = False,
    maps: bool = False,
    progress: Progress = lambda done, of: None,
    disagreement: bool = False,
) -> Segmented:
    """Segment a scan; of several models the probabilities are averaged, each with its own preprocessing.

    The labels are post-processed as in the evaluation, probabilities are not.

    Args:
        flips: also the mean over the 8 ways to flip the volume along its axes; 8 times as slow.
        maps: also the probabilities of regions, and their entropy.
        progress: called with (windows done, windows in all).
        disagreement: also where smaller subsets, and single models, label otherwise.

    Raises:
        UserError: as `preprocess.on_brain`; or models that differ in `evaluation.post_processing`.
    """
    fewer = smaller(scan.modalities) if disagreement else []
    passes = len(models) * (len(_FLIPS) if flips else 1) * (2 if fewer else 1)
    count = _Count(passes, progress)
    rules = _rules(models)
    if len(models) == 1 and not maps and not disagreement:
        (probabilities,), meta = _probabilities(models[0], scan, flips, count)
        regions = models[0].method.outputs == "regions"
        labels = (regions_to_native if regions else labels_to_native)(probabilities, meta)
        return Segmented(post_process(labels.numpy(), rules, meta.native_spacing))
    kinds = {model.method.outputs for model in models}
    of_regions = kinds != {"classes"}
    total: Tensor | None = None
    own = []
    for model in models:
        (probabilities,), meta = _probabilities(model, scan, flips, count)
        native = _native(model, probabilities, meta, False)
        if disagreement and len(models) > 1:
            own.append(_decided(native, model.method.outputs == "regions", False).classes)
        if of_regions and model.method.outputs == "classes":
            native = regions_of(native)
        total = native if total is None else total.add_(native)
    assert total is not None
    mean = total.div_(len(models))
    decided = _decided(mean, of_regions, maps)
    return replace(
        decided,
        classes=post_process(decided.classes, rules, meta.native_spacing),
        over_subsets=_over_subsets(models, scan, flips, count, fewer, decided.classes) if fewer else None,
        over_cells=differing(own, decided.classes) if own else None,
    )


def smaller(given: Subset) -> list[Subset]:
    """The subsets that lack at least one of the given modalities."""
    return [subset for subset in SUBSETS if set(subset) < set(given)]


def differing(several: Iterable[np.ndarray], classes: np.ndarray) -> np.ndarray:
    """float32 [D, H, W], 0 to 1: the share of several labellings that say another class than `classes`."""
    differ, number = np.zeros(classes.shape, dtype=np.float32), 0
    for other in several:
        differ += other != classes
        number += 1
    return differ / np.float32(number)


def _over_subsets(
    models: Sequence[Model],
    scan: Scan,
    flips: bool,
    count: _Count,
    fewer: Sequence[Subset],
    classes: np.ndarray,
) -> np.ndarray:
    """As `Segmented.over_subsets`. Box, mask and normalisation stay those of all that is given, so that what
    differs is what the network makes of fewer images."""
    of_regions = any(model.method.outputs == "regions" for model in models)
    by_model = [(model, *_probabilities(model, scan, flips, count, fewer)) for model in models]

    def labels(at: int) -> np.ndarray:
        total: Tensor | None = None
        for model, probabilities, meta in by_model:
            native = _native(model, probabilities[at], meta, of_regions)
            total = native if total is None else total.add_(native)
        assert total is not None
        return _decided(total.div_(len(models)), of_regions, False).classes

    return differing(map(labels, range(len(fewer))), classes)


def _native(model: Model, probabilities: Tensor, meta: Meta, of_regions: bool) -> Tensor:
    """On the scan's grid; of a method of classes as regions where that is asked for."""
    native = to_native(probabilities, meta, regions=model.method.outputs == "regions")
    return regions_of(native) if of_regions and model.method.outputs == "classes" else native


def _rules(models: Sequence[Model]) -> tuple[PostProcessing, ...]:
    """What is done to the labels, the same for all models."""
    rules = {model.experiment.evaluation.post_processing for model in models}
    if len(rules) > 1:
        raise UserError(
            "evaluation.post_processing: the cells differ in what is done to their labels; predict with each "
            "by itself"
        )
    return rules.pop()


def _decided(mean: Tensor, regions: bool, maps: bool) -> Segmented:
    """Labels as `labels_to_native` and `regions_to_native` decide them."""
    if regions:
        classes = torch.zeros(mean.shape[1:], dtype=torch.uint8)
        for probability, label in zip(mean, (2, 1, 3), strict=True):
            classes.masked_fill_(probability > 0.5, label)
    else:
        classes = mean.argmax(0).to(torch.uint8)
    if not maps:
        return Segmented(classes.numpy())
    of_regions = mean if regions else regions_of(mean)
    return Segmented(classes.numpy(), of_regions.numpy(), entropy(mean, regions).numpy())


def entropy(probabilities: Tensor, regions: bool) -> Tensor:
    """[K, ...] to [...], 0 to 1: Shannon's over the log of the number of classes; of regions, each of which
    is there or not for itself, the mean of the three binary entropies."""
    if regions:
        sure = torch.stack([probabilities, 1 - probabilities])
        return torch.special.entr(sure.clamp(0, 1)).sum(0).mean(0) / np.log(2)
    return torch.special.entr(probabilities.clamp(0, 1)).sum(0) / np.log(len(probabilities))


class _Count:
    """Windows over all passes: models × flips."""

    def __init__(self, passes: int, tell: Progress) -> None:
        self.passes, self.tell, self.before, self.of = passes, tell, 0, 0

    def __call__(self, done: int, of: int) -> None:
        self.of = of
        self.tell(self.before * of + done, self.passes * of)

    def next(self) -> None:
        self.before += 1


def _probabilities(
    model: Model, scan: Scan, flips: bool, count: _Count, subsets: Sequence[Subset] = ()
) -> tuple[Tensor, Meta]:
    """Of the model's classes or regions, float32 [S, 4 or 3, d, h, w] on its box, for each of the subsets;
    without any, S = 1: all that is given."""
    given, meta = on_brain(scan.images, scan.brain, scan.spacing, scan.affine, model.experiment.data)
    images = np.zeros((len(MODALITIES), *given.shape[1:]), dtype=np.float32)
    images[[MODALITIES.index(name) for name in scan.modalities]] = given
    whole = torch.from_numpy(images)
    ways = _FLIPS if flips else [()]
    total = torch.zeros(())
    masks = torch.tensor([subset_mask(subset) for subset in subsets or [scan.modalities]])
    for axes in ways:
        sides = [axis + 1 for axis in axes]
        flipped = [axis + 2 for axis in axes]
        corner = [
            meta.full_shape[axis] - meta.box.stop[axis] if axis in axes else meta.box.start[axis]
            for axis in range(3)
        ]
        evaluation = model.experiment.evaluation
        probabilities = sliding.predict(
            model.method,
            whole.flip(sides) if sides else whole,
            evaluation.window,
            evaluation.stride,
            masks,
            model.device,
            model.dtype,
            min(_ROUND, machine.free() // 4) if model.device.type == "cpu" else None,
            progress=count,
            corner=corner,
            weights=evaluation.window_weights,
        )
        total = total + probabilities.flip(flipped) if sides else probabilities
        count.next()
    return (total / len(ways) if flips else total).cpu(), meta
