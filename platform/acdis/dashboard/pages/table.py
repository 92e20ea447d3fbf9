"""Table: the rows of a spec as in the paper, ours beside the paper's, with what the data can tell."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import PlainTextResponse

from acdis.dashboard import views
from acdis.dashboard.results import Result
from acdis.dashboard.site import NotThereError, Site
from acdis.report import words
from acdis.report.comparison import Difference, Figures
from acdis.report.facts import RowFacts
from acdis.report.forms import RENDERERS
from acdis.report.sections import order_lines, published, standing_lines, strength_line
from acdis.vocabulary import REGIONS

router = APIRouter()
VERDICTS = ("better", "worse", "undecided", "none")
#: Forms to download: ending and type.
FORMS = {"csv": ("csv", "text/csv"), "latex": ("tex", "application/x-tex"), "md": ("md", "text/markdown")}
#: What a column is sorted by; `-` before it turns the order round.
SORTS = ("label", *REGIONS, *(f"d{region}" for region in REGIONS))


@dataclass(frozen=True)
class Shown:
    """One region of a row, as words."""

    region: str
    dice: str
    paper: str
    delta: str
    delta_paper: str
    interval: str
    verdict: str
    kind: str


@dataclass(frozen=True)
class Line:
    """A row of the page; `values` are what it is sorted by."""

    facts: RowFacts
    is_baseline: bool
    seeds: str
    cases: str
    regions: tuple[Shown, ...]
    hours: str
    values: dict[str, Any]


@dataclass(frozen=True)
class Chosen:
    """The page's state: what its address says."""

    spec: str
    sort: str = ""
    words: str = ""
    verdict: str = ""

    @property
    def query(self) -> dict[str, str]:
        """For links that keep the state."""
        pairs = {"spec": self.spec, "sort": self.sort, "q": self.words, "verdict": self.verdict}
        return {key: value for key, value in pairs.items() if value}


@router.get("/table")
def table(request: Request, spec: str = "", sort: str = "", q: str = "", verdict: str = "") -> Response:
    """The page; its tests come later where they would take long."""
    if not spec:
        return views.choose(request, "Table", "/table")
    site, chosen = views.site(request), Chosen(spec, sort, q, verdict)
    context = _context(site, site.results.soon(spec), chosen)
    return views.of_spec(request, "table", **context)


@router.get("/table.json")
def with_tests(request: Request, spec: str, sort: str = "", q: str = "", verdict: str = "") -> Response:
    """The whole table with its tests: figures, and the piece of the page that shows them."""
    site = views.site(request)
    context = _context(site, site.results.whole(spec), Chosen(spec, sort, q, verdict))
    html = views.part(request, "table_rows.html", **context)
    rows = [
        {"row": line.facts.id, "values": line.values, "verdicts": [each.kind for each in line.regions]}
        for line in context["lines"]
    ]
    return views.data({"html": html, "rows": rows})


@router.get("/table/report.{form}")
def download(request: Request, form: str, spec: str) -> Response:
    """The report of the spec, as `report --format` prints it."""
    if form not in FORMS:
        raise NotThereError(f"A report can be had as {', '.join(FORMS)}.")
    result = views.site(request).results.whole(spec)
    if result.elsewhere:
        raise NotThereError("The cells of this spec were trained elsewhere; run `report` where they are.")
    ending, kind = FORMS[form]
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", spec).strip(".-")[:80] or "report"
    return PlainTextResponse(
        RENDERERS[form]([result.compared]),
        media_type=kind,
        headers={"Content-Disposition": f'attachment; filename="{name}.{ending}"'},
    )


def _context(site: Site, result: Result, chosen: Chosen) -> dict[str, Any]:
    spec, rows, comparison = result.compared
    lines = [_line(result, facts, words.hours(row.hours)) for facts, row in zip(spec.rows, rows, strict=True)]
    return {
        "spec": spec,
        "result": result,
        "chosen": chosen,
        "lines": arranged(lines, chosen),
        "all": len(lines),
        "with_paper": any(row.paper for row in spec.rows),
        "standing": list(standing_lines(spec)),
        "strength": strength_line(comparison) if comparison.differences else "",
        "order": list(order_lines(spec, comparison)) if result.whole else [],
        "how": words.how_to_read(f"{spec.et_minimum:g}"),
        "regions": REGIONS,
        "verdicts": VERDICTS,
        "forms": FORMS,
        "runs": site.runs(),
    }


def _line(result: Result, facts: RowFacts, hours: str) -> Line:
    spec, _, comparison = result.compared
    found = comparison.figures.get(facts.id)
    differences = {each.region: each for each in comparison.differences if each.row == facts.id}
    paper = {row.id: row.paper or {} for row in spec.rows}
    regions = tuple(
        _shown(place, region, found, differences.get(region), paper, facts.id, spec.baseline)
        for place, region in enumerate(REGIONS)
    )
    values: dict[str, Any] = {"label": facts.label.casefold()}
    for place, region in enumerate(REGIONS):
        values[region] = float(found.mean[place]) if found else math.nan
        values[f"d{region}"] = differences[region].delta if region in differences else math.nan
    cases = words.span(*found.cases) if found and found.cases[1] else words.ABSENT
    seeds = f"{found.seeds if found else 0} of {len(facts.cells)}"
    return Line(facts, facts.id == spec.baseline, seeds, cases, regions, hours, values)


def _shown(
    place: int,
    region: str,
    found: Figures | None,
    difference: Difference | None,
    paper: dict[str, dict[str, float]],
    row: str,
    baseline: str,
) -> Shown:
    low, high = (None, None) if found is None or found.low is None else (found.low, found.high)
    dice = words.ABSENT
    if found is not None:
        spread = (None, None) if low is None or high is None else (low[place], high[place])
        dice = words.mean(found.mean[place], *spread)
    theirs = paper[row].get(region)
    there = words.ABSENT if theirs is None else f"{theirs:.2f}"
    if difference is None:
        return Shown(region, dice, there, "", "", "", "", "")
    effect = difference.effect
    interval = f"{words.signed(effect.low)} to {words.signed(effect.high)}" if effect else ""
    delta_paper = words.signed(published(paper, difference, baseline))
    verdict = words.verdict(difference)
    delta = words.signed(difference.delta)
    return Shown(region, dice, there, delta, delta_paper, interval, verdict, difference.verdict)


def arranged(lines: Sequence[Line], chosen: Chosen) -> list[Line]:
    """Those that match, in the order asked for; rows without a value stand last either way."""
    kept = [line for line in lines if _matches(line, chosen)]
    key, down = chosen.sort.removeprefix("-"), chosen.sort.startswith("-")
    if key not in SORTS:
        return kept
    known = [line for line in kept if line.values[key] == line.values[key]]  # false for NaN
    lacking = [line for line in kept if line.values[key] != line.values[key]]
    return sorted(known, key=lambda line: line.values[key], reverse=down) + lacking


def _matches(line: Line, chosen: Chosen) -> bool:
    row = line.facts
    text = f"{row.id} {row.label} {row.note or ''}".casefold()
    if not all(word in text for word in chosen.words.casefold().split()):
        return False
    return chosen.verdict not in VERDICTS or any(each.kind == chosen.verdict for each in line.regions)
