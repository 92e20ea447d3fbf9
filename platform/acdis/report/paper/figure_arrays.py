"""What the figures show of one cell and one case: computed by the method's own functions, as arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from acdis.cells import Cell
from acdis.config import Experiment
from acdis.data.prepared_case import Entry
from acdis.errors import UserError
from acdis.evaluation import sliding
from acdis.evaluation.metrics import score_case
from acdis.evaluation.scoring import label_maps
from acdis.methods.base import Method
from acdis.report.paper.windows import (
    Extremes,
    Place,
    best_place,
    correlation,
    cut,
    extremes,
    likeness,
    mean_where,
    most_tumour,
    window_map,
)
from acdis.training import checkpoint, precision
from acdis.training.run import new_method
from acdis.vocabulary import MODALITIES, REGIONS, Subset

#: Side of local windows, in voxels, where no loss of the training has any: the losses' default.
WINDOW = 5


@dataclass(frozen=True)
class Crop:
    """One window of the evaluation: images [4, D, H, W], labels and brain [D, H, W], and the slice shown.

    `corner` is where the window's case begins in its whole volume.
    """

    images: Tensor
    labels: np.ndarray
    brain: np.ndarray
    place: Place
    corner: tuple[int, int, int]

    @property
    def at(self) -> int:
        """Index of the slice along W."""
        return self.place.at


@dataclass(frozen=True)
class Windows:
    """Figure 1: local windows of f_m after the sigmoid, at the finest level, mean over channels.

    Attributes:
        variance: [4, D, H] in the slice.
        covariance: |Eq. 2| of each pair of modalities, [4, 4, D, H] in the slice; its diagonal is `variance`.
        edge, rest: [4], mean variance of the windows in the brain that the tumour's edge runs through, and of
            the others, over the whole crop.
        marked: the slice's richest and flattest window, at the tumour where it has one.
    """

    variance: np.ndarray
    covariance: np.ndarray
    edge: np.ndarray
    rest: np.ndarray
    marked: Extremes
    side: int


@dataclass(frozen=True)
class Segmentations:
    """Figure 5: labels [S, D, H] in a slice of the file's grid, Dice [S, 3 regions] of the whole case."""

    labels: np.ndarray
    dice: np.ndarray


@dataclass(frozen=True)
class Feature:
    """Figure 6: FLAIR's f_m, mean over channels, [D, H] in the slice, z-scored over the slice's brain.

    `like` is how its local windows follow an image's, by the image's modality (`windows.likeness`).
    """

    picture: np.ndarray
    like: dict[str, float]


@dataclass(frozen=True)
class Synthesis:
    """Figure 7: features [4, D, H], mean over channels, in the slice: true, and each made from the others.

    `r` and `mse` compare all channels in the crop's brain: the made ones with the true ones; `r_given` the
    mean of the three given ones with the true ones, which takes no synthesis.
    """

    true: np.ndarray
    made: np.ndarray
    r: np.ndarray
    mse: np.ndarray
    r_given: np.ndarray


def load_method(cell: Cell, experiment: Experiment, device: torch.device) -> Method:
    """The method with the cell's final weights, in evaluation mode.

    Raises:
        UserError: damaged weights, or of other options.
    """
    method = new_method(experiment).to(device)
    method.load_inference_state(checkpoint.load(cell.weights, device))
    return method.eval()


def crop_of(entry: Entry, experiment: Experiment, at: int | None = None) -> Crop:
    """The window in which the evaluation sees most of the tumour, padded as there.

    Args:
        at: slice of the prepared case that is shown; none: the window's with most tumour.
    """
    window, stride = experiment.evaluation.window, experiment.evaluation.stride
    images = sliding.pad(torch.from_numpy(np.array(entry.images())), window)
    labels = sliding.pad(torch.from_numpy(np.array(entry.labels()))[None], window)[0].numpy()
    brain = (images != 0).any(0).numpy()
    place = best_place(labels, brain, window, stride, at)
    here = cut(place.start, window)
    return Crop(images[(slice(None), *here)], labels[here], brain[here], place, entry.corner)


def finest(method: Method, crop: Crop, device: torch.device) -> list[Tensor]:
    """Each modality's own features [C, D, H, W] at the finest level; empty where a method has none."""
    with torch.no_grad():
        levels = method.modality_features(_encoded(method, crop, device))
    return [f[0].float().cpu() for f in levels[0]] if levels else []


def windows(features: Sequence[Tensor], crop: Crop, side: int) -> Windows:
    """Figure 1 from the features that `finest` gave."""
    count = len(features)
    bounded = [f.sigmoid() for f in features]
    maps = torch.empty(count, count, *crop.labels.shape, dtype=torch.float64)
    for m in range(count):
        for other in range(m, count):
            maps[m, other] = maps[other, m] = window_map(bounded[m], bounded[other], side)
    brain, tumour = torch.from_numpy(crop.brain), torch.from_numpy(crop.labels > 0)
    edge = window_map(tumour[None], tumour[None], side) > 0
    variance = [maps[m, m] for m in range(count)]
    shown = maps[..., crop.at].numpy()
    own = np.stack([shown[m, m] for m in range(count)])
    return Windows(
        own,
        shown,
        np.array([mean_where(values, brain & edge) for values in variance]),
        np.array([mean_where(values, brain & ~edge) for values in variance]),
        extremes(own, crop.labels[..., crop.at] > 0, crop.brain[..., crop.at], side),
        side,
    )


def segmentations(
    method: Method,
    entry: Entry,
    experiment: Experiment,
    device: torch.device,
    at: int,
    subsets: Sequence[Subset],
) -> Segmentations:
    """Figure 5: what the evaluation predicts from these subsets; `at` is a slice of the file's."""
    dtype = precision.autocast_dtype(experiment.training.precision)
    volumes = list(label_maps(method, entry, experiment.evaluation, device, dtype, subsets, experiment.data))
    settings = experiment.evaluation.dice_alone()
    truth, spacing = entry.native_labels(), entry.meta.native_spacing
    records = score_case(entry.name, volumes, truth, spacing, settings, subsets)
    dice = np.array([record.dice for record in records]).reshape(len(subsets), len(REGIONS))
    return Segmentations(np.stack([labels[..., at] for labels in volumes]), dice)


def feature(features: Sequence[Tensor], crop: Crop, modality: str, side: int) -> Feature:
    """Figure 6: one modality's feature from those that `finest` gave."""
    mean = features[MODALITIES.index(modality)].mean(0)
    brain = torch.from_numpy(crop.brain)
    like = {
        name: likeness(mean, image, brain, side) for name, image in zip(MODALITIES, crop.images, strict=True)
    }
    return Feature(standard(mean[..., crop.at].numpy(), crop.brain[..., crop.at]), like)


def image_likeness(crop: Crop, modality: str, other: str, side: int) -> float:
    """How one modality's image follows another's, for comparison with `Feature.like`."""
    first, second = (crop.images[MODALITIES.index(name)] for name in (modality, other))
    return likeness(first, second, torch.from_numpy(crop.brain), side)


def standard(picture: np.ndarray, brain: np.ndarray) -> np.ndarray:
    """z-scored over the brain (bool, same shape); over everything where there is no brain."""
    inside = picture[brain] if brain.any() else picture
    scaled: np.ndarray = (picture - inside.mean()) / max(float(inside.std()), 1e-8)
    return scaled


def synthesis(method: Method, crop: Crop, device: torch.device) -> Synthesis | None:
    """Figure 7: each modality made from the three others; none where the method synthesises nothing."""
    true, made = _true_and_made(method, crop, device)
    if not made:
        return None
    brain = torch.from_numpy(crop.brain)
    others = [torch.stack([f for k, f in enumerate(true) if k != m]).mean(0) for m in range(len(true))]
    return Synthesis(
        np.stack([f.mean(0)[..., crop.at].numpy() for f in true]),
        np.stack([f.mean(0)[..., crop.at].numpy() for f in made]),
        np.array([correlation(a, b, brain) for a, b in zip(made, true, strict=True)]),
        np.array([float((a - b)[:, brain].square().mean()) for a, b in zip(made, true, strict=True)]),
        np.array([correlation(a, b, brain) for a, b in zip(others, true, strict=True)]),
    )


def _true_and_made(method: Method, crop: Crop, device: torch.device) -> tuple[list[Tensor], list[Tensor]]:
    """f_m and f̂_m, [C, D, H, W] each, at the finest level."""
    made: list[Tensor] = []
    with torch.no_grad():
        features = _encoded(method, crop, device)
        levels = method.modality_features(features)
        for m in range(len(MODALITIES)):
            available = torch.tensor([[other != m for other in range(len(MODALITIES))]], device=device)
            if complete := method.completed(features, available):
                made.append(complete[0][m][0].float().cpu())
    return [f[0].float().cpu() for f in levels[0]] if levels else [], made


def _encoded(method: Method, crop: Crop, device: torch.device) -> object:
    images = crop.images[None].to(device)
    start = [at + corner for at, corner in zip(crop.place.start, crop.corner, strict=True)]
    return method.encode(images, origin=torch.tensor([start], device=device))


def file_slice(entry: Entry, crop: Crop) -> int:
    """Index in the file of the slice that a crop shows."""
    return _in_file(entry, crop.place.start[2] + crop.at)


def prepared_slice(entry: Entry, index: int) -> int:
    """Index in the prepared case of a slice of the file.

    Raises:
        UserError: the case has no such slice, or no brain there.
    """
    meta = entry.meta
    voxel = int((index + 0.5) * meta.native_spacing[2] / meta.spacing[2]) - meta.box.start[2]
    brain = (np.asarray(entry.images()) != 0).any((0, 1, 2))
    if 0 <= index < meta.native_shape[2] and 0 <= voxel < len(brain) and brain[voxel]:
        return voxel
    first, last = (_in_file(entry, int(np.flatnonzero(brain)[end])) for end in (0, -1))
    raise UserError(
        f"--slice {index}: {entry.name} has brain in the axial slices {first} to {last} of its file"
    )


def _in_file(entry: Entry, voxel: int) -> int:
    """Index in the file of a slice of the prepared case."""
    meta = entry.meta
    return int((meta.box.start[2] + voxel + 0.5) * meta.spacing[2] / meta.native_spacing[2])


def native_slice(entry: Entry) -> int:
    """Index in the file of the slice with most tumour."""
    labels = np.asarray(entry.native_labels())
    return most_tumour(labels, np.ones_like(labels, dtype=bool))
