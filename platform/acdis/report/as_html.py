"""A document as one HTML file that needs nothing else: no script, no font, no address outside."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape

from acdis.report.document import Document, Section, Table

_STYLE = """body{font:15px/1.45 system-ui,sans-serif;margin:2rem auto;max-width:76rem;padding:0 1rem;
color:#1b1b1b;background:#fff}
.warning{border-left:.4rem solid #d55e00;background:#fdf1e7;padding:.6rem 1rem;font-weight:600}
.wide{overflow-x:auto}
table{border-collapse:collapse;border-top:2px solid;border-bottom:2px solid;margin:.8rem 0;
font-variant-numeric:tabular-nums}
th,td{padding:.18rem .7rem;text-align:right;white-space:nowrap}
th{border-bottom:1px solid}
.left{text-align:left}
.apart td{border-top:1px solid}
tbody tr:hover{background:#eef4fa}
.notes{font-size:.9em;color:#444}"""
# Nothing may be loaded or run, should a name from a bundle ever get past the escaping.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'"


def render(document: Document) -> str:
    """The whole report; ends with a newline."""
    lines = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
        '<meta name="viewport" content="width=device-width,initial-scale=1">',
        f"<title>{escape(document.title)}</title><style>{_STYLE}</style></head><body>",
        f"<h1>{escape(document.title)}</h1>",
        *(f'<p class="warning">{escape(line)}</p>' for line in document.warnings),
    ]
    for section in document.sections:
        lines += _section(section)
    return "\n".join([*lines, "</body></html>"]) + "\n"


def _section(section: Section) -> Iterator[str]:
    yield f"<h{section.level}>{escape(section.title)}</h{section.level}>"
    for paragraph in section.text:
        yield f"<p>{escape(paragraph)}</p>"
    if section.table:
        yield from _table(section.table)
    if section.notes:
        yield '<ul class="notes">'
        yield from (f"<li>{escape(note)}</li>" for note in section.notes)
        yield "</ul>"


def _table(table: Table) -> Iterator[str]:
    yield '<div class="wide"><table>'
    yield "<thead>" + _line(table.head, table.align, "th", ' scope="col"') + "</thead><tbody>"
    for number, line in enumerate(table.body, 1):
        apart = ' class="apart"' if table.last_apart and number == len(table.body) else ""
        yield _line(line, table.align, "td", "", apart)
    yield "</tbody></table></div>"


def _line(cells: Sequence[str], align: str, tag: str, attributes: str, apart: str = "") -> str:
    made = [
        f"<{tag}{attributes}" + (' class="left"' if side == "l" else "") + f">{escape(cell)}</{tag}>"
        for cell, side in zip(cells, align, strict=True)
    ]
    return f"<tr{apart}>" + "".join(made) + "</tr>"
