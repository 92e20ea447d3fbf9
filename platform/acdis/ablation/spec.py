"""An ablation as a file: rows that each say what they change, seeds, a baseline. Validated, with lines."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from acdis import config, methods
from acdis.ablation import cells, grid, sheet
from acdis.ablation.sheet import Line, Sheet, nearest
from acdis.config import Draft, Experiment, InvalidError
from acdis.errors import UserError

_OPTION = "method.options."
_NAME = re.compile(r"[\w(][\w .+()-]*")


@dataclass(frozen=True)
class Row:
    """One row of a table.

    Attributes:
        changes: {dotted config key: value}, all that differs from the base experiment.
        paper: published figures by region, per cent.
        note: to be shown wherever the row is shown.
    """

    id: str
    label: str
    changes: Mapping[str, Any]
    paper: Mapping[str, float] | None
    note: str | None

    def __hash__(self) -> int:
        return hash(self.id)


@dataclass(frozen=True)
class Spec:
    """One spec file with everything that it extends and uses.

    Attributes:
        name: the file's name without its ending.
        table: short name for tags.
        base: experiment file; `overrides` come on top of it, a row's changes on top of these.
        excluded: how many combinations of a grid each rule has left out.
        source: where the rows' published figures come from; may be empty.
    """

    name: str
    path: Path
    title: str
    table: str
    base: Path
    overrides: tuple[str, ...]
    seeds: tuple[int, ...]
    baseline: str
    rows: tuple[Row, ...]
    excluded: Mapping[str, int]
    source: str

    def __hash__(self) -> int:
        return hash((self.path, self.seeds, self.rows))


def load(path: Path, experiment: Path | None = None, overrides: Sequence[str] = ()) -> Spec:
    """Read a spec file, and check that every row makes a valid experiment and differs from every other.

    Args:
        experiment: takes the place of the spec's `base`.
        overrides: `key.path=value` on top of the base experiment.

    Raises:
        UserError: one line with file and line: what `sheet.read` refuses, an unknown key or wrong value in a
            `set`, an option without effect, no or an unknown baseline, two rows of equal meaning.
    """
    check_name(path)
    page = sheet.read(path)
    lines = sheet.lines(page)
    base = experiment or _base(page)
    draft = config.draft(base, overrides)
    draft.parse()  # what is wrong with the base is said as such, not as a row's
    _check_overrides(overrides, lines, path)
    _check_idle(page, overrides, _check_rows(draft, lines))
    file, baseline = page.file, _baseline(page, lines)
    _check_scored(draft, next(line for line in lines if line.id == baseline))
    return Spec(
        name=path.stem,
        path=path,
        title=file.title or path.stem,
        table=file.table or path.stem,
        base=base,
        overrides=tuple(overrides),
        seeds=file.seeds,
        baseline=baseline,
        rows=tuple(Row(line.id, line.label, line.changes, line.paper, line.note) for line in lines),
        excluded=sheet.combinations(page).excluded,
        source=file.paper,
    )


def check_name(path: Path) -> None:
    """A spec's or a search's name is a folder's name, and stands in tags and in queries.

    Raises:
        UserError: it cannot be one.
    """
    if not _NAME.fullmatch(path.stem):
        raise UserError(
            f"{path}: cannot name a spec; call the file by letters, digits, spaces and . _ + - ( )"
        )


def select(spec: Spec, rows: Sequence[str] | None, seeds: Sequence[int] | None) -> Spec:
    """Only these rows, in the spec's order, and these seeds in place of the spec's; none: all.

    Raises:
        UserError: a row that the spec does not have, or a seed that is none or is given twice.
    """
    names = [row.id for row in spec.rows]
    for name in rows or ():
        if name not in names:
            raise UserError(f"{spec.path}: no row {name!r}{nearest(name, names)}")
    chosen = spec.rows if rows is None else tuple(row for row in spec.rows if row.id in rows)
    return replace(spec, rows=chosen, seeds=spec.seeds if seeds is None else _seeds(seeds))


def experiment_of(draft: Draft, row: Row | Line, own: Collection[str] = ()) -> Experiment:
    """The experiment of a row, its options written out; options of the base that it disables are dropped.

    Args:
        own: dotted keys that must have an effect.

    Raises:
        InvalidError, UserError: the row does not make a valid experiment.
    """
    given = [key.removeprefix(_OPTION) for key in own if key.startswith(_OPTION)]
    return methods.resolve(methods.with_recipe(draft.above(row.changes, {}, row.id)).parse(), given)


def _seeds(seeds: Sequence[int]) -> tuple[int, ...]:
    for place, seed in enumerate(seeds):
        if seed in seeds[:place]:
            raise UserError(f"--seeds: {seed} is listed twice")
        if not 0 <= seed < 2**31:
            raise UserError(f"--seeds: {seed} is no seed; give 0 to {2**31 - 1}")
    return tuple(seeds)


def _base(page: Sheet) -> Path:
    if page.file.base is None:
        raise page.problem(("base",), "base: not given; name an experiment file, or give --experiment FILE")
    return Path(page.file.base)


def _baseline(page: Sheet, lines: Sequence[Line]) -> str:
    wanted = page.file.baseline
    names = [line.id for line in lines]
    if wanted is None:
        raise page.problem(("baseline",), "baseline: not given; name the row that others are compared with")
    if not isinstance(wanted, Mapping):
        if wanted not in names:
            raise page.problem(("baseline",), f"baseline: no row {wanted!r}{nearest(str(wanted), names)}")
        return str(wanted)
    found = [line.id for line in lines if grid.matches(line.changes, wanted)]
    if len(found) != 1:
        many = f"{len(found)} rows have these values" if found else "no row has these values"
        raise page.problem(("baseline",), f"baseline: {many}; give values that exactly one has")
    return found[0]


def _check_scored(draft: Draft, baseline: Line) -> None:
    changed = draft.above(baseline.changes, baseline.places, baseline.place)
    if not changed.parse().scored:
        raise changed.located(
            InvalidError([(("scored",), f"scored: the baseline {baseline.id!r} must be scored")])
        )


def _check_overrides(overrides: Sequence[str], lines: Sequence[Line], path: Path) -> None:
    """An override that no row would be trained with has no effect."""
    for override in overrides:
        key = override.partition("=")[0].strip()
        if key == "seed":
            raise UserError(f"override '{override}': seeds come from {path}; replace them with --seeds")
        if all(key in line.changes for line in lines):
            raise UserError(f"override '{override}': has no effect, every row of {path} sets {key}")


def _check_rows(draft: Draft, lines: Sequence[Line]) -> dict[str, str]:
    """Refuse rows that make no experiment or mean the same; returns options without effect in every row."""
    meanings: dict[str, Line] = {}
    idle: dict[str, str] | None = None
    for line in lines:
        experiment, reasons = _experiment(draft, line)
        twin = meanings.setdefault(_meaning(experiment), line)
        if twin is not line:
            raise UserError(
                f"{line.place}: rows {twin.id!r} and {line.id!r} mean the same: nothing that changes the "
                f"weights tells them apart; remove one ({twin.id!r}: {twin.place})"
            )
        idle = reasons if idle is None else {key: why for key, why in idle.items() if key in reasons}
    return idle or {}


def _check_idle(page: Sheet, overrides: Sequence[str], idle: Mapping[str, str]) -> None:
    """What is set for every row must have an effect in at least one."""
    for key in page.file.set:
        reason = idle.get(key.removeprefix(_OPTION)) if key.startswith(_OPTION) else None
        if reason:
            raise page.problem(("set", key), f"set: {key} has no effect in any row ({reason}): remove it")
    for override in overrides:
        key = override.partition("=")[0].strip()
        reason = idle.get(key.removeprefix(_OPTION)) if key.startswith(_OPTION) else None
        if reason:
            raise UserError(f"override '{override}': has no effect in any row ({reason}): leave it out")


def _experiment(draft: Draft, line: Line) -> tuple[Experiment, dict[str, str]]:
    """A row's experiment, and its options without effect. Errors name the row, and the line of the key."""
    changed = methods.with_recipe(draft.above(line.changes, line.places, line.place))
    try:
        experiment = changed.parse()
        given = [key.removeprefix(_OPTION) for key in line.own if key.startswith(_OPTION)]
        options = methods.validate(experiment.method.name, experiment.method.options, given)
        return methods.resolve(experiment, given), options.without_effect()
    except InvalidError as error:
        raise UserError(f"{changed.located(error)} (row {line.id!r})") from None
    except UserError as error:
        raise UserError(f"{error} (row {line.id!r})") from None


def _meaning(experiment: Experiment) -> str:
    """Equal for rows that would train the same cell, as far as can be told without reading the data."""
    training = experiment.training
    precision = (training.precision, training.precision == "auto" and experiment.scaling.gpu)
    known = cells.identity(experiment, "", methods.version(experiment.method.name))
    return cells.digest([known, precision, experiment.data.model_dump(mode="json")])
