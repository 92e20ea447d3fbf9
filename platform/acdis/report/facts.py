"""What a report is made of besides scores: plain values, the same from a home as from a bundle."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import FailFast, TypeAdapter, ValidationError

from acdis.errors import UserError
from acdis.evaluation.scores import Scores
from acdis.vocabulary import REGIONS

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
        hours: what its training cost, by `cpu` or `gpu`.
        code: commit that it was trained with, and whether the tree was changed.
    """

    seed: int
    cell: str
    evaluation: str
    scored: bool
    standing: str
    hours: dict[str, float]
    code: str


@dataclass(frozen=True)
class RowFacts:
    """A row of a spec; `paper` in per cent by region."""

    id: str
    label: str
    note: str | None
    paper: dict[str, float] | None
    changes: dict[str, Any]
    cells: Annotated[tuple[CellFacts, ...], FailFast()]


@dataclass(frozen=True)
class SpecFacts:
    """A spec; `source` says where the paper's figures come from, `excluded` counts combinations by rule."""

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


#: Scores of a cell's evaluation, by both names.
Reader = Callable[[str, str], Scores]
_SPECS = TypeAdapter(Annotated[list[SpecFacts], FailFast()])  # a line for the first fault, not for each


def dump(specs: Sequence[SpecFacts]) -> bytes:
    """JSON that `parse` takes back without loss."""
    return _SPECS.dump_json(list(specs), indent=1)


def parse(content: bytes, source: str) -> list[SpecFacts]:
    """Raises: UserError: not what `dump` wrote; `source` names it."""
    try:
        specs = _SPECS.validate_json(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise _damaged(source, f"{where}: {first['msg']}") from None
    for spec in specs:
        for problem in _problems(spec):
            raise _damaged(source, f"{spec.name}: {problem}")
    return specs


def _damaged(source: str, why: str) -> UserError:
    return UserError(f"{source}: {why}; the bundle is damaged or of another version, make it again")


def _problems(spec: SpecFacts) -> Iterator[str]:
    """What no report can be made of, although every value is of the right type."""
    ids = [row.id for row in spec.rows]
    if not ids or len(set(ids)) < len(ids) or spec.baseline not in ids:
        yield "no rows, rows of one name, or no baseline among them"
    if not 0 <= spec.et_minimum < math.inf:
        yield "et_minimum is no volume"
    for row in spec.rows:
        seeds = [cell.seed for cell in row.cells]
        if len(set(seeds)) < len(seeds):
            yield f"{row.id}: a seed is there twice"
        if row.paper is not None and (
            set(row.paper) != set(REGIONS) or not all(map(math.isfinite, row.paper.values()))
        ):
            yield f"{row.id}: paper has other regions than {', '.join(REGIONS)}"
        for cell in row.cells:
            if not all(0 <= value < math.inf for value in cell.hours.values()) or cell.hours.keys() - {
                "cpu",
                "gpu",
            }:
                yield f"{row.id}: hours are none"


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
