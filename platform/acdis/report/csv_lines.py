"""Lines of CSV as `pandas.read_csv` reads them without options: no comments, a warning once."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any


class CsvLines:
    """A table whose column `warning` holds each warning on the first line that it is about, and on no other.

    That sorting and filtering lose none of it, the column `phantoms` is filled on every line.
    """

    def __init__(self, columns: Sequence[str]) -> None:
        self._file = io.StringIO()
        self._writer = csv.DictWriter(self._file, columns, lineterminator="\n")
        self._writer.writeheader()
        self._said: set[str] = set()

    def add(self, line: Mapping[str, Any]) -> None:
        """One line: value by column; what is not given is empty."""
        warning = line.get("warning")
        self._writer.writerow({**line, "warning": None if warning in self._said else warning})
        if warning:
            self._said.add(warning)

    @property
    def text(self) -> str:
        """Header and lines; ends with a newline."""
        return self._file.getvalue()
