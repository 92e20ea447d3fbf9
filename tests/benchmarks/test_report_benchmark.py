"""The benchmark of `report` at a tiny size, as its users run it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path


def test_every_way_is_measured(checkout: Path, tmp_path: Path) -> None:
    file = tmp_path / "report.json"
    script = checkout / "benchmarks" / "report.py"
    words = ["--rows=2", "--seeds=2", "--cases=1", f"--json={file}"]
    ended = subprocess.run(
        [sys.executable, str(script), *words],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    found = json.loads(file.read_text())
    assert (found["cells"], found["records"]) == (4, 4 * 45)
    assert list(found["runs"]) == ["md", "latex", "csv", "html", "md + bundle", "from bundle"]
    slowest = max(each["seconds"] for each in found["runs"].values())
    assert f"slowest / target of 10 s: {slowest / 10:.2f} (under 1: " in ended.stdout
    assert "report over 4 cells, 180 records" in ended.stdout
