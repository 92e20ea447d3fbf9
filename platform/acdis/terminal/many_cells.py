"""What many cells are doing at once, in a line: done, training, failed, time left."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from acdis.cells import Cell
from acdis.cells.schemas import DamagedError
from acdis.cells.time_left import clock, remaining, steps_done
from acdis.terminal.progress import Display

#: Seconds between two looks into the folders.
PAUSE = 2.0
BUSY = ("starting", "training", "scoring", "scored")


class ManyCells:
    """Shows cells that are trained side by side; call `look` every second or so."""

    def __init__(self, cells: Sequence[Cell], at_once: int, display: Display) -> None:
        self.cells = {cell.name: cell for cell in cells}
        self.at_once = at_once
        self.display = display
        self.over: dict[str, str] = {}
        self.began: dict[str, float] = {}
        self.seconds: list[float] = []
        self.looked = 0.0

    def look(self) -> None:
        """Read the states of the cells that are not over, and tell."""
        now = time.monotonic()
        if now - self.looked < PAUSE:
            return
        self.looked = now
        states = {name: _state(cell) for name, cell in self.cells.items() if name not in self.over}
        for name, state in states.items():
            self._follow(name, state, now)
        busy = {name: state for name, state in states.items() if name in self.began and name not in self.over}
        self.display.crowd(self._line(busy), len(self.over), len(self.cells))

    def _follow(self, name: str, state: dict[str, Any], now: float) -> None:
        """A failed or stopped state of an earlier attempt is none of this one's."""
        status = state.get("status")
        if status in BUSY:
            self.began.setdefault(name, now)
        elif name in self.began and status in ("done", "failed"):
            self.over[name] = str(status)
            self.seconds.append(now - self.began[name])

    def _line(self, busy: dict[str, dict[str, Any]]) -> str:
        failed = list(self.over.values()).count("failed")
        doing = "; ".join(f"{_name(self.cells[name])}: {_brief(state)}" for name, state in busy.items())
        left = self._left(busy)
        return (
            f"{len(self.over) - failed} of {len(self.cells)} cells done"
            + (f", {failed} failed" if failed else "")
            + (f" | {doing}" if doing else "")
            + (f" | about {clock(left)} left" if left is not None else "")
        )

    def _left(self, busy: dict[str, dict[str, Any]]) -> float | None:
        """Seconds: what the busy cells have left, and the others at the mean of those that are over."""
        now = time.monotonic()
        ahead = {name: remaining(state) for name, state in busy.items() if "step_seconds" in state}
        whole = self.seconds or [now - self.began[name] + ahead[name] for name in ahead]
        if not whole:
            return None
        mean = sum(whole) / len(whole)
        waiting = len(self.cells) - len(self.over) - len(busy)
        left = [ahead.get(name, mean) for name in busy]
        return max([(sum(left) + waiting * mean) / self.at_once, *left])


def _state(cell: Cell) -> dict[str, Any]:
    """Nothing of a damaged file: who looks on ends no training over it, and who trains it says so."""
    try:
        return cell.state()
    except DamagedError:
        return {}


def _name(cell: Cell) -> str:
    try:
        roles = cell.roles()
    except DamagedError:
        roles = []
    return f"{roles[0]['table']}/{roles[0]['row']} seed {roles[0]['seed']}" if roles else cell.name


def _brief(state: dict[str, Any]) -> str:
    if state["status"] == "training" and state.get("steps"):
        total = state["epochs"] * state["steps"]
        return f"{100 * steps_done(state) / total:.0f} % of {state['epochs']} epochs"
    return str(state["status"])
