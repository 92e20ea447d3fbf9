"""What a report says, before it is Markdown, LaTeX or HTML."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Table:
    """Cells as text.

    Attributes:
        align: `l` or `r` for each column.
        last_apart: the last row is set off: it is a mean of those above.
    """

    head: tuple[str, ...]
    body: tuple[tuple[str, ...], ...]
    align: str
    last_apart: bool = False


@dataclass(frozen=True)
class Section:
    """A heading (level 2 to 4), paragraphs, a table, and notes on it."""

    level: int
    title: str
    text: tuple[str, ...] = ()
    table: Table | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Document:
    """A report; `warnings` come before all sections, `first` even before the title."""

    title: str
    warnings: tuple[str, ...]
    sections: tuple[Section, ...]
    first: tuple[str, ...] = ()
