"""A report as Markdown, LaTeX and HTML: one template a form, in `templates/`, and one rule for escaping.

Whatever a template takes from outside is escaped as its form asks, without being asked to: what a row or a
note is called can never be markup. Only what a macro of a template made, or `Markup` here, stays as it is.
"""

from __future__ import annotations

import html
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from acdis.report import escaping
from acdis.report.document import BEST, SECOND, Document, Table

if TYPE_CHECKING:
    from jinja2 import Environment

HERE = Path(__file__).parent / "templates"
ESCAPES: dict[str, Callable[[str], str]] = {
    ".md": escaping.markdown,
    ".tex": escaping.latex,
    ".html": html.escape,
}
#: Rows beyond which a table in LaTeX may break over pages.
LONG = 36
#: What stands raised behind a figure, in mathematics.
TEX_MARKS = {"↑": r"\uparrow", "↓": r"\downarrow", "=": "=", "?": "?", "†": r"\dagger"}
#: TeX is full of braces.
_TEX = {
    "block_start_string": "<%",
    "block_end_string": "%>",
    "comment_start_string": "<#",
    "comment_end_string": "#>",
    "variable_start_string": "<<",
    "variable_end_string": ">>",
}


def markdown(document: Document) -> str:
    """Padded, so that it can be read on a terminal as it is; as the other two it ends with a newline."""
    return render("report.md", document=document)


def latex(document: Document, standalone: bool = False) -> str:
    """The tables of a paper, to be `\\input`: each a float with caption and label (booktabs, graphicx, and
    longtable where a page would not do); notes are comments.

    Args:
        standalone: the whole report instead, which compiles by itself (pdflatex, tectonic).
    """
    return render("report.tex", document=document, standalone=standalone)


def page(document: Document) -> str:
    """One HTML file that needs nothing else: no script, no font, no address outside."""
    return render("report.html", document=document)


def render(template: str, /, **context: Any) -> str:
    """A file of `templates/`, whose ending says how everything in `context` is escaped."""
    return _environment(Path(template).suffix).get_template(template).render(context)


@cache
def _environment(ending: str) -> Environment:
    # Here, not above: 50 ms that plan, status and a report as CSV need not wait.
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    escape = ESCAPES[ending]

    def escaped(value: Any) -> Markup:
        return value if isinstance(value, Markup) else Markup(escape(str(value)))

    made = Environment(
        loader=FileSystemLoader(HERE),
        undefined=StrictUndefined,
        autoescape=True,  # what a macro made is Markup, and not escaped twice
        finalize=escaped,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        **(_TEX if ending == ".tex" else {}),
    )
    made.globals |= {"LONG": LONG, "BEST": BEST, "SECOND": SECOND, "padded": _padded}
    made.globals |= {"tex_label": escaping.tex_label, "raised": _raised}
    return made


def _padded(table: Table) -> Iterator[str]:
    """Lines of a Markdown table with columns of even width."""
    from markupsafe import Markup

    lines = [tuple(map(escaping.markdown, line)) for line in (table.head, *table.body)]
    widths = [max(3, *map(len, column)) for column in zip(*lines, strict=True)]
    rule = [
        "-" * (width - 1) + ("-" if side == "l" else ":")
        for width, side in zip(widths, table.align, strict=True)
    ]
    for cells in (lines[0], rule, *lines[1:]):
        yield Markup(_line(cells, widths, table.align))


def _raised(marks: str) -> str:
    """Marks behind a figure, for TeX; as they are for what has none."""
    return f"$^{{{' '.join(TEX_MARKS[mark] for mark in marks)}}}$" if marks else ""


def _line(cells: Sequence[str], widths: Sequence[int], align: str) -> str:
    padded = [
        cell.ljust(width) if side == "l" else cell.rjust(width)
        for cell, width, side in zip(cells, widths, align, strict=True)
    ]
    return "| " + " | ".join(padded) + " |"
