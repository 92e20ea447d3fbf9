"""The field's table: methods × 15 subsets × 3 regions, best and second marked, as papers of it print it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from acdis.errors import UserError
from acdis.report import costs, floors, other_sources
from acdis.report.comparison import compare
from acdis.report.costs import Cost
from acdis.report.facts import PHANTOM_WARNING, AbsentFacts, RowFacts, RowScores, SpecFacts
from acdis.report.other_sources import Published
from acdis.report.paper.published import SOURCE, table1
from acdis.vocabulary import REGIONS, SUBSETS

#: What stands behind a row's mean, by the verdict against the chosen row.
MARKS = {"better": "↑", "worse": "↓", "equal": "=", "undecided": "?"}


@dataclass(frozen=True)
class Line:
    """A row, or a floor below the rows, in one region.

    Attributes:
        values: [16] Dice in per cent for each subset and their mean; none where the row has no scores.
        ranks: [16] `BEST`, `SECOND` or 0, among the rows of its block, as printed with two decimals.
        mark: of `MARKS`, or empty.
    """

    id: str
    label: str
    values: np.ndarray | None
    ranks: tuple[int, ...]
    mark: str = ""


@dataclass(frozen=True)
class Block:
    """One table: lines by region, and what it is."""

    name: str
    caption: str
    lines: Mapping[str, Sequence[Line]]


@dataclass(frozen=True)
class SubsetsTable:
    """All that is known of one spec's rows, subset by subset.

    Attributes:
        first: to stand before everything, the title too: which rows lie below the whole brain.
        warnings: to stand before the table.
        blocks: our scores, then the paper's figures where a row names some.
        costs: by row, see `costs.of_rows`.
        published: means by row and source, the paper's own first.
        notes: on rows, absent ones among them, and on floors.
    """

    spec: str
    title: str
    first: tuple[str, ...]
    warnings: tuple[str, ...]
    blocks: tuple[Block, ...]
    costs: Mapping[str, Cost]
    published: tuple[Published, ...]
    notes: tuple[str, ...]


def table_of(spec: SpecFacts, rows: Sequence[RowScores], against: str | None = None) -> SubsetsTable:
    """The table of a spec.

    Args:
        rows: the spec's, with their scores.
        against: the row that verdicts are against; none: the spec's baseline.

    Raises:
        UserError: there is no such row, or a row names one that the paper's Table 1 does not have.
    """
    chosen = against or spec.baseline
    if chosen not in {row.id for row in spec.rows}:
        raise UserError(f"--against: {spec.name} has no row {chosen!r} among those that are reported")
    named: list[RowFacts | AbsentFacts] = [*spec.rows, *spec.absent]
    printed = _printed(spec, named)
    return SubsetsTable(
        spec.name,
        spec.title,
        tuple(floors.first_lines(rows)),
        (PHANTOM_WARNING,) if spec.phantoms else (),
        (_ours(spec, rows, chosen), *([printed] if printed else [])),
        costs.of_rows(spec.rows, rows),
        tuple(other_sources.of_rows(named)),
        (*_notes(spec), *floors.notes_on(rows)),
    )


def ranks(columns: np.ndarray) -> np.ndarray:
    """[R, 16] per cent, NaN where there is none, to `BEST`, `SECOND` or 0; what prints alike ranks alike."""
    shown = np.array([[float(f"{value:.2f}") for value in row] for row in columns]).reshape(columns.shape)
    ranked = np.zeros(columns.shape, dtype=int)
    for column in range(columns.shape[1]):
        there = np.unique(shown[:, column][~np.isnan(shown[:, column])])
        for rank, value in enumerate(there[::-1][:2], 1):
            ranked[shown[:, column] == value, column] = rank
    return ranked


def _ours(spec: SpecFacts, rows: Sequence[RowScores], chosen: str) -> Block:
    family = spec.family if chosen == spec.baseline else None
    result = compare(rows, chosen, family, spec.margin)
    verdicts = {
        (difference.row, difference.region): MARKS.get(difference.verdict, "")
        for difference in result.differences
        if difference.against == chosen
    }
    values = {
        row.id: None
        if row.id not in result.figures
        else np.vstack([result.figures[row.id].subsets, result.figures[row.id].mean])
        for row in rows
    }
    seeds = sorted({seed for row in rows for seed in row.seeds})
    label = next(row.label for row in rows if row.id == chosen)
    caption = (
        f"{spec.title}: Dice in per cent, mean over test cases and {len(seeds)} "
        f"seed{'s' * (len(seeds) != 1)}. Best bold, second underlined. "
        f"Behind the mean, against {label}: ↑ better, ↓ worse, = equal, ? undecided."
    )
    labels = {row.id: row.label for row in rows}
    lines, below = _by_region(labels, values, verdicts), floors.by_subset(rows)
    return Block(
        "ours",
        caption,
        {
            region: (*lines[region], *(_of_floor(*floor, place) for floor in below))
            for place, region in enumerate(REGIONS)
        },
    )


def _of_floor(key: str, label: str, values: np.ndarray, place: int) -> Line:
    """A floor below the rows: no method, so that it is never the best of them."""
    return Line(key, label, values[:, place], (0,) * len(values))


def _printed(spec: SpecFacts, rows: Sequence[RowFacts | AbsentFacts]) -> Block | None:
    theirs = {row.id: _of_paper(spec, row) for row in rows if row.paper_row}
    if not theirs:
        return None
    means = {row.id: [math.nan if row.paper is None else row.paper[r] for r in REGIONS] for row in rows}
    values = {
        name: np.vstack([subsets, np.where(np.isnan(means[name]), subsets.mean(axis=0), means[name])])
        for name, subsets in theirs.items()
    }
    caption = f"As printed: {SOURCE}, per cent. Best bold, second underlined."
    return Block("paper", caption, _by_region({row.id: row.label for row in rows}, values, {}))


def _of_paper(spec: SpecFacts, row: RowFacts | AbsentFacts) -> np.ndarray:
    known, name = table1(), row.paper_row or ""
    if name not in known:
        there = ", ".join(known)
        raise UserError(
            f"{spec.name}: row {row.id!r}: paper_row: the paper's Table 1 has no {name!r}; there are {there}"
        )
    return known[name]


def _by_region(
    labels: Mapping[str, str],
    values: Mapping[str, np.ndarray | None],
    verdicts: Mapping[tuple[str, str], str],
) -> dict[str, tuple[Line, ...]]:
    """`values` [16, 3] by row."""
    empty = np.full((len(SUBSETS) + 1, len(REGIONS)), math.nan)
    stacked = np.stack([empty if dice is None else dice for dice in values.values()])
    lines: dict[str, tuple[Line, ...]] = {}
    for place, region in enumerate(REGIONS):
        order = ranks(stacked[:, :, place])
        lines[region] = tuple(
            Line(
                name,
                labels[name],
                None if dice is None else dice[:, place],
                tuple(order[number].tolist()),
                verdicts.get((name, region), ""),
            )
            for number, (name, dice) in enumerate(values.items())
        )
    return lines


def _notes(spec: SpecFacts) -> Iterator[str]:
    for row in spec.rows:
        lacking = [cell.seed for cell in row.cells if not cell.scored]
        if lacking:
            yield f"{row.label}: no scores of seed{'s' * (len(lacking) > 1)} {', '.join(map(str, lacking))}."
        if row.note:
            yield f"{row.label}: {row.note}"
    for absent in spec.absent:
        yield f"{absent.label} is absent: {absent.reason}." + (f" {absent.note}" if absent.note else "")
