"""Overview: specs and how far they are; live while anything is trained."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request, Response

from acdis import home
from acdis.ablation.standings import WORDS, word_of
from acdis.cells.time_left import remaining, steps_done
from acdis.dashboard import views
from acdis.dashboard.state import SeenCell, Site
from acdis.report.facts import PHANTOM_WARNING, SpecFacts

router = APIRouter()


@dataclass(frozen=True)
class Progress:
    """One spec on the page.

    Attributes:
        counts: cells by state; a cell that serves several rows counts once.
        left: seconds of training that are left with as many cells side by side as now; none: not known.
        hours: spent so far, by `cpu` or `gpu`.
        at_work, failed: of them what is shown one by one.
    """

    spec: SpecFacts
    counts: Mapping[str, int]
    left: float | None
    hours: Mapping[str, float]
    at_work: Sequence[SeenCell]
    failed: Sequence[SeenCell]

    @property
    def cells(self) -> int:
        """Of all states."""
        return sum(self.counts.values())


@router.get("/")
def overview(request: Request) -> Response:
    """The page."""
    return views.page(request, "overview.html", title="Overview", **_context(views.site(request)))


@router.get("/overview.json")
def live(request: Request) -> Response:
    """What changes on it: figures, and the piece of the page that shows them."""
    context = _context(views.site(request))
    specs = [
        {
            "spec": spec_progress.spec.name,
            "cells": spec_progress.cells,
            "left_seconds": spec_progress.left,
            "hours": spec_progress.hours,
        }
        | {word: spec_progress.counts[word] for word in WORDS}
        for spec_progress in context["specs"]
    ]
    html = views.part(request, "overview_specs.html", **context)
    return views.data({"running": context["running"], "specs": specs, "html": html})


def _context(site: Site) -> dict[str, Any]:
    known = site.known()
    specs = [progress(spec, site.looks(spec)) for spec in known.specs.values()]
    phantoms = any(spec_progress.spec.phantoms for spec_progress in specs)
    return {
        "specs": specs,
        "problems": known.problems,
        "trouble": site.trouble(),
        "running": sum(spec_progress.counts["running"] for spec_progress in specs),
        "warning": PHANTOM_WARNING if phantoms else "",
        "statuses": WORDS,
        "doing": doing,
        "file_of": {path.stem: _short_path(path) for path in site.settings.specs},
    }


def _short_path(path: Path) -> str:
    """As a user in the checkout would type it."""
    root = home.checkout() or Path.cwd()
    return str(path.relative_to(root)) if path.is_relative_to(root) else str(path)


def progress(spec: SpecFacts, looks: Sequence[SeenCell]) -> Progress:
    """How far a spec is."""
    cells = {look.cell.cell or f"{look.row}/{look.cell.seed}": look for look in looks}
    counts = Counter(word_of(look.seen.status, look.seen.state) for look in cells.values())
    hours: Counter[str] = Counter()
    for look in cells.values():
        hours.update(look.cell.hours)
    return Progress(
        spec,
        {word: counts[word] for word in WORDS},
        left(list(cells.values())),
        dict(hours),
        [look for look in cells.values() if look.seen.status == "running"],
        [look for look in cells.values() if look.seen.status == "failed"],
    )


def left(looks: Sequence[SeenCell]) -> float | None:
    """Seconds of training steps until the last cell is trained, as many side by side as run now.

    A cell that has not begun is taken to need what the others need (their median). None where nothing has
    been measured, or nobody is at work.
    """
    running = [look for look in looks if look.seen.status == "running"]
    whole = [total for look in looks if (total := _whole(look.seen.state))]
    if not running or not whole:
        return None
    usual = statistics.median(whole)
    ahead = [_ahead(look.seen.state, usual) for look in looks if look.seen.status in ("running", "missing")]
    return max(max(ahead), sum(ahead) / len(running))


def _whole(state: Mapping[str, Any]) -> float:
    """Seconds of all steps of a training; 0 where none was measured."""
    return float(state.get("step_seconds", 0)) * float(state.get("steps", 0)) * float(state.get("epochs", 0))


def _ahead(state: Mapping[str, Any], usual: float) -> float:
    if state.get("status") in ("scoring", "scored", "done"):
        return 0.0
    if _whole(state):
        return remaining(dict(state))
    return float(state.get("projected_seconds", usual))


def doing(look: SeenCell) -> str:
    """What a cell at work does just now."""
    state = look.seen.state
    said = str(state.get("status", "running"))
    if said == "training" and state.get("epochs"):
        total = float(state.get("steps") or 0) * float(state["epochs"])
        share = f", {100 * steps_done(dict(state)) / total:.0f} %" if total else ""
        return f"training, epoch {state.get('epoch', 1)} of {state['epochs']}{share}"
    if said == "scoring" and state.get("cases"):
        return f"scoring, case {state.get('scored', 0)} of {state['cases']}"
    return said
