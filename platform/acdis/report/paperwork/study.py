"""What a paper's paperwork is made from: rows with their scores and statistics, and what their cells say."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from acdis.cells import EXTERNAL
from acdis.report.facts import CellFacts, RowFacts, RowScores, SpecFacts
from acdis.report.paperwork.cell_papers import CellPapers
from acdis.report.paperwork.elsewhere import Elsewhere
from acdis.report.sections import Compared

#: What is known, by what it is about: sentences, or parts of one; nothing known is an empty list.
Facts = dict[str, list[str]]


@dataclass(frozen=True)
class RowRun:
    """One row of a spec with one seed, and what its cell says.

    Attributes:
        label: of the row, with the spec's name where there are several specs.
    """

    spec: SpecFacts
    row: RowFacts
    cell: CellFacts
    label: str
    papers: CellPapers

    @property
    def foreign(self) -> bool:
        """Whether another tool has made the predictions: how it was trained is not known then."""
        return self.cell.cell.startswith(f"{EXTERNAL}-")


@dataclass(frozen=True)
class Study:
    """What is reported on.

    Attributes:
        compared: specs with their scores and what these say.
        runs: of the rows of their tables; helpers: of rows that are trained for these, such as teachers.
        elsewhere: what else the home holds; none where that is not known, as from a bundle.
    """

    compared: tuple[Compared, ...]
    runs: tuple[RowRun, ...]
    helpers: tuple[RowRun, ...]
    elsewhere: Elsewhere | None

    @property
    def trained(self) -> tuple[RowRun, ...]:
        """Runs of the tables that the platform has trained."""
        return tuple(run for run in self.runs if not run.foreign)

    @property
    def scored(self) -> bool:
        """Whether any row has scores."""
        return any(row.seeds for _, rows, _ in self.compared for row in rows)

    @property
    def several(self) -> bool:
        """Whether there is more than one spec."""
        return len(self.compared) > 1


def study(
    compared: Sequence[Compared], papers: Callable[[str], CellPapers], elsewhere: Elsewhere | None
) -> Study:
    """Everything in its place; each cell's files are read once.

    Args:
        papers: of a cell, by its name.
    """
    specs = [spec for spec, _, _ in compared]
    names = {cell.cell for spec in specs for row in (*spec.rows, *spec.unscored) for cell in row.cells}
    known = {name: papers(name) for name in sorted(names)}

    def runs(spec: SpecFacts, rows: Iterable[RowFacts]) -> list[RowRun]:
        mark = f" ({spec.name})" if len(specs) > 1 else ""
        return [
            RowRun(spec, row, cell, row.label + mark, known[cell.cell]) for row in rows for cell in row.cells
        ]

    return Study(
        tuple(compared),
        tuple(run for spec in specs for run in runs(spec, spec.rows)),
        tuple(run for spec in specs for run in runs(spec, spec.unscored)),
        elsewhere,
    )


def grouped(runs: Sequence[RowRun], value: Callable[[RowRun], str]) -> list[str]:
    """What `value` says of the runs, each thing once, with the rows that it holds for where they differ.

    Runs of which it says nothing ("") are passed over; a row of which nothing is known at all is named, and
    seeds where they differ within a row.
    """
    said = [(run, text) for run in runs if (text := value(run))]
    if not said:
        return []
    by_row: dict[str, set[str]] = {}
    for run, text in said:
        by_row.setdefault(run.label, set()).add(text)
    holders: dict[str, dict[str, None]] = {}
    for run, text in said:
        one = len(by_row[run.label]) == 1
        holders.setdefault(text, {})[run.label if one else f"{run.label} seed {run.cell.seed}"] = None
    unknown = list(dict.fromkeys(run.label for run in runs if run.label not in by_row))
    if len(holders) == 1 and not unknown:
        return list(holders)
    lines = [f"{listed(rows)}: {text}" for text, rows in holders.items()]
    return lines + ([f"not recorded: {listed(unknown)}"] if unknown else [])


def each_row(study: Study, told: Callable[[RowScores], str]) -> list[str]:
    """What `told` says of each row that has scores, under its label."""
    return [
        f"{row.label}{f' ({spec.name})' if study.several else ''}: {text}"
        for spec, rows, _ in study.compared
        for row in rows
        if row.seeds and (text := told(row))
    ]


def counted(number: int, word: str, words: str = "") -> str:
    """`1 scan`, `3 scans`."""
    return f"{number:,} {word if number == 1 else words or word + 's'}"


def listed(words: Iterable[str], most: int = 12) -> str:
    """Different words with commas between them; beyond `most` their number."""
    every = list(dict.fromkeys(words))
    more = f" and {len(every) - most} more" if len(every) > most else ""
    return ", ".join(every[:most]) + more
