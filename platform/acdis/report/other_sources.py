"""Means that other papers and projects have published for the rows of a table, beside the paper's own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from acdis.report.document import Section, Table
from acdis.report.facts import AbsentFacts, RowFacts
from acdis.vocabulary import REGIONS

TITLE = "Means of other sources, each on its own split"
HEAD = ("Row", "Source", *REGIONS)


@dataclass(frozen=True)
class Published:
    """Means of one source for one row, per cent."""

    label: str
    source: str
    figures: Mapping[str, float]

    def words(self) -> tuple[str, ...]:
        """As `HEAD`."""
        return self.label, self.source, *(f"{self.figures[region]:.2f}" for region in REGIONS)


def of_rows(rows: Sequence[RowFacts | AbsentFacts]) -> Iterator[Published]:
    """Row by row, the paper's own first; nothing of a row that no other source has."""
    for row in rows:
        if row.published:
            if row.paper:
                yield Published(row.label, "the paper", row.paper)
            for source, figures in row.published.items():
                yield Published(row.label, source, figures)


def section(rows: Sequence[RowFacts | AbsentFacts]) -> Section | None:
    """As a table; none where no row has other sources."""
    body = tuple(published.words() for published in of_rows(rows))
    return Section(3, TITLE, (), Table(HEAD, body, "llrrr")) if body else None
