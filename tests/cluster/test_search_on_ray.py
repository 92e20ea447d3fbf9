"""A search on Ray: killed and taken up, a trial stopped early, a test case that nobody can read."""

from __future__ import annotations

import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from acdis.cells import Cell, stop_request
from acdis.data.inputs import open_inputs
from acdis.tracking.runs import open_store

pytestmark = [pytest.mark.chaos, pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(2400)]

EPOCHS = 6
REASON = "pruned by the test after epoch 1 at 0.0"
SEARCH = {
    "title": "Three rates",
    "base": "longer.yaml",
    "search": {
        "trials": 3,
        "pruner": {"name": "median", "startup_trials": 3},
        "space": {"training.learning_rate": {"low": 1e-4, "high": 1e-2, "log": True}},
    },
}
LONGER = {"training": {"epochs": EPOCHS, "iterations": 24, "validate_every": 1}}


@pytest.fixture(scope="module")
def place(
    ray_head: dict[str, Any],
    places: Callable[..., Any],
    cases: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Any:
    """A home whose test case is poison; `restore` makes it whole again."""
    from acdis import config

    place = places(ray_head)
    root = tmp_path_factory.mktemp("own") / "cases"
    shutil.copytree(cases, root)
    tree = yaml.safe_load(place.experiment.read_text())
    tree["data"]["root"] = str(root)
    place.experiment.write_text(yaml.safe_dump(tree))
    (place.base / "longer.yaml").write_text(yaml.safe_dump({"extends": "tiny.yaml", **LONGER}))
    (place.base / "rates.yaml").write_text(yaml.safe_dump(SEARCH, sort_keys=False))
    data = config.load(place.experiment).data
    (test,) = open_inputs(data, tmp_path_factory.mktemp("elsewhere"), 1, lambda what, done, of: None).test
    for file in (root / test.name).iterdir():
        file.write_bytes(b"poison")
    place.restore = lambda: shutil.copytree(cases / test.name, root / test.name, dirs_exist_ok=True)
    return place


def _wait(place: Any, what: Callable[[list[Cell]], Cell | None], seconds: float = 700) -> Cell:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = what([Cell(path.parent) for path in place.base.glob("cells/*/state.json")])
        if found:
            return found
        time.sleep(0.05)
    raise AssertionError((place.base / "log.txt").read_text())


def _training(trial: str) -> Callable[[list[Cell]], Cell | None]:
    """The trial's cell as soon as its first epoch is over and another has begun."""

    def found(cells: list[Cell]) -> Cell | None:
        mine = (cell for cell in cells if any(role["row"] == trial for role in cell.roles()))
        return next((cell for cell in mine if 1 <= cell.state().get("done", 0) < EPOCHS), None)

    return found


@pytest.fixture(scope="module")
def searched(place: Any) -> Iterator[Any]:
    """Killed in its first trial, its second stopped early, Ctrl-C in its third; then it ends."""
    line = ["search", str(place.base / "rates.yaml"), "--max-concurrent", "1"]
    started = []
    try:
        started.append(place.start(*line))
        place.first = _wait(place, _training("trial-0"))
        started[-1].send_signal(signal.SIGKILL)
        started[-1].wait()
        assert not place.first.weights.exists()
        started.append(place.start(*line))
        place.pruned = _wait(place, _training("trial-1"))
        stop_request.ask(place.pruned, REASON)
        place.third = _wait(place, _training("trial-2"))
        started[-1].send_signal(signal.SIGINT)
        assert started[-1].wait(timeout=600) == 1
        place.stopped = place.third.state(), _statuses(place)
        started.append(place.start(*line))
        assert started[-1].wait(timeout=900) == 0, (place.base / "log.txt").read_text()
        place.said = (place.base / "log.txt").read_text()
        yield place
    finally:
        for process in started:
            if process.poll() is None:
                process.kill()


def _statuses(place: Any) -> dict[str, str]:
    client = open_store(f"sqlite:///{place.base}/mlflow.db")
    found = client.search_runs([each.experiment_id for each in client.search_experiments()])
    return {run.info.run_name: run.info.status for run in found}


def test_a_killed_search_goes_on_with_the_same_trials(searched: Any) -> None:
    assert "trial 0: taken up again" in searched.said
    assert "3 trials: 2 trained to the end, 1 pruned, 0 failed" in searched.said
    assert len(list(searched.base.glob("cells/*/state.json"))) == 3
    state = searched.first.state()
    assert (state["status"], state["done"]) == ("done", EPOCHS)
    assert state["resumed_at"] >= 1
    assert [entry["epoch"] for entry in searched.first.history()] == list(range(1, EPOCHS + 1))


def test_ctrl_c_ends_in_order_and_prunes_nothing(searched: Any) -> None:
    state, statuses = searched.stopped
    assert (state["status"], state.get("reason")) == ("stopped", None)
    assert statuses == {
        "rates": "KILLED",
        searched.first.name: "FINISHED",
        searched.pruned.name: "KILLED",
        searched.third.name: "KILLED",
    }
    assert "the same command goes on where it stopped" in searched.said
    assert "trial 2: taken up again" in searched.said
    state = searched.third.state()
    assert (state["status"], state["done"]) == ("done", EPOCHS)
    assert state["resumed_at"] >= 1


def test_a_stopped_trial_is_pruned_and_keeps_no_checkpoint(searched: Any) -> None:
    state = searched.pruned.state()
    assert (state["status"], state["reason"]) == ("stopped", REASON)
    assert 1 <= state["done"] < EPOCHS
    assert not list(searched.pruned.folder.glob("*.pt"))
    assert REASON in searched.said


def test_mlflow_has_the_trials_below_the_search(searched: Any) -> None:
    client = open_store(f"sqlite:///{searched.base}/mlflow.db")
    found = client.search_runs([each.experiment_id for each in client.search_experiments()])
    (parent,) = (run for run in found if run.data.tags.get("acdis.spec") == "rates")
    trials = [run for run in found if "acdis.cell" in run.data.tags]
    assert len(trials) == len(found) - 1 == 3
    assert {run.data.tags["mlflow.parentRunId"] for run in trials} == {parent.info.run_id}
    assert parent.info.status == "FINISHED"
    by_cell = {run.data.tags["acdis.cell"]: run for run in trials}
    pruned = by_cell[searched.pruned.name]
    assert (pruned.info.status, pruned.data.tags["acdis.pruned"]) == ("KILLED", REASON)
    assert [run.info.status for run in trials if run is not pruned] == ["FINISHED"] * 2
    assert sorted(run.data.tags["row"] for run in trials) == ["trial-0", "trial-1", "trial-2"]
    points = client.get_metric_history(by_cell[searched.first.name].info.run_id, "validation/dice/mean")
    assert [point.step for point in points] == list(range(1, EPOCHS + 1))
    assert not any("dice/ET/FLAIR" in run.data.metrics for run in trials)


def test_a_finished_search_is_only_shown(searched: Any) -> None:
    again = searched.run("search", str(searched.base / "rates.yaml"))
    assert again.returncode == 0, again.stdout + again.stderr
    assert "Ray" not in again.stdout
    assert "best: " in again.stdout


def test_the_best_is_scored_on_the_test_cases_only_when_it_is_trained(searched: Any) -> None:
    best = searched.base / "searches" / "rates" / "best.yaml"
    assert not list(searched.base.glob("cells/*/evaluations/*/records.parquet"))
    refused = searched.run("train", str(best))
    assert refused.returncode == 2  # the test case is poison
    before = {path: path.stat().st_mtime_ns for path in searched.base.glob("cells/*/weights.pt")}
    searched.restore()
    trained = searched.run("train", str(best))
    assert trained.returncode == 0, trained.stdout + trained.stderr
    assert before == {path: path.stat().st_mtime_ns for path in searched.base.glob("cells/*/weights.pt")}
    assert len(list(searched.base.glob("cells/*/evaluations/*/records.parquet"))) == 1
    assert trained.stdout.count("| ") > 15
