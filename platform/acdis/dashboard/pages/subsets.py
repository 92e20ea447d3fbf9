"""Subsets: the 15 × 3 figures of a row, against another row or the paper, and what modalities bring."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from fastapi import APIRouter, Request, Response

from acdis.dashboard import views
from acdis.dashboard.results import Result
from acdis.report import floors, phrases
from acdis.report.comparison import Figures
from acdis.report.floors import Levels
from acdis.report.modality_gains import gains
from acdis.report.paper.published import SOURCE, table1
from acdis.vocabulary import MODALITIES, REGIONS, SUBSETS, subset_name

router = APIRouter()
#: What `against` begins with where it means a method of the paper's Table 1.
PAPER = "paper:"
#: And where it means what scores are held against.
FLOORS = {"floor:brain": floors.BRAIN, "floor:rule": floors.RULE}
METRICS = {"dice": "Dice, %", "hd95": "HD95, mm"}


@dataclass(frozen=True)
class Side:
    """Figures of one side: [15, 3], named, how they stand; of distances how many are penalties, by what
    conventions."""

    name: str
    values: np.ndarray
    about: str
    penalties: str = ""
    conventions: tuple[str, ...] = ()


@router.get("/subsets")
def subsets(
    request: Request, spec: str = "", row: str = "", against: str = "", metric: str = "dice"
) -> Response:
    """The page."""
    if not spec:
        return views.choose(request, "Subsets", "/subsets")
    result = views.results(request).soon(spec)
    facts, rows, comparison = result.compared
    figures = comparison.figures
    metric = metric if metric in METRICS else "dice"
    names = [row_facts.id for row_facts in facts.rows if row_facts.id in figures]
    chosen = row if row in names else (names[-1] if names else "")
    one = _of_row(result, chosen, metric) if chosen else None
    held = (
        next((floors.of_row(row_scores) for row_scores in rows if row_scores.id == chosen), None)
        if metric == "dice"
        else None
    )
    other = _floor(held, against) if against in FLOORS else _other(result, against, metric)
    of_row = [row_scores for row_scores in rows if row_scores.id == chosen] if held else []
    return views.of_spec(
        request,
        "subsets",
        facts,
        below=floors.first_lines(of_row),
        on_floors=floors.notes_on(of_row),
        names=names,
        labels={row_facts.id: row_facts.label for row_facts in facts.rows},
        notes={row_facts.id: row_facts.note for row_facts in facts.rows},
        methods=list(table1()),
        paper=PAPER,
        floors=FLOORS if held else {},
        beside=held.beside() if held and not other else [],
        brain=held.brain.tolist() if held else [],
        metric=metric,
        metrics=METRICS,
        row=chosen,
        unknown=row if row != chosen else "",
        against=against if other else "",
        one=one,
        other=other,
        table=_table(one, other) if one else [],
        charts=_charts(one, other, metric) if one else None,
        regions=REGIONS,
        modalities=MODALITIES,
        hd95=_rule(one, other) if metric == "hd95" else "",
    )


def _of_row(result: Result, row: str, metric: str) -> Side | None:
    facts, _, comparison = result.compared
    figures = comparison.figures.get(row)
    if figures is None or (metric == "hd95" and figures.hd95 is None):
        return None
    label = next(row_facts.label for row_facts in facts.rows if row_facts.id == row)
    values = figures.subsets if metric == "dice" else figures.hd95
    assert values is not None
    if metric == "dice":
        return Side(label, values, _about(figures))
    penalties = phrases.penalties(figures.penalties, figures.scores)
    return Side(label, values, _about(figures), penalties, figures.hd95_conventions)


def _rule(*sides: Side | None) -> str:
    conventions = [name for side in sides if side for name in side.conventions]
    return phrases.hd95_rule(conventions) if conventions else ""


def _about(figures: Figures) -> str:
    seeds = "1 seed: no spread" if figures.seeds == 1 else f"mean of {figures.seeds} seeds"
    low, high = figures.cases
    cases = "" if not high else f", {low} cases" if low == high else f", {low} to {high} cases"
    return seeds + cases


def _other(result: Result, against: str, metric: str) -> Side | None:
    if against.startswith(PAPER):
        values = table1().get(against.removeprefix(PAPER))
        known = values is not None and metric == "dice"
        return Side(f"{against.removeprefix(PAPER)} in the paper", values, SOURCE) if known else None  # type: ignore[arg-type]
    return _of_row(result, against, metric) if against else None


def _floor(held: Levels | None, against: str) -> Side | None:
    if held is None:
        return None
    values = np.tile(held.brain, (len(SUBSETS), 1)) if against == "floor:brain" else held.rule
    return None if values is None else Side(FLOORS[against], values, f"{held.cases} cases")


def _shown(one: Side, other: Side | None) -> np.ndarray:
    return one.values if other is None else one.values - other.values


def _table(one: Side, other: Side | None) -> list[dict[str, Any]]:
    """The same figures as text, the mean over the 15 last."""
    values = _shown(one, other)
    lines = [
        {"name": subset_name(subset), "marks": phrases.marks(subset), "values": values[place].tolist()}
        for place, subset in enumerate(SUBSETS)
    ]
    return [
        *lines,
        {"name": "mean", "marks": ["mean", "of", "15", ""], "values": values.mean(axis=0).tolist()},
    ]


def _charts(one: Side, other: Side | None, metric: str) -> dict[str, Any]:
    values = _shown(one, other)
    added = [gains(one.values)] + ([gains(other.values)] if other else [])
    return {
        "subsets": [" ".join(phrases.marks(subset)) for subset in SUBSETS],
        "names": [" + ".join(subset) for subset in SUBSETS],
        "regions": REGIONS,
        "modalities": MODALITIES,
        "values": values,
        "difference": other is not None,
        "metric": METRICS[metric],
        "better_is": "more" if metric == "dice" else "less",
        "sides": [views.short(side.name, 60) for side in (one, other) if side],
        "gains": added,
    }
