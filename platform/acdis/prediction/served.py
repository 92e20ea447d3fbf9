"""What `mlflow.pyfunc.load_model` and `mlflow models serve` load: an exported cell that answers.

An MLflow model of ours is an `MLmodel` file that names this module, and beside it an export: no pickle.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from acdis.errors import UserError
from acdis.vocabulary import MODALITIES

#: What an array has that comes without an affine: voxels of 1 mm, axes as BraTS's.
_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
_KEYS = {**{name.lower(): name for name in MODALITIES}, "affine": "affine"}


def _load_pyfunc(path: str) -> Served:
    """MLflow's entrance; `path` is the export's folder."""
    return Served(Path(path))


class Served:
    """An exported cell.

    Raises:
        UserError: as `hand_on.check` and `open_model`.
    """

    def __init__(self, folder: Path) -> None:
        from acdis.prediction.hand_on import find
        from acdis.prediction.model import open_model

        self.models = [open_model(find(folder.parent, folder))]

    def predict(self, given: Any) -> list[dict[str, Any]]:
        """Segment patients.

        Args:
            given: a DataFrame, or a mapping, or a list of such: a row per patient with columns `FLAIR`,
                `T1ce`, `T1` and `T2`, any but none; a value is a file's path, or nothing where it is missing.
                Or one mapping of arrays [D, H, W] by modality, with `affine` [4, 4] where the voxels are not
                1 mm with axes as BraTS's.

        Returns:
            Per patient `segmentation` [D, H, W] in the first image's grid, and what `predict` reports:
            `volumes_ml`, `expected_dice_percent`, `notes` and so on.

        Raises:
            UserError: as `data.scan.read`.
        """
        return [self._one(patient) for patient in _patients(given)]

    def _one(self, patient: Mapping[str, Any]) -> dict[str, Any]:
        from acdis.data.scan import read
        from acdis.prediction.predict import predict

        unknown = [key for key in patient if key.lower() not in _KEYS]
        if unknown:
            raise UserError(f"{unknown[0]!r}: is no modality; give {', '.join(MODALITIES)}, and affine")
        values = {_KEYS[key.lower()]: value for key, value in patient.items() if _is_given(value)}
        affine = np.asarray(values.pop("affine", _LPS), dtype=float)
        if affine.shape != (4, 4):
            raise UserError(f"affine: has shape {affine.shape} where (4, 4) is due")
        if not values:
            raise UserError(f"no image given: give any of {', '.join(MODALITIES)}")
        with tempfile.TemporaryDirectory() as folder:
            files = {name: _file(value, affine, Path(folder) / name) for name, value in values.items()}
            training_spacing = self.models[0].training_spacing
            prediction = predict(self.models, read(files, training_spacing=training_spacing))
        return prediction.report | {"segmentation": prediction.labels}


def _patients(given: Any) -> list[Mapping[str, Any]]:
    if hasattr(given, "to_dict"):  # a DataFrame
        return [dict(row) for row in given.to_dict(orient="records")]
    if isinstance(given, Mapping):
        return [given]
    if isinstance(given, list) and all(isinstance(row, Mapping) for row in given):
        return given
    raise UserError("give a table with a column per modality, or modality → path or array")


def _is_given(value: Any) -> bool:
    """A table has None or NaN where a patient lacks an image."""
    return value is not None and not (isinstance(value, float) and np.isnan(value))


def _file(value: Any, affine: np.ndarray, place: Path) -> Path:
    """The value's file; of an array a temporary one, so that it is read and checked as any other."""
    import nibabel

    array = np.asarray(value)
    if array.ndim == 0:
        return Path(str(value))
    if array.dtype.kind not in "iuf":
        raise UserError(f"{place.name}: is an array of {array.dtype}, not of numbers")
    path = place.with_suffix(".nii")
    nibabel.Nifti1Image(array.astype(np.float32), affine).to_filename(path)
    return path
