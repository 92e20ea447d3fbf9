"""The benchmark of `report` at a tiny size, as its users run it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path


def test_every_way_is_measured(benchmark: Callable[..., str], tmp_path: Path) -> None:
    file = tmp_path / "report.json"
    words = ["--rows=2", "--seeds=2", "--cases=1", f"--json={file}"]
    printed = benchmark("report", *words)
    found = json.loads(file.read_text())
    assert (found["cells"], found["records"]) == (4, 4 * 45)
    assert list(found["runs"]) == ["md", "latex", "csv", "html", "md + bundle", "from bundle"]
    slowest = max(each["seconds"] for each in found["runs"].values())
    assert f"slowest / target of 10 s: {slowest / 10:.2f} (under 1: " in printed
    assert "report over 4 cells, 180 records" in printed
