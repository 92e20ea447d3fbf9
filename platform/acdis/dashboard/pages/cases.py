"""Cases: how the scores of rows lie case by case, two rows against each other, and the worst cases."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from fastapi import APIRouter, Query, Request, Response

from acdis.dashboard import case_scores, cellfiles, views
from acdis.dashboard.case_scores import MEAN, MEASURES, RowCases, ScoreChoice
from acdis.dashboard.chosen_rows import MOST, choose
from acdis.dashboard.state import Site
from acdis.report import phrases
from acdis.vocabulary import REGIONS, SUBSETS, subset_name

router = APIRouter()
#: Cases in the table, the worst first.
WORST = 30


@dataclass(frozen=True)
class Seed:
    """A case in one seed of the row that is looked at.

    Attributes:
        picture: of its segmentations, relative to the cell's folder; empty where there is none.
        page: of the run, relative to MLflow's own; empty where MLflow has none.
    """

    seed: int
    cell: str
    value: float
    picture: str
    page: str


@dataclass(frozen=True)
class Case:
    """A line of the table: the mean over seeds in each row shown, and the seeds of the one looked at."""

    name: str
    values: tuple[float | None, ...]
    seeds: tuple[Seed, ...]

    @property
    def worst(self) -> Seed:
        return self.seeds[0]

    @property
    def picture(self) -> Seed | None:
        """Of the worst seed that has one."""
        return next((seed for seed in self.seeds if seed.picture), None)


@router.get("/cases")
def cases(
    request: Request,
    spec: str = "",
    row: list[str] = Query(default=[]),  # noqa: B008
    region: str = "",
    subset: str = "",
    measure: str = "",
    x: str = "",
    y: str = "",
) -> Response:
    """The page."""
    if not spec:
        return views.choose(request, "Cases", "/cases")
    site, want = views.site(request), case_scores.wanted(measure, region, subset)
    chosen = choose(site, spec, row)
    read = [case_scores.read(site, chosen_row, want) for chosen_row in chosen.rows]
    scored = [row_cases for row_cases in read if row_cases.seeds]
    one, two = _sides(scored, chosen.plan.baseline, x, y)
    worst = _worst(site, scored, two, want) if two else []
    return views.of_spec(
        request,
        "cases",
        chosen.plan,
        chosen=chosen,
        most=MOST,
        want=want,
        measures=MEASURES,
        hd95=phrases.hd95_rule(name for row_cases in scored for name in row_cases.conventions),
        regions=REGIONS,
        subsets=[subset_name(modalities) for modalities in SUBSETS],
        mean=MEAN,
        rows=[(row_cases, case_scores.spread(row_cases)) for row_cases in scored],
        floors=_floors(scored),
        lacking=[row_cases for row_cases in read if not row_cases.seeds],
        unread=sum(row_cases.unread for row_cases in read),
        elsewhere=any(
            look.cell.standing == "trained elsewhere" for row_cases in read for look in row_cases.row.looks
        ),
        one=one,
        two=two,
        pair=_pair(one, two, want) if one and two else None,
        worst=worst,
        all=len(two.means) if two else 0,
        charts=_charts(scored, one, two, want) if scored else None,
    )


def _floors(scored: Sequence[RowCases]) -> list[tuple[str, case_scores.Spread]]:
    """How the floors lie on the same cases; once where rows share these."""
    different = {
        (label, tuple(sorted(by_case.items()))): by_case
        for row_cases in scored
        for label, by_case in row_cases.floors.items()
    }
    spreads = (
        (label, case_scores.spread_of([*by_case.values()])) for (label, _), by_case in different.items()
    )
    return [(label, spread) for label, spread in spreads if spread]


def _sides(
    scored: Sequence[RowCases], baseline: str, x: str, y: str
) -> tuple[RowCases | None, RowCases | None]:
    """The two rows that are compared: those asked for, else the baseline and the last of the others."""
    known = {row_cases.row.facts.id: row_cases for row_cases in scored}
    two = known.get(y) or next(
        (row_cases for name, row_cases in reversed(known.items()) if name != (x or baseline)), None
    )
    two = two or (scored[-1] if scored else None)
    one = known.get(x) or known.get(baseline) or (scored[0] if scored else None)
    return one, two


def _worst(site: Site, scored: Sequence[RowCases], two: RowCases, want: ScoreChoice) -> list[Case]:
    """The worst cases of a row, the worst first."""
    means = [row_cases.means for row_cases in scored]
    order = case_scores.worst_first(two.means, want)[:WORST]
    pictures = {seed: _pictures(site, two, seed) for seed in two.seeds}
    return [
        Case(
            case,
            tuple(by_case.get(case) for by_case in means),
            tuple(
                Seed(
                    seed,
                    two.looks[seed].cell.cell,
                    two.seeds[seed][case],
                    pictures[seed].get(case, ""),
                    _page(two, seed),
                )
                for seed in _seeds(two, case, want)
            ),
        )
        for case in order
    ]


def _seeds(two: RowCases, case: str, want: ScoreChoice) -> list[int]:
    """Seeds that have the case, the worst first."""
    values = {seed: cases[case] for seed, cases in two.seeds.items() if case in cases}
    sign = 1 if want.more_is_better else -1
    return sorted(values, key=lambda seed: (sign * values[seed], seed))


def _pictures(site: Site, two: RowCases, seed: int) -> dict[str, str]:
    try:
        cell = site.folders.cell(two.looks[seed].cell.cell)
    except LookupError:
        return {}
    return cellfiles.pictures_of(cell, two.evaluations[seed])


def _page(row_cases: RowCases, seed: int) -> str:
    run = row_cases.looks[seed].run
    return run.page if run else ""


def _pair(one: RowCases, two: RowCases, want: ScoreChoice) -> dict[str, Any] | None:
    """Two rows on the cases that both have, means over seeds: how often and how far the second is better."""
    ours, theirs = two.means, one.means
    names = case_scores.paired(theirs, ours)
    if not names:
        return None
    gains = np.array([ours[name] - theirs[name] for name in names])
    better = gains > 0 if want.more_is_better else gains < 0
    worse = gains < 0 if want.more_is_better else gains > 0
    return {
        "cases": len(names),
        "better": int(better.sum()),
        "worse": int(worse.sum()),
        "mean": phrases.signed(float(gains.mean())),
        "median": phrases.signed(float(np.median(gains))),
    }


def _charts(
    scored: Sequence[RowCases], one: RowCases | None, two: RowCases | None, want: ScoreChoice
) -> dict[str, Any]:
    spreads = [case_scores.spread(row_cases) for row_cases in scored]
    pair = case_scores.paired(one.means, two.means) if one and two else []
    return {
        "axis": MEASURES[want.measure][0],
        "rows": [
            {
                "label": views.short(row_cases.row.facts.label, 60),
                "box": spread.box if spread else [],
                "seeds": [
                    {"seed": seed, "cell": look.cell.cell, "page": _page(row_cases, seed)}
                    for seed, look in row_cases.looks.items()
                ],
                "points": [
                    [round(value, 4), views.short(case, 60), place]
                    for place, cases in enumerate(row_cases.seeds.values())
                    for case, value in cases.items()
                ],
            }
            for row_cases, spread in zip(scored, spreads, strict=True)
        ],
        "pair": {
            "x": views.short(one.row.facts.label, 60) if one else "",
            "y": views.short(two.row.facts.label, 60) if two else "",
            "points": [_point(one, two, name, want) for name in pair] if one and two else [],
        },
    }


def _point(one: RowCases, two: RowCases, case: str, want: ScoreChoice) -> dict[str, Any]:
    """A case in both rows, and the run in which the second row does worst on it."""
    seed = _seeds(two, case, want)[0]
    return {
        "case": views.short(case, 60),
        "x": round(one.means[case], 4),
        "y": round(two.means[case], 4),
        "cell": two.looks[seed].cell.cell,
        "page": _page(two, seed),
    }
