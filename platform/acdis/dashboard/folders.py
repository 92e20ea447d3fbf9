"""How cells stand, from their folders, which are the truth; each file is read once until it changes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from acdis import home
from acdis.ablation.cells import Cell, hours_of, read_json
from acdis.ablation.notes import DamagedError, Times, read
from acdis.ablation.survey import Status, status_of
from acdis.dashboard.files import Files, Stamp, stamp
from acdis.evaluation.scores import Scores, read_file
from acdis.report import collect


@dataclass(frozen=True)
class Seen:
    """A cell's folder at this moment.

    Attributes:
        state: what it says of itself; empty where there is no folder.
        scores: stamp of the per-case records; none where there are none.
    """

    status: Status
    state: Mapping[str, Any]
    scores: Stamp | None


ABSENT = Seen("missing", {}, None)


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

    def seen(self, name: str, evaluation: str) -> Seen:
        """How a cell and its scores stand."""
        paths = self._found(name, evaluation)
        if paths is None:
            return ABSENT
        state: Mapping[str, Any] = self.files.read(paths.state, _state, {})
        scores = stamp(paths.records) if state else None
        whole = scores is not None and stamp(paths.weights) is not None
        return Seen(status_of(state, lambda: whole, lambda: self.cell(name).busy()), state, scores)

    def scores(self, name: str, evaluation: str) -> Scores:
        """Per-case scores.

        Raises:
            UserError: they cannot be read, or are not whole.
            LookupError: as `cell`, or `evaluation` is no name.
        """
        paths = self._found(name, evaluation)
        if paths is None or not paths.records:
            raise LookupError(name)
        found = self.files.read(paths.records, read_file, None)
        return read_file(Path(paths.records)) if found is None else found  # which says what is wrong

    def has_read(self, name: str, evaluation: str) -> bool:
        """Whether `scores` would answer at once."""
        paths = self._found(name, evaluation)
        return paths is not None and self.files.knows(paths.records, read_file)

    def hours(self, name: str, state: Mapping[str, Any]) -> dict[str, float]:
        """What the training cost, by `cpu` or `gpu`; reads the history."""
        paths = self._found(name, "")
        return hours_of(self.files.read(paths.history, _epochs, []) if paths else [], state)

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
        scores = cell.evaluations / evaluation / "records.parquet" if is_name(evaluation) else ""
        others = (cell.folder / file for file in ("history.json", "lineage.json"))
        return _Paths(
            str(cell.folder / "state.json"), str(cell.weights), str(scores), *(str(each) for each in others)
        )


def is_name(text: str) -> bool:
    """Whether it names something inside a folder, and nothing outside: it may come from anybody's file."""
    return bool(text) and len(text) < 200 and text not in (".", "..") and not set(text) & {"/", "\\", "\0"}


def _state(path: Path) -> dict[str, Any]:
    try:
        return read_json(path)
    except DamagedError:
        return {"status": collect.DAMAGED}


def _epochs(history: Path) -> list[dict[str, Any]]:
    epochs: list[dict[str, Any]] = read(history, Times).get("epochs", [])
    return epochs
