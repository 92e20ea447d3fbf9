"""Who was scanned: the unit of a split and of statistics is the patient, not the scan."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from acdis import config, files, home
from acdis.data.lists import bare
from acdis.errors import UserError

#: Names that say so themselves: what stands in the group is the patient, the rest counts the scans.
_KNOWN = (
    re.compile(r"(BraTS(?:20\d\d)?[-_][A-Za-z]+[-_]\d+)[-_]\d+", re.IGNORECASE),
    re.compile(r"(UPENN-GBM-\d+)_\d+", re.IGNORECASE),
    re.compile(r"(UCSF-PDGM-\d+)(?:_.+)?", re.IGNORECASE),
)
_MOST = 2**22  # bytes of a table of patients
#: What may stand before the number of a scan, and the number: A_1, A-visit2, A_t03.
_SCAN = re.compile(r"(?P<patient>.+)[-_.][A-Za-z]{0,7}\d{1,3}")
_MOST_SCANS = 10  # of a patient, as far as names are to be taken for scans; more are a numbering of patients


class Patients:
    """The patient of a case, by its name.

    Args:
        given: `data.patients`: a table of case and patient (`.csv` or `.tsv`, columns `case` and `patient`),
            or a regular expression whose first group is the patient; none: what the known data sets' names
            say, and where they say nothing each case is a patient of its own.

    Raises:
        UserError: the table cannot be read, or the expression is none or has no group.
    """

    def __init__(self, given: str | None) -> None:
        self.table: Mapping[str, str] | None = None
        self.patterns: tuple[re.Pattern[str], ...] = _KNOWN
        if given is None:
            return
        if config.is_table(given):
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
            if bare(case) not in self.table:
                raise UserError(f"data.patients: its table has no line for {case}; add one")
            return self.table[bare(case)]
        for pattern in self.patterns:
            match = pattern.fullmatch(case)
            if match is not None and match[1]:
                return match[1].replace("_", "-") if self.patterns is _KNOWN else match[1]
        if self.patterns is not _KNOWN:
            raise UserError(f"data.patients: {self.given!r} does not fit {case}; mend the expression")
        return case


def known(cases: Iterable[str]) -> dict[str, str]:
    """Case -> patient by the names of the known data sets alone."""
    patients = Patients(None)
    return {case: patients.of(case) for case in cases}


def alike(cases: Iterable[str]) -> list[str]:
    """Names that only a last number tells from another's, few to a stem: perhaps scans of one patient."""
    stems: dict[str, list[str]] = {}
    for case in sorted(cases):
        match = _SCAN.fullmatch(case)
        stems.setdefault(match["patient"] if match else case, []).append(case)
    several = [names for names in stems.values() if len(names) > 1]
    if len(stems) < 2 or any(len(names) > _MOST_SCANS for names in several):
        return []
    return [name for names in several for name in names]


def _read(path: Path) -> dict[str, str]:
    try:
        text = files.read(path, _MOST).decode("utf-8-sig")
    except OSError as error:
        raise UserError(
            f"data.patients: {path} cannot be read ({files.reason(error)}); give a CSV file"
        ) from None
    except ValueError as error:
        raise UserError(f"data.patients: {path} is no CSV file ({error})") from None
    lines = text.splitlines()
    mark = max(",;\t", key=lines[0].count) if lines else ","
    reader = csv.DictReader(lines, skipinitialspace=True, delimiter=mark)
    reader.fieldnames = [name.strip().lower() for name in reader.fieldnames or ()]
    if not {"case", "patient"} <= set(reader.fieldnames):
        raise UserError(
            f"data.patients: {path} has no columns 'case' and 'patient'; name them in its first line"
        )
    table: dict[str, str] = {}
    for row in reader:
        case, patient = (str(row[name] or "").strip() for name in ("case", "patient"))
        if not case or not patient:
            raise UserError(f"data.patients: {path}, line {reader.line_num}: case or patient is empty")
        if table.setdefault(bare(case), patient) != patient:
            raise UserError(
                f"data.patients: {path}: {case} has two patients, {table[bare(case)]} and {patient}"
            )
    return table
