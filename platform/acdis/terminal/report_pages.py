"""A report on a terminal: headings, wrapped text, and tables that fit its width."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich import box
from rich.console import Console
from rich.table import Table as Drawn
from rich.text import Text

from acdis.report.document import Document, Section, Table

#: Characters between two columns; and of a cell at most, before it is folded.
GAP, WIDEST = 2, 36


def show(document: Document, console: Console) -> None:
    """Print the whole report."""
    for line in document.first:
        console.print(Text(line, "bold red"), end="\n\n")
    console.print(Text(document.title, "bold underline"))
    for line in document.warnings:
        console.print()
        console.print(Text(line, "bold red"))
    for section in document.sections:
        _show(section, console)


def _show(section: Section, console: Console) -> None:
    console.print()
    console.print(Text(section.title, "bold underline" if section.level < 3 else "bold"))
    for paragraph in section.text:
        console.print()
        console.print(Text(paragraph))
    if section.table:
        for part in parts(section.table, console.width):
            console.print(_drawn(section.table, part))
    for note in section.notes:
        console.print(Text(f"· {note}"))


def parts(table: Table, width: int) -> Iterator[list[int]]:
    """Columns that fit side by side, the first of them in every part: a row is known by it."""
    lines = (table.head, *table.body)
    sizes = [min(WIDEST, max(map(len, column))) + GAP for column in zip(*lines, strict=True)]
    part, used = [0], sizes[0]
    for place, size in enumerate(sizes[1:], 1):
        if len(part) > 1 and used + size > width:
            yield part
            part, used = [0], sizes[0]
        part.append(place)
        used += size
    yield part


def _drawn(table: Table, columns: Sequence[int]) -> Drawn:
    drawn = Drawn(
        box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, GAP, 0, 0), collapse_padding=True, show_edge=False
    )
    for place in columns:
        drawn.add_column(
            Text(table.head[place]),
            justify="right" if table.align[place] == "r" else "left",
            overflow="fold",
            max_width=WIDEST,
        )
    for number, line in enumerate(table.body):
        apart = table.last_apart and number == len(table.body) - 2
        drawn.add_row(*(Text(line[place]) for place in columns), end_section=apart)
    return drawn
