"""Curves: losses term by term and validation Dice over epochs, rows beside each other, seeds as a band."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from fastapi import APIRouter, Query, Request, Response

from acdis.dashboard import histories, views
from acdis.dashboard.chosen_rows import MOST, Row, choose
from acdis.dashboard.histories import LOSS, VALIDATION, Curve, History
from acdis.vocabulary import REGIONS

router = APIRouter()
BANDS = {"range": "smallest to largest seed", "ci": "95 % interval of the mean over seeds"}
#: What is drawn: everything, losses, validation; or one curve by its name.
KINDS = {"": "all", LOSS: "losses", VALIDATION: "validation"}
#: Charts on a page.
CHARTS = 36
_FIRST = (f"{VALIDATION}dice/mean", *(f"{VALIDATION}dice/{region}/mean" for region in REGIONS), f"{LOSS}loss")


@dataclass(frozen=True)
class CellCurves:
    """How a row's trainings went, by seed."""

    row: Row
    seeds: dict[int, History]


@dataclass(frozen=True)
class Chart:
    """A curve of each row, by row's id; `name` as MLflow has it."""

    name: str
    curves: dict[str, Curve]

    @property
    def title(self) -> str:
        """`training, seg/fuse/dice`, `validation Dice, WT`."""
        if self.name.startswith(VALIDATION):
            parts = self.name.removeprefix(f"{VALIDATION}dice/").removesuffix("/mean")
            return "validation Dice, " + ("mean of the regions" if parts == "mean" else parts)
        term = self.name.removeprefix(LOSS)
        return "training, whole loss" if term == "loss" else f"training, {term}"


@router.get("/curves")
def curves(
    request: Request,
    spec: str = "",
    row: list[str] = Query(default=[]),  # noqa: B008
    seed: str = "",
    band: str = "range",
    show: str = "",
) -> Response:
    """The page."""
    if not spec:
        return views.choose(request, "Curves", "/curves")
    site = views.site(request)
    chosen = choose(site, spec, row)
    band = band if band in BANDS else "range"
    went = [CellCurves(chosen_row, _seeds(site, chosen_row, seed)) for chosen_row in chosen.rows]
    drawn = [row_curves for row_curves in went if row_curves.seeds]
    names = _names(drawn)
    shown = (
        [name for name in names if name.startswith(show)]
        if show in KINDS
        else [n for n in names if n == show]
    )
    charts = [_chart(drawn, name, band) for name in shown[:CHARTS]]
    return views.of_spec(
        request,
        "curves",
        chosen.plan,
        chosen=chosen,
        most=MOST,
        rows=drawn,
        lacking=[row_curves.row for row_curves in went if not row_curves.seeds],
        seeds=sorted({cell.seed for facts in chosen.plan.rows for cell in facts.cells}),
        seed=seed,
        bands=BANDS,
        band=band,
        kinds=KINDS,
        names=names,
        show=show,
        charts=[chart for chart in charts if chart.curves],
        left=max(0, len(shown) - CHARTS),
        data=[_data(chart, drawn) for chart in charts if chart.curves],
        points=histories.POINTS,
    )


def _seeds(site: Any, row: Row, seed: str) -> dict[int, History]:
    """Histories of the row's cells; of one seed alone where the address names it."""
    looks = [look for look in row.looks if not seed or str(look.cell.seed) == seed]
    by_seed = {look.cell.seed: histories.of(site, look) for look in looks}
    return {number: history for number, history in by_seed.items() if history is not None}


def _names(drawn: Sequence[CellCurves]) -> list[str]:
    """Of all curves: validation and the whole loss first, then term by term."""
    every = {name for row_curves in drawn for history in row_curves.seeds.values() for name in history.values}
    return [*(name for name in _FIRST if name in every), *sorted(every - set(_FIRST))]


def _chart(drawn: Sequence[CellCurves], name: str, band: str) -> Chart:
    made = {
        row_curves.row.facts.id: histories.together(list(row_curves.seeds.values()), name, band)
        for row_curves in drawn
    }
    return Chart(name, {row: curve for row, curve in made.items() if curve is not None})


def _data(chart: Chart, drawn: Sequence[CellCurves]) -> dict[str, Any]:
    """For the script, numbers with five digits."""
    ids = [row_curves.row.facts.id for row_curves in drawn]
    return {
        "dice": chart.name.startswith(VALIDATION),
        "curves": [
            {
                "row": ids.index(row),
                "label": views.short(drawn[ids.index(row)].row.facts.label, 60),
                "epochs": curve.epochs.tolist(),
                "mean": _digits(curve.mean),
                "low": _digits(curve.low),
                "high": _digits(curve.high),
                "seeds": int(curve.counts.max()),
            }
            for row, curve in chart.curves.items()
        ],
    }


def _digits(values: np.ndarray) -> list[float]:
    return [float(f"{value:.5g}") for value in values.tolist()]
