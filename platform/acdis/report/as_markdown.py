"""A document as Markdown, padded so that it can be read on a terminal as it is."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from acdis.report.document import Document, Section, Table

_SPECIAL = str.maketrans({"|": "\\|", "`": "\\`", "*": "\\*", "\n": " ", "\r": " "})
_TAG = re.compile(r"<(?=[A-Za-z/!?])")  # `<0.001` is no tag, and reads better as it is


def render(document: Document) -> str:
    """The whole report; ends with a newline."""
    blocks = [f"# {_text(document.title)}", *(f"> **{_text(line)}**" for line in document.warnings)]
    for section in document.sections:
        blocks += _section(section)
    return "\n\n".join(blocks) + "\n"


def _section(section: Section) -> Iterator[str]:
    yield f"{'#' * section.level} {_text(section.title)}"
    for paragraph in section.text:
        yield _text(paragraph)
    if section.table:
        yield "\n".join(_table(section.table))
    if section.notes:
        yield "\n".join(f"- {_text(note)}" for note in section.notes)


def _table(table: Table) -> Iterator[str]:
    lines = [tuple(_text(cell) for cell in line) for line in (table.head, *table.body)]
    widths = [max(3, *map(len, column)) for column in zip(*lines, strict=True)]
    rule = [
        "-" * (width - 1) + ("-" if side == "l" else ":")
        for width, side in zip(widths, table.align, strict=True)
    ]
    yield _line(lines[0], widths, table.align)
    yield _line(rule, widths, table.align)
    for line in lines[1:]:
        yield _line(line, widths, table.align)


def _line(cells: Sequence[str], widths: Sequence[int], align: str) -> str:
    padded = [
        cell.ljust(width) if side == "l" else cell.rjust(width)
        for cell, width, side in zip(cells, widths, align, strict=True)
    ]
    return "| " + " | ".join(padded) + " |"


def _text(text: str) -> str:
    return _TAG.sub("&lt;", text.translate(_SPECIAL))
