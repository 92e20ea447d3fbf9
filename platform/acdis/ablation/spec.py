"""An ablation as a file: rows that each say what they change, seeds, a baseline. Validated, with lines."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from acdis import cells, config, methods
from acdis.ablation import grid, spec_file
from acdis.ablation.spec_file import Line, Sheet
from acdis.config import Draft, Experiment, InvalidError, Key
from acdis.errors import UserError

_OPTION = "method.options."
_CELL = re.compile(r"[a-z0-9_]+-[0-9a-f]{12}")  # how cells are called, see `cells.cell_name`
_NAME = re.compile(r"[\w(][\w .+()-]*")


@dataclass(frozen=True)
class Row:
    """One row of a table.

    Attributes:
        changes: {dotted config key: value}, all that differs from the base experiment.
        paper: published figures by region, per cent.
        note: to be shown wherever the row is shown.
        absent: why it cannot be trained; none: it can.
        paper_row: method of the paper's Table 1 whose figures per subset stand beside it.
        published: other sources' means, per cent: {source: {region: value}}.
        predictions: folder of another tool's segmentations; none: the row is trained.
        scheme: what their labels mean; none: as in the data set.
    """

    id: str
    label: str
    changes: Mapping[str, Any]
    paper: Mapping[str, float] | None
    note: str | None
    absent: str | None = None
    paper_row: str | None = None
    published: Mapping[str, Mapping[str, float]] | None = None
    predictions: str | None = None
    scheme: str | None = None

    def __hash__(self) -> int:
        return hash(self.id)


@dataclass(frozen=True)
class Question:
    """Whether two rows differ in these regions: what is tested, and nothing else."""

    row: str
    against: str
    regions: tuple[str, ...]


@dataclass(frozen=True)
class Spec:
    """One spec file with everything that it extends and uses.

    Attributes:
        name: the file's name without its ending.
        table: short name for tags.
        base: experiment file; `overrides` come on top of it, a row's changes on top of these.
        excluded: how many combinations of a grid each rule has left out.
        source: where the rows' published figures come from; may be empty.
        family: comparisons that are declared; none: every row with the baseline in every region.
        margin: points within which rows count as equal.
        absent: rows that are shown, and not trained.
        others: rows that were not chosen; those that are parents of chosen ones are needed to name these.
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
    family: tuple[Question, ...] | None = None
    margin: float = 1.0
    absent: tuple[Row, ...] = ()
    others: tuple[Row, ...] = ()

    def __hash__(self) -> int:
        return hash((self.path, self.seeds, self.rows))


def load(path: Path, experiment: Path | None = None, overrides: Sequence[str] = ()) -> Spec:
    """Read a spec file, and check that every row makes a valid experiment and differs from every other.

    Args:
        experiment: takes the place of the spec's `base`.
        overrides: `key.path=value` on top of the base experiment.

    Raises:
        UserError: one line with file and line: what `spec_file.read` refuses, an unknown key or wrong value
            in a `set`, an option without effect, no or an unknown baseline, two rows of equal meaning.
    """
    check_name(path)
    page = spec_file.read(path)
    lines = spec_file.lines(page)
    base = experiment or _base(page)
    draft = config.draft(base, overrides)
    draft.parse()  # what is wrong with the base is said as such, not as a row's
    _check_overrides(overrides, lines, path)
    absent = spec_file.absent(page)
    reasons = {line.id: line.absent or "" for line in absent}
    trained = [line for line in lines if line.predictions is None]
    if not trained:
        raise page.problem(("rows",), "rows: all are predictions; give at least one that is trained")
    _check_idle(page, overrides, _check_rows(draft, trained, reasons))
    file, baseline = page.file, _baseline(page, lines)
    family = _family(page, lines, baseline)
    for name in dict.fromkeys(
        (baseline, *(row for question in family or () for row in (question.row, question.against)))
    ):
        _check_scored(draft, next(line for line in lines if line.id == name), name == baseline)
    return Spec(
        name=path.stem,
        path=path,
        title=file.title or path.stem,
        table=file.table or path.stem,
        base=base,
        overrides=tuple(overrides),
        seeds=file.seeds,
        baseline=baseline,
        rows=tuple(map(_row, lines)),
        excluded=spec_file.combinations(page).excluded,
        source=file.paper,
        family=family,
        margin=file.margin,
        absent=tuple(map(_row, absent)),
    )


def _row(line: Line) -> Row:
    return Row(
        line.id,
        line.label,
        line.changes,
        line.paper,
        line.note,
        line.absent,
        line.paper_row,
        line.published,
        line.predictions,
        line.scheme,
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
    reasons = {row.id: row.absent for row in spec.absent}
    for name in rows or ():
        if name in reasons:
            raise UserError(f"{spec.path}: row {name!r} is absent: {reasons[name]}")
        if name not in names:
            raise UserError(f"{spec.path}: no row {name!r}{config.nearest(name, names)}")
    chosen = spec.rows if rows is None else tuple(row for row in spec.rows if row.id in rows)
    kept = {row.id for row in chosen}
    family = spec.family
    if family is not None:
        family = tuple(question for question in family if {question.row, question.against} <= kept)
    others = tuple(row for row in (*spec.rows, *spec.others) if row not in chosen)
    asked = spec.seeds if seeds is None else _seeds(seeds)
    return replace(spec, rows=chosen, others=others, seeds=asked, family=family)


def experiment_of(draft: Draft, row: Row | Line) -> Experiment:
    """The experiment of a row, its options written out; options of the base that it disables are dropped.

    Raises:
        InvalidError, UserError: the row does not make a valid experiment.
    """
    changed = draft.above(row.changes, {}, row.id)
    if row.predictions is not None:
        return cells.as_external(changed.parse())
    return methods.resolve(methods.with_recipe(changed).parse(), ())


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
    if page.file.baseline is None:
        raise page.problem(("baseline",), "baseline: not given; name the row that others are compared with")
    return _row_meant(page, lines, page.file.baseline, ("baseline",))


def _family(page: Sheet, lines: Sequence[Line], baseline: str) -> tuple[Question, ...] | None:
    """What `compare` declares: two different rows each, and nothing is asked twice."""
    if page.file.compare is None:
        return None
    family: list[Question] = []
    asked: set[tuple[frozenset[str], str]] = set()
    for place, comparison in enumerate(page.file.compare):
        row = _row_meant(page, lines, comparison.row, ("compare", place, "row"))
        against = baseline
        if comparison.against is not None:
            against = _row_meant(page, lines, comparison.against, ("compare", place, "with"))
        if row == against:
            raise page.problem(("compare", place), f"compare.{place}: {row!r} is compared with itself")
        for region in comparison.regions:
            if (frozenset((row, against)), region) in asked:
                raise page.problem(
                    ("compare", place),
                    f"compare.{place}: {row!r} with {against!r} in {region} is asked twice",
                )
            asked.add((frozenset((row, against)), region))
        family.append(Question(row, against, comparison.regions))
    return tuple(family)


def _row_meant(page: Sheet, lines: Sequence[Line], wanted: Any, key: Key) -> str:
    """The row of this name, or the one that has these values."""
    phrase, names = ".".join(map(str, key)), [line.id for line in lines]
    if not isinstance(wanted, Mapping):
        reasons = {line.id: line.absent for line in spec_file.absent(page)}
        if isinstance(wanted, str) and wanted in reasons:
            raise page.problem(key, f"{phrase}: row {wanted!r} is absent: {reasons[wanted]}")
        if wanted not in names:
            raise page.problem(key, f"{phrase}: no row {wanted!r}{config.nearest(str(wanted), names)}")
        return str(wanted)
    matching = [line.id for line in lines if grid.matches(line.changes, wanted)]
    if len(matching) != 1:
        many = f"{len(matching)} rows have these values" if matching else "no row has these values"
        raise page.problem(key, f"{phrase}: {many}; give values that exactly one has")
    return matching[0]


def _check_scored(draft: Draft, line: Line, is_baseline: bool) -> None:
    changed = draft.above(line.changes, line.places, line.place)
    if not changed.parse().scored:
        who = "the baseline" if is_baseline else "a row of compare,"
        raise changed.located(InvalidError([(("scored",), f"scored: {who} {line.id!r} must be scored")]))


def _check_overrides(overrides: Sequence[str], lines: Sequence[Line], path: Path) -> None:
    """An override that no row would be trained with has no effect."""
    for override in overrides:
        key = override.partition("=")[0].strip()
        if key == "seed":
            raise UserError(f"override '{override}': seeds come from {path}; replace them with --seeds")
        if all(key in line.changes for line in lines):
            raise UserError(f"override '{override}': has no effect, every row of {path} sets {key}")


def _check_parents(line: Line, experiment: Experiment, absent: Mapping[str, str], rows: list[str]) -> None:
    for role, parent in experiment.method.parents.items():
        if parent in rows or _CELL.fullmatch(parent):
            continue
        problem = f"row {parent!r} is absent: {absent[parent]}" if parent in absent else f"no row {parent!r}"
        where = line.places.get(f"method.parents.{role}", line.place)
        hint = "" if parent in absent else config.nearest(parent, rows)
        raise UserError(f"{where}: method.parents.{role}: {problem}{hint} (row {line.id!r})")


def _check_rows(draft: Draft, lines: Sequence[Line], absent: Mapping[str, str]) -> dict[str, str]:
    """Refuse rows that make no experiment or mean the same; returns options without effect in every row."""
    meanings: dict[str, Line] = {}
    idle: dict[str, str] | None = None
    for line in lines:
        experiment, reasons = _experiment(draft, line)
        _check_parents(line, experiment, absent, [other.id for other in lines])
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
