"""Tables of specs as `report` computes them, kept until records change; figures alone while tests wait."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from acdis.dashboard import summaries
from acdis.dashboard.files import Stamp
from acdis.dashboard.site import Site
from acdis.dashboard.store import StoreAwayError
from acdis.errors import UserError
from acdis.evaluation.scores import Scores
from acdis.report.comparison import Comparison, compare, figures
from acdis.report.facts import CellFacts, RowScores, SpecFacts, with_scores
from acdis.report.sections import Compared

Stamps = tuple[Stamp | None, ...]
#: Files of records that are read while a visitor waits, and tests that are made meanwhile.
FEW_FILES, FEW_TESTS = 60, 60


@dataclass(frozen=True)
class Result:
    """A table.

    Attributes:
        compared: spec, rows and what they say, as `report` has them.
        whole: whether tests and cases are in it; else figures alone, from means in MLflow's store.
        elsewhere: whether no cell of the spec has its folder here, so that it cannot become whole.
    """

    compared: Compared
    whole: bool
    elsewhere: bool = False


class Results:
    """Of one site."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._lock = threading.Lock()
        self._locks: dict[str, threading.Lock] = {}
        self._kept: dict[str, tuple[Any, Comparison]] = {}

    def soon(self, name: str) -> Result:
        """The whole table where that takes a moment, else its figures. Raises NotThereError."""
        spec, stamps = self._site.looked(name)
        if _elsewhere(spec):
            return Result(self._quick(spec), whole=False, elsewhere=True)
        if self._is_quick(spec, stamps):
            return Result(self._whole(spec, stamps), whole=True)
        return Result(self._quick(spec), whole=False)

    def whole(self, name: str) -> Result:
        """The table with all tests, however long that takes. Raises NotThereError."""
        spec, stamps = self._site.looked(name)
        if _elsewhere(spec):
            return Result(self._quick(spec), whole=False, elsewhere=True)
        return Result(self._whole(spec, stamps), whole=True)

    def _is_quick(self, spec: SpecFacts, stamps: Stamps) -> bool:
        kept = self._kept.get(spec.name)
        if kept is not None and kept[0] == _key(spec, stamps):
            return True
        folders = self._site.folders
        scored = [cell for row in spec.rows for cell in row.cells if cell.scored]
        unread = sum(not folders.has_read(cell.cell, cell.evaluation) for cell in scored)
        return unread <= FEW_FILES and 3 * len(spec.rows) <= FEW_TESTS

    def _whole(self, spec: SpecFacts, stamps: Stamps) -> Compared:
        with self._lock:
            lock = self._locks.setdefault(spec.name, threading.Lock())
        with lock:  # two visitors wait for one computation
            key = _key(spec, stamps)
            spec, rows = self._read(spec)
            kept = self._kept.get(spec.name)
            if kept is None or kept[0] != key:
                kept = self._kept[spec.name] = (key, compare(rows, spec.baseline))
            return spec, rows, kept[1]

    def _read(self, spec: SpecFacts) -> tuple[SpecFacts, list[RowScores]]:
        """Records of all cells; a cell whose records cannot be read counts as not scored, and says so."""
        found: dict[tuple[str, str], Scores] = {}

        def readable(cell: CellFacts) -> CellFacts:
            if not cell.scored:
                return cell
            try:
                found[cell.cell, cell.evaluation] = self._site.folders.scores(cell.cell, cell.evaluation)
            except UserError:
                return replace(cell, scored=False, standing="its records cannot be read: evaluate it again")
            return cell

        rows = tuple(replace(row, cells=tuple(map(readable, row.cells))) for row in spec.rows)
        whole = replace(spec, rows=rows)
        return whole, [with_scores(row, lambda cell, evaluation: found[cell, evaluation]) for row in rows]

    def _quick(self, spec: SpecFacts) -> Compared:
        known, runs = self._summaries(), self._site.runs()
        rows = []
        for row in spec.rows:
            seeds = {
                cell.seed: known[run.id]
                for cell in row.cells
                if (run := runs.get(cell.cell)) and run.id in known and self._same(cell)
            }
            rows.append(
                replace(
                    with_scores(replace(row, cells=()), _none),
                    seeds=seeds,
                    missing=tuple(cell.seed for cell in row.cells if cell.seed not in seeds),
                )
            )
        found = {row.id: replace(figures(row.seeds), cases=(0, 0)) for row in rows if row.seeds}
        return spec, rows, Comparison(found, (), (), 0)

    def _summaries(self) -> Mapping[str, Scores]:
        try:
            return summaries.of_runs(self._site.store)
        except StoreAwayError:
            return {}

    def _same(self, cell: CellFacts) -> bool:
        """Whether MLflow's scores of a cell are those of this evaluation: of other cases they are no use."""
        seen = self._site.folders.seen(cell.cell, cell.evaluation)
        return not seen.state or (cell.scored and seen.state.get("evaluation") == cell.evaluation)


def _key(spec: SpecFacts, stamps: Stamps) -> Any:
    """Equal as long as the comparison would be."""
    rows = tuple((row.id, repr(row.paper), len(row.cells)) for row in spec.rows)
    cells = tuple((cell.seed, cell.cell, cell.evaluation) for row in spec.rows for cell in row.cells)
    return spec.baseline, rows, cells, stamps


def _none(*_: str) -> Scores:
    raise AssertionError("a row without cells has no scores")


def _elsewhere(spec: SpecFacts) -> bool:
    cells = [cell for row in spec.rows for cell in row.cells]
    trained = [cell for cell in cells if cell.standing == "trained elsewhere"]
    return bool(trained) and not any(cell.scored for cell in cells)
