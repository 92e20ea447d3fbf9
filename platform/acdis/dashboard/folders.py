"""How cells stand, from their folders, which are the truth; each file is read once until it changes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from acdis import home
from acdis.ablation.standings import Status, status_of
from acdis.cells import Cell, attempts, hours_of, read_json, summed
from acdis.cells.schemas import Capacity, DamagedError, Times, read
from acdis.dashboard.files import Files, Stamp, stamp
from acdis.evaluation.scores import Scores, read_file
from acdis.report import collect
from acdis.tracking.epochs import times
from acdis.tracking.journal import EPOCHS, JOURNAL, epochs_of


@dataclass(frozen=True)
class FolderState:
    """A cell's folder at this moment.

    Attributes:
        state: what it says of itself; empty where there is no folder.
        scores: stamp of the per-case records; none where there are none.
    """

    status: Status
    state: Mapping[str, Any]
    scores: Stamp | None


ABSENT = FolderState("missing", {}, None)


@dataclass(frozen=True)
class _Paths:
    """As text: a page asks for thousands of them, and joining paths takes longer than looking."""

    state: str
    weights: str
    records: str
    history: str
    lineage: str


class Folders:
    """The cells of a home."""

    def __init__(self, base: Path | None, files: Files) -> None:
        self.base, self.files = base, files
        self._paths: dict[tuple[str, str], _Paths | None] = {}

    def cell(self, name: str) -> Cell:
        """Its folder, which need not exist.

        Raises:
            LookupError: there is no home, or that is no name of a cell.
        """
        if self.base is None or not is_name(name):
            raise LookupError(name)
        return Cell(home.cells(self.base) / name)

    def seen(self, name: str, evaluation: str) -> FolderState:
        """How a cell and its scores stand."""
        paths = self._found(name, evaluation)
        if paths is None:
            return ABSENT
        state: Mapping[str, Any] = self.files.read(paths.state, _state, {})
        if state.get("status") == "starting":  # from then on its workers speak, in files of their own
            state = attempts.over(state, attempts.told(self.cell(name).folder))
        scores = stamp(paths.records) if state else None
        whole = scores is not None and stamp(paths.weights) is not None
        return FolderState(status_of(state, lambda: whole, lambda: self.cell(name).busy()), state, scores)

    def scores(self, name: str, evaluation: str) -> Scores:
        """Per-case scores.

        Raises:
            UserError: they cannot be read, or are not whole.
            LookupError: as `cell`, or `evaluation` is no name.
        """
        paths = self._found(name, evaluation)
        if paths is None or not paths.records:
            raise LookupError(name)
        scores = self.files.read(paths.records, read_file, None)
        return read_file(Path(paths.records)) if scores is None else scores  # which says what is wrong

    def has_read(self, name: str, evaluation: str) -> bool:
        """Whether `scores` would answer at once."""
        paths = self._found(name, evaluation)
        return paths is not None and self.files.knows(paths.records, read_file)

    def hours(self, name: str, state: Mapping[str, Any]) -> dict[str, float]:
        """What the training cost, its parts' included, by `cpu` or `gpu`; reads the history."""
        told = self._times(name)
        parts = [
            hours_of(self._times(part).get("epochs", []), self.seen(part, "").state)
            for part in told.get("parts", [])
        ]
        return summed([hours_of(told.get("epochs", []), state), *parts])

    def capacity(self, name: str) -> dict[str, float]:
        """How large its method is; see `Cell.capacity`."""
        paths = self._found(name, "")
        return self.files.read(paths.history, _read_capacity, {}).get("capacity", {}) if paths else {}

    def _times(self, name: str) -> dict[str, Any]:
        paths = self._found(name, "")
        if paths is None:
            return {}
        history: dict[str, Any] = self.files.read(paths.history, _read_times, {})
        if history.get("epochs") or history.get("parts"):
            return history
        folder = self.cell(name).folder  # it is under way, or has not come to its end: see `report.spent`
        return self.files.read(folder / EPOCHS, _told, {}) or self.files.read(folder / JOURNAL, _told, {})

    def tags(self, name: str) -> Mapping[str, str]:
        """What the cell was trained with: commit, versions, device."""
        paths = self._found(name, "")
        return (self.files.read(paths.lineage, read_json, {}) if paths else {}).get("tags", {})

    def _found(self, name: str, evaluation: str) -> _Paths | None:
        """None for what is no name of a cell; no records where `evaluation` is none."""
        key = (name, evaluation)
        if key not in self._paths:
            self._paths[key] = self._made(name, evaluation)
        return self._paths[key]

    def _made(self, name: str, evaluation: str) -> _Paths | None:
        try:
            cell = self.cell(name)
        except LookupError:
            return None
        scores = cell.records(evaluation) if is_name(evaluation) else ""
        others = (cell.folder / file for file in ("history.json", "lineage.json"))
        return _Paths(
            str(cell.folder / "state.json"), str(cell.weights), str(scores), *(str(other) for other in others)
        )


def is_name(text: str) -> bool:
    """Whether it names something inside a folder, and nothing outside: it may come from anybody's file."""
    return bool(text) and len(text) < 200 and text not in (".", "..") and not set(text) & {"/", "\\", "\0"}


def _state(path: Path) -> dict[str, Any]:
    try:
        return read_json(path)
    except DamagedError:
        return {"status": collect.DAMAGED}


def _read_capacity(history: Path) -> dict[str, Any]:
    return read(history, Capacity)


def _read_times(history: Path) -> dict[str, Any]:
    return read(history, Times)


def _told(journal: Path) -> dict[str, Any]:
    return {"epochs": times(epochs_of(journal.parent))}
