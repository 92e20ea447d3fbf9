"""Cases: how the scores of rows lie case by case, two rows against each other, and the worst cases."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from fastapi import APIRouter, Query, Request, Response

from acdis.dashboard import cellfiles, percase, views
from acdis.dashboard.choice import MOST, choose
from acdis.dashboard.percase import MEAN, MEASURES, RowCases, Wanted
from acdis.dashboard.site import Site
from acdis.report import words
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
    site, want = views.site(request), percase.wanted(measure, region, subset)
    chosen = choose(site, spec, row)
    read = [percase.read(site, each, want) for each in chosen.rows]
    found = [each for each in read if each.seeds]
    one, two = _sides(found, chosen.plan.baseline, x, y)
    worst = _worst(site, found, two, want) if two else []
    return views.of_spec(
        request,
        "cases",
        chosen.plan,
        chosen=chosen,
        most=MOST,
        want=want,
        measures=MEASURES,
        regions=REGIONS,
        subsets=[subset_name(each) for each in SUBSETS],
        mean=MEAN,
        rows=[(each, percase.spread(each)) for each in found],
        lacking=[each for each in read if not each.seeds],
        unread=sum(each.unread for each in read),
        elsewhere=any(look.cell.standing == "trained elsewhere" for each in read for look in each.row.looks),
        one=one,
        two=two,
        pair=_pair(one, two, want) if one and two else None,
        worst=worst,
        all=len(two.means) if two else 0,
        charts=_charts(found, one, two, want) if found else None,
    )


def _sides(
    found: Sequence[RowCases], baseline: str, x: str, y: str
) -> tuple[RowCases | None, RowCases | None]:
    """The two rows that are compared: those asked for, else the baseline and the last of the others."""
    known = {each.row.facts.id: each for each in found}
    two = known.get(y) or next(
        (each for name, each in reversed(known.items()) if name != (x or baseline)), None
    )
    two = two or (found[-1] if found else None)
    one = known.get(x) or known.get(baseline) or (found[0] if found else None)
    return one, two


def _worst(site: Site, found: Sequence[RowCases], two: RowCases, want: Wanted) -> list[Case]:
    """The worst cases of a row, the worst first."""
    means = [each.means for each in found]
    order = percase.worst_first(two.means, want)[:WORST]
    pictures = {seed: _pictures(site, two, seed) for seed in two.seeds}
    return [
        Case(
            case,
            tuple(each.get(case) for each in means),
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


def _seeds(two: RowCases, case: str, want: Wanted) -> list[int]:
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


def _page(found: RowCases, seed: int) -> str:
    run = found.looks[seed].run
    return run.page if run else ""


def _pair(one: RowCases, two: RowCases, want: Wanted) -> dict[str, Any] | None:
    """Two rows on the cases that both have, means over seeds: how often and how far the second is better."""
    ours, theirs = two.means, one.means
    names = percase.paired(theirs, ours)
    if not names:
        return None
    gains = np.array([ours[name] - theirs[name] for name in names])
    better = gains > 0 if want.more_is_better else gains < 0
    worse = gains < 0 if want.more_is_better else gains > 0
    return {
        "cases": len(names),
        "better": int(better.sum()),
        "worse": int(worse.sum()),
        "mean": words.signed(float(gains.mean())),
        "median": words.signed(float(np.median(gains))),
    }


def _charts(
    found: Sequence[RowCases], one: RowCases | None, two: RowCases | None, want: Wanted
) -> dict[str, Any]:
    spreads = [percase.spread(each) for each in found]
    pair = percase.paired(one.means, two.means) if one and two else []
    return {
        "axis": MEASURES[want.measure][0],
        "rows": [
            {
                "label": views.short(each.row.facts.label, 60),
                "box": spread.box if spread else [],
                "seeds": [
                    {"seed": seed, "cell": look.cell.cell, "page": _page(each, seed)}
                    for seed, look in each.looks.items()
                ],
                "points": [
                    [round(value, 4), views.short(case, 60), place]
                    for place, cases in enumerate(each.seeds.values())
                    for case, value in cases.items()
                ],
            }
            for each, spread in zip(found, spreads, strict=True)
        ],
        "pair": {
            "x": views.short(one.row.facts.label, 60) if one else "",
            "y": views.short(two.row.facts.label, 60) if two else "",
            "points": [_point(one, two, name, want) for name in pair] if one and two else [],
        },
    }


def _point(one: RowCases, two: RowCases, case: str, want: Wanted) -> dict[str, Any]:
    """A case in both rows, and the run in which the second row does worst on it."""
    seed = _seeds(two, case, want)[0]
    return {
        "case": views.short(case, 60),
        "x": round(one.means[case], 4),
        "y": round(two.means[case], 4),
        "cell": two.looks[seed].cell.cell,
        "page": _page(two, seed),
    }
