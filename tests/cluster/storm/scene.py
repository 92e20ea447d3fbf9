"""An ablation that is struck by faults: when they hit, how it goes on, and how long that takes."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from storm import ablation
from storm.world import PATIENCE

from acdis.cells import Cell
from acdis.tracking.journal import waiting

#: Of every training here; room for a dozen faults in two cells.
EPOCHS = 12
TREE: dict[str, Any] = {
    "training": {"epochs": EPOCHS, "iterations": 8, "validate_every": 6},
    "scaling": {"max_failures": 20},
}


@dataclass(frozen=True)
class Hit:
    """What came of one fault.

    Attributes:
        epoch: unfinished one that it hit, from 1.
        recovery: `itself`, or `same command`.
        seconds: from the strike until that epoch was done.
        equal: bit for bit, as the undisturbed ablation; filled in at the end.
    """

    fault: str
    seed: int
    epoch: int
    recovery: str
    seconds: float
    equal: bool = False

    def write(self, path: Path) -> None:
        """Append a line for docs/reliability.md's table."""
        with path.open("a") as stream:
            stream.write(json.dumps(asdict(self)) + "\n")


class Scene:
    """One ablation, its command, and the world that it runs in.

    Attributes:
        chance: every random choice is drawn from here.
        cell, state: the cell that is struck and what it was doing, when the fault comes.
        main: the command's process.
    """

    def __init__(self, world: Any, place: Any, seed: int) -> None:
        self.world, self.place, self.seed, self.chance = world, place, seed, random.Random(seed)
        self.main: subprocess.Popen[str] | None = None
        self.cell = Cell(place.base)
        self.state: dict[str, Any] = {}
        self.starts = 0
        self._later: list[threading.Thread] = []
        self._meanwhile: list[threading.Thread] = []
        self._felt: list[tuple[str, Callable[[], bool]]] = []

    def start(self) -> None:
        """The command, unless it runs."""
        if self.main is None or self.main.poll() is not None:
            self.main = self.place.start(*ablation.words(self.place, "window"))
            self.starts += 1

    def end_main(self, number: int = signal.SIGKILL) -> int:
        """Send the command a signal and wait until it has ended; returns its exit code."""
        assert self.main is not None
        self.main.send_signal(number)
        return self.main.wait(timeout=PATIENCE)

    def node(self) -> Any:
        """Where the struck cell is trained."""
        return self.world.node_of(self.state["pid"])

    def later(self, seconds: float, mend: Callable[[], Any], meanwhile: bool = False) -> None:
        """Mend something while the ablation goes on, or not; the next fault waits, or comes meanwhile."""

        def wait() -> None:
            time.sleep(seconds)
            mend()

        thread = threading.Thread(target=wait)
        (self._meanwhile if meanwhile else self._later).append(thread)
        thread.start()

    def mended(self, everything: bool = False) -> None:
        """Wait for what was to be mended."""
        for each in (*self._later, *(self._meanwhile if everything else ())):
            each.join()
        self._later.clear()

    def abandon(self) -> None:
        """End the command if it still runs: a test has failed."""
        if self.main is not None and self.main.poll() is None:
            self.end_main()
        self.mended(everything=True)

    def strike(self, fault: Any, planned: int = 1) -> Hit | None:
        """Break something inside an unfinished epoch and see that the cell goes on.

        Args:
            planned: epochs that are done by then, where a cell still comes there.

        Returns:
            None if all is over, or the last epoch was done before the fault came: it has hit nothing.
        """
        if not self._aim(fault.least, planned):
            return None
        starts, began = self.starts, time.monotonic()
        felt = fault.strike(self)
        done = int(self.cell.state().get("done", self.state["done"])) if fault.kills else self.state["done"]
        if done >= EPOCHS or (fault.kills and self.cell.weights.exists()):
            self.mended()
            return None
        self._goes_on(done)
        seconds = time.monotonic() - began
        self.mended()
        self._felt.append((fault.name, felt))
        recovery = "itself" if self.starts == starts else "same command"
        return Hit(fault.name, self.seed, done + 1, recovery, round(seconds, 1))

    def finish(self) -> None:
        """Until the ablation has ended well, by the same command if need be; and every fault was felt."""
        for _ in range(4):
            assert self.main is not None
            if self.main.wait(timeout=1200) == 0:
                break
            self.start()
        else:
            raise AssertionError((self.place.base / "log.txt").read_text()[-3000:])
        self.mended(everything=True)
        for name, felt in self._felt:
            assert felt(), f"{name} was not felt"
        self._send_the_rest()

    def _send_the_rest(self) -> None:
        """If MLflow was away to the end, the same command tells it what it has missed."""
        if any(waiting(cell.folder) for cell in ablation.cells(self.place)):
            self.start()
            assert self.main is not None
            assert self.main.wait(timeout=PATIENCE) == 0

    def _aim(self, least: int, planned: int) -> bool:
        """Wait for a random moment inside an unfinished epoch of a cell; False if the ablation is over."""
        deadline = time.monotonic() + 900
        wanted = max(least, planned)
        while time.monotonic() < deadline:
            if self._over():
                return False
            # Where no cell will come so far any more, an earlier epoch will do.
            some = [cell for cell in ablation.cells(self.place) if not cell.weights.exists()]
            inside = [cell for cell in some if is_inside(cell, wanted if len(some) > 1 else least)]
            if inside:
                self.cell = self.chance.choice(inside)
                time.sleep(self.chance.uniform(0, 0.8) * float(self.cell.state().get("seconds", 0)))
                self.state = self.cell.state()
                if is_inside(self.cell, least) and self.world.trains(self.state["pid"]):
                    return True
            time.sleep(0.05)
        raise AssertionError("no cell came to the middle of an epoch")

    def _over(self) -> bool:
        assert self.main is not None
        if self.main.poll() is None:
            return False
        if self.main.returncode == 0:
            return True
        self.start()  # Tune gave up on a trial that was killed too often: the same command goes on
        return False

    def _goes_on(self, done: int) -> None:
        """Until the epoch that was hit is done; starts the command again if it has ended badly."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            if self.cell.state().get("done", 0) > done or self.cell.weights.exists():
                return
            assert not self._over(), "the command said that all is well"
            time.sleep(0.1)
        log = (self.place.base / "log.txt").read_text()[-3000:]
        raise AssertionError(f"{self.cell.name} did not go on: {self.cell.state()}\n{log}")


def is_inside(cell: Cell, least: int) -> bool:
    """Whether the cell is in an epoch, at least so many being done. The next begins where one ends."""
    state = cell.state()
    return bool(
        state.get("status") == "training"
        and least <= state.get("done", 0) < EPOCHS
        and {"pid", "attempt", "driver", "resumed_at"} <= state.keys()
    )


def plan(count: int) -> list[int]:
    """After how many epochs each of so many faults is due: the epochs are divided among them.

    The last two are left: an epoch must be there for the fault to hit, and one to go on with.
    """
    return [1 + number * (EPOCHS - 2) // max(1, count) for number in range(count)]


def weather(scene: Scene, faults: Sequence[Any]) -> list[Hit]:
    """One fault after the other, as planned, while there is something to hit; then the ablation ends.

    Those that are left when nothing is, are for another ablation.
    """
    scene.start()
    hits = []
    for fault, planned in zip(faults, plan(len(faults)), strict=True):
        hit = scene.strike(fault, planned)
        if hit is None:
            break
        print(hit, flush=True)
        hits.append(hit)
    scene.finish()
    return hits
