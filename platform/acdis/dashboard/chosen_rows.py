"""Which rows of a spec a page shows: those that its address names, else a few; only they are looked at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from acdis.dashboard.state import SeenCell, Site
from acdis.report.facts import RowFacts, SpecFacts

#: Rows at once: more cannot be told apart.
MOST = 10
#: Rows that are shown unasked, and cells that may be read for them while the visitor waits.
USUAL, CELLS = 6, 40


@dataclass(frozen=True)
class Row:
    """A row with its cells as they stand."""

    facts: RowFacts
    looks: tuple[SeenCell, ...]


@dataclass(frozen=True)
class Choice:
    """Rows of a spec.

    Attributes:
        plan: the spec, none of its cells looked at.
        rows: those that are shown.
        unknown: what the address names and the spec does not have.
        more: whether the address names more than can be shown.
    """

    plan: SpecFacts
    rows: tuple[Row, ...]
    unknown: tuple[str, ...]
    more: bool


def choose(site: Site, spec: str, wanted: Sequence[str]) -> Choice:
    """The rows asked for, in the spec's order; none asked for: the baseline and those after it.

    Raises:
        NotThereError: no such spec.
    """
    plan = site.plan(spec)
    known = {row.id: row for row in plan.rows}
    named = [name for name in dict.fromkeys(wanted) if name in known]
    unknown = tuple(name for name in dict.fromkeys(wanted) if name not in known)
    shown = [row for row in plan.rows if row.id in named][:MOST] if named else _usual(plan)
    looks = iter(site.looks(replace(plan, rows=tuple(shown))))
    rows = tuple(Row(row, tuple(next(looks) for _ in row.cells)) for row in shown)
    return Choice(plan, rows, unknown, len(named) > MOST)


def _usual(plan: SpecFacts) -> list[RowFacts]:
    """The baseline first, then others, as many as are read in a moment."""
    first = [row for row in plan.rows if row.id == plan.baseline]
    chosen: list[RowFacts] = []
    for row in [*first, *(row for row in plan.rows if row.id != plan.baseline)]:
        cells = sum(len(facts.cells) for facts in (*chosen, row))
        if len(chosen) == USUAL or (chosen and cells > CELLS):
            break
        chosen.append(row)
    return [row for row in plan.rows if row in chosen]
