"""`predict`: a cell and a patient's files in, a `Prediction` out."""

from __future__ import annotations

import math
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from acdis.data import orientation
from acdis.data.scan import Scan
from acdis.data.schemes import CLASS_NAMES, Scheme
from acdis.errors import UserError
from acdis.files import write_json
from acdis.prediction import output
from acdis.prediction.expected import better, expected
from acdis.prediction.model import Model
from acdis.version import __version__
from acdis.vocabulary import CLASSES, MODALITIES, REGION_LABELS, REGIONS

NOT_CLINICAL = "research only; not for clinical use"
PHANTOMS = "the model has learned from phantoms: what it finds says nothing about patients"


@dataclass(frozen=True)
class Options:
    """How to predict; nothing here needs another training.

    Attributes:
        flips: average over the 8 flips of the volume.
        maps: keep probabilities and their entropy.
        disagreement: keep where smaller subsets of what is given, and single cells, label otherwise.
    """

    flips: bool = False
    maps: bool = False
    disagreement: bool = False


@dataclass(frozen=True)
class Prediction:
    """A segmentation in the grid of the first file that was given.

    Attributes:
        labels: [D, H, W] in the file's axes, with the values of the data set that the model learned from.
        volumes_ml: ml per region, WT, TC and ET.
        classes: uint8 [D, H, W], indices in `CLASSES` on the grid of `scan.images`.
        regions: float32 [3, D, H, W], probabilities of `REGIONS`, in the file's axes; by `Options.maps`.
        entropy: float32 [D, H, W], 0 (certain) to 1; by `Options.maps`.
        scan: what was read, `scan.notes` with all warnings.
        report: what stands in the JSON file.
        over_subsets, over_cells: float32 [D, H, W], 0 to 1, the share of the smaller subsets of what is given
            and of the cells that label otherwise, in the file's axes; by `Options.disagreement`; none where
            there is one image, or one cell.
    """

    labels: np.ndarray
    volumes_ml: dict[str, float]
    classes: np.ndarray
    regions: np.ndarray | None
    entropy: np.ndarray | None
    scan: Scan
    report: dict[str, Any] = field(repr=False)
    over_subsets: np.ndarray | None = None
    over_cells: np.ndarray | None = None

    @property
    def reference(self) -> Path:
        """The file whose grid this is."""
        return next(iter(self.scan.files.values()))

    def save(
        self, path: str | Path, probabilities: bool = False, uncertainty: bool = False
    ) -> dict[str, Path]:
        """Write the segmentation (`.nii.gz` or `.nii`), and the report beside it, which is last.

        Args:
            probabilities: also `…_WT`, `…_TC` and `…_ET`, one file each.
            uncertainty: also `…_entropy`, and `…_disagreement_subsets` and `…_disagreement_cells` where
                disagreement was asked for.

        Returns:
            What was written: `segmentation`, `report` and so on.

        Raises:
            UserError: it cannot be written, or maps were not asked for when predicting.
        """
        path = Path(path)
        output.check(path, self.scan.files.values())
        if (probabilities and self.regions is None) or (uncertainty and self.entropy is None):
            raise UserError(f"{path}: no maps were kept; predict with maps=True")
        label = f"acdis {__version__} {NOT_CLINICAL}"
        volumes = {"segmentation": (path, self.labels)}
        if probabilities and self.regions is not None:
            for region, voxels in zip(REGIONS, self.regions, strict=True):
                volumes[region] = (output.beside(path, f"_{region}.nii.gz"), voxels)
        if uncertainty and self.entropy is not None:
            volumes["entropy"] = (output.beside(path, "_entropy.nii.gz"), self.entropy)
            for over, share in (("subsets", self.over_subsets), ("cells", self.over_cells)):
                if share is not None:
                    name = f"disagreement_{over}"
                    volumes[name] = (output.beside(path, f"_{name}.nii.gz"), share)
        for place, voxels in volumes.values():
            output.write(place, voxels, self.reference, label)
        report = output.beside(path, ".json")
        write_json(
            report, self.report | {"written": {name: place.name for name, (place, _) in volumes.items()}}
        )
        return {name: place for name, (place, _) in volumes.items()} | {"report": report}


def predict(
    models: Sequence[Model],
    scan: Scan,
    options: Options = Options(),
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> Prediction:
    """Segment a patient with one model, or with the mean of several.

    Args:
        scan: of `data.scan.read`.
        progress: called with (windows done, windows in all).

    Raises:
        UserError: the models' labels mean different things.
    """
    from acdis.prediction.segment import segment

    began = time.monotonic()
    values = label_values(models[0].scheme)
    if any(label_values(model.scheme).tolist() != values.tolist() for model in models):
        raise UserError("the cells have learned from data sets whose labels differ; predict with one of them")
    segmented = segment(models, scan, options.flips, options.maps, progress, options.disagreement)
    voxel = math.prod(scan.spacing) / 1000
    volumes = {
        region: round(float(np.isin(segmented.classes, REGION_LABELS[region]).sum() * voxel), 3)
        for region in REGIONS
    }
    turned = scan.in_file_axes
    return Prediction(
        turned(values[segmented.classes]),
        volumes,
        segmented.classes,
        None
        if segmented.regions is None
        else np.stack([turned(region_map) for region_map in segmented.regions]),
        None if segmented.entropy is None else turned(segmented.entropy),
        scan,
        _report(models, scan, options, volumes) | {"seconds": round(time.monotonic() - began, 2)},
        None if segmented.over_subsets is None else turned(segmented.over_subsets),
        None if segmented.over_cells is None else turned(segmented.over_cells),
    )


def label_values(scheme: Scheme) -> np.ndarray:
    """[4]: the value of each of `CLASSES` in the data set's files; of several the first, of background 0.

    Raises:
        UserError: it has no value for a class.
    """
    values = {0: 0}
    for value, index in scheme.classes:
        values.setdefault(index, value)
    lacking = [name for name, index in CLASS_NAMES.items() if index not in values]
    if lacking:
        raise UserError(
            f"{scheme.name}: has no label for {', '.join(lacking)}; predictions cannot be written"
        )
    table = [values[index] for index in range(len(CLASSES))]
    if min(table) >= 0 and max(table) < 2**8:
        return np.array(table, dtype=np.uint8)
    return np.array(table, dtype=np.int16 if max(table) < 2**15 else np.int32)


def stamps(given: Mapping[str, Path]) -> dict[str, dict[str, Any]]:
    """Modality → path, bytes and time of the last change: by what a file is known again."""
    on_disk = {name: (path.resolve(), path.stat()) for name, path in given.items()}
    return {
        name: {"path": str(path), "bytes": stat.st_size, "changed_ns": stat.st_mtime_ns}
        for name, (path, stat) in on_disk.items()
    }


def _report(
    models: Sequence[Model],
    scan: Scan,
    options: Options,
    volumes: Mapping[str, float],
) -> dict[str, Any]:
    import nibabel
    import torch

    values = label_values(models[0].scheme)
    known = {model.name: model.scores for model in models if model.scores is not None}
    notes = list(scan.notes)
    if any(model.experiment.data.phantoms for model in models):
        notes.append(PHANTOMS)
    return {
        "cells": [model.name for model in models],
        "use": NOT_CLINICAL,
        "given": stamps(scan.given),
        "used": list(scan.modalities),
        "missing": [name for name in MODALITIES if name not in scan.modalities],
        "volumes_ml": dict(volumes),
        "labels": {name: int(value) for name, value in zip(CLASSES, values, strict=True)},
        "grid": {
            "shape": list(scan.in_file_axes(scan.images[0]).shape),
            "spacing_mm": [round(side, 4) for side in _file_spacing(scan)],
            "orientation": orientation.axes(scan.file_affine),
        },
        "expected_dice_percent": {name: expected(scores, scan.modalities) for name, scores in known.items()},
        "better": {
            name: lines for name, scores in known.items() if (lines := better(scores, scan.modalities))
        },
        "notes": notes,
        "flips": options.flips,
        "device": str(models[0].device),
        "versions": {
            "acdis": __version__,
            "torch": torch.__version__,
            "numpy": np.__version__,
            "nibabel": nibabel.__version__,
            "python": platform.python_version(),
        },
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _file_spacing(scan: Scan) -> tuple[float, ...]:
    return tuple(float(side) for side in np.linalg.norm(scan.file_affine[:3, :3], axis=0))
