"""What a report is made of besides scores: plain values, the same from a home as from a bundle."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

from pydantic import FailFast, TypeAdapter, ValidationError

from acdis import files
from acdis.ablation.spec import Question
from acdis.errors import UserError
from acdis.evaluation.scores import Scores
from acdis.vocabulary import REGIONS

#: Most bytes of what `dump` gives: JSON takes some twenty times its size.
LARGEST = 2**24
#: Must head every report that is made on phantoms.
PHANTOM_WARNING = (
    "These are phantoms at demo scale: the figures show that everything works. They say NOTHING about "
    "patients, nor about the scores in the paper."
)


@dataclass(frozen=True)
class CellFacts:
    """One row with one seed.

    Attributes:
        standing: `scored`, or in words why there are no scores.
        hours: what its training cost, by `cpu` or `gpu`, whether it came to its end or not.
        code: commit that it was trained with, and whether the tree was changed.
        capacity: see `Cell.capacity`; empty where it is not known.
    """

    seed: int
    cell: str
    evaluation: str
    scored: bool
    standing: str
    hours: dict[str, float]
    code: str
    capacity: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class RowFacts:
    """A row of a spec; `paper` in per cent by region, `published` too, by source. See `spec.Row`."""

    id: str
    label: str
    note: str | None
    paper: dict[str, float] | None
    changes: dict[str, Any]
    cells: Annotated[tuple[CellFacts, ...], FailFast()]
    paper_row: str | None = None
    published: dict[str, dict[str, float]] | None = None


@dataclass(frozen=True)
class AbsentFacts:
    """A row that is shown and not trained, and why."""

    id: str
    label: str
    reason: str
    note: str | None
    paper: dict[str, float] | None
    paper_row: str | None
    published: dict[str, dict[str, float]] | None


@dataclass(frozen=True)
class SpecFacts:
    """A spec.

    Attributes:
        source: where the paper's figures come from.
        excluded: combinations of a grid by the rule that leaves them out.
        family, margin: as the spec declares them; no family: every row with the baseline.
        absent: rows that it names and that are not trained.
        post_processing: what was done to the labels before they were scored, row by row where they differ.
        unscored: rows that are trained for the others, such as teachers, and parts of a row (`row:part`).
    """

    name: str
    title: str
    table: str
    baseline: str
    source: str
    overrides: tuple[str, ...]
    excluded: dict[str, int]
    phantoms: bool
    et_minimum: float
    rows: Annotated[tuple[RowFacts, ...], FailFast()]
    family: Annotated[tuple[Question, ...] | None, FailFast()] = None
    margin: float = 1.0
    absent: Annotated[tuple[AbsentFacts, ...], FailFast()] = ()
    post_processing: str = ""
    unscored: Annotated[tuple[RowFacts, ...], FailFast()] = ()


#: Scores of a cell's evaluation, by both names.
Reader = Callable[[str, str], Scores]
_SPECS = TypeAdapter(Annotated[list[SpecFacts], FailFast()])  # a line for the first fault, not for each


def dump(specs: Sequence[SpecFacts]) -> bytes:
    """JSON that `parse` takes back without loss."""
    return _SPECS.dump_json(list(specs), indent=1)


#: What to do about facts that are not as they should be.
_MAKE_AGAIN = "the bundle is damaged or of another version, make it again"


def parse(content: bytes, source: str, todo: str = _MAKE_AGAIN) -> list[SpecFacts]:
    """What `dump` wrote.

    Raises:
        UserError: it is not, or more than any report has; `source` names it, `todo` says what to do.
    """
    try:
        files.check_values(content)
        specs = _SPECS.validate_json(content)
    except files.TooLargeError as error:
        raise UserError(f"{source}: {error}; {todo}") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise UserError(f"{source}: {where}: {first['msg']}; {todo}") from None
    for spec in specs:
        for problem in _problems(spec):
            raise UserError(f"{source}: {spec.name}: {problem}; {todo}")
    return specs


def _problems(spec: SpecFacts) -> Iterator[str]:
    """What no report can be made of, although every value is of the right type."""
    ids = [row.id for row in spec.rows]
    if not ids or len(set(ids)) < len(ids) or spec.baseline not in ids:
        yield "no rows, rows of one name, or no baseline among them"
    if not 0 <= spec.et_minimum < math.inf:
        yield "et_minimum is no volume"
    if not 0 < spec.margin < math.inf:
        yield "margin is no number of points"
    for question in spec.family or ():
        if not {question.row, question.against} <= set(ids) or question.row == question.against:
            yield "a comparison is not of two of its rows"
        if not question.regions or not set(question.regions) <= set(REGIONS):
            yield f"a comparison is in other regions than {', '.join(REGIONS)}"
    if not {row.id for row in spec.absent}.isdisjoint(ids):
        yield "a row is there and absent"
    for absent in spec.absent:
        yield from _figure_problems(absent)
    others = [row.id for row in spec.unscored]
    if len(set(others)) < len(others) or not set(others).isdisjoint(ids):
        yield "a row is there twice, scored or not"
    for row in (*spec.rows, *spec.unscored):
        seeds = [cell.seed for cell in row.cells]
        if len(set(seeds)) < len(seeds):
            yield f"{row.id}: a seed is there twice"
        yield from _figure_problems(row)
        for cell in row.cells:
            if not all(0 <= value < math.inf for value in cell.hours.values()) or cell.hours.keys() - {
                "cpu",
                "gpu",
            }:
                yield f"{row.id}: hours are none"
            if not all(0 <= value < math.inf for value in cell.capacity.values()):
                yield f"{row.id}: capacity is none"


def _figure_problems(row: RowFacts | AbsentFacts) -> Iterator[str]:
    for name, figures in {"paper": row.paper, **(row.published or {})}.items():
        if figures is not None and (
            set(figures) != set(REGIONS) or not all(map(math.isfinite, figures.values()))
        ):
            yield f"{row.id}: {name} has other regions than {', '.join(REGIONS)}"


@dataclass(frozen=True)
class RowScores:
    """A row with the scores that there are.

    Attributes:
        seeds: scores by seed.
        hours: of the cells that are scored, by `cpu` or `gpu`.
        missing: seeds without scores.
    """

    id: str
    label: str
    note: str | None
    paper: Mapping[str, float] | None
    seeds: Mapping[int, Scores]
    hours: Mapping[str, float]
    missing: tuple[int, ...]


def with_scores(row: RowFacts, read: Reader) -> RowScores:
    """Read the scores of a row's cells."""
    scored = [cell for cell in row.cells if cell.scored]
    hours: dict[str, float] = {}
    for cell in scored:
        for kind, spent in cell.hours.items():
            hours[kind] = hours.get(kind, 0.0) + spent
    return RowScores(
        row.id,
        row.label,
        row.note,
        row.paper,
        {cell.seed: read(cell.cell, cell.evaluation) for cell in scored},
        hours,
        tuple(cell.seed for cell in row.cells if not cell.scored),
    )
