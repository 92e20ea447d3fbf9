"""Progress for people: a bar on a terminal, a line every few seconds in a log."""

from __future__ import annotations

import sys
import time
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from acdis.cells.time_left import clock, remaining, steps_done

#: Characters of a line where no terminal says how many there are.
WIDTH = 160
#: Seconds between lines in a log, until a line is said again, and after which workers take unusually long.
LOG_SECONDS, SAME_SECONDS, PATIENCE = 10.0, 60.0, 60.0


class Display:
    """Shows counted work (`count`) and a cell's state (`state`); use it as a context."""

    def __init__(self) -> None:
        self.console = Console(file=sys.stdout, soft_wrap=True, highlight=False)
        self.live = self.console.is_terminal
        self.bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=self.console,
        )
        self.tasks: dict[str, Any] = {}
        self.begun: dict[str, tuple[float, int]] = {}
        self.said = self.status = ""
        self.said_at = 0.0

    def __enter__(self) -> Display:
        if self.live:
            self.bars.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self.live:
            self.bars.stop()

    def say(self, line: str) -> None:
        """A line that stays."""
        self.console.print(line, markup=False)

    def count(self, what: str, done: int, total: int) -> None:
        """So many of so many."""
        if self.live:
            if what not in self.tasks:
                self.tasks[what] = self.bars.add_task(what, total=total)
            self.bars.update(self.tasks[what], completed=done, total=total)
        else:
            self._log(f"{what}: {done} of {total}{self._left(what, done, total)}", urgent=done == total)

    def _left(self, what: str, done: int, total: int) -> str:
        """`, 3 min 10 s left`, from the pace since this was counted for the first time."""
        now = time.monotonic()
        since, first = self.begun.setdefault(what, (now, done))
        if done <= first or done >= total:
            return ""
        return f", {clock((now - since) / (done - first) * (total - done))} left"

    def state(self, state: dict[str, Any]) -> None:
        """What a cell is doing; to be called every second or so."""
        status = state.get("status", "waiting")
        news = status != self.status
        self.status = status
        if not self.live:
            self._log(describe(state), urgent=news)
        elif status == "training" and state.get("steps"):
            self.count("training steps", steps_done(state), state["epochs"] * state["steps"])
        elif status == "scoring":
            self.count("scoring cases", state["scored"], state["cases"])
        elif news:
            self.say(describe(state))

    def crowd(self, line: str, done: int, total: int) -> None:
        """Many cells at once: a bar of cells under the line on a terminal."""
        if self.live:
            self.count("cells", done, total)
            self.bars.update(self.tasks["cells"], description=line)
        else:
            self._log(line, urgent=False)

    def _log(self, line: str, urgent: bool) -> None:
        """A line at once if it is urgent, else one every few seconds; the same line once a minute."""
        now = time.monotonic()
        due = 0.0 if urgent else LOG_SECONDS
        if now - self.said_at >= (SAME_SECONDS if line == self.said else due):
            self.said, self.said_at = line, now
            self.say(line)


def describe(state: dict[str, Any]) -> str:
    """One line: where the cell stands and how long it will take."""
    status = str(state.get("status", "waiting"))
    if status == "training":
        return _training(state)
    if status == "scoring":
        return f"scoring: case {state['scored']} of {state['cases']} done, on 15 subsets each"
    if status == "starting":
        waited = time.time() - float(state.get("updated", time.time()))
        return "starting workers (about 15 s)" if waited < PATIENCE else _still_starting(waited)
    return status + (f": {state['reason']}" if state.get("reason") else "")


def _still_starting(seconds: float) -> str:
    return (
        f"starting workers for {clock(seconds)} now; another job may hold the CPUs or GPUs (see `ray status`)"
    )


def _training(state: dict[str, Any]) -> str:
    left = f", {clock(remaining(state))} left" if "step_seconds" in state else ""
    if "step" not in state:
        return f"training: beginning{left}"
    loss = f", loss {state['loss']:.3f}" if "loss" in state else ""
    return (
        f"training: epoch {state['epoch']} of {state['epochs']}, step {state['step']} of {state['steps']}"
        f"{loss}{_dice(state)}{left}"
    )


def _dice(state: dict[str, Any]) -> str:
    dice = state.get("validation", {}).get("dice/mean")
    return f", validation Dice {100 * dice:.1f} %" if dice is not None else ""
