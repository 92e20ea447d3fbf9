"""Table: the rows of a spec as in the paper, ours beside the paper's, with what the data can tell."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse, PlainTextResponse

from acdis.dashboard import views
from acdis.dashboard.results import Result
from acdis.dashboard.state import NotThereError, Site
from acdis.errors import UserError
from acdis.report import calibration, costs, floors, other_sources, patterns, phrases, strata, subsets_forms
from acdis.report.comparison import Comparison, Difference, Figures
from acdis.report.facts import RowFacts, SpecFacts
from acdis.report.formats import RENDERERS
from acdis.report.sections import left_out_lines, one_seed_lines, order_lines, published, standing_lines
from acdis.report.subsets_table import table_of
from acdis.vocabulary import REGIONS

router = APIRouter()
VERDICTS = ("better", "worse", "equal", "undecided", "one seed", "none")
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
    p: str
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
    context = _context(site, views.results(request).soon(spec), chosen)
    return views.of_spec(request, "table", **context)


@router.get("/table.json")
def with_tests(request: Request, spec: str, sort: str = "", q: str = "", verdict: str = "") -> Response:
    """The whole table with its tests: figures, and the piece of the page that shows them."""
    site = views.site(request)
    context = _context(site, views.results(request).whole(spec), Chosen(spec, sort, q, verdict))
    html = views.part(request, "table_rows.html", **context)
    rows = [
        {"row": line.facts.id, "values": line.values, "verdicts": [shown.kind for shown in line.regions]}
        for line in context["lines"]
    ]
    return views.data({"html": html, "rows": rows})


@router.get("/table/report.{form}")
def download(request: Request, form: str, spec: str) -> Response:
    """The report of the spec, as `report --format` prints it."""
    if form not in FORMS:
        raise NotThereError(f"A report can be had as {', '.join(FORMS)}.")
    result = views.results(request).whole(spec)
    if result.elsewhere:
        raise NotThereError("The cells of this spec were trained elsewhere; run `report` where they are.")
    ending, kind = FORMS[form]
    text = RENDERERS[form]([result.compared], views.site(request).settings.groups)
    return PlainTextResponse(text, media_type=kind, headers=_saved_as(spec, "", ending))


@router.get("/table/subsets.{form}")
def by_subset(request: Request, form: str, spec: str) -> Response:
    """The field's table of 15 subsets, as `report --layout subsets` prints it; HTML is shown, not saved."""
    if form not in subsets_forms.FORMS:
        raise NotThereError(f"The table can be had as {', '.join(subsets_forms.FORMS)}.")
    result = views.results(request).whole(spec)
    if result.elsewhere:
        raise NotThereError("The cells of this spec were trained elsewhere; run `report` where they are.")
    facts, rows, _ = result.compared
    try:
        text = subsets_forms.FORMS[form]([table_of(facts, rows)], False)
    except UserError as error:
        raise NotThereError(str(error)) from None
    if form == "html":
        return HTMLResponse(text)
    ending, kind = FORMS[form]
    return PlainTextResponse(text, media_type=kind, headers=_saved_as(spec, "subsets", ending))


def _saved_as(spec: str, what: str, ending: str) -> dict[str, str]:
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", spec).strip(".-")[:80] or "report"
    return {"Content-Disposition": f'attachment; filename="{name}{what and "-"}{what}.{ending}"'}


def _context(site: Site, result: Result, chosen: Chosen) -> dict[str, Any]:
    spec, rows, comparison = result.compared
    lines = [
        _line(result, facts, phrases.hours(row.hours)) for facts, row in zip(spec.rows, rows, strict=True)
    ]
    labels = {row.id: row.label for row in spec.rows}
    return {
        "spec": spec,
        "result": result,
        "chosen": chosen,
        "lines": arranged(lines, chosen),
        "all": len(lines),
        "with_paper": any(row.paper for row in spec.rows),
        "standing": list(standing_lines(spec)),
        "notes": _notes(spec, comparison) if result.whole else [],
        "declared": _declared(spec, comparison),
        "order": list(order_lines(spec, comparison)) if result.whole else [],
        "how": phrases.how_to_read(f"{spec.et_minimum:g}", phrases.points(spec.margin)),
        "floors": floors.lines_for(rows),
        "below": floors.first_lines(rows),
        "on_floors": floors.notes_on(rows),
        "further": [
            section
            for section in (
                strata.section(rows, labels, site.settings.groups),
                patterns.section(rows, labels),
                calibration.section(rows, labels),
            )
            if section and result.whole
        ],
        "costs": [cost.words() for cost in costs.of_rows(spec.rows, rows).values()],
        "sources": [source.words() for source in other_sources.of_rows((*spec.rows, *spec.absent))],
        "source_title": other_sources.TITLE,
        "source_head": other_sources.HEAD,
        "cost_head": costs.HEAD,
        "cost_how": costs.HOW,
        "regions": REGIONS,
        "verdicts": VERDICTS,
        "forms": FORMS,
        "runs": site.runs(),
    }


def _line(result: Result, facts: RowFacts, hours: str) -> Line:
    spec, _, comparison = result.compared
    figures = comparison.figures.get(facts.id)
    differences = {
        difference.region: difference
        for difference in comparison.differences
        if (difference.row, difference.against) == (facts.id, spec.baseline)
    }
    paper = {row.id: row.paper or {} for row in spec.rows}
    regions = tuple(
        _shown(place, region, figures, differences.get(region), paper, facts.id, spec.margin)
        for place, region in enumerate(REGIONS)
    )
    values: dict[str, Any] = {"label": facts.label.casefold()}
    for place, region in enumerate(REGIONS):
        values[region] = float(figures.mean[place]) if figures else math.nan
        values[f"d{region}"] = differences[region].delta if region in differences else math.nan
    cases = phrases.span(*figures.cases) if figures and figures.cases[1] else phrases.ABSENT
    seeds = f"{figures.seeds if figures else 0} of {len(facts.cells)}"
    return Line(facts, facts.id == spec.baseline, seeds, cases, regions, hours, values)


def _shown(
    place: int,
    region: str,
    figures: Figures | None,
    difference: Difference | None,
    paper: dict[str, dict[str, float]],
    row: str,
    margin: float,
) -> Shown:
    low, high = (None, None) if figures is None or figures.low is None else (figures.low, figures.high)
    dice = phrases.ABSENT
    if figures is not None:
        spread = (None, None) if low is None or high is None else (low[place], high[place])
        dice = phrases.mean(figures.mean[place], *spread)
    theirs = paper[row].get(region)
    there = phrases.ABSENT if theirs is None else f"{theirs:.2f}"
    if difference is None:
        return Shown(region, dice, there, "", "", "", "", "", "")
    answer = difference.answer
    return Shown(
        region,
        dice,
        there,
        phrases.signed(difference.delta),
        phrases.signed(published(paper, difference)),
        phrases.interval(difference) if answer else "",
        _p(difference),
        _verdict(difference, margin),
        difference.verdict,
    )


def _verdict(difference: Difference, margin: float) -> str:
    """As in a report, where what stands on one seed has a heading of its own."""
    said = phrases.verdict(difference, margin)
    return f"{said}: these two trainings only" if difference.verdict == "one seed" else said


def _p(difference: Difference) -> str:
    """As found, and adjusted over the table."""
    answer = difference.answer
    if answer is None:
        return ""
    return f"p {phrases.p_value(answer.p)}, adjusted {phrases.p_value(answer.p_adjusted)}"


def _notes(spec: SpecFacts, comparison: Comparison) -> list[str]:
    """What is asked, and what the answers go without."""
    asked = [phrases.family(comparison, spec.family is not None)] if comparison.differences else []
    return [*asked, *left_out_lines(comparison), *one_seed_lines(spec, comparison)]


def _declared(spec: SpecFacts, comparison: Comparison) -> list[str]:
    """Comparisons that the spec declares with other rows than the baseline."""
    labels = {row.id: row.label for row in spec.rows}
    return [
        f"{labels[difference.row]} − {labels[difference.against]}, {difference.region}: "
        f"{phrases.signed(difference.delta)} ({phrases.interval(difference)}), {_p(difference)}: "
        f"{_verdict(difference, spec.margin)}"
        for difference in comparison.differences
        if difference.against != spec.baseline
    ]


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
    return chosen.verdict not in VERDICTS or any(shown.kind == chosen.verdict for shown in line.regions)
