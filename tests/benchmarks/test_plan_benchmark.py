"""`benchmarks/plan.py` at a small size: its cells stand as it says, and its figures are its runs'."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.mark.slow
def test_plan_and_status_are_timed(benchmark: Callable[..., str], tmp_path: Path) -> None:
    file = tmp_path / "plan.json"
    words = ["--seeds=1", "--runs=3", "--repeats=2", f"--json={file}"]
    printed = benchmark("plan", *words)
    found = json.loads(file.read_text())
    assert (found["cells"], found["runs"]) == (289, 3)
    for verb in ("plan", "status"):
        runs = found["seconds"][verb]
        assert len(runs) == 2
        assert all(run["cpu"] > 0 for run in runs)
        assert f"{verb}: {statistics.median(run['wall'] for run in runs):.2f} s" in printed
    assert "289 cells, 3 MLflow runs" in printed
