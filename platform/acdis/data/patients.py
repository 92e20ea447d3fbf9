"""Who was scanned: the unit of a split and of statistics is the patient, not the scan."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from acdis import files, home
from acdis.errors import UserError

#: Names that say so themselves: what stands in the group is the patient, the rest counts the scans.
_KNOWN = (
    re.compile(r"(BraTS-[A-Za-z]+-\d+)-\d+", re.IGNORECASE),
    re.compile(r"(UPENN-GBM-\d+)_\d+", re.IGNORECASE),
    re.compile(r"(UCSF-PDGM-\d+)(?:_.+)?", re.IGNORECASE),
)
_MOST = 2**22  # bytes of a table of patients


class Patients:
    """The patient of a case, by its name.

    Args:
        given: `data.patients`: a CSV file of case and patient (columns `case` and `patient`), or a regular
            expression whose first group is the patient; none: what the known data sets' names say, and where
            they say nothing each case is a patient of its own.

    Raises:
        UserError: the table cannot be read, or the expression is none or has no group.
    """

    def __init__(self, given: str | None) -> None:
        self.table: Mapping[str, str] | None = None
        self.patterns: tuple[re.Pattern[str], ...] = _KNOWN
        if given is None:
            return
        if given.lower().endswith(".csv"):
            self.table = _read(home.expand(given, "data.patients"))
            return
        try:
            pattern = re.compile(given)
        except re.error as error:
            raise UserError(
                f"data.patients: {given!r} is no regular expression ({error}); write one such as '(P\\d+)_.*'"
            ) from None
        if pattern.groups < 1:
            raise UserError(
                f"data.patients: {given!r} has no group: put the patient in brackets, '(P\\d+)_.*'"
            )
        self.patterns = (pattern,)
        self.given = given

    def of(self, case: str) -> str:
        """The patient of a case.

        Raises:
            UserError: `data.patients` was given and says nothing of this case.
        """
        if self.table is not None:
            if case not in self.table:
                raise UserError(f"data.patients: its table has no line for {case}; add one")
            return self.table[case]
        for pattern in self.patterns:
            match = pattern.fullmatch(case)
            if match is not None and match[1]:
                return match[1]
        if self.patterns is not _KNOWN:
            raise UserError(f"data.patients: {self.given!r} does not fit {case}; mend the expression")
        return case


def known(cases: Iterable[str]) -> dict[str, str]:
    """Case -> patient by the names of the known data sets alone."""
    patients = Patients(None)
    return {case: patients.of(case) for case in cases}


def _read(path: Path) -> dict[str, str]:
    try:
        text = files.read(path, _MOST).decode("utf-8-sig")
    except OSError as error:
        raise UserError(
            f"data.patients: {path} cannot be read ({files.reason(error)}); give a CSV file"
        ) from None
    except ValueError as error:
        raise UserError(f"data.patients: {path} is no CSV file ({error})") from None
    reader = csv.DictReader(text.splitlines(), skipinitialspace=True)
    if not {"case", "patient"} <= set(reader.fieldnames or ()):
        raise UserError(
            f"data.patients: {path} has no columns 'case' and 'patient'; name them in its first line"
        )
    table: dict[str, str] = {}
    for row in reader:
        case, patient = (str(row[name] or "").strip() for name in ("case", "patient"))
        if not case or not patient:
            raise UserError(f"data.patients: {path}, line {reader.line_num}: case or patient is empty")
        if table.setdefault(case, patient) != patient:
            raise UserError(f"data.patients: {path}: {case} has two patients, {table[case]} and {patient}")
    return table
