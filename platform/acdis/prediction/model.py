"""A trained cell, ready to segment: its network with its weights, and what its own test says of it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from acdis import cells, methods
from acdis.cells import Cell
from acdis.config import Experiment
from acdis.data import data_sets, schemes
from acdis.data.schemes import Scheme
from acdis.errors import UserError
from acdis.evaluation.scores import Scores, read_file

if TYPE_CHECKING:
    import torch

    from acdis.methods.base import Method

#: Files of an exported cell (`hand_on`): what it is, and its weights.
CELL, WEIGHTS = "cell.json", "models/model.safetensors"
#: mm per voxel of every data set that is known by name (BraTS, MSD, UPENN-GBM, UCSF-PDGM).
_USUAL_SPACING = 1.0


@dataclass(frozen=True)
class Model:
    """What segments.

    Attributes:
        name: the cell's.
        method: in evaluation mode, on `device`.
        dtype: of autocast; none for fp32.
        scheme: what the labels of its data set mean: predictions are written so.
        training_spacing: mm per voxel of the scans that it has learned from.
        records: the file of its own test cases' scores; none where it has none.
    """

    name: str
    experiment: Experiment
    method: Method
    device: torch.device
    dtype: torch.dtype | None
    scheme: Scheme
    training_spacing: float
    records: Path | None

    @cached_property
    def scores(self) -> Scores | None:
        """Of its own test cases, read when they are first asked for; none where they cannot be."""
        try:
            return read_file(self.records) if self.records else None
        except UserError:
            return None  # a damaged table makes no prediction wrong; `report` says what is wrong with it


def open_model(cell: Cell, device: str | None = None) -> Model:
    """The cell's model.

    Args:
        device: as torch names it; none: a GPU where there is one.

    Raises:
        UserError: its configuration or its weights are damaged, or do not fit each other.
    """
    import torch

    from acdis.prediction import tensors
    from acdis.training import checkpoint, precision

    experiment = cell.experiment()
    place = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    precision.check(experiment.training.precision, place)
    method = methods.bare(experiment.method.name, **experiment.method.options).to(place)
    method.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    if cell.weights.exists():
        method.load_inference_state(checkpoint.load(cell.weights, place))
    else:
        method.load_inference_state(tensors.read(cell.folder / WEIGHTS))
    method.eval()
    dtype = precision.autocast_dtype(experiment.training.precision)
    return Model(
        name_of(cell), experiment, method, place, dtype, scheme_of(cell), spacing_of(cell), records_of(cell)
    )


def name_of(cell: Cell) -> str:
    """The cell's name, also where its folder is an export that is called otherwise."""
    export = cell.folder / CELL
    return str(cells.read_json(export)["name"]) if export.is_file() else cell.name


def scheme_of(cell: Cell) -> Scheme:
    """What the labels of the cell's data set mean: as its configuration says, else by its cases' names."""
    lineage = cell.lineage()
    if told := lineage.get("labels"):  # of an imported cell, whose cases have no names; of nnU-Net's data
        return schemes.from_labels({int(value): name for value, name in told.items()})
    splits = lineage.get("splits", {})
    names = [*splits.get("train", []), *splits.get("test", [])]
    return data_sets.scheme_of(cell.experiment().data, names)


def spacing_of(cell: Cell) -> float:
    """mm per voxel of the scans that the cell has learned from."""
    if told := cell.lineage().get("training_spacing_mm"):
        return float(told)
    data = cell.experiment().data
    return data.phantoms.spacing if data.phantoms else _USUAL_SPACING


def records_of(cell: Cell) -> Path | None:
    """The file of the scores that go with the cell's training."""
    own = cell.records(str(cell.state().get("evaluation")))
    every = sorted(cell.evaluations.glob("*/records.parquet"))
    return own if own.exists() else every[0] if len(every) == 1 else None
