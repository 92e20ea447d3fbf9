"""Per-case scores of one evaluation as arrays: what statistics are computed from.

Imports neither torch nor monai. `records` writes the files; a report over 1,000 of them reads columns here
instead of making 225,000 objects.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from acdis.errors import UserError
from acdis.evaluation.records import Record, read_table, summarise
from acdis.files import reason
from acdis.vocabulary import REGIONS, SUBSETS, subset_name

_SUBSETS = {subset_name(subset): place for place, subset in enumerate(SUBSETS)}
_REGIONS = {region: place for place, region in enumerate(REGIONS)}
_METRICS = ("dice", "dice_et500", "hd95")
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
    """

    cases: tuple[str, ...]
    dice: np.ndarray
    dice_et500: np.ndarray
    hd95: np.ndarray | None
    patients: tuple[str, ...] = ()

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
    columns = {field: table.column(field).to_numpy(zero_copy_only=False) for field in _METRICS}
    words = {field: table.column(field).to_pylist() for field in _WORDS}
    scores = _scores(words, columns)
    if scores is None:
        raise _problem([Record(**row) for row in table.to_pylist()], name)
    return scores


def read_file(path: Path) -> Scores:
    """`read_scores` of a file on disk.

    Raises:
        UserError: as `read_scores`, and for a file that is not there.
    """
    try:
        with path.open("rb") as file:
            return read_scores(file, str(path))
    except OSError as error:
        raise UserError(
            f"{path}: per-case scores cannot be read ({reason(error)}); evaluate the run again"
        ) from None


def from_records(records: Sequence[Record]) -> Scores:
    """The same from records in memory.

    Raises:
        UserError: as `read_scores`.
    """
    words = {field: [getattr(row, field) for row in records] for field in _WORDS}
    columns = {
        field: np.array([getattr(row, field) for row in records], dtype=np.float64) for field in _METRICS
    }
    scores = _scores(words, columns)
    if scores is None:
        raise _problem(records, "records")
    return scores


def _scores(words: dict[str, list[Any]], columns: dict[str, np.ndarray]) -> Scores | None:
    """Arrays from columns; none where anything is wrong, for `_problem` to say what."""
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
    shaped = {field: _shaped(values, place, len(cases)) for field, values in columns.items()}
    et500, hd95 = shaped["dice_et500"], shaped["hd95"]
    with_hd95 = not np.isnan(hd95).all()
    good = (
        _within(shaped["dice"], 1.0)
        and _within(et500[..., 2], 1.0)
        and np.isnan(et500[..., :2]).all()
        and (not with_hd95 or _within(hd95, np.finfo(np.float64).max))
    )
    persons = dict(zip(words["case"], words["patient"], strict=True))
    if not good or set(zip(words["case"], words["patient"], strict=True)) != set(persons.items()):
        return None
    patients = tuple(persons[case] for case in cases)
    return Scores(cases, shaped["dice"], et500[..., 2], hd95 if with_hd95 else None, patients)


def _shaped(values: np.ndarray, place: list[int], cases: int) -> np.ndarray:
    sorted_values = np.empty(len(place), dtype=np.float64)
    sorted_values[place] = values.astype(np.float64)
    return sorted_values.reshape(cases, 15, 3)


def _within(values: np.ndarray, limit: float) -> bool:
    """False for NaN as well."""
    return bool(((values >= 0) & (values <= limit)).all())


def _problem(records: Sequence[Record], name: str) -> UserError:
    """What is wrong, in the words of `summarise`, which checks record by record."""
    try:
        summarise(records)
    except UserError as error:
        return UserError(f"{name}: {error}")
    raise AssertionError(f"{name}: summarise accepts what the columns do not")
