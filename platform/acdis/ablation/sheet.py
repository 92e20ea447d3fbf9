"""What stands in a spec file, with its `extends` and `use`, every key with its line. No experiment yet."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from acdis import config
from acdis.ablation.extends import read_extended
from acdis.ablation.grid import Combination, Combinations, GridFile, combine
from acdis.config import Config, Draft, InvalidError, Key
from acdis.errors import UserError
from acdis.vocabulary import REGIONS

_ROW_NAME = re.compile(r"[A-Za-z0-9][\w.+-]*")


class RowFile(Config):
    """One row as it stands in the file."""

    label: str | None = Field(None, min_length=1, description="what tables call it; none: its name")
    set: dict[str, Any] = Field(default_factory=dict, description="dotted config keys that this row changes")
    use: str | None = Field(None, description="'other.yaml#row': takes over that row's changes and figures")
    paper: dict[str, float] | None = Field(None, description="published figures by region, per cent")
    note: str | None = Field(None, min_length=1, description="shown wherever the row is shown")


class SpecFile(Config):
    """A spec as it stands in the file, over the one that it extends."""

    title: str | None = Field(None, min_length=1, description="of the tables; none: the file's name")
    table: str | None = Field(None, min_length=1, description="short name, a tag in MLflow; none: the file's")
    base: str | None = Field(None, description="experiment file that the rows change")
    seeds: tuple[int, ...] = Field((0,), min_length=1, description="each row is trained with each of them")
    baseline: Any = Field(None, description="row that the others are compared with; of a grid: its values")
    paper: str = Field("", description="where the rows' published figures come from")
    set: dict[str, Any] = Field(default_factory=dict, description="dotted config keys, for every row")
    rows: dict[str, RowFile] | None = None
    grid: GridFile | None = None


@dataclass(frozen=True)
class Line:
    """A row with all that it changes, and where each change stands.

    Attributes:
        changes: {dotted key: value}: the spec's, what it uses, its own.
        own: keys that the row itself gives: each must have an effect.
        places: file and line of each change.
        place: file and line of the row.
    """

    id: str
    label: str
    changes: Mapping[str, Any]
    own: frozenset[str]
    places: Mapping[str, str]
    place: str
    paper: Mapping[str, float] | None = None
    note: str | None = None


@dataclass(frozen=True)
class Sheet:
    """A validated spec file. `draft` knows the lines."""

    path: Path
    file: SpecFile
    draft: Draft

    def problem(self, key: Key, phrase: str) -> UserError:
        """An error with the place of the key."""
        return self.draft.located(InvalidError([(key, phrase)]))

    def places(self, changes: Mapping[str, Any], *key: str) -> dict[str, str]:
        """Where each of the changes stands that the file has under `key`."""
        return {name: self.draft.where((*key, name)) for name in changes}


def read(path: Path) -> Sheet:
    """Read and validate a spec file over the file that its `extends` names.

    Raises:
        UserError: with file and line: not YAML, an unknown key, a wrong type, a seed listed twice, figures of
            other regions, a row's name that cannot be one.
    """
    tree, documents = read_extended(path)
    draft = Draft(tree, documents, str(path))
    try:
        file = SpecFile.model_validate(tree)
    except ValidationError as error:
        raise draft.located(InvalidError(config.find_problems(error, SpecFile))) from None
    sheet = Sheet(path, file, draft)
    _check_seeds(sheet)
    for name, row in (file.rows or {}).items():
        _check_row(sheet, name, row)
    _check_changes(sheet, file.set, "set")
    if file.rows and file.grid:
        raise sheet.problem(("grid",), "grid: give either rows or a grid, not both")
    return sheet


def lines(sheet: Sheet, seen: tuple[str, ...] = ()) -> list[Line]:
    """The rows of a sheet, those of its grid among them, in order.

    Raises:
        UserError: no rows, an empty grid, or a `use` that leads nowhere or in a circle.
    """
    if sheet.file.grid:
        return [_of_grid(sheet, combination) for combination in combinations(sheet).kept]
    if not sheet.file.rows:
        raise sheet.problem(("rows",), "rows: none; give at least one row, or a grid")
    return [_of_row(sheet, name, row, seen) for name, row in sheet.file.rows.items()]


def combinations(sheet: Sheet) -> Combinations:
    """What the sheet's grid makes; nothing where it has none.

    Raises:
        UserError: an empty grid, or a rule that cannot apply; with its line.
    """
    if not sheet.file.grid:
        return Combinations((), {})
    try:
        return combine(sheet.file.grid)
    except InvalidError as error:
        raise sheet.draft.located(error) from None


def nearest(name: str, valid: Collection[str]) -> str:
    """`; did you mean 'x'?`, or the names that there are."""
    close = difflib.get_close_matches(name, valid, n=1, cutoff=0.5)
    few = ", ".join(list(valid)[:12]) + (" …" if len(valid) > 12 else "")
    return f"; did you mean '{close[0]}'?" if close else f"; there are {few}"


def _of_row(sheet: Sheet, name: str, row: RowFile, seen: tuple[str, ...]) -> Line:
    used = _used(sheet, name, row.use, seen) if row.use else None
    spec, key = sheet.file.set, ("rows", name, "set")
    inherited = dict(used.changes) if used else {}
    places = sheet.places(spec, "set") | (dict(used.places) if used else {}) | sheet.places(row.set, *key)
    return Line(
        id=name,
        label=row.label or (used.label if used else name),
        changes=spec | inherited | row.set,
        own=frozenset(row.set),
        places=places,
        place=sheet.draft.where(("rows", name)),
        paper=row.paper or (used.paper if used else None),
        note=row.note or (used.note if used else None),
    )


def _used(sheet: Sheet, name: str, use: str, seen: tuple[str, ...]) -> Line:
    """The row that a `use` names, in this file or another."""
    key = ("rows", name, "use")
    file, mark, wanted = use.partition("#")
    if not mark or not wanted:
        raise sheet.problem(key, f"rows.{name}.use: write it as file.yaml#row (given: {use!r})")
    path = Path(file) if file else sheet.path
    step = f"{path.resolve()}#{wanted}"
    if step in seen:
        raise sheet.problem(key, f"rows.{name}.use: leads in a circle back to {wanted!r}")
    other = read(path) if file else sheet
    rows = other.file.rows or {}
    if wanted not in rows:
        raise sheet.problem(key, f"rows.{name}.use: {path} has no row {wanted!r}{nearest(wanted, rows)}")
    return _of_row(other, wanted, rows[wanted], (*seen, step))


def _of_grid(sheet: Sheet, combination: Combination) -> Line:
    spec = sheet.file.set
    changes = combination.changes
    return Line(
        id=combination.id,
        label=combination.label,
        changes=spec | dict(changes),
        own=frozenset(changes),
        places=sheet.places(spec, "set") | sheet.places(changes, "grid", "factors"),
        place=sheet.draft.where(("grid",)),
    )


def _check_seeds(sheet: Sheet) -> None:
    for place, seed in enumerate(sheet.file.seeds):
        if seed in sheet.file.seeds[:place]:
            raise sheet.problem(("seeds", place), f"seeds: {seed} is listed twice")
        if not 0 <= seed < 2**31:
            raise sheet.problem(("seeds", place), f"seeds: {seed} is no seed; give 0 to {2**31 - 1}")


def _check_row(sheet: Sheet, name: str, row: RowFile) -> None:
    key = ("rows", name)
    if not _ROW_NAME.fullmatch(name):
        raise sheet.problem(key, f"rows: {name!r} cannot name a row; use letters, digits and . _ + -")
    if row.paper is not None and set(row.paper) != set(REGIONS):
        found = ", ".join(row.paper) or "none"
        raise sheet.problem(
            (*key, "paper"), f"rows.{name}.paper: give {', '.join(REGIONS)}, no others (given: {found})"
        )
    _check_changes(sheet, row.set, *key, "set")


def _check_changes(sheet: Sheet, changes: Mapping[str, Any], *key: str) -> None:
    for name, value in changes.items():
        where, place = ".".join(key), (*key, name)
        if name == "seed":
            raise sheet.problem(place, f"{where}: seed: seeds are what 'seeds' lists, for every row alike")
        if not all(name.split(".")):
            raise sheet.problem(place, f"{where}: {name!r} is no key; write it as data.crop")
        if isinstance(value, Mapping):
            example = next(iter(value), "key")
            raise sheet.problem(place, f"{where}: {name}: write each key out, as in {name}.{example}: …")
