"""What several rooms of the tests use."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# Before torch is imported: two processes test side by side, and waiting threads would spin on both cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("GOMP_SPINCOUNT", "1000")


@pytest.fixture(scope="module", autouse=True)
def nothing_is_left_in_the_environment() -> Iterator[None]:
    """What a module leaves in the environment decides what the next one sees: it fails where it was made."""
    before = _ours()
    yield
    after = _ours()
    for name in before.keys() | after.keys():
        if before.get(name) != after.get(name):
            os.environ.pop(name, None)
            os.environ.update({name: before[name]} if name in before else {})
    assert after == before


def _ours() -> dict[str, str]:
    ours = ("ACDIS_", "MLFLOW_TRACKING")
    return {name: value for name, value in os.environ.items() if name.startswith(ours)}


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
