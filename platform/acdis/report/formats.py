"""A report in one of its forms: what `report` prints and the dashboard gives to download."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from acdis.report import as_challenger, as_csv, rendering
from acdis.report.comparison import compare
from acdis.report.document import Document
from acdis.report.facts import Reader, SpecFacts, with_scores
from acdis.report.sections import Compared, document
from acdis.report.strata import Groups


class Renderer(Protocol):
    """What specs say, as text; `groups` as `sections.document` takes them."""

    def __call__(self, compared: Sequence[Compared], groups: Groups | None = None) -> str: ...


def _of_document(renderer: Callable[[Document], str]) -> Renderer:
    return lambda compared, groups=None: renderer(document(compared, groups))


def _of_numbers(renderer: Callable[[Sequence[Compared]], str]) -> Renderer:
    """Forms that have each case, or each row, and no place for kinds of them."""
    return lambda compared, groups=None: renderer(compared)


RENDERERS: dict[str, Renderer] = {
    "md": _of_document(rendering.markdown),
    "latex": _of_document(rendering.latex),
    "csv": _of_numbers(as_csv.render),
    "html": _of_document(rendering.page),
    "challenger": _of_numbers(as_challenger.render),
}


def render(
    specs: Sequence[SpecFacts],
    read: Reader,
    form: str,
    groups: Groups | None = None,
    standalone: bool = False,
) -> str:
    """The report of these specs in one of the `RENDERERS`.

    Args:
        standalone: of LaTeX: the whole report, which compiles by itself, instead of tables to be `\\input`.
    """
    results = compared(specs, read)
    if standalone:
        return rendering.latex(document(results, groups), standalone)
    return RENDERERS[form](results, groups)


def beside(specs: Sequence[SpecFacts], read: Reader, form: str) -> list[str]:
    """What must be said beside a form that has no place for words."""
    return as_challenger.left_out(compared(specs, read)) if form == "challenger" else []


def compared(specs: Sequence[SpecFacts], read: Reader) -> list[Compared]:
    """The specs with their scores, and what these say."""
    results: list[Compared] = []
    for spec in specs:
        rows = [with_scores(row, read) for row in spec.rows]
        results.append((spec, rows, compare(rows, spec.baseline, spec.family, spec.margin)))
    return results
