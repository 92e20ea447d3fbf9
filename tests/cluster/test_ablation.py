"""Ablations on Ray Tune: shared cells and a failing cell. test_chaos.py has what is killed and broken."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

import psutil
import pytest
import torch
import yaml
from ports import assert_on_loopback_alone, family, lists_jobs, token_of, who_lists_jobs
from storm import ablation
from storm.ablation import ROWS

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(2400)]

LONGER = {"training": {"epochs": 4, "iterations": 8, "validate_every": 2}}
#: A spec that takes over a row of the one that docs/ablations.md shows.
SECOND = {
    "title": "A row of the other spec, and one that diverges",
    "base": "../experiments/phantom.yaml",
    "seeds": [0],
    "baseline": "same",
    "rows": {
        "same": {"use": "window.yaml#five"},
        "wild": {"label": "too fast", "set": {"training.learning_rate": 1e30}},
    },
}


def _specs(place: Any) -> Any:
    ablation.write_specs(place, LONGER)
    (place.base / "ablations" / "second.yaml").write_text(yaml.safe_dump(SECOND, sort_keys=False))
    return place


def _ablate(place: Any, *names: str) -> list[str]:
    return ablation.words(place, *names, rows=(*ROWS, "same", "wild")[: 2 * len(names)])


@pytest.fixture(scope="module")
def undisturbed(ray_head: dict[str, Any], places: Callable[..., Any]) -> Any:
    """Both specs on a head that runs; one of the three cells diverges."""
    place = _specs(places(ray_head))
    place.done = place.run(*_ablate(place, "window", "second"))
    return place


def test_a_failed_cell_stops_no_other_and_is_named(undisturbed: Any) -> None:
    out, err = undisturbed.done.stdout, undisturbed.done.stderr
    assert undisturbed.done.returncode == 1, out + err
    assert "failed: 1 cells" in err
    assert "second/wild, seed 0" in err
    assert "the loss became" in err
    assert ablation.row(undisturbed, "wild").state()["status"] == "failed"
    assert {ablation.row(undisturbed, row).state()["status"] for row in ROWS} == {"done"}
    assert "2 at a time" in out


def test_a_cell_that_two_specs_share_is_one_cell_and_one_run(undisturbed: Any) -> None:
    shared = ablation.row(undisturbed, "same")
    assert [(role["spec"], role["row"]) for role in shared.roles()] == [
        ("window", "five"),
        ("second", "same"),
    ]
    assert len(ablation.cells(undisturbed)) == 3
    runs = ablation.runs(f"sqlite:///{undisturbed.base}/mlflow.db")
    assert runs.keys() == {cell.name for cell in ablation.cells(undisturbed)}


def test_what_is_done_is_not_done_again(undisturbed: Any) -> None:
    weights = [cell.weights for cell in ablation.cells(undisturbed) if cell.weights.exists()]
    before = [path.stat().st_mtime_ns for path in weights]
    again = undisturbed.run(*_ablate(undisturbed, "window"))
    assert again.returncode == 0, again.stdout + again.stderr
    assert "0 to train" in again.stdout
    assert "Ray" not in again.stdout
    assert before == [path.stat().st_mtime_ns for path in weights]


@pytest.mark.faults
def test_cells_of_another_process_are_waited_for(
    ray_head: dict[str, Any], places: Callable[..., Any]
) -> None:
    """One that ends without having trained: what it leaves behind is trained."""
    place = _specs(places(ray_head))
    words = ablation.words(place, "window", rows=ROWS[:1])
    with place.start(*words) as first, place.held(lambda state: state.get("status") == "training"):
        (cell,) = ablation.cells(place)
        assert cell.busy()
        second = place.start(*words)
        _said(place, "waiting for 1 cells that another process trains")
        assert second.poll() is None
        first.kill()
    assert second.wait(timeout=900) == 0, (place.base / "log.txt").read_text()
    assert cell.state()["status"] == "done"
    assert [entry["epoch"] for entry in cell.history()] == [1, 2, 3, 4]


@pytest.mark.faults
@pytest.mark.parametrize("pause", [0.0, pytest.param(3.0, marks=pytest.mark.chaos)])
def test_the_same_command_right_after_a_kill_trains_what_was_left(
    ray_head: dict[str, Any], places: Callable[..., Any], pause: float
) -> None:
    """Given once, while Ray is still ending what the killed one has started, or just has."""
    place = _specs(places(ray_head))
    words = ablation.words(place, "window", rows=ROWS[:1])
    with place.start(*words) as first, place.held(lambda state: state.get("done", 0) >= 1):
        first.kill()
    (cell,) = ablation.cells(place)
    assert not cell.weights.exists()
    time.sleep(pause)
    again = place.run(*words)
    assert again.returncode == 0, again.stdout + again.stderr
    assert cell.state()["status"] == "done"
    assert [entry["epoch"] for entry in cell.history()] == [1, 2, 3, 4]


@pytest.mark.faults
@pytest.mark.parametrize("kill", [False, pytest.param(True, marks=pytest.mark.chaos)])
def test_on_a_ray_of_its_own_nobody_gets_in_and_a_dead_drivers_place_comes_back(
    places: Callable[..., Any], kill: bool
) -> None:
    """The dashboard is there for this alone. Nobody speaks to it without the token."""
    place = places(None)
    place.variables["HOME"] = str(place.base)
    _specs(place)
    driver = place.start(*ablation.words(place, "window", rows=ROWS[:1]), _all_cpus())
    with place.held(lambda state: state.get("done", 0) >= 1) as state:
        ports = assert_on_loopback_alone(family(driver.pid))
        file = token_of(driver.pid)
        assert (file.stat().st_mode & 0o777, file.parent.stat().st_mode & 0o777) == (0o600, 0o700)
        token = file.read_text()
        assert len(who_lists_jobs(ports, token)) == 1
        assert not [port for port in ports if lists_jobs(port)]
        if kill:
            psutil.Process(state["driver"]).kill()  # its training holds all CPUs
    assert driver.wait(timeout=900) == 0, (place.base / "log.txt").read_text()
    assert bool(place.cell().state()["resumed_at"]) == kill
    assert not (place.base / ".ray").exists()


def _all_cpus() -> str:
    return f"scaling.cpus_per_worker={len(os.sched_getaffinity(0))}"


def _said(place: Any, words: str) -> None:
    deadline = time.monotonic() + 700
    while words not in (place.base / "log.txt").read_text():
        assert time.monotonic() < deadline, (place.base / "log.txt").read_text()
        time.sleep(0.2)


def test_no_two_rows_end_with_equal_weights(undisturbed: Any) -> None:
    one, other = (torch.load(ablation.row(undisturbed, row).weights, weights_only=True) for row in ROWS)
    assert any(not torch.equal(one[name], other[name]) for name in one)
