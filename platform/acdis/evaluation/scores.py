"""Per-case scores of one evaluation as arrays: what statistics are computed from.

Imports neither torch nor monai. `records` writes the files; a report over 1,000 of them reads columns here
instead of making 225,000 objects.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from acdis.errors import UserError
from acdis.evaluation import floor_files, incomplete
from acdis.evaluation.calibration import BINS
from acdis.evaluation.floor_files import Floors
from acdis.evaluation.incomplete import Pattern
from acdis.evaluation.metrics import HD95_CONVENTIONS, HD95_ONE_EMPTY
from acdis.evaluation.records import Record, limit, read_table, records_in, summarise
from acdis.files import opened, reason
from acdis.vocabulary import FURTHER_METRICS, REGIONS, SUBSETS, subset_name

_SUBSETS = {subset_name(subset): place for place, subset in enumerate(SUBSETS)}
_REGIONS = {region: place for place, region in enumerate(REGIONS)}
_METRICS = ("dice", "dice_et500", "hd95")
_TRUTH = ("truth_voxels", "voxel_volume")
_WORDS = ("case", "subset", "region", "patient")


@dataclass(frozen=True)
class Scores:
    """One evaluation, cases sorted by name, subsets and regions in the vocabulary's order.

    Attributes:
        cases: N names.
        dice: [N, 15, 3], 0 to 1.
        dice_et500: [N, 15], ET after small predictions are emptied.
        hd95: [N, 15, 3] in mm; none where it was not computed.
        patients: who was scanned, case by case; empty: each case is a patient of its own.
        floors: what they are held against; none where nobody has measured it.
        further: by metric of `evaluation.metrics`, each [N, 15, 3]; those that were computed.
        truth: [N, 3], ml of each region in the segmentation; none where it is not known.
        calibration: [15, 3, 3, BINS], `calibration.counts` over all cases; none where it was not computed.
        hd95_convention: `max` or `pooled`, see `metrics.hd95`; empty where it is not known.
    """

    cases: tuple[str, ...]
    dice: np.ndarray
    dice_et500: np.ndarray
    hd95: np.ndarray | None
    patients: tuple[str, ...] = ()
    floors: Floors | None = None
    further: Mapping[str, np.ndarray] = field(default_factory=dict)
    incomplete: tuple[Pattern, ...] = ()
    truth: np.ndarray | None = None
    calibration: np.ndarray | None = None
    hd95_convention: str = "max"

    @property
    def penalties(self) -> np.ndarray:
        """[15, 3]: cases whose HD95 is that of one empty mask; 0 where there is no HD95."""
        if self.hd95 is None:
            return np.zeros((15, 3), dtype=np.int64)
        return np.isclose(self.hd95, HD95_ONE_EMPTY, rtol=0, atol=1e-6).sum(axis=0)

    def of(self, cases: Sequence[str]) -> np.ndarray:
        """Dice of these cases, in this order: [len(cases), 15, 3]."""
        places = {case: place for place, case in enumerate(self.cases)}
        return self.dice[[places[case] for case in cases]]

    def by_patient(self, cases: Sequence[str]) -> np.ndarray:
        """Dice of these cases, scans of one patient averaged, patients sorted by name: [patients, 15, 3]."""
        who = dict(zip(self.cases, self.patients or self.cases, strict=True))
        scans = np.array([who[case] for case in cases])
        dice = self.of(cases)
        return np.stack([dice[scans == patient].mean(axis=0) for patient in np.unique(scans)])


def read_scores(file: BinaryIO, name: str) -> Scores:
    """Read what `records.write_parquet` wrote; `name` stands in errors.

    Raises:
        UserError: the file cannot be read, lacks a case × subset × region or has it twice, or a score is
            missing or out of range.
    """
    table = read_table(file, name)
    metrics = [*_METRICS, *_TRUTH, *(name for name in FURTHER_METRICS if name in table.column_names)]
    columns = {name: table.column(name).to_numpy(zero_copy_only=False) for name in metrics}
    words = {name: table.column(name).to_pylist() for name in _WORDS}
    counted = None
    if "calibration" in table.column_names:
        column = table.column("calibration")
        counted = column.combine_chunks().flatten().to_numpy(zero_copy_only=False)
        if column.null_count or not _within(counted, math.inf):
            raise UserError(f"{name}: calibration has no counts somewhere; evaluate the run again")
    said = table.column("hd95_convention").to_pylist() if "hd95_convention" in table.column_names else []
    scores = _scores(words, columns, counted)
    if scores is None:
        raise _problem(records_in(table), name)
    return replace(scores, hd95_convention=_convention(said, name))


def read_file(path: Path) -> Scores:
    """`read_scores` of a file on disk, with the floors beside it.

    Raises:
        UserError: as `read_scores`, and for a file that is not there.
    """
    try:
        with opened(path) as file:
            scores = read_scores(file, str(path))
    except OSError as error:
        raise UserError(
            f"{path}: per-case scores cannot be read ({reason(error)}); evaluate the run again"
        ) from None
    return beside(scores, path.parent)


def beside(scores: Scores, evaluation: Path) -> Scores:
    """With what else stands in an evaluation's folder: floors, and test cases that lack modalities."""
    floors = floor_files.usable(evaluation / floor_files.FILE)
    return replace(scores, floors=floors, incomplete=incomplete.usable(evaluation / incomplete.FILE))


def from_records(records: Sequence[Record]) -> Scores:
    """The same from records in memory.

    Raises:
        UserError: as `read_scores`.
    """
    words = {name: [getattr(row, name) for row in records] for name in _WORDS}
    columns = {
        name: np.array([getattr(row, name) for row in records], dtype=np.float64)
        for name in (*_METRICS, *_TRUTH, *FURTHER_METRICS)
    }
    every = [row.calibration for row in records if row.calibration is not None]
    scores = _scores(words, columns, np.array(every) if len(every) == len(records) else None)
    if scores is None:
        raise _problem(records, "records")
    said = [row.hd95_convention for row in records]
    return replace(scores, hd95_convention=_convention(said, "records"))


def _convention(said: Sequence[str | None], name: str) -> str:
    """The one of all records; `max` has no word in them."""
    given = {word or "max" for word in said} or {"max"}
    if len(given) > 1 or not given <= set(HD95_CONVENTIONS):
        raise UserError(f"{name}: hd95_convention is no convention of all scores; evaluate the run again")
    return given.pop()


def _scores(
    words: dict[str, list[Any]], columns: dict[str, np.ndarray], counted: np.ndarray | None
) -> Scores | None:
    """Arrays from columns; none where anything is wrong, for `_problem` to say what.

    Args:
        counted: the bins of all records, one after the other; none where they have none.
    """
    cases = tuple(sorted(set(words["case"])))
    order = {case: place for place, case in enumerate(cases)}
    try:
        place = [
            (order[case] * 15 + _SUBSETS[subset]) * 3 + _REGIONS[region]
            for case, subset, region in zip(words["case"], words["subset"], words["region"], strict=True)
        ]
    except KeyError:
        return None
    size = len(cases) * 45
    if not size or len(place) != size or len(set(place)) != size:
        return None
    shaped = {name: _shaped(values, place, len(cases)) for name, values in columns.items()}
    et500, hd95 = shaped["dice_et500"], shaped["hd95"]
    with_hd95 = not np.isnan(hd95).all()
    further = {
        name: values
        for name, values in shaped.items()
        if name in FURTHER_METRICS and not np.isnan(values).all()
    }
    good = (
        _within(shaped["dice"], 1.0)
        and _within(et500[..., 2], 1.0)
        and np.isnan(et500[..., :2]).all()
        and (not with_hd95 or _within(hd95, math.inf))
        and all(_within(values, limit(name)) for name, values in further.items())
    )
    persons = dict(zip(words["case"], words["patient"], strict=True))
    if not good or set(zip(words["case"], words["patient"], strict=True)) != set(persons.items()):
        return None
    patients = tuple(persons[case] for case in cases)
    distances = hd95 if with_hd95 else None
    voxels, volume = (shaped[name][:, 0] for name in _TRUTH)  # the same for every subset
    truth = voxels * volume / 1000
    of_bins = None if counted is None else _bins(counted, place, len(cases))
    return Scores(
        cases,
        shaped["dice"],
        et500[..., 2],
        distances,
        patients,
        further=further,
        truth=truth,
        calibration=of_bins,
    )


def _bins(counted: np.ndarray, place: list[int], cases: int) -> np.ndarray:
    """Over all cases: [15, 3, 3, BINS]."""
    sorted_counts = np.empty((len(place), 3, BINS))
    sorted_counts[place] = counted.reshape(-1, 3, BINS)
    total: np.ndarray = sorted_counts.reshape(cases, 15, 3, 3, BINS).sum(axis=0)
    return total


def _shaped(values: np.ndarray, place: list[int], cases: int) -> np.ndarray:
    sorted_values = np.empty(len(place), dtype=np.float64)
    sorted_values[place] = values.astype(np.float64)
    return sorted_values.reshape(cases, 15, 3)


def _within(values: np.ndarray, most: float) -> bool:
    """False for NaN and inf as well."""
    return bool(((values >= 0) & (values <= most) & (values < math.inf)).all())


def _problem(records: Sequence[Record], name: str) -> UserError:
    """What is wrong, in the words of `summarise`, which checks record by record."""
    try:
        summarise(records)
    except UserError as error:
        return UserError(f"{name}: {error}")
    raise AssertionError(f"{name}: summarise accepts what the columns do not")
