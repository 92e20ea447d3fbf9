"""Hours of trainings that failed, were stopped or are under way: from their journals, by hand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from acdis.cells import Cell
from acdis.report.spent import hours
from acdis.tracking.epoch_log import EpochLog
from acdis.tracking.journal import EPOCHS, JOURNAL


@pytest.fixture
def cell(tmp_path: Path) -> Cell:
    found = Cell(tmp_path / "acdis-0123456789ab")
    found.update(status="failed", reason="the loss became NaN", workers=1, cpus=3, gpus=0)
    return found


def _epoch(seconds: float, **more: float) -> dict[str, float]:
    return {"train/loss": 1.0, "learning_rate": 1e-4, "epoch_seconds": seconds, **more}


def test_epochs_of_a_failed_training_count(cell: Cell) -> None:
    """600 s with one worker and 1200 s with two, three CPUs each: (600 + 2 · 1200) · 3 s = 2.5 hours."""
    log = EpochLog(cell.folder)
    log.log_epoch(1, _epoch(600.0))
    log.log_epoch(2, _epoch(1200.0, workers=2))
    assert not (cell.folder / "history.json").exists()
    assert hours(cell) == {"cpu": pytest.approx(2.5)}


def test_a_history_has_the_last_word(cell: Cell) -> None:
    EpochLog(cell.folder).log_epoch(1, _epoch(600.0))
    (cell.folder / "history.json").write_text(json.dumps({"epochs": [{"seconds": 3600.0}]}))
    assert hours(cell) == {"cpu": 3.0}


def test_what_is_no_time_is_left_out(cell: Cell) -> None:
    lines = [
        {"op": "epoch", "time": step, "step": step, "values": values}
        for step, values in enumerate(
            ({"epoch_seconds": "nan"}, {"epoch_seconds": -5.0}, {"epoch_seconds": "inf"}, {}, _epoch(1200.0)),
            1,
        )
    ]
    text = "".join(f"{json.dumps(line)}\n" for line in lines)
    for name in (EPOCHS, JOURNAL):
        (cell.folder / name).write_text(text + "no JSON\n")
        assert hours(cell) == {"cpu": 1.0}
        (cell.folder / name).unlink()
    assert hours(cell) == {}
