"""What is shown while something runs, on a terminal and in a log."""

from __future__ import annotations

import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from acdis.cells import Cell
from acdis.cells.time_left import clock, remaining, steps_done
from acdis.terminal import many_cells, progress
from acdis.terminal.progress import Display, describe
from acdis.workflow.life import projection

TRAINING: dict[str, Any] = {
    "status": "training",
    "epoch": 2,
    "epochs": 4,
    "step": 5,
    "steps": 10,
    "loss": 1.23456,
    "step_seconds": 2.0,
    "done": 1,
    "projected_seconds": 80.0,
}
STEP = "training: epoch 2 of 4, step 5 of 10, loss 1.235"


@pytest.mark.parametrize(
    ("state", "line"),
    [
        ({}, "waiting"),
        ({"status": "starting"}, "starting workers (about 15 s)"),
        ({"status": "training"}, "training: beginning"),
        (
            {"status": "training", "step_seconds": 2.0, "projected_seconds": 80.0},
            "training: beginning, 1 min 20 s left",
        ),
        (TRAINING, f"{STEP}, 50 s left"),
        (TRAINING | {"validation": {"dice/mean": 0.5}}, f"{STEP}, validation Dice 50.0 %, 50 s left"),
        (TRAINING | {"validation": {}, "done": 2}, f"{STEP}, 40 s left"),
        ({"status": "scoring", "scored": 1, "cases": 3}, "scoring: case 1 of 3 done, on 15 subsets each"),
        ({"status": "scored"}, "scored"),
        ({"status": "done"}, "done"),
        ({"status": "stopped"}, "stopped"),
        ({"status": "failed", "reason": "no memory"}, "failed: no memory"),
    ],
)
def test_every_status_has_its_line(state: dict[str, Any], line: str) -> None:
    assert describe(state) == line


def test_workers_that_do_not_start_are_explained() -> None:
    said = describe({"status": "starting", "updated": time.time() - 130})
    assert said.startswith("starting workers for 2 min")
    assert "another job" in said


def test_what_is_left_is_never_negative() -> None:
    """Fewer epochs were asked for than are done: 10 steps more than all."""
    assert remaining(TRAINING | {"done": 5}) == 0
    assert steps_done(TRAINING) == 15
    assert steps_done({"done": 3}) == 0


def test_cells_that_wait_count_in_the_time_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One trains, 50 s left after 30 s: a cell takes 80 s. With two that wait, one at a time: 210 s."""
    instead = _Clock()
    monkeypatch.setattr(many_cells, "time", instead)
    cells = [Cell(tmp_path / name) for name in "abc"]
    lines: list[str] = []
    display = SimpleNamespace(crowd=lambda line, *_: lines.append(line))
    follower = many_cells.ManyCells(cells, 1, cast(Display, display))
    cells[0].update(**TRAINING)
    follower.look()
    instead.now += 30
    follower.look()
    assert lines[-1].endswith("| about 3 min 30 s left")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.2, "0 s"),
        (59.6, "1 min 00 s"),
        (12, "12 s"),
        (190, "3 min 10 s"),
        (7500, "2 h 05 min"),
        (3599.9, "1 h 00 min"),
    ],
)
def test_times_for_people(seconds: float, text: str) -> None:
    assert clock(seconds) == text


def test_the_projection_says_what_a_step_costs() -> None:
    said = projection(
        {"step_seconds": 1.5, "peak_bytes": 3 * 2**30, "projected_seconds": 600.0, "resumed_at": 4}
    )
    assert said.startswith("a step takes 1.50 s and 3.0 GiB at its peak; 10 min 00 s of training steps ahead")
    assert said.endswith(", going on after epoch 4")
    assert "going on" not in projection(
        {"step_seconds": 1, "peak_bytes": 1, "projected_seconds": 1.0, "resumed_at": 0}
    )


class _Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return self.now


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> _Clock:
    instead = _Clock()
    monkeypatch.setattr(progress, "time", instead)
    return instead


def test_a_log_gets_a_line_every_ten_seconds_and_at_every_change(
    fake: _Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    """But what has not changed once a minute."""
    times: list[float] = []
    with Display() as display:
        assert not display.live
        for second in range(300):
            fake.now = 1000.0 + second
            if second < 25:
                display.state({"status": "starting", "updated": fake.now})
            else:
                display.state(TRAINING | {"step": min(second - 25, 70), "steps": 100})
            if capsys.readouterr().out:
                times.append(second)
    assert times[:10] == [0, 25, 35, 45, 55, 65, 75, 85, 95, 155]
    assert times[10:] == [215, 275]


def test_counted_work_in_a_log_ends_with_all_of_it(fake: _Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with Display() as display:
        for done in range(1, 101):
            display.count("checking cases", done, 100)
    assert capsys.readouterr().out.splitlines() == ["checking cases: 1 of 100", "checking cases: 100 of 100"]


def test_counted_work_says_how_long_it_will_take(fake: _Clock, capsys: pytest.CaptureFixture[str]) -> None:
    """Three of ten were done before it began; the next two take 40 s each, so five take 200 s."""
    with Display() as display:
        for done, seconds in ((3, 0), (4, 40), (5, 80), (10, 300)):
            fake.now = 1000.0 + seconds
            display.count("cases", done, 10)
    assert capsys.readouterr().out.splitlines() == [
        "cases: 3 of 10",
        "cases: 4 of 10, 4 min 00 s left",
        "cases: 5 of 10, 3 min 20 s left",
        "cases: 10 of 10",
    ]


def test_a_terminal_gets_bars(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    with Display() as display:
        assert display.live
        display.count("checking cases", 1, 2)
        for state in (TRAINING, {"status": "scoring", "scored": 1, "cases": 3}, {"status": "scored"}):
            display.state(state)
        assert display.bars.tasks[1].completed == 15
        assert display.bars.tasks[1].total == 40
    said = capsys.readouterr().out
    assert "checking cases" in said
    assert "training steps" in said
    assert "scoring cases" in said
