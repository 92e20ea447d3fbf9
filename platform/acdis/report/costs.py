"""What the rows of a table cost: hours, and what their cells have counted and measured of themselves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from acdis.report import phrases
from acdis.report.document import Section, Table
from acdis.report.facts import RowFacts, RowScores

#: Column, figure, unit in which it is shown.
_COLUMNS = (
    ("Parameters, M", "parameters", 1e6),
    ("at inference, M", "parameters_inference", 1e6),
    ("Multiply-adds per voxel, k", "multiply_adds", 1e3),
    ("GFLOP a window", "gflop_window", 1.0),
    ("GFLOP, 15 subsets", "gflop_subsets", 1.0),
    ("Step, s", "step_seconds", 1.0),
    ("Peak of a step, GiB", "peak_bytes", 2.0**30),
)
HEAD = ("Row", "Hours", *(name for name, _, _ in _COLUMNS))
#: Figures as CSV names them.
FIGURES = tuple(key for _, key, _ in _COLUMNS)
HOW = (
    "Cost: hours of the row's scored cells, those of parents such as a teacher not among them. "
    "Multiply-adds, two FLOP each: of a window at inference, in convolutions and products of matrices, with "
    "all four modalities, and of all 15 subsets from one encoding. Step: seconds, data included, median of "
    "the epochs. Peak: of a training step, one worker, on a CPU with the libraries. Of several cells the "
    "largest."
)


@dataclass(frozen=True)
class Cost:
    """What a row costs.

    Attributes:
        hours: of its scored cells, by `cpu` or `gpu`.
        figures: of `FIGURES` those that its cells know, each the largest of them.
    """

    label: str
    hours: Mapping[str, float]
    figures: Mapping[str, float]

    def words(self) -> list[str]:
        """As `HEAD`."""
        shown = (
            f"{self.figures[key] / unit:,.2f}" if key in self.figures else phrases.ABSENT
            for _, key, unit in _COLUMNS
        )
        return [self.label, phrases.hours(self.hours), *shown]


def of_rows(rows: Sequence[RowFacts], scores: Sequence[RowScores]) -> dict[str, Cost]:
    """By row, of those that have hours or whose cells have counted."""
    by_row: dict[str, Cost] = {}
    for row, scored in zip(rows, scores, strict=True):
        cells = [_figures(cell.capacity) for cell in row.cells]
        known = {key: [cell[key] for cell in cells if key in cell] for key in FIGURES}
        most = {key: max(values) for key, values in known.items() if values}
        if scored.hours or most:
            by_row[row.id] = Cost(row.label, scored.hours, most)
    return by_row


def section(costs: Mapping[str, Cost]) -> Section | None:
    """A line for each row; none where no cell has counted."""
    if not any(cost.figures for cost in costs.values()):
        return None
    body = tuple(tuple(cost.words()) for cost in costs.values())
    return Section(3, "Cost", (HOW,), Table(HEAD, body, "l" + "r" * (len(HEAD) - 1)))


def _figures(capacity: Mapping[str, float]) -> dict[str, float]:
    """What a cell says, see `Cell.capacity`, with GFLOP of its window."""
    figures = dict(capacity)
    for name, counted in (("gflop_window", "multiply_adds"), ("gflop_subsets", "multiply_adds_subsets")):
        if counted in capacity and "window_voxels" in capacity:
            figures[name] = 2 * capacity[counted] * capacity["window_voxels"] / 1e9
    return figures
