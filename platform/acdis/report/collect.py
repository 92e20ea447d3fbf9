"""From the cells of a home to the facts of a report."""

from __future__ import annotations

import functools
import logging
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from acdis import home
from acdis.cells import Cell
from acdis.cells.schemas import DamagedError
from acdis.evaluation.scores import Scores, read_file
from acdis.report import spent
from acdis.report.facts import AbsentFacts, CellFacts, Reader, RowFacts, SpecFacts

if TYPE_CHECKING:
    from acdis.ablation.expansion import Member
    from acdis.ablation.spec import Spec

#: Longest part of a failure's reason that is shown.
REASON = 100
#: How a cell stands that has its scores.
SCORED = "done"
#: How a cell stands that has its weights and no scores of these cases; one without test cases stays so.
TRAINED = "stopped: trained, these cases not scored"
#: How a cell stands whose state cannot be read.
DAMAGED = "its state.json is damaged"
log = logging.getLogger(__name__)
_USER = re.compile(r"(\w://)[^\s/\"']+@")


#: Of a cell's evaluation, by both names: whether it is scored, how it stands, hours, code, how large it is.
Look = Callable[[str, str], tuple[bool, str, dict[str, float], str, dict[str, float]]]


def collect(members: Sequence[Member], base: Path) -> list[SpecFacts]:
    """One entry per spec, rows and seeds in the order of `members`."""
    return outline(members, lambda name, evaluation: _cell(Cell(home.cells(base) / name), evaluation))


def outline(members: Sequence[Member], look: Look = lambda *_: (False, "", {}, "", {})) -> list[SpecFacts]:
    """As `collect`, with what `look` says of the cells; without it no cell is looked at.

    Rows that are not to be scored, such as teachers, stand apart.
    """
    once = functools.cache(look)
    by_spec = [list(group) for _, group in groupby(members, key=lambda member: id(member.spec))]
    return [_spec(group, once) for group in by_spec if any(member.experiment.scored for member in group)]


def reader(base: Path) -> Reader:
    """Scores from the cells' folders; a file is read once, however many rows show it."""

    @functools.cache
    def read(cell: str, evaluation: str) -> Scores:
        return read_file(records_file(base, cell, evaluation))

    return read


def records_file(base: Path, cell: str, evaluation: str) -> Path:
    """Where the per-case records of an evaluation lie."""
    return Cell(home.cells(base) / cell).records(evaluation)


def _spec(every: Sequence[Member], look: Look) -> SpecFacts:
    members = [member for member in every if member.experiment.scored]
    others = [member for member in every if not member.experiment.scored]
    spec, first = members[0].spec, members[0].experiment
    return SpecFacts(
        spec.name,
        spec.title,
        spec.table,
        spec.baseline,
        spec.source or "",
        tuple(map(without_passwords, spec.overrides)),
        dict(spec.excluded),
        any(member.experiment.data.phantoms is not None for member in members),
        first.evaluation.et_minimum,
        tuple(_row(group, look) for group in _by_row(members)),
        spec.family,
        spec.margin,
        absent(spec),
        _post_processing(members),
        tuple(_row(group, look) for group in _by_row(others)),
    )


def _post_processing(members: Sequence[Member]) -> str:
    told = {member.row.id: member.experiment.evaluation.processing_in_words() for member in members}
    if len(set(told.values())) == 1:
        return told.popitem()[1]
    return "; ".join(f"{row}: {words or 'none'}" for row, words in told.items())


def _by_row(members: Iterable[Member]) -> list[list[Member]]:
    return [list(group) for _, group in groupby(members, key=lambda member: member.row.id)]


def _row(members: Sequence[Member], look: Look) -> RowFacts:
    row = members[0].row
    cells = []
    for member in members:
        cells.append(
            CellFacts(member.seed, member.cell, member.evaluation, *look(member.cell, member.evaluation))
        )
    return RowFacts(
        row.id,
        row.label,
        row.note,
        figures(row.paper),
        _plain(row.changes),
        tuple(cells),
        row.paper_row,
        by_source(row.published),
    )


def absent(spec: Spec) -> tuple[AbsentFacts, ...]:
    """The spec's rows that are shown and not trained."""
    return tuple(
        AbsentFacts(
            row.id,
            row.label,
            row.absent or "",
            row.note,
            figures(row.paper),
            row.paper_row,
            by_source(row.published),
        )
        for row in spec.absent
    )


def figures(paper: Mapping[str, float] | None) -> dict[str, float] | None:
    """Published figures as plain floats, by region."""
    return None if paper is None else {region: float(value) for region, value in paper.items()}


def by_source(published: Mapping[str, Mapping[str, float]] | None) -> dict[str, dict[str, float]] | None:
    """The same of several sources."""
    if published is None:
        return None
    return {
        name: {region: float(value) for region, value in means.items()} for name, means in published.items()
    }


def _plain(tree: Any) -> Any:
    """Mappings and sequences as JSON knows them, so that a bundle gives back what went in."""
    if hasattr(tree, "items"):
        return {str(key): _plain(value) for key, value in tree.items()}
    return [_plain(value) for value in tree] if isinstance(tree, list | tuple) else tree


def _cell(cell: Cell, evaluation: str) -> tuple[bool, str, dict[str, float], str, dict[str, float]]:
    scored = cell.records(evaluation).is_file()
    state = _told(cell.state, {"status": DAMAGED})
    tags = _told(cell.lineage, {}).get("tags", {})
    return (
        scored,
        SCORED if scored else standing(cell, state),
        _told(lambda: spent.hours(cell), {}),
        code_of(tags),
        _told(cell.capacity, {}),
    )


def _told(read: Callable[[], dict[str, Any]], otherwise: dict[str, Any]) -> dict[str, Any]:
    """What a cell's file says; a damaged one is named, and the report goes on without it."""
    try:
        return read()
    except DamagedError as error:
        log.warning("%s", error)
        return otherwise


def standing(cell: Cell, state: dict[str, Any]) -> str:
    """Why a cell has no scores, in a few words."""
    status = str(state.get("status", "missing"))
    if status == "failed":
        reason = " ".join(str(state.get("reason") or "no reason given").split())
        return "failed: " + (reason if len(reason) <= REASON else reason[: REASON - 1] + "…")
    if status in ("starting", "training", "scoring"):
        epoch = f", {state.get('done', 0)} of {state['epochs']} epochs done" if "epochs" in state else ""
        return (f"running: {status}" if cell.busy() else "stopped") + epoch
    return TRAINED if status in ("done", "scored") else status


def code_of(tags: Mapping[str, str]) -> str:
    """`0b338d9`, with a `+` where the tree was changed."""
    commit = tags.get("acdis.git_commit", "–")
    return commit[:7] + ("+" if tags.get("acdis.git_dirty") == "true" else "")


def without_passwords(text: str) -> str:
    """Addresses in it lose user and password: reports and bundles are handed on."""
    return _USER.sub(r"\1", text)
