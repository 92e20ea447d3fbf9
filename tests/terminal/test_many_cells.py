"""The line about many cells: who looks on is stopped by nobody's damaged file."""

from __future__ import annotations

from pathlib import Path

import pytest

from acdis.cells import Cell
from acdis.terminal import many_cells
from acdis.terminal.many_cells import ManyCells
from acdis.terminal.progress import Display


def test_a_damaged_cell_ends_no_look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is as one that says nothing; when its file is whole again it counts."""
    cells = [Cell(tmp_path / name) for name in ("a", "b")]
    for cell in cells:
        cell.update(status="training", epoch=1, epochs=4, step=2, steps=4)
    (cells[0].folder / "roles.json").write_text("[" * 100_000)
    (cells[1].folder / "state.json").write_text("[" * 100_000)
    lines: list[str] = []
    monkeypatch.setattr(many_cells, "PAUSE", 0.0)
    with Display() as display:
        monkeypatch.setattr(display, "crowd", lambda line, done, of: lines.append(line))
        crowd = ManyCells(cells, 2, display)
        crowd.look()
        cells[1].update(status="training", epoch=3, epochs=4, step=4, steps=4)
        crowd.look()
    assert lines == [
        "0 of 2 cells done | a: 12 % of 4 epochs",
        "0 of 2 cells done | a: 12 % of 4 epochs; b: 75 % of 4 epochs",
    ]
