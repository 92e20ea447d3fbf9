"""What several rooms of the tests use."""

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
#: Rooms whose tests share what is dear to set up (a Ray head, a group of processes): each stays in one
#: process, and they come first, being the longest.
ROOMS = ("cluster", "training")

# Before torch is imported: two processes test side by side, and waiting threads would spin on both cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("GOMP_SPINCOUNT", "1000")


@pytest.hookimpl(tryfirst=True)  # pytest-xdist reads the groups in a hook of the same name
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Group the tests for pytest-xdist: a room of `ROOMS`, or else a file, in one process."""
    for item in items:
        room = item.path.parent.name
        item.add_marker(pytest.mark.xdist_group(room if room in ROOMS else str(item.path)))
    items.sort(key=lambda item: ROOMS.index(item.path.parent.name) if item.path.parent.name in ROOMS else 9)


@pytest.fixture(scope="session")
def checkout() -> Path:
    """Root of this checkout."""
    return ROOT


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder beside the checkout that holds real cases and public splits; skips where it is absent."""
    folder = ROOT.parent / "shared"
    if not (folder / "data").is_dir():
        pytest.skip("the folder 'shared' with real cases and splits is not beside this checkout")
    return folder
