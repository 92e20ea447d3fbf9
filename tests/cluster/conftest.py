"""One Ray head for the room, homes of their own for each training, and a training that takes seconds."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from acdis.cells import Cell
from acdis.cluster import head
from acdis.data import phantom
from acdis.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
TINY: dict[str, Any] = {
    "data": {
        "split": {"counts": [2, 1, 1], "seed": 0},
        "min_size": 16,
        "crop": [16, 16, 16],
        "lesion_crops": 0.6,
    },
    "method": {"options": {"base_width": 4, "levels": 3, "synthesis_start": 2}},
    "training": {
        "epochs": 6,
        "iterations": 4,
        "batch_size": 2,
        "learning_rate": 1e-3,
        "precision": "fp32",
        "validate_every": 3,
    },
    "evaluation": {"window": [16, 16, 16], "stride": [16, 16, 16]},
    "scaling": {"cpus_per_worker": 1},
}


@dataclass
class Place:
    """An ACDIS_HOME, the experiment file in it, and how to run the command line on it."""

    base: Path
    experiment: Path
    variables: dict[str, str] = field(default_factory=dict)
    last: subprocess.Popen[str] | None = None

    def environment(self) -> dict[str, str]:
        """A shell's environment, without what an outer Ray or job has put there."""
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("RAY_", "ACDIS_"))}
        return kept | {"ACDIS_HOME": str(self.base), "OMP_NUM_THREADS": "1"} | self.variables

    def command(self, *words: str) -> list[str]:
        """`python experiments/main.py WORDS…`"""
        return [sys.executable, str(ROOT / "experiments" / "main.py"), *words]

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run to the end."""
        return subprocess.run(
            self.command(*words),
            env=self.environment(),
            capture_output=True,
            text=True,
            timeout=1100,
            check=False,
        )

    def start(self, *words: str) -> subprocess.Popen[str]:
        """Start; its output goes to a file, so that nobody has to read it."""
        log = (self.base / "log.txt").open("a")
        self.last = subprocess.Popen(
            self.command(*words), env=self.environment(), stdout=log, stderr=subprocess.STDOUT, text=True
        )
        return self.last

    def cell(self) -> Cell:
        """The one cell of this home."""
        (folder,) = (self.base / "cells").iterdir()
        return Cell(folder)

    @contextlib.contextmanager
    def held(self, what: Callable[[dict[str, Any]], Any]) -> Iterator[dict[str, Any]]:
        """The cell's state, its training stopped (SIGSTOP) as soon as it was as wanted; then it goes on.

        So it does not end while a test looks at it or strikes, however long that takes on this machine.
        """
        process = psutil.Process(self.wait_for(lambda state: "pid" in state and what(state))["pid"])
        process.suspend()
        try:
            yield self.cell().state()
        finally:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.resume()

    def wait_for(self, what: Callable[[dict[str, Any]], Any], seconds: float = 700) -> dict[str, Any]:
        """The cell's state, as soon as it is as wanted."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if len(list((self.base / "cells").glob("*/state.json"))) == 1:
                state = self.cell().state()
                if what(state):
                    return state
            failed = self.last is not None and (self.last.poll() or 0) > 0  # killed by the test: below 0
            assert not failed, (self.base / "log.txt").read_text()
            time.sleep(0.02)
        raise AssertionError("the cell's state did not come about")


@pytest.fixture(scope="session", autouse=True)
def a_busy_machine() -> Iterator[None]:
    """Where a head takes long to come up."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(head, "START_SECONDS", 900)
        yield


@pytest.fixture(scope="session")
def cases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four small phantoms on disk."""
    folder = tmp_path_factory.mktemp("phantoms")
    phantom.write(folder, 4, seed=3, shape=(32, 32, 32), spacing=5.0)
    return folder


def started(base: Path) -> dict[str, Any]:
    """A head: on a busy machine Ray may take longer to start than the 30 s that it allows itself."""
    for _ in range(4):
        with contextlib.suppress(UserError):
            return head.start(base)
    return head.start(base)


@pytest.fixture(scope="session")
def ray_head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """A head of our own, stopped at the end; `base` is its home."""
    base = tmp_path_factory.mktemp("head")
    with pytest.MonkeyPatch.context() as patch:
        for key in [key for key in os.environ if key.startswith("RAY_")]:
            patch.delenv(key)
        try:
            with pytest.MonkeyPatch.context() as starter:
                starter.setenv("ACDIS_HOME", "/of/the/starter")  # jobs must not take it over
                state = started(base)
            yield state | {"base": base}
        finally:
            head.stop(base)


@pytest.fixture(scope="session")
def places(
    tmp_path_factory: pytest.TempPathFactory, cases: Path
) -> Iterator[Callable[[dict[str, Any] | None], Place]]:
    """Makes homes; with a head's state their trainings run on that head, without on a Ray of their own."""
    own = tempfile.mkdtemp(prefix="a-")  # short: sockets in it may not exceed 107 characters

    def make(state: dict[str, Any] | None) -> Place:
        base = tmp_path_factory.mktemp("home")
        file = base / "tiny.yaml"
        tree = TINY | {"data": TINY["data"] | {"root": str(cases)}}
        file.write_text(yaml.safe_dump(tree))
        place = Place(base, file)
        if state is not None:
            place.variables = {
                "RAY_ADDRESS": state["gcs"],
                "RAY_AUTH_MODE": "token",
                "RAY_AUTH_TOKEN_PATH": state["token"],
            } | head.LOOPBACK
        else:
            place.variables = {"RAY_TMPDIR": own}
        return place

    yield make
    shutil.rmtree(own, ignore_errors=True)
