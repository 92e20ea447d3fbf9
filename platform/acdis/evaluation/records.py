"""Per-case scores: one record per case × subset × region, kept as Parquet, and their averages.

Imports neither torch nor monai: reports read scores with this room alone.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from acdis import files
from acdis.errors import UserError
from acdis.evaluation.calibration import NUMBERS
from acdis.vocabulary import (
    FURTHER_METRICS,
    REGIONS,
    SUBSETS,
    UNBOUNDED,
    Subset,
    metric_name,
    subset_name,
)

if TYPE_CHECKING:
    import pyarrow

#: Metrics in the order in which they are summarised, with the regions that each is defined for.
METRIC_REGIONS: dict[str, tuple[str, ...]] = {
    "dice": REGIONS,
    "dice_et500": ("ET",),
    "hd95": REGIONS,
    **dict.fromkeys(FURTHER_METRICS, REGIONS),
}

#: Metrics that are there for every record of an evaluation or for none.
_OPTIONAL = ("hd95", *FURTHER_METRICS)

#: Columns that a file has only where a record has them.
_LATER = (*FURTHER_METRICS, "calibration", "hd95_convention")

#: Rows of a file that is read: 20,000 cases; some two hundred bytes of memory each. A third of them where
#: they have counts by bin, which are as much again and more.
MOST_ROWS = 20_000 * 45
#: Bytes of all rows together as they are before they are packed, and of their names: a file of ten kilobytes
#: may hold one name of a megabyte, and a million rows that refer to it.
MOST_BYTES = 2**28
#: Rows that are looked at together.
_BATCH = 4096


@dataclass(frozen=True)
class Record:
    """Scores of one region of one case, segmented from one subset of the modalities.

    What stands behind `patient` is in `evaluation.metrics`; None where that does not name it.
    """

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
    lesion_dice: float | None = None  # BraTS 2023: mean over found, missed and false lesions
    lesion_hd95: float | None = None  # mm
    lesions_found: float | None = None
    lesions_missed: float | None = None
    lesions_false: float | None = None
    instance_dice: float | None = None  # BraTS 2026: mean over pairs and instances without one
    instance_nsd: float | None = None  # at 1 mm
    instance_hd95: float | None = None  # mm
    instance_f1: float | None = None
    nsd_1mm: float | None = None
    nsd_2mm: float | None = None
    volume_difference_ml: float | None = None  # of the absolute volumes
    sensitivity: float | None = None
    precision: float | None = None
    ece: float | None = None
    calibration: tuple[float, ...] | None = None  # the counts that `ece` is from: `calibration.counts`, flat
    hd95_convention: str | None = None  # as in `evaluation`; None where it is `max`

    def __post_init__(self) -> None:
        if not self.patient:
            object.__setattr__(self, "patient", self.case)

    @property
    def hd95_penalty(self) -> bool | None:
        """Whether `hd95` is that of one empty mask, no distance; None where HD95 is switched off."""
        return None if self.hd95 is None else (self.predicted_voxels == 0) != (self.truth_voxels == 0)


def as_row(record: Record) -> dict[str, Any]:
    """Value by column, without counts by bin, and without later columns that it has nothing in."""
    return {
        name: value
        for name, value in asdict(record).items()
        if name != "calibration" and (value is not None or name not in _LATER)
    }


def write_parquet(path: Path, records: Sequence[Record]) -> None:
    """Write records to a Parquet file, atomically: a reader sees the old file or the new one, whole.

    Nullable columns: `dice_et500` (null but for ET), `hd95` (null when off) and further metrics with the
    counts behind them, which have a column only where a record has them.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    present = [name for name in _LATER if any(getattr(row, name) is not None for row in records)]
    table = pa.Table.from_pylist([asdict(record) for record in records], schema=_schema(present))
    with files.replacing(path) as stream:
        pq.write_table(table, stream, write_page_checksum=True)


def read_parquet(path: Path) -> list[Record]:
    """Read what `write_parquet` wrote, in the same order.

    Raises:
        UserError: the file cannot be read, is not Parquet, or has other columns.
    """
    try:
        # A handle: from a path pyarrow would read columns out of folder names.
        with files.opened(path) as file:
            table = read_table(file, str(path))
    except OSError as error:
        raise _unreadable(str(path), error) from None
    return records_in(table)


def records_in(table: pyarrow.Table) -> list[Record]:
    """The rows of what `read_table` gives, in their order."""
    rows = table.to_pylist()
    for row in rows:
        if row.get("calibration") is not None:
            row["calibration"] = tuple(row["calibration"])
    return [Record(**row) for row in rows]


def read_table(file: BinaryIO, name: str) -> pyarrow.Table:
    """The columns of what `write_parquet` wrote; `name` stands in the error.

    Raises:
        UserError: the file cannot be read, is not Parquet, or has other columns.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        parquet = pq.ParquetFile(file, page_checksum_verification=True)
        due = _schema(parquet.schema_arrow.names)
        older = due.remove(due.get_field_index("patient"))  # each case was a patient of its own
        if not (parquet.schema_arrow.equals(due) or parquet.schema_arrow.equals(older)):
            columns = ", ".join(f"{field.name} ({field.type})" for field in parquet.schema_arrow)
            raise UserError(
                f"{name}: are not per-case scores of this version, has {columns}; evaluate the run again"
            )
        _check_size(parquet.metadata, MOST_ROWS // 3 if "calibration" in due.names else MOST_ROWS)
        table = _read(file, parquet)
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


def _check_size(metadata: pyarrow.parquet.FileMetaData, most: int) -> None:
    """A few kilobytes can claim to hold any number of rows, and do hold them if all are alike."""
    groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    if metadata.num_rows > most or sum(group.num_rows for group in groups) != metadata.num_rows:
        raise ValueError(f"claims {metadata.num_rows:,} rows, at most {most:,} are read")
    if (size := sum(group.total_byte_size for group in groups)) > MOST_BYTES:
        raise ValueError(f"claims {size:,} bytes, at most {MOST_BYTES:,} are read")


def _read(file: BinaryIO, parquet: pyarrow.parquet.ParquetFile) -> pyarrow.Table:
    """All rows. Names stay packed until it is known how much room they take."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    schema = parquet.schema_arrow
    words = [field.name for field in schema if field.type == pa.string()]
    file.seek(0)
    packed = pq.ParquetFile(
        file, metadata=parquet.metadata, read_dictionary=words, page_checksum_verification=True
    )
    batches, size = [], 0
    # Small files: threads cost more than they give.
    for batch in packed.iter_batches(_BATCH, use_threads=False):
        for column in (batch.column(name) for name in words):
            lengths = pc.binary_length(column.dictionary).take(column.indices)
            size += pc.sum(lengths, min_count=0).as_py()
        if size > MOST_BYTES:
            raise ValueError(f"its names take more than {MOST_BYTES:,} bytes")
        batches.append(batch)
    return pa.Table.from_batches(batches, packed.schema_arrow).cast(schema)


def _unreadable(name: str, error: Exception) -> UserError:
    reason = " ".join(str(error).split())[:150]
    return UserError(f"{name}: per-case scores cannot be read ({reason}); evaluate the run again")


def _schema(present: Sequence[str] = ()) -> pyarrow.Schema:
    """With those of the later columns that are present."""
    import pyarrow as pa

    types = {"str": pa.string(), "int": pa.int64(), "float": pa.float64()}
    types["tuple[float, ...]"] = pa.list_(pa.float64(), NUMBERS)
    due = [field for field in fields(Record) if field.name not in _LATER or field.name in present]
    columns = ((field.name, *str(field.type).partition(" | ")) for field in due)
    return pa.schema([pa.field(name, types[kind], nullable=bool(none)) for name, kind, _, none in columns])


def summarise(records: Iterable[Record], subsets: Sequence[Subset] = SUBSETS) -> dict[str, float]:
    """Averages under the fixed names: over cases per subset and region, over the subsets, over the regions.

    Args:
        subsets: what the records must hold, no more and no less.

    Returns:
        `dice/WT/FLAIR`, …, `dice/WT/mean`, …, `dice/mean`; `dice_et500/ET/…`; `hd95/…` in mm and further
        metrics where they were computed. Cases weigh the same, and so do subsets and regions.

    Raises:
        UserError: no records, a case × subset × region that is missing or there twice, an unknown name, or a
            score that is missing, not finite or out of range. Nothing is averaged over a part.
    """
    rows = list(records)
    _check_complete(rows, subsets)
    present = _present(rows)
    metrics = {
        name: regions for name, regions in METRIC_REGIONS.items() if name not in _OPTIONAL or name in present
    }
    for row in rows:
        _check_scores(row, present)
    summary: dict[str, float] = {}
    for metric, regions in metrics.items():
        for region in regions:
            summary |= _region_summary(rows, metric, region, subsets)
        summary[metric_name(metric)] = _mean([summary[metric_name(metric, region)] for region in regions])
    return summary


def _region_summary(
    rows: Sequence[Record], metric: str, region: str, subsets: Sequence[Subset]
) -> dict[str, float]:
    """The means over cases and the mean of those."""
    scores: dict[str, list[float]] = {subset_name(subset): [] for subset in subsets}
    for row in rows:
        if row.region == region:
            scores[row.subset].append(getattr(row, metric))
    means = [_mean(values) for values in scores.values()]
    names = (metric_name(metric, region, subset) for subset in subsets)
    return dict(zip(names, means, strict=True)) | {metric_name(metric, region): _mean(means)}


def _mean(values: Sequence[float]) -> float:
    """Exactly rounded sum, so that the order of the records does not matter."""
    return math.fsum(values) / len(values)


def _check_complete(rows: Sequence[Record], subsets: Sequence[Subset]) -> None:
    """Every case × subset × region once, and nothing else."""
    if not rows:
        raise UserError("per-case scores: there are none to average; evaluate at least one case")
    seen = Counter((row.case, row.subset, row.region) for row in rows)
    expected = set(product({row.case for row in rows}, map(subset_name, subsets), REGIONS))
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


def _present(rows: Sequence[Record]) -> set[str]:
    """Which optional metrics were computed; `_check_scores` then finds a record without one."""
    return {name for name in _OPTIONAL if any(getattr(row, name) is not None for row in rows)}


def limit(metric: str) -> float:
    """The most that a metric can be."""
    return math.inf if metric == "hd95" or metric in UNBOUNDED else 1.0


def _check_scores(row: Record, present: Collection[str]) -> None:
    """Refuse a score that is absent where it is due, due nowhere, not finite or out of range."""
    limits = {"dice": 1.0, "dice_et500": 1.0 if row.region == "ET" else None}
    limits |= {metric: limit(metric) for metric in present}
    for metric, most in limits.items():
        value = getattr(row, metric)
        if most is None and value is None:
            continue
        # False for NaN as well
        if most is None or value is None or not (0 <= value <= most and math.isfinite(value)):
            where = f"{row.case} {row.subset} {row.region}"
            raise UserError(f"per-case scores: {metric} of {where} is {value}; evaluate this case again")
