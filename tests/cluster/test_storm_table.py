"""The table of docs/reliability.md is written from results, and from nothing else."""

from __future__ import annotations

from pathlib import Path

from storm import table
from storm.scene import Hit


def test_the_page_shows_what_was_run(tmp_path: Path, checkout: Path) -> None:
    page, results = tmp_path / "page.md", tmp_path / "results.jsonl"
    page.write_text((checkout / "docs" / "reliability.md").read_text())
    head, tail = page.read_text().split(table.BEGIN)[0], page.read_text().split(table.END)[1]
    Hit("worker", 7, 3, "itself", 12.4, equal=True).write(results)
    Hit("job", 8, 2, "same command", 30.0).write(results)
    Hit("worker", 2, 5, "itself", 20.0, equal=True).write(results)
    for _ in range(2):  # again: nothing is left of the table before
        table.main(results, page)
    assert page.read_text().startswith(head)
    assert page.read_text().endswith(tail)
    lines = [line for line in page.read_text().splitlines() if line.startswith(("| job", "| worker"))]
    assert lines[-3:] == [
        "| job | 8 | 2 | same command | 30 | **no** |",
        "| worker | 2 | 5 | itself | 20 | yes |",
        "| worker | 7 | 3 | itself | 12 | yes |",
    ]
    assert "3 faults of 2 kinds: 2 recovered by themselves, 1 by the same command; 20 s" in page.read_text()
    assert "2 ended equal bit for bit" in page.read_text()
