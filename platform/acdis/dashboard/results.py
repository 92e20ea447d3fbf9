"""Tables of specs as `report` computes them, kept until records change; figures alone while tests wait."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from acdis.ablation.spec import Question
from acdis.dashboard import summaries
from acdis.dashboard.state import SeenCell, Site
from acdis.dashboard.store import StoreAwayError
from acdis.errors import UserError
from acdis.evaluation.scores import Scores
from acdis.report.comparison import Comparison, compare, figures
from acdis.report.facts import CellFacts, RowFacts, RowScores, SpecFacts, with_scores
from acdis.report.sections import Compared

#: Files of records that are read while a visitor waits.
FEW_FILES = 60


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


@dataclass(frozen=True)
class _Kept:
    """A comparison, what it was made from, and the scores and the unreadable cells behind it."""

    key: Any
    scores: Mapping[tuple[str, str], Scores]
    unreadable: frozenset[tuple[str, str]]
    comparison: Comparison


class Results:
    """Of one site."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._lock = threading.Lock()
        self._locks: dict[str, threading.Lock] = {}
        self._kept: dict[str, _Kept] = {}

    def soon(self, name: str) -> Result:
        """The whole table where that takes a moment, else its figures. Raises NotThereError."""
        spec, looks = self._site.looked(name)
        if _elsewhere(spec):
            return Result(self._quick(spec, looks), whole=False, elsewhere=True)
        if self._is_quick(spec, looks):
            return Result(self._whole(spec, looks), whole=True)
        return Result(self._quick(spec, looks), whole=False)

    def whole(self, name: str) -> Result:
        """The table with all tests, however long that takes. Raises NotThereError."""
        spec, looks = self._site.looked(name)
        if _elsewhere(spec):
            return Result(self._quick(spec, looks), whole=False, elsewhere=True)
        return Result(self._whole(spec, looks), whole=True)

    def _is_quick(self, spec: SpecFacts, looks: Sequence[SeenCell]) -> bool:
        kept = self._kept.get(spec.name)
        if kept is not None and kept.key == _key(spec, looks):
            return True
        has_read = self._site.folders.has_read
        unread = sum(not has_read(look.cell.cell, look.cell.evaluation) for look in looks if look.cell.scored)
        return unread <= FEW_FILES

    def _whole(self, spec: SpecFacts, looks: Sequence[SeenCell]) -> Compared:
        key = _key(spec, looks)
        with self._lock:
            lock = self._locks.setdefault(spec.name, threading.Lock())
        with lock:  # two visitors wait for one computation
            kept = self._kept.get(spec.name)
            if kept is None or kept.key != key:
                kept = self._kept[spec.name] = self._compared(spec, key)
        seen, rows = _rows(spec, kept)
        return seen, rows, kept.comparison

    def _compared(self, spec: SpecFacts, key: Any) -> _Kept:
        scores, unreadable = {}, set()
        for cell in (cell for row in spec.rows for cell in row.cells if cell.scored):
            names = (cell.cell, cell.evaluation)
            try:
                scores[names] = self._site.folders.scores(*names)
            except UserError:
                unreadable.add(names)
        known = _Kept(key, scores, frozenset(unreadable), Comparison({}, (), (), 0))
        return replace(known, comparison=compare(_rows(spec, known)[1], *_asked(spec)))

    def _quick(self, spec: SpecFacts, looks: Sequence[SeenCell]) -> Compared:
        known, rows, place = self._summaries(), [], iter(looks)
        for row in spec.rows:
            mine = [next(place) for _ in row.cells]
            seeds = {
                look.cell.seed: known[look.run.id]
                for look in mine
                if look.run and look.run.id in known and _same(look)
            }
            missing = tuple(look.cell.seed for look in mine if look.cell.seed not in seeds)
            rows.append(replace(_row(replace(row, cells=()), {}), seeds=seeds, missing=missing))
        by_row = {row.id: figures(row.seeds) for row in rows if row.seeds}
        by_row = {name: replace(of_row, cases=(0, 0), penalties=None) for name, of_row in by_row.items()}
        return spec, rows, Comparison(by_row, (), (), 0)

    def _summaries(self) -> Mapping[str, Scores]:
        try:
            return summaries.of_runs(self._site.store)
        except StoreAwayError:
            return {}


def _same(look: SeenCell) -> bool:
    """Whether MLflow's scores of a cell are those of this evaluation: of other cases they are no use."""
    state = look.seen.state
    return not state or (look.cell.scored and state.get("evaluation") == look.cell.evaluation)


def _key(spec: SpecFacts, looks: Sequence[SeenCell]) -> Any:
    """Equal as long as the comparison would be."""
    rows = tuple((row.id, repr(row.paper)) for row in spec.rows)
    cells = tuple(
        (look.row, look.cell.seed, look.cell.cell, look.cell.evaluation, look.seen.scores) for look in looks
    )
    return _asked(spec), rows, cells


def _asked(spec: SpecFacts) -> tuple[str, tuple[Question, ...] | None, float]:
    return spec.baseline, spec.family, spec.margin


def _rows(spec: SpecFacts, kept: _Kept) -> tuple[SpecFacts, list[RowScores]]:
    """Rows with their scores; a cell whose records cannot be read counts as not scored, and says so."""
    if kept.unreadable:
        spec = replace(
            spec,
            rows=tuple(
                replace(row, cells=tuple(_marked(cell, kept.unreadable) for cell in row.cells))
                for row in spec.rows
            ),
        )
    return spec, [_row(row, kept.scores) for row in spec.rows]


def _row(row: RowFacts, scores: Mapping[tuple[str, str], Scores]) -> RowScores:
    return with_scores(row, lambda cell, evaluation: scores[cell, evaluation])


def _marked(cell: CellFacts, unreadable: frozenset[tuple[str, str]]) -> CellFacts:
    if (cell.cell, cell.evaluation) not in unreadable:
        return cell
    return replace(cell, scored=False, standing="its records cannot be read: evaluate it again")


def _elsewhere(spec: SpecFacts) -> bool:
    cells = [cell for row in spec.rows for cell in row.cells]
    trained = [cell for cell in cells if cell.standing == "trained elsewhere"]
    return bool(trained) and not any(cell.scored for cell in cells)
