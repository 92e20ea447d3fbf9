"""What it all cost, failed and stopped trainings included: row by row, and each cell once in the sum."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from acdis.cells import summed
from acdis.report import phrases
from acdis.report.collect import TRAINED
from acdis.report.document import Table
from acdis.report.paperwork.study import Facts, RowRun, Study, counted, grouped, listed

HEAD = ("Row", "Cells", "Ended", "Hours of these", "Hours of failed, stopped, unfinished", "Hours")
ALL = "all of these, each cell once"
#: Cells without scores that are named one by one.
NAMED = 20
#: How cells stand that nobody has trained yet.
_NOT_BEGUN = ("missing", "")


@dataclass(frozen=True)
class Cost:
    """Of a row, or of all rows; hours by `cpu` or `gpu`.

    Attributes:
        cells: how many; whole: how many of them have come to their end.
        ended, lost: hours of these, and of the others.
    """

    label: str
    cells: int
    whole: int
    ended: Mapping[str, float]
    lost: Mapping[str, float]

    @property
    def hours(self) -> dict[str, float]:
        """All of them."""
        return summed((self.ended, self.lost))

    def words(self) -> tuple[str, ...]:
        """As `HEAD`."""
        spent = (phrases.hours(hours) for hours in (self.ended, self.lost, self.hours))
        return self.label, str(self.cells), str(self.whole), *spent


def of_rows(study: Study) -> tuple[list[Cost], Cost]:
    """Row by row, those that others learn from behind the tables' own, and all together.

    A cell that several rows share stands in each of them and once in the sum. One that is put together from
    parts has trained nothing itself: where the parts are here too, their hours are theirs.
    """
    runs = [*study.trained, *study.helpers]
    hours = {run.cell.cell: run.cell.hours for run in runs}
    own = {run.cell.cell: _own(run, hours) for run in runs}
    rows: dict[str, list[RowRun]] = {}
    for run in runs:
        rows.setdefault(run.label, []).append(run)
    once = {run.cell.cell: run for run in runs}
    return [_cost(label, row, own) for label, row in rows.items()], _cost(ALL, list(once.values()), own)


def _own(run: RowRun, hours: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    parts = summed(hours[part] for part in dict.fromkeys(run.papers.parts) if part in hours)
    return {kind: max(0.0, value - parts.get(kind, 0.0)) for kind, value in run.cell.hours.items()}


def _cost(label: str, runs: Sequence[RowRun], own: Mapping[str, Mapping[str, float]]) -> Cost:
    whole = [run for run in runs if _ended(run)]
    return Cost(
        label,
        len(runs),
        len(whole),
        summed(own[run.cell.cell] for run in whole),
        summed(own[run.cell.cell] for run in runs if not _ended(run)),
    )


def _ended(run: RowRun) -> bool:
    """Whether its training came to its end."""
    return run.cell.scored or run.cell.standing == TRAINED


def table(study: Study) -> Table:
    """A line for each row, and their sum."""
    rows, every = of_rows(study)
    body = tuple(cost.words() for cost in (*rows, every))
    return Table(HEAD, body, "l" + "r" * (len(HEAD) - 1), last_apart=True)


def facts(study: Study) -> Facts:
    """By what they are about."""
    rows, every = of_rows(study)
    return {
        "hardware": grouped(study.trained, _hardware),
        "memory": grouped(study.trained, _memory),
        "hours": [
            f"{cost.label}: {phrases.hours(cost.hours)} hours, of which {phrases.hours(cost.lost)} in "
            "trainings that failed, were stopped or are unfinished"
            if cost.lost
            else f"{cost.label}: {phrases.hours(cost.hours)} hours"
            for cost in rows
            if cost.hours
        ],
        "hours_in_all": [*_in_all(every), *_parents_elsewhere(study)],
        "failed_runs": list(_failed(study)),
        "hours_elsewhere": _elsewhere(study),
    }


def _in_all(every: Cost) -> list[str]:
    if not every.hours:
        return []
    lost = phrases.hours(every.lost) if every.lost else "none counted"
    return [
        f"{phrases.hours(every.hours)} hours in all ({counted(every.cells, 'cell')}, each once), of which "
        f"{lost} in trainings that failed, were stopped or "
        "are unfinished; hours are workers × CPUs or GPUs × time of training, without scoring, and without "
        "epochs that were begun and not ended"
    ]


def _failed(study: Study) -> Iterator[str]:
    runs = (*study.trained, *study.helpers)
    lost = [run for run in runs if not _ended(run) and run.cell.standing not in _NOT_BEGUN]
    yield from (
        f"{run.label}, seed {run.cell.seed} ({run.cell.cell}): {run.cell.standing}"
        + (f"; {phrases.hours(run.cell.hours)} hours" if run.cell.hours else "; no epoch came to its end")
        for run in lost[:NAMED]
    )
    if len(lost) > NAMED:
        yield f"and {len(lost) - NAMED} more that failed, were stopped or are unfinished"
    begun = [run for run in runs if run.cell.standing not in _NOT_BEGUN]
    if begun and not lost:
        yield "no training of these tables failed, was stopped or is unfinished"
    if len(begun) < len(runs):
        yield f"{counted(len(runs) - len(begun), 'training')} of these tables not begun"


def _elsewhere(study: Study) -> list[str]:
    if study.elsewhere is None:
        return []
    others = study.elsewhere
    if not others.cells:
        return ["the home holds no other cells than these"]
    return [f"the home holds {counted(others.cells, 'other cell')}: {phrases.hours(others.hours)} hours"]


def _hardware(run: RowRun) -> str:
    device = run.papers.tags.get("acdis.device", "")
    workers = str(run.papers.lineage.get("workers", ""))
    return f"{device}; workers: {workers}" if device and workers else device


def _memory(run: RowRun) -> str:
    peak = run.cell.capacity.get("peak_bytes")
    return f"peak of a training step {peak / 2**30:.1f} GiB" if peak else ""


def _parents_elsewhere(study: Study) -> list[str]:
    """Cells that rows learn from and that are in none of these: their hours are not counted."""
    here = {run.cell.cell for run in (*study.runs, *study.helpers)}
    named: Iterable[str] = (
        parent
        for run in study.trained
        if run.papers.experiment is not None
        for parent in run.papers.experiment.method.parents.values()
        if parent not in here
    )
    names = list(dict.fromkeys(named))
    return [f"not counted: {listed(names)}, trained elsewhere"] if names else []
