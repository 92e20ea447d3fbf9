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
class FloatCell:
    """A cell of a `Float`.

    Attributes:
        rank: `BEST` is printed bold, `SECOND` underlined.
        marks: what stands raised behind the text, of `rendering.TEX_MARKS`.
    """

    text: str
    rank: int = 0
    marks: str = ""


#: The first and the second of a column.
BEST, SECOND = 1, 2


@dataclass(frozen=True)
class Float:
    """A table as papers print it, with a caption and a label of its own: for LaTeX.

    Attributes:
        warnings: printed bold at the head of the caption.
        name: of the label, which is `tab:<name>`.
        spans: heads from left to right, each with the heads of its columns; without a name nothing stands
            above these.
        align: `l` or `r` for each column.
        apart: how many of the last rows are set off.
    """

    warnings: tuple[str, ...]
    caption: str
    name: str
    spans: tuple[tuple[str, tuple[str, ...]], ...]
    body: tuple[tuple[FloatCell, ...], ...]
    align: str
    apart: int = 0


@dataclass(frozen=True)
class Section:
    """A heading (level 2 to 4), paragraphs, a table, and notes on it.

    Attributes:
        float: the table for LaTeX, where it has one of its own.
    """

    level: int
    title: str
    text: tuple[str, ...] = ()
    table: Table | None = None
    notes: tuple[str, ...] = ()
    float: Float | None = None


@dataclass(frozen=True)
class Document:
    """A report; `warnings` come before all sections, `first` even before the title."""

    title: str
    warnings: tuple[str, ...]
    sections: tuple[Section, ...]
    first: tuple[str, ...] = ()
