"""Run: one cell, its configuration beside another's, where it came from, its figures and files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, Request, Response

from acdis.cells.time_left import clock
from acdis.dashboard import cellfiles, cellview, views
from acdis.dashboard.cellview import View
from acdis.dashboard.state import NotThereError, Site
from acdis.evaluation.scores import Scores
from acdis.report import floors, phrases
from acdis.report.collect import code_of, standing
from acdis.report.facts import PHANTOM_WARNING, SpecFacts
from acdis.vocabulary import REGIONS

router = APIRouter()
#: Cells that are offered to compare with, one by one; any other can be typed in.
OFFERED = 60
MEASURES = {"Dice, %": 100.0, "ET500, %": 100.0, "HD95, mm": 1.0}


@dataclass(frozen=True)
class Difference:
    """A key on which two cells differ; `phrases.ABSENT` where one has it not."""

    key: str
    ours: str
    theirs: str


@router.get("/run")
def run(request: Request, cell: str = "", against: str | None = None, spec: str = "") -> Response:
    """The page; asks which without a cell. `against`: a cell, empty for none; absent: the baseline's."""
    site = views.site(request)
    if not cell:
        return _which(request, site, spec)
    shown = cellview.view(site, cell)
    facts = _spec(site, shown, spec)
    other = _other(site, shown, facts, against)
    scores = cellview.scores(site, shown)
    return views.page(
        request,
        "run.html",
        title=_title(shown, facts),
        shown=shown,
        facts=facts,
        chosen_spec=facts.name if facts else "",
        roles=_links(site, shown),
        place=_place(facts, shown),
        other=other,
        other_title=_title(other, facts) if other else "",
        offered=_offered(facts, shown) if facts else [],
        against=(other.name if other else "") if against is None else against,
        differences=differences(shown.settings, other.settings) if other else [],
        code=differences(_lineage(shown), _lineage(other)) if other else [],
        origin=_lineage(shown),
        facts_of=_facts(site, shown),
        figures=_figures(site, shown, other, scores),
        below=floors.below(scores) if scores else [],
        on_floors=floors.notes(scores) if scores else [],
        hd95=_hd95(scores),
        hd95_of_other=_penalties(cellview.scores(site, other)) if other and _alike(shown, other) else "",
        alike=other is None or _alike(shown, other),
        regions=REGIONS,
        pictures=_pictures(shown),
        files=cellfiles.listed(shown.cell) if shown.cell else ([], False),
        command=f"python experiments/main.py report figures {shown.name}",
        standing=standing(shown.cell, dict(shown.state)) if shown.cell and not scores else "",
        warning=PHANTOM_WARNING if _on_phantoms(shown) else "",
        trouble=site.trouble(),
        damage=shown.cell.damage() if shown.cell else [],
    )


@router.get("/picture/{cell}/{path:path}")
def picture(request: Request, cell: str, path: str) -> Response:
    """A PNG of the cell's folder, and of nothing else."""
    try:
        opened = views.site(request).folders.cell(cell)
    except LookupError:
        raise NotThereError("There is no such cell here.") from None
    return Response(cellfiles.picture(opened, path), media_type="image/png")


def differences(ours: Mapping[str, str], theirs: Mapping[str, str]) -> list[Difference]:
    """Keys on which they differ, in our order; parts that one side cannot have are left out."""
    keys = list(dict.fromkeys([*ours, *theirs]))
    for side in (ours, theirs):  # MLflow's parameters lack what does not change the figures
        if not any(key.startswith(cellview.ELSEWHERE) for key in side):
            keys = [key for key in keys if not key.startswith(cellview.ELSEWHERE)]
    compared = (
        Difference(key, ours.get(key, phrases.ABSENT), theirs.get(key, phrases.ABSENT)) for key in keys
    )
    return [difference for difference in compared if difference.ours != difference.theirs]


def _which(request: Request, site: Site, spec: str) -> Response:
    if not spec:
        return views.choose(request, "Run", "/run")
    plan = site.plan(spec)
    return views.page(request, "run_choose.html", title="Run", plan=plan, known=site.runs())


def _spec(site: Site, shown: View, wanted: str) -> SpecFacts | None:
    """The spec that the address names, else the first that the cell serves and that is known."""
    specs = site.known().specs
    names = [wanted, *(spec for spec, _, _ in shown.roles)]
    return next((specs[name] for name in names if name in specs), None)


def _place(facts: SpecFacts | None, shown: View) -> tuple[str, int] | None:
    """Row and seed that the cell has in the spec; none where it serves none of it."""
    cells = ((row, cell) for row in (facts.rows if facts else ()) for cell in row.cells)
    return next(((row.id, cell.seed) for row, cell in cells if cell.cell == shown.name), None)


def _title(shown: View, facts: SpecFacts | None) -> str:
    for row in facts.rows if facts else ():
        for cell in row.cells:
            if cell.cell == shown.name:
                return f"{views.short(row.label, 120)}, seed {cell.seed}"
    if shown.roles:
        _, row_id, seed = shown.roles[0]
        return f"{views.short(row_id, 120)}, seed {seed}"
    return shown.name


def _links(site: Site, shown: View) -> list[tuple[str, str, int, bool]]:
    """Roles, and whether a page of the spec can be opened."""
    specs = site.known().specs
    return [(spec, row, seed, spec in specs) for spec, row, seed in shown.roles]


def _other(site: Site, shown: View, facts: SpecFacts | None, against: str | None) -> View | None:
    """The cell that is compared with: the one asked for, else the baseline's of the same seed."""
    if against is not None:
        return cellview.view(site, against) if against else None
    if facts is None:
        return None
    seeds = {cell.seed for row in facts.rows for cell in row.cells if cell.cell == shown.name}
    base = (row for row in facts.rows if row.id == facts.baseline)
    name = next((cell.cell for row in base for cell in row.cells if cell.seed in seeds), "")
    try:
        return cellview.view(site, name) if name and name != shown.name else None
    except NotThereError:  # not begun yet
        return None


def _offered(facts: SpecFacts, shown: View) -> list[tuple[str, str]]:
    """Cells of the same seed, then those of the same row, with a word on each."""
    here = [(row.id, cell.seed) for row in facts.rows for cell in row.cells if cell.cell == shown.name]
    rows, seeds = {row for row, _ in here}, {seed for _, seed in here}
    cells = [(row, cell) for row in facts.rows for cell in row.cells if cell.cell not in ("", shown.name)]
    cells.sort(key=lambda pair: (pair[1].seed not in seeds, pair[0].id not in rows))
    labels = {cell.cell: f"{views.short(row.label, 60)}, seed {cell.seed}" for row, cell in cells}
    return list(labels.items())[:OFFERED]


def _lineage(shown: View) -> dict[str, str]:
    """Commit, versions, device, data."""
    tags = {key.removeprefix("acdis."): value for key, value in shown.tags.items()}
    kept = ("git_commit", "git_dirty", "device", "data_fingerprint")
    return {key: value for key, value in tags.items() if key in kept or key.startswith("version.")}


def _facts(site: Site, shown: View) -> dict[str, str]:
    """What stands at the top of the page, as words."""
    state = shown.state
    hours = (
        site.folders.hours(shown.name, state) if shown.cell else dict(shown.run.hours if shown.run else {})
    )
    facts = {
        "state": shown.status if shown.cell else (shown.run.status.lower() if shown.run else ""),
        "code": code_of(shown.tags),
        "hours": phrases.hours(hours),
        "epochs": f"{state.get('done', 0)} of {state['epochs']}" if "epochs" in state else phrases.ABSENT,
        "a step": _number(state.get("step_seconds"), "{:.2f} s"),
        "at its peak": _number(state.get("peak_bytes"), "{:.1f} GiB", 2**-30),
        "workers": str(state.get("workers", phrases.ABSENT)),
    }
    if shown.run and shown.run.start and shown.run.end and shown.run.end >= shown.run.start:
        facts["in MLflow"] = clock((shown.run.end - shown.run.start) / 1000)
    return facts | {f"{name} cases": str(len(cases)) for name, cases in shown.splits.items()}


def _number(value: Any, form: str, scale: float = 1.0) -> str:
    good = isinstance(value, int | float) and not isinstance(value, bool)
    return form.format(scale * value) if good else phrases.ABSENT


def _figures(site: Site, shown: View, other: View | None, scores: Scores | None) -> list[dict[str, Any]]:
    """Means over cases and subsets by measure and region: this cell's, the other's, the difference."""
    mine = _means(scores)
    theirs = _means(cellview.scores(site, other)) if other and _alike(shown, other) else {}
    return [
        {
            "measure": measure,
            "region": region,
            "ours": value,
            "theirs": theirs.get((measure, region)),
            "delta": phrases.signed(value - theirs[measure, region]) if (measure, region) in theirs else "",
        }
        for (measure, region), value in mine.items()
    ]


def _alike(shown: View, other: View) -> bool:
    """Whether the same cases were scored in the same way, as far as that is known."""
    return "" in (shown.evaluation, other.evaluation) or shown.evaluation == other.evaluation


def _hd95(scores: Scores | None) -> str:
    """Its convention, what is counted where a mask is empty, and how often; nothing without HD95."""
    if scores is None or not (counts := _penalties(scores)):
        return ""
    return f"{phrases.hd95_rule([scores.hd95_convention])[:-1]}; {counts}."


def _penalties(scores: Scores | None) -> str:
    """How many of the distances are penalties; nothing without HD95."""
    if scores is None or scores.hd95 is None:
        return ""
    return phrases.penalties(scores.penalties, len(scores.cases))


def _means(scores: Scores | None) -> dict[tuple[str, str], float]:
    if scores is None:
        return {}
    dice, et500, hd95 = MEASURES
    means = {(dice, region): 100 * float(scores.dice[..., at].mean()) for at, region in enumerate(REGIONS)}
    means[et500, "ET"] = 100 * float(scores.dice_et500.mean())
    if scores.hd95 is not None:
        means |= {(hd95, region): float(scores.hd95[..., at].mean()) for at, region in enumerate(REGIONS)}
    return {key: value for key, value in means.items() if value == value}  # false for NaN


def _pictures(shown: View) -> list[tuple[str, str]]:
    """Relative paths and captions: segmentations, figures of the paper, curves."""
    if shown.cell is None:
        return []
    files, _ = cellfiles.listed(shown.cell)
    paths = [file.path for file in files if file.is_picture][:24]
    return [(path, cellfiles.caption(shown.cell, path)) for path in paths]


def _on_phantoms(shown: View) -> bool:
    flat = shown.settings.get("data.phantoms", "")
    return any(key.startswith("data.phantoms.") for key in shown.settings) or flat not in ("", "null")
