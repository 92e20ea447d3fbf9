"""A benchmark as its users run it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What runs a script is `make test-bench`'s; what looks at its functions is `make test`'s."""
    for item in items:
        if "benchmark" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.bench)


@pytest.fixture
def benchmark(checkout: Path) -> Callable[..., str]:
    """Runs a script of benchmarks/ with these words, one thread; what it prints. It must end with 0."""

    def run(script: str, *words: str) -> str:
        ended = subprocess.run(
            [sys.executable, str(checkout / "benchmarks" / f"{script}.py"), *words],
            capture_output=True,
            text=True,
            check=False,
            cwd=checkout,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )
        assert ended.returncode == 0, ended.stdout + ended.stderr
        return ended.stdout

    return run
