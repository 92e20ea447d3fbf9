"""What stands in a spec file, with its `extends` and `use`, every key with its line. No experiment yet."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from acdis import config
from acdis.ablation.extends import read_extended
from acdis.ablation.grid import Combination, Combinations, GridFile, combine
from acdis.config import Config, Draft, InvalidError, Key
from acdis.data import schemes
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
    absent: str | None = Field(
        None,
        min_length=1,
        description="why the row cannot be trained; in place of 'set'. It is shown, not run",
    )
    predictions: str | None = Field(
        None,
        min_length=1,
        description="folder of another tool's segmentations of the test cases, in place of 'set': nothing is "
        "trained; '{seed}' in it stands for the seed (docs/others.md)",
    )
    scheme: str | None = Field(
        None, description="what their labels mean, as data.scheme names it; none: as in the data set"
    )
    paper_row: str | None = Field(
        None, description="method of the paper's Table 1 whose figures for each subset stand beside this row"
    )
    published: dict[str, dict[str, float]] | None = Field(
        None, description="means of other sources, by source and region, per cent"
    )


class QuestionFile(Config):
    """One comparison that a spec declares."""

    row: Any = Field(description="row that is asked about; of a grid: its values")
    against: Any = Field(None, alias="with", description="row that it is compared with; none: the baseline")
    regions: tuple[Literal["WT", "TC", "ET"], ...] = Field(
        ("WT", "TC", "ET"), min_length=1, description="regions that are asked about"
    )


class SpecFile(Config):
    """A spec as it stands in the file, over the one that it extends."""

    title: str | None = Field(None, min_length=1, description="of the tables; none: the file's name")
    table: str | None = Field(None, min_length=1, description="short name, a tag in MLflow; none: the file's")
    base: str | None = Field(None, description="experiment file that the rows change")
    seeds: tuple[int, ...] = Field((0,), min_length=1, description="each row is trained with each of them")
    baseline: Any = Field(None, description="row that the others are compared with; of a grid: its values")
    compare: tuple[QuestionFile, ...] | None = Field(
        None, min_length=1, description="all that is tested; none: every row with the baseline, three regions"
    )
    margin: float = Field(1.0, gt=0, le=100, description="points of Dice within which rows count as equal")
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
        absent: why it cannot be trained; none: it can.
        predictions: folder of another tool's segmentations, that are scored; none: it is trained.
        scheme: what their labels mean; none: as in the data set.
    """

    id: str
    label: str
    changes: Mapping[str, Any]
    own: frozenset[str]
    places: Mapping[str, str]
    place: str
    paper: Mapping[str, float] | None = None
    note: str | None = None
    absent: str | None = None
    paper_row: str | None = None
    published: Mapping[str, Mapping[str, float]] | None = None
    predictions: str | None = None
    scheme: str | None = None


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
    """The rows of a sheet that can be trained, those of its grid among them, in order.

    Raises:
        UserError: no such rows, an empty grid, or a `use` that leads nowhere or in a circle.
    """
    if sheet.file.grid:
        return [_of_grid(sheet, combination) for combination in combinations(sheet).kept]
    if not sheet.file.rows:
        raise sheet.problem(("rows",), "rows: none; give at least one row, or a grid")
    trainable = [line for line in _all(sheet, seen) if line.absent is None]
    if not trainable:
        raise sheet.problem(("rows",), "rows: all of them are absent; give at least one that can be trained")
    return trainable


def absent(sheet: Sheet) -> list[Line]:
    """The rows of a sheet that are shown and not trained."""
    return [line for line in _all(sheet, ()) if line.absent is not None]


def _all(sheet: Sheet, seen: tuple[str, ...]) -> list[Line]:
    return [_of_row(sheet, name, row, seen) for name, row in (sheet.file.rows or {}).items()]


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
        absent=row.absent or (used.absent if used else None),
        paper_row=row.paper_row or (used.paper_row if used else None),
        published=row.published or (used.published if used else None),
        predictions=row.predictions or (used.predictions if used else None),
        scheme=row.scheme or (used.scheme if used else None),
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
        raise sheet.problem(
            key, f"rows.{name}.use: {path} has no row {wanted!r}{config.nearest(wanted, rows)}"
        )
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
    _check_figures(sheet, row.paper, *key, "paper")
    for source, figures in (row.published or {}).items():
        _check_figures(sheet, figures, *key, "published", source)
    if row.absent and (row.set or row.use):
        other = "set" if row.set else "use"
        raise sheet.problem((*key, other), f"rows.{name}.{other}: an absent row is not trained; remove one")
    _check_predictions(sheet, name, row)
    _check_changes(sheet, row.set, *key, "set")


def _check_predictions(sheet: Sheet, name: str, row: RowFile) -> None:
    key = ("rows", name)
    if row.scheme is not None:
        try:
            schemes.named(row.scheme)
        except UserError as error:
            raise sheet.problem((*key, "scheme"), f"rows.{name}.scheme: {error}") from None
        if row.predictions is None:
            raise sheet.problem((*key, "scheme"), f"rows.{name}.scheme: is for predictions; remove it")
    other = next((other for other in ("set", "use", "absent") if getattr(row, other)), None)
    if row.predictions is not None and other:
        raise sheet.problem((*key, other), f"rows.{name}.{other}: predictions are only scored; remove one")


def _check_figures(sheet: Sheet, figures: Mapping[str, float] | None, *key: str) -> None:
    if figures is not None and set(figures) != set(REGIONS):
        given = ", ".join(figures) or "none"
        where = ".".join(key)
        raise sheet.problem(key, f"{where}: give {', '.join(REGIONS)}, no others (given: {given})")


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
