"""What scoring has found of each case, on disk until all are there: a kill costs the case at work."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from acdis.errors import UserError
from acdis.evaluation.examples import Example, read_example, write_example
from acdis.evaluation.records import Record, read_parquet, write_parquet


class CaseFiles:
    """`CASE.parquet` with the records of a case, beside it `CASE.npz` with its slice for a picture.

    The slice is written first: who finds records finds all of the case.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write(self, records: Sequence[Record], example: Example | None) -> None:
        """Keep what was found of one case."""
        self.folder.mkdir(parents=True, exist_ok=True)
        if example is not None:
            write_example(self.folder, example)
        write_parquet(self.folder / f"{records[0].case}.parquet", records)

    def read(self, case: str, pictured: bool) -> tuple[list[Record], Example | None] | None:
        """What is there of a case; none where nothing is, or what is there is damaged.

        Args:
            pictured: its slice is wanted too.
        """
        path = self.folder / f"{case}.parquet"
        if not path.exists():
            return None
        try:
            records = read_parquet(path)
            if not pictured:
                return records, None
            example = read_example(path.with_suffix(".npz"))
        except (UserError, OSError):
            return None
        return records, replace(example, dice=float(np.mean([record.dice for record in records])))

    def remove(self) -> None:
        """When all cases are in one file."""
        shutil.rmtree(self.folder, ignore_errors=True)
