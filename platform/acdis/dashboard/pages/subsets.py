"""Subsets: the 15 × 3 figures of a row, against another row or the paper, and what modalities bring."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from fastapi import APIRouter, Request, Response

from acdis.dashboard import views
from acdis.dashboard.results import Result
from acdis.report.comparison import Figures
from acdis.report.gains import gains
from acdis.report.paper.published import SOURCE, table1
from acdis.report.sections import PRESENT
from acdis.report.tables import ABSENT
from acdis.vocabulary import MODALITIES, REGIONS, SUBSETS, subset_name

router = APIRouter()
#: What `against` begins with where it means a method of the paper's Table 1.
PAPER = "paper:"
METRICS = {"dice": "Dice, %", "hd95": "HD95, mm"}


@dataclass(frozen=True)
class Side:
    """Figures of one side: [15, 3], named, and how they stand."""

    name: str
    values: np.ndarray
    about: str


@router.get("/subsets")
def subsets(
    request: Request, spec: str = "", row: str = "", against: str = "", metric: str = "dice"
) -> Response:
    """The page."""
    if not spec:
        return views.choose(request, "Subsets", "/subsets")
    site = views.site(request)
    result = site.results.soon(spec)
    facts, _, comparison = result.compared
    found = comparison.figures
    metric = metric if metric in METRICS else "dice"
    names = [each.id for each in facts.rows if each.id in found]
    chosen = row if row in names else (names[-1] if names else "")
    one = _of_row(result, chosen, metric) if chosen else None
    other = _other(result, against, metric)
    return views.of_spec(
        request,
        "subsets",
        facts,
        names=names,
        labels={each.id: each.label for each in facts.rows},
        notes={each.id: each.note for each in facts.rows},
        methods=list(table1()),
        paper=PAPER,
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
    )


def _of_row(result: Result, row: str, metric: str) -> Side | None:
    facts, _, comparison = result.compared
    found = comparison.figures.get(row)
    if found is None or (metric == "hd95" and found.hd95 is None):
        return None
    label = next(each.label for each in facts.rows if each.id == row)
    values = found.subsets if metric == "dice" else found.hd95
    assert values is not None
    return Side(label, values, _about(found))


def _about(found: Figures) -> str:
    seeds = "1 seed: no spread" if found.seeds == 1 else f"mean of {found.seeds} seeds"
    low, high = found.cases
    cases = "" if not high else f", {low} cases" if low == high else f", {low} to {high} cases"
    return seeds + cases


def _other(result: Result, against: str, metric: str) -> Side | None:
    if against.startswith(PAPER):
        values = table1().get(against.removeprefix(PAPER))
        known = values is not None and metric == "dice"
        return Side(f"{against.removeprefix(PAPER)} in the paper", values, SOURCE) if known else None  # type: ignore[arg-type]
    return _of_row(result, against, metric) if against else None


def _shown(one: Side, other: Side | None) -> np.ndarray:
    return one.values if other is None else one.values - other.values


def _table(one: Side, other: Side | None) -> list[dict[str, Any]]:
    """The same figures as text, the mean over the 15 last."""
    values = _shown(one, other)
    lines = [
        {"name": subset_name(subset), "marks": _marks(subset), "values": values[place].tolist()}
        for place, subset in enumerate(SUBSETS)
    ]
    return [
        *lines,
        {"name": "mean", "marks": ["mean", "of", "15", ""], "values": values.mean(axis=0).tolist()},
    ]


def _marks(subset: tuple[str, ...]) -> list[str]:
    return [PRESENT if modality in subset else ABSENT for modality in MODALITIES]


def _charts(one: Side, other: Side | None, metric: str) -> dict[str, Any]:
    values = _shown(one, other)
    added = [gains(one.values)] + ([gains(other.values)] if other else [])
    return {
        "subsets": [" ".join(_marks(subset)) for subset in SUBSETS],
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
