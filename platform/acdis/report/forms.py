"""A report in one of its forms: what `report` prints and the dashboard gives to download."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from acdis.report import as_csv, as_html, as_latex, as_markdown
from acdis.report.comparison import compare
from acdis.report.facts import Reader, SpecFacts, with_scores
from acdis.report.sections import Compared, document

RENDERERS: dict[str, Callable[[Sequence[Compared]], str]] = {
    "md": lambda compared: as_markdown.render(document(compared)),
    "latex": lambda compared: as_latex.render(document(compared)),
    "csv": as_csv.render,
    "html": lambda compared: as_html.render(document(compared)),
}


def render(specs: Sequence[SpecFacts], read: Reader, form: str) -> str:
    """The report of these specs in one of the `RENDERERS`."""
    return RENDERERS[form](compared(specs, read))


def compared(specs: Sequence[SpecFacts], read: Reader) -> list[Compared]:
    """The specs with their scores, and what these say."""
    found: list[Compared] = []
    for spec in specs:
        rows = [with_scores(row, read) for row in spec.rows]
        found.append((spec, rows, compare(rows, spec.baseline)))
    return found
