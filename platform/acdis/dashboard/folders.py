"""How cells stand, from their folders, which are the truth; each file is read once until it changes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from acdis import home
from acdis.ablation.cells import Cell, read_json
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


class Folders:
    """The cells of a home."""

    def __init__(self, base: Path | None, files: Files) -> None:
        self.base, self.files = base, files

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
        try:
            cell = self.cell(name)
        except LookupError:
            return ABSENT
        state: Mapping[str, Any] = self.files.read(cell.folder / "state.json", read_json, {})
        scores = stamp(records(cell, evaluation)) if state and is_name(evaluation) else None
        whole = scores is not None and cell.weights.exists()
        return Seen(status_of(state, lambda: whole, cell.busy), state, scores)

    def scores(self, name: str, evaluation: str) -> Scores:
        """Per-case scores.

        Raises:
            UserError: they cannot be read, or are not whole.
            LookupError: as `cell`.
        """
        file = records(self.cell(name), evaluation)
        found = self.files.read(file, read_file, None)
        return read_file(file) if found is None else found  # which says what is wrong

    def has_read(self, name: str, evaluation: str) -> bool:
        """Whether `scores` would answer at once."""
        return self.files.knows(records(self.cell(name), evaluation), read_file)

    def hours(self, name: str, state: Mapping[str, Any]) -> dict[str, float]:
        """What the training cost, by `cpu` or `gpu`; reads the history."""
        seconds = self._of(name, "history.json", _seconds, None)
        return {} if seconds is None else collect.spent(seconds, state)

    def tags(self, name: str) -> Mapping[str, str]:
        """What the cell was trained with: commit, versions, device."""
        return self._of(name, "lineage.json", read_json, {}).get("tags", {})

    def _of(self, name: str, file: str, parse: Callable[[Path], Any], default: Any) -> Any:
        """What is in a file of the cell's folder."""
        try:
            return self.files.read(self.cell(name).folder / file, parse, default)
        except LookupError:
            return default


def is_name(text: str) -> bool:
    """Whether it names something inside a folder, and nothing outside: it may come from anybody's file."""
    return bool(text) and len(text) < 200 and text not in (".", "..") and not set(text) & {"/", "\\", "\0"}


def records(cell: Cell, evaluation: str) -> Path:
    """Where per-case records of an evaluation lie. Raises LookupError where that is no name."""
    if not is_name(evaluation):
        raise LookupError(evaluation)
    return cell.evaluations / evaluation / "records.parquet"


def _seconds(history: Path) -> float | None:
    """Of all epochs together."""
    epochs = read_json(history).get("epochs", [])
    return sum(entry["seconds"] for entry in epochs) if epochs else None
