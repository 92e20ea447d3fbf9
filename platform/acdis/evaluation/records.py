"""Per-case scores: one record per case × subset × region, kept as Parquet, and their averages.

Imports neither torch nor monai: reports read scores with this room alone.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from acdis import files
from acdis.errors import UserError
from acdis.vocabulary import REGIONS, SUBSETS, metric_name, subset_name

if TYPE_CHECKING:
    import pyarrow

#: Metrics in the order in which they are summarised, with the regions that each is defined for.
METRIC_REGIONS: dict[str, tuple[str, ...]] = {"dice": REGIONS, "dice_et500": ("ET",), "hd95": REGIONS}

#: Rows of a file that is read: 20,000 cases; some two hundred bytes of memory each.
MOST_ROWS = 20_000 * 45

_SUBSET_NAMES = tuple(subset_name(subset) for subset in SUBSETS)


@dataclass(frozen=True)
class Record:
    """Scores of one region of one case, segmented from one subset of the modalities."""

    case: str
    subset: str  # as `vocabulary.subset_name` writes it: FLAIR_T1ce
    region: str  # WT, TC or ET
    dice: float
    dice_et500: float | None  # ET after a prediction below `evaluation.et_minimum` mm³ is emptied; else None
    hd95: float | None  # mm; 0 if both are empty, 373.13 if one is; None where HD95 is switched off
    predicted_voxels: int
    truth_voxels: int
    voxel_volume: float  # mm³
    patient: str = ""  # who was scanned; the case itself where nothing else is known

    def __post_init__(self) -> None:
        if not self.patient:
            object.__setattr__(self, "patient", self.case)


def write_parquet(path: Path, records: Sequence[Record]) -> None:
    """Write records to a Parquet file, atomically: a reader sees the old file or the new one, whole.

    Nullable columns: `dice_et500` (null but for ET) and `hd95` (null when off).
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.Table.from_pylist([asdict(record) for record in records], schema=_schema())
    with files.replacing(path) as stream:
        pq.write_table(table, stream, write_page_checksum=True)


def read_parquet(path: Path) -> list[Record]:
    """Read what `write_parquet` wrote, in the same order.

    Raises:
        UserError: the file cannot be read, is not Parquet, or has other columns.
    """
    try:
        with path.open("rb") as file:  # a handle: from a path pyarrow would read columns out of folder names
            table = read_table(file, str(path))
    except OSError as error:
        raise _unreadable(str(path), error) from None
    return [Record(**row) for row in table.to_pylist()]


def read_table(file: BinaryIO, name: str) -> pyarrow.Table:
    """The columns of what `write_parquet` wrote; `name` stands in the error.

    Raises:
        UserError: the file cannot be read, is not Parquet, or has other columns.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        parquet = pq.ParquetFile(file, page_checksum_verification=True)
        due = _schema()
        older = due.remove(due.get_field_index("patient"))  # each case was a patient of its own
        if not (parquet.schema_arrow.equals(due) or parquet.schema_arrow.equals(older)):
            found = ", ".join(f"{field.name} ({field.type})" for field in parquet.schema_arrow)
            raise UserError(
                f"{name}: are not per-case scores of this version, has {found}; evaluate the run again"
            )
        _check_size(parquet.metadata)
        table = parquet.read(use_threads=False)  # small files: threads cost more than they give
        table.validate(full=True)
        if "patient" not in table.column_names:
            table = table.append_column(due.field("patient"), table.column("case"))
        if any(table.column(field.name).null_count for field in due if not field.nullable):
            raise ValueError("a value is missing")
    except (
        OSError,
        ValueError,
        TypeError,
        LookupError,
        MemoryError,
        OverflowError,
        pa.ArrowException,
    ) as error:
        raise _unreadable(name, error) from None
    return table


def _check_size(metadata: pyarrow.parquet.FileMetaData) -> None:
    """A few kilobytes can claim to hold any number of rows, and do hold them if all are alike."""
    groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    if metadata.num_rows > MOST_ROWS or sum(group.num_rows for group in groups) != metadata.num_rows:
        raise ValueError(f"claims {metadata.num_rows:,} rows, at most {MOST_ROWS:,} are read")


def _unreadable(name: str, error: Exception) -> UserError:
    reason = " ".join(str(error).split())[:150]
    return UserError(f"{name}: per-case scores cannot be read ({reason}); evaluate the run again")


def _schema() -> pyarrow.Schema:
    import pyarrow as pa

    types = {"str": pa.string(), "int": pa.int64(), "float": pa.float64()}
    columns = ((field.name, *str(field.type).partition(" | ")) for field in fields(Record))
    return pa.schema([pa.field(name, types[kind], nullable=bool(none)) for name, kind, _, none in columns])


def summarise(records: Iterable[Record]) -> dict[str, float]:
    """Averages under the fixed names: over cases per subset and region, then over the 15 subsets.

    Returns:
        `dice/WT/FLAIR`, …, `dice/WT/mean`, …; `dice_et500/ET/…`; `hd95/…` in mm where it was computed. Every
        case weighs the same, and so does every subset.

    Raises:
        UserError: no records, a case × subset × region that is missing or there twice, an unknown name, or a
            score that is missing, not finite or out of range. Nothing is averaged over a part.
    """
    rows = list(records)
    _check_complete(rows)
    metrics = {name: regions for name, regions in METRIC_REGIONS.items() if name != "hd95" or _has_hd95(rows)}
    for row in rows:
        _check_scores(row, with_hd95="hd95" in metrics)
    summary: dict[str, float] = {}
    for metric, regions in metrics.items():
        for region in regions:
            summary |= _region_summary(rows, metric, region)
    return summary


def _region_summary(rows: Sequence[Record], metric: str, region: str) -> dict[str, float]:
    """The 15 means over cases and the mean of those."""
    scores: dict[str, list[float]] = {name: [] for name in _SUBSET_NAMES}
    for row in rows:
        if row.region == region:
            scores[row.subset].append(getattr(row, metric))
    means = [_mean(scores[name]) for name in _SUBSET_NAMES]
    names = (metric_name(metric, region, subset) for subset in SUBSETS)
    return dict(zip(names, means, strict=True)) | {metric_name(metric, region): _mean(means)}


def _mean(values: Sequence[float]) -> float:
    """Exactly rounded sum, so that the order of the records does not matter."""
    return math.fsum(values) / len(values)


def _check_complete(rows: Sequence[Record]) -> None:
    """Every case × subset × region once, and nothing else."""
    if not rows:
        raise UserError("per-case scores: there are none to average; evaluate at least one case")
    seen = Counter((row.case, row.subset, row.region) for row in rows)
    expected = set(product({row.case for row in rows}, _SUBSET_NAMES, REGIONS))
    _refuse("unknown subset or region", seen.keys() - expected)
    _refuse("there twice", {key for key, count in seen.items() if count > 1})
    _refuse("missing", expected - seen.keys())
    persons = {(row.case, row.patient) for row in rows}
    several = Counter(case for case, _ in persons)
    _refuse("of two patients", {(case, "", "") for case, count in several.items() if count > 1})


def _refuse(problem: str, keys: set[tuple[str, str, str]]) -> None:
    """UserError with the first few (case, subset, region), if there are any."""
    if keys:
        named = "; ".join(" ".join(key) for key in sorted(keys)[:3])
        more = f" and {len(keys) - 3} more" if len(keys) > 3 else ""
        raise UserError(
            f"per-case scores: {problem}: {named}{more}; evaluate these cases again, all 15 subsets"
        )


def _has_hd95(rows: Sequence[Record]) -> bool:
    """Whether HD95 was computed; `_check_scores` then finds a record without it."""
    return any(row.hd95 is not None for row in rows)


def _check_scores(row: Record, with_hd95: bool) -> None:
    """Refuse a score that is absent where it is due, due nowhere, not finite or out of range."""
    limits = {
        "dice": 1.0,
        "dice_et500": 1.0 if row.region == "ET" else None,
        "hd95": math.inf if with_hd95 else None,
    }
    for metric, limit in limits.items():
        value = getattr(row, metric)
        if limit is None and value is None:
            continue
        # False for NaN as well
        if limit is None or value is None or not (0 <= value <= limit and math.isfinite(value)):
            where = f"{row.case} {row.subset} {row.region}"
            raise UserError(f"per-case scores: {metric} of {where} is {value}; evaluate this case again")
