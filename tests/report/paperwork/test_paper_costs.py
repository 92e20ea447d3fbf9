"""Hours row by row and in all: failed trainings count, a shared cell once, parts where they were trained."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest

from acdis.report.paperwork import about_cost
from acdis.report.paperwork.cell_papers import CellPapers
from acdis.report.paperwork.study import Study, study


def test_a_failed_trainings_hours_count(kept: Study) -> None:
    """Two hours a finished cell, half an hour for the failed one; the teacher is another row's cost."""
    rows, every = about_cost.of_rows(kept)
    told = {cost.label: (cost.cells, cost.whole, dict(cost.ended), dict(cost.lost)) for cost in rows}
    assert told == {
        "RFNet": (2, 2, {"gpu": 4.0}, {}),
        "MMANet": (2, 1, {"gpu": 2.0}, {"gpu": 0.5}),
        "its teacher": (2, 2, {"gpu": 4.0}, {}),
    }
    assert (every.cells, every.whole, every.hours) == (6, 5, {"gpu": 10.5})


def test_what_nobody_has_begun_has_not_failed(made: SimpleNamespace) -> None:
    spec = made.spec({"one": {}, "two": {}}, [0])
    standings = {"one": "missing", "two": "stopped"}
    rows = tuple(
        replace(row, cells=(replace(row.cells[0], scored=False, hours={}, standing=standings[row.id]),))
        for row in spec.rows
    )
    whole = study([(replace(spec, rows=rows), (), None)], lambda _: CellPapers(), None)  # type: ignore[arg-type]
    assert about_cost.facts(whole)["failed_runs"] == [
        "two, seed 0 (two-0): stopped; no epoch came to its end",
        "1 training of these tables not begun",
    ]


def test_a_cell_that_two_specs_share_is_counted_once(kept: Study) -> None:
    (one,) = kept.compared
    twice = [one, (replace(one[0], name="again"), *one[1:])]
    papers = {run.cell.cell: run.papers for run in (*kept.runs, *kept.helpers)}
    rows, every = about_cost.of_rows(study(twice, lambda cell: papers[cell], None))
    assert len(rows) == 6
    assert sum(cost.hours.get("gpu", 0.0) for cost in rows) == pytest.approx(21.0)
    assert (every.cells, every.hours) == (6, {"gpu": 10.5})


def test_a_cell_put_together_costs_what_its_parts_cost(made: SimpleNamespace) -> None:
    """Three parts of an hour; one is a row of the table as well, one was trained elsewhere."""
    spec = made.spec({"whole": {}, "part": {}}, [0])
    hours = {"whole-0": {"cpu": 3.0}, "part-0": {"cpu": 1.0}, "other-0": {"cpu": 1.0}}

    def costing(row: object) -> object:
        return replace(row, cells=tuple(replace(cell, hours=hours[cell.cell]) for cell in row.cells))  # type: ignore[attr-defined, type-var]

    other = replace(spec.rows[1], id="whole:other", label="other part")
    other = replace(other, cells=(replace(other.cells[0], cell="other-0", scored=False, standing="running"),))
    spec = replace(spec, rows=tuple(map(costing, spec.rows)), unscored=(costing(other),))
    papers = {"whole-0": CellPapers(parts=("part-0", "other-0", "gone-0"))}
    rows, every = about_cost.of_rows(
        study([(spec, (), None)], lambda cell: papers.get(cell, CellPapers()), None)  # type: ignore[arg-type]
    )
    assert [(cost.label, cost.hours) for cost in rows] == [
        ("whole", {"cpu": 1.0}),
        ("part", {"cpu": 1.0}),
        ("other part", {"cpu": 1.0}),
    ]
    assert every.hours == {"cpu": 3.0}
    assert every.lost == {"cpu": 1.0}
