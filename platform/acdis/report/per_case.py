"""Scores of every case, for other programs: a line per row × seed × case × subset × region, as recorded.

Columns: `spec`, `row`, `seed`, `cell`, `phantoms` (true: drawn cases, which say nothing about patients), then
those of `evaluation.records.Record`: Dice from 0 to 1, distances in mm; last `hd95_penalty`, true where one
mask is empty, so that `hd95` is 373.13 by convention (0 where both are), and `hd95_convention`, max or pooled
(`evaluation.metrics.hd95`). Empty: not computed.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from acdis.evaluation.records import Record, read_parquet
from acdis.report.collect import records_file
from acdis.report.facts import SpecFacts

_OF_RECORDS = tuple(
    field.name for field in fields(Record) if field.name not in ("calibration", "hd95_convention")
)
COLUMNS = ("spec", "row", "seed", "cell", "phantoms", *_OF_RECORDS, "hd95_penalty", "hd95_convention")


def lines(specs: Sequence[SpecFacts], base: Path) -> Iterator[dict[str, Any]]:
    """Value by column, of all cells of the home that are scored.

    Raises:
        UserError: a cell's records are damaged.
    """
    for spec in specs:
        for row in spec.rows:
            for cell in row.cells:
                if cell.scored:
                    first = {"spec": spec.name, "row": row.id, "seed": cell.seed, "cell": cell.cell}
                    first["phantoms"] = spec.phantoms
                    for record in read_parquet(records_file(base, cell.cell, cell.evaluation)):
                        values = {name: getattr(record, name) for name in _OF_RECORDS}
                        if record.hd95 is not None:
                            values["hd95_convention"] = record.hd95_convention or "max"
                        yield first | values | {"hd95_penalty": record.hd95_penalty}


def render(specs: Sequence[SpecFacts], base: Path) -> str:
    """CSV; `pandas.read_csv` gives the same table as `acdis.results`."""
    file = io.StringIO()
    writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines(specs, base))
    return file.getvalue()
