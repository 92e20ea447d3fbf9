"""The benchmark of the dashboard at a tiny size, as its users run it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.mark.slow
def test_every_page_is_measured(benchmark: Callable[..., str], tmp_path: Path) -> None:
    file = tmp_path / "dashboard.json"
    words = [
        "--rows=2",
        "--seeds=2",
        "--cases=2",
        "--repeats=1",
        "--pages=cases;curves;run",
        f"--json={file}",
    ]
    printed = benchmark("dashboard", *words)
    found = json.loads(file.read_text())
    # Dice and HD95 of 3 regions and ET500 in 15 subsets, their 7 means, 3 over all regions, hours
    assert (found["runs"], found["metrics"]) == (4, 15 * 7 + 7 + 3 + 1)
    assert list(found["pages"]) == ["cases", "curves", "run"]
    assert all(each["warm"] > 0 and each["cold"] > 0 for each in found["pages"].values())
    assert found["mlflow"]["search_cpu"] > 0
    assert "slowest page warm" in printed
