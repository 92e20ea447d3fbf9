"""A report on a terminal: every figure is there, and no line is longer than the terminal is wide."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from acdis.report.document import Document, Section, Table
from acdis.terminal.report_pages import parts, show

HEAD = ("row", *(f"column {number}" for number in range(9)))
BODY = tuple((f"row *{row}* [b]", *(f"{row}{number}.25" for number in range(9))) for row in "123")
NOTE = "A note of the table, which is longer than a narrow terminal is wide, and which is wrapped therefore."
DOCUMENT = Document(
    "Title",
    ("On phantoms.",),
    (Section(2, "A section", ("Words.",), Table(HEAD, BODY, "l" + 9 * "r", last_apart=True), (NOTE,)),),
    ("Below the whole brain.",),
)


def _shown(width: int) -> list[str]:
    console = Console(file=io.StringIO(), width=width, highlight=False)
    show(DOCUMENT, console)
    return console.file.getvalue().splitlines()  # type: ignore[attr-defined,no-any-return]


@pytest.mark.parametrize("width", [60, 80, 200])
def test_all_of_it_fits_the_width(width: int) -> None:
    lines = _shown(width)
    assert max(len(line.rstrip()) for line in lines) <= width
    words = " ".join(" ".join(lines).split())
    for said in ("Title", "On phantoms.", "Below the whole brain.", "A section", "Words.", NOTE, *HEAD):
        assert said in words
    for row in BODY:
        own = " ".join(line.removeprefix(row[0]) for line in lines if line.startswith(row[0]))
        assert own.split() == list(row[1:])
    assert not any(line.startswith(("#", "|", ">")) for line in lines)


def test_a_wide_table_comes_in_parts_that_name_the_row() -> None:
    table = DOCUMENT.sections[0].table
    assert table is not None
    assert list(parts(table, 200)) == [list(range(10))]
    narrow = list(parts(table, 60))
    assert all(part[0] == 0 for part in narrow)
    assert [place for part in narrow for place in part[1:]] == list(range(1, 10))
    assert list(parts(table, 5)) == [[0, place] for place in range(1, 10)]
