"""Names of cases out of text as people write it: lines, separated words, tables, nnU-Net's folds."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from acdis import files
from acdis.errors import UserError

DUE = "give a text file with one case name a line, a CSV file, or nnU-Net's splits_final.json#FOLD"
_SEPARATOR = re.compile(r"[\t;,]")
#: What stands around names in lists that are copied out of programs.
_AROUND = " \t\r'\"[]"
#: Columns of a table that holds several parts.
_PARTED = {"split", "fold", "set", "partition", "subset", "phase"}
#: Columns of a table that hold the case, in the order in which they are looked for.
_COLUMNS = ("case", "case_id", "name", "id", "subject", "subject_id", "patient_id", "brats_id", "bratsid")

#: Whether a word is the name of a case that is there.
IsCase = Callable[[str], bool]


def of_lines(text: str, is_case: IsCase, file: Path) -> list[str]:
    """A name a line, what follows a `#` left out; or several a line between tabs, semicolons, commas or
    spaces; or a table with one column of names.

    Raises:
        UserError: several columns hold names, and others not.
    """
    lines = [line for raw in text.splitlines() if (line := raw.partition("#")[0].strip())]
    if not lines or all(map(is_case, lines)):
        return lines
    if lines[0].strip(_AROUND).lower() in _COLUMNS:  # the header of a table of one column
        return lines[1:]
    if not any(map(_SEPARATOR.search, lines)):
        words = [word for line in lines for word in line.split()]
        return words if all(map(is_case, words)) else lines
    rows = [[cell.strip(_AROUND) for cell in _SEPARATOR.split(line)] for line in lines]
    words = [cell for row in rows for cell in row if cell]
    is_table = len(rows) > 1 and len(set(map(len, rows))) == 1 and any(rows[0][1:])
    if not is_table or all(map(is_case, words)) or not (_named(rows) or any(map(is_case, words))):
        return words
    return _of_rows(rows, is_case, file)


def of_table(text: str, is_case: IsCase, file: Path) -> list[str]:
    """The column of names in a CSV file, whose header says which, else whose names are cases, else the first.

    Raises:
        UserError: it tells several parts apart, or several columns hold names.
    """
    first = next((line for line in text.splitlines() if line.strip()), "")
    mark = max(",;\t", key=first.count)
    reader = csv.reader(text.splitlines(), skipinitialspace=True, delimiter=mark)
    rows = [row for row in reader if any(map(str.strip, row))]
    if len(rows) == 1 and len(rows[0]) > 1 and all(map(is_case, filter(None, rows[0]))):
        return [cell.strip() for cell in rows[0] if cell.strip()]
    return _of_rows(rows, is_case, file) if rows else []


def _named(rows: Sequence[Sequence[str]]) -> bool:
    return not {*_COLUMNS, *_PARTED}.isdisjoint(cell.strip().lower() for cell in rows[0])


def _of_rows(rows: Sequence[Sequence[str]], is_case: IsCase, file: Path) -> list[str]:
    header = [cell.strip().lower() for cell in rows[0]]
    parted = sorted(_PARTED & set(header))
    if parted:  # all of its rows would be one part
        raise UserError(
            f"{file}: its column {parted[0]!r} says which part a case is in; give each part a list"
        )
    named = [header.index(name) for name in _COLUMNS if name in header]
    holding = sorted({place for row in rows for place, cell in enumerate(row) if is_case(cell.strip())})
    column = next((place for place in named if place in holding), None)  # `id` may number the rows
    if column is None:
        column = _only(holding, file) if holding else (named or [0])[0]
    first = 0 if is_case(rows[0][column].strip()) else 1
    return [name for row in rows[first:] if len(row) > column and (name := row[column].strip())]


def _only(holding: Sequence[int], file: Path) -> int:
    """The one column in which there are names."""
    if len(holding) > 1:
        several = " and ".join(str(place + 1) for place in holding)
        raise UserError(
            f"{file}: columns {several} hold names of cases, so which are meant is not certain; {DUE}"
        )
    return holding[0]


def of_fold(text: str, file: Path, fold: str, part: str) -> list[str]:
    """The names of a part, `train` or `val`, in a fold of nnU-Net's, or in a plain list of names as JSON.

    Raises:
        UserError: it is neither, or does not have this fold.
    """
    try:
        tree: Any = files.json_of(text.encode())
    except ValueError:
        raise UserError(f"{file}: is no JSON; {DUE}") from None
    if isinstance(tree, list) and tree and not fold and all(isinstance(name, str) for name in tree):
        return tree
    if not isinstance(tree, list) or not tree or not all(isinstance(parts, dict) for parts in tree):
        raise UserError(f"{file}: holds no folds as nnU-Net writes them; {DUE}")
    number = int(fold) if fold.isdecimal() else (0 if len(tree) == 1 and not fold else -1)
    if not 0 <= number < len(tree):
        which = f"{file.name}#0" if len(tree) == 1 else f"{file.name}#0 to {file.name}#{len(tree) - 1}"
        raise UserError(f"{file}: say which fold: {which}")
    listed = tree[number].get(part, [])
    if not isinstance(listed, list) or not all(isinstance(name, str) for name in listed):
        raise UserError(f"{file}: fold {number} has no list of names under {part!r}; {DUE}")
    return listed
