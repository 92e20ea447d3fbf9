"""Ablations on Ray Tune: shared cells, a failing cell, kills, Ctrl-C; always the same table."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
import yaml

from acdis.ablation.cells import Cell
from acdis.evaluation.records import read_parquet
from acdis.tracking.runs import open_store

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(2400)]

EPOCHS = 4
#: Long enough epochs for a kill to land in one.
LONGER = {
    "training": {"epochs": EPOCHS, "iterations": 24, "validate_every": 2},
    "scaling": {"max_failures": 20},
}
#: The spec that docs/ablations.md shows, of which two rows are run, and one that takes over a row of it.
ROWS = ("three", "five")
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
    """The specs and the experiment that they stand on, in the places that the example names."""
    page = (Path(__file__).resolve().parents[2] / "docs" / "ablations.md").read_text()
    example = page.split("```yaml\n", 1)[1].split("```", 1)[0]
    for folder in ("experiments", "ablations"):
        (place.base / folder).mkdir()
    tree = {"extends": "../tiny.yaml", **LONGER}
    (place.base / "experiments" / "phantom.yaml").write_text(yaml.safe_dump(tree))
    (place.base / "ablations" / "window.yaml").write_text(example)
    (place.base / "ablations" / "second.yaml").write_text(yaml.safe_dump(SECOND, sort_keys=False))
    return place


def _ablate(place: Any, *names: str) -> list[str]:
    files = [str(place.base / "ablations" / f"{name}.yaml") for name in names]
    return ["ablate", *files, "--rows", ",".join((*ROWS, "same", "wild")[: 2 * len(names)]), "--seeds", "0"]


def _cells(place: Any) -> list[Cell]:
    return [Cell(folder.parent) for folder in sorted((place.base / "cells").glob("*/state.json"))]


def _row(place: Any, row: str) -> Cell:
    (found,) = (cell for cell in _cells(place) if any(role["row"] == row for role in cell.roles()))
    return found


@pytest.fixture(scope="module")
def undisturbed(ray_head: dict[str, Any], places: Callable[..., Any]) -> Any:
    """Both specs on a head that runs; one of the three cells diverges."""
    place = _specs(places(ray_head))
    place.done = place.run(*_ablate(place, "window", "second"))
    return place


def _runs(place: Any) -> dict[str, Any]:
    """MLflow's runs of cells, by cell: a second run of one would show."""
    client = open_store(f"sqlite:///{place.base}/mlflow.db")
    found = client.search_runs([each.experiment_id for each in client.search_experiments()])
    cells = [run for run in found if "acdis.cell" in run.data.tags]
    by_cell = {run.data.tags["acdis.cell"]: run for run in cells}
    assert len(by_cell) == len(cells)
    return by_cell


def test_a_failed_cell_stops_no_other_and_is_named(undisturbed: Any) -> None:
    out, err = undisturbed.done.stdout, undisturbed.done.stderr
    assert undisturbed.done.returncode == 1, out + err
    assert "failed: 1 cells" in err
    assert "second/wild, seed 0" in err
    assert "the loss became" in err
    assert _row(undisturbed, "wild").state()["status"] == "failed"
    assert {_row(undisturbed, row).state()["status"] for row in ROWS} == {"done"}
    assert "2 at a time" in out


def test_a_cell_that_two_specs_share_is_one_cell_and_one_run(undisturbed: Any) -> None:
    shared = _row(undisturbed, "same")
    assert [(role["spec"], role["row"]) for role in shared.roles()] == [
        ("window", "five"),
        ("second", "same"),
    ]
    assert len(_cells(undisturbed)) == 3
    assert _runs(undisturbed).keys() == {cell.name for cell in _cells(undisturbed)}


def test_what_is_done_is_not_done_again(undisturbed: Any) -> None:
    before = [cell.weights.stat().st_mtime_ns for cell in _cells(undisturbed) if cell.weights.exists()]
    again = undisturbed.run(*_ablate(undisturbed, "window"))
    assert again.returncode == 0, again.stdout + again.stderr
    assert "0 to train" in again.stdout
    assert "Ray" not in again.stdout
    assert before == [c.weights.stat().st_mtime_ns for c in _cells(undisturbed) if c.weights.exists()]


def test_no_two_rows_end_with_equal_weights(undisturbed: Any) -> None:
    one, other = (torch.load(_row(undisturbed, row).weights, weights_only=True) for row in ROWS)
    assert any(not torch.equal(one[name], other[name]) for name in one)


class Storm:
    """An ablation on a Ray of its own, its processes killed one after the other."""

    def __init__(self, place: Any, seed: int) -> None:
        self.place, self.chance = place, random.Random(seed)
        self.mark = uuid.uuid4().hex
        place.variables["ACDIS_TEST"] = self.mark
        self.main: subprocess.Popen[str] | None = None
        self.hits: list[tuple[str, int]] = []

    def start(self) -> None:
        if self.main is None or self.main.poll() is not None:
            self.main = self.place.start(*_ablate(self.place, "window"))

    def strike(self, kind: str) -> bool:
        """Kill inside an unfinished epoch after the first; False if everything is over."""
        cell = self._busy()
        if cell is None:
            return False
        state = cell.state()
        before = (state["pid"], int(state["done"]))
        self._end(kind, state)
        assert before[1] >= 1
        assert not cell.weights.exists()  # the training was not over
        self.hits.append((kind, before[1]))
        self.start()
        self._goes_on(cell, *before)
        return True

    def _end(self, kind: str, state: dict[str, Any]) -> None:
        if kind == "worker":
            process = psutil.Process(state["pid"])
            assert "RayTrainWorker" in " ".join(process.cmdline())
            process.kill()
        elif kind == "trial":
            psutil.Process(state["driver"]).kill()
        else:
            assert self.main is not None
            family = self.family()
            self.main.send_signal(signal.SIGINT if kind == "ctrl-c" else signal.SIGKILL)
            for process in family if kind == "job" else ():
                process.kill()
            code = self.main.wait(timeout=180)
            assert code == (1 if kind == "ctrl-c" else -signal.SIGKILL)
            psutil.wait_procs(family, timeout=20)  # two agents of Ray give up after about a minute only

    def _busy(self) -> Cell | None:
        """A cell in the middle of an epoch after its first, at a random moment."""
        deadline = time.monotonic() + 900
        while time.monotonic() < deadline:
            assert self.main is not None
            if self.main.poll() is not None:
                if self.main.returncode == 0:
                    return None
                self.start()  # Tune gave up on a trial that was killed too often: the same command goes on
            inside = [cell for cell in _cells(self.place) if _inside(cell)]
            if inside:
                cell = self.chance.choice(inside)
                time.sleep(self.chance.uniform(0, 0.5))
                if _inside(cell):
                    return cell
            time.sleep(0.05)
        raise AssertionError("no cell came to the middle of an epoch")

    def _goes_on(self, cell: Cell, pid: int, done: int) -> None:
        deadline = time.monotonic() + 900
        while time.monotonic() < deadline:
            state = cell.state()
            if state.get("pid", pid) != pid and "resumed_at" in state:
                assert state["resumed_at"] >= done >= 1
                return
            time.sleep(0.05)
        raise AssertionError(f"{cell.name} was not taken up again: {cell.state()}")

    def family(self) -> list[psutil.Process]:
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get("ACDIS_TEST") == self.mark:
                    found += [process, *process.children(recursive=True)]
            except (psutil.Error, OSError):
                continue
        return found


def _inside(cell: Cell) -> bool:
    state = cell.state()
    return bool(
        state.get("status") == "training"
        and state.get("done", 0) >= 1
        and state.get("epoch") == state["done"] + 1 <= EPOCHS
        and {"pid", "driver", "resumed_at"} <= state.keys()
        and state["done"] >= state["resumed_at"]
    )


@pytest.fixture
def storm(places: Callable[..., Any]) -> Iterator[Callable[[int], Storm]]:
    """Makes storms; none of their processes outlives the test."""
    made: list[Storm] = []

    def make(seed: int) -> Storm:
        made.append(Storm(_specs(places(None)), seed))
        return made[-1]

    yield make
    for each in made:
        for process in each.family():
            process.kill()


#: What is killed: a worker, a trial's driver, `main.py` alone, everything at once; and Ctrl-C.
KINDS = ("worker", "trial", "main", "ctrl-c", "job")


def test_kills_change_nothing(undisturbed: Any, storm: Callable[[int], Storm]) -> None:
    wild = _weather(storm(0), KINDS[:4])
    assert [kind for kind, _ in wild.hits] == list(KINDS[:4])
    _assert_unharmed(wild.place, undisturbed)


@pytest.mark.chaos
@pytest.mark.timeout(3600)
def test_twenty_kills_change_nothing(undisturbed: Any, storm: Callable[[int], Storm]) -> None:
    """Storm after storm, each on cells of its own until they are trained; ACDIS_SEED chooses the moments."""
    seed, hits = int(os.environ.get("ACDIS_SEED", 1)), []
    while len(hits) < 20:
        chance = random.Random(seed)
        wild = _weather(storm(seed), chance.choices(KINDS, k=20 - len(hits)))
        _assert_unharmed(wild.place, undisturbed)
        assert wild.hits
        hits += wild.hits
        print(f"seed {seed}: {wild.hits}; {len(hits)} kills so far")
        seed += 1000
    assert {kind for kind, _ in hits} == set(KINDS)


def _weather(wild: Storm, kinds: Sequence[str]) -> Storm:
    """Kill one after the other, for as long as there is something to train, and let it end."""
    wild.start()
    for kind in kinds:
        if not wild.strike(kind):
            break
    assert wild.main is not None
    while wild.main.wait(timeout=1200):
        wild.start()
    return wild


def _assert_unharmed(place: Any, undisturbed: Any) -> None:
    """Weights, losses and scores as undisturbed; one MLflow run per cell, no epoch twice."""
    for row in ROWS:
        ours, theirs = _row(place, row), _row(undisturbed, row)
        assert ours.name == theirs.name
        _equal(ours, theirs)
    runs = _runs(place)
    assert runs.keys() == {cell.name for cell in _cells(place)}
    client = open_store(f"sqlite:///{place.base}/mlflow.db")
    for run in runs.values():
        assert run.info.status == "FINISHED"
        steps = [point.step for point in client.get_metric_history(run.info.run_id, "train/loss")]
        assert sorted(steps) == list(range(1, EPOCHS + 1))


def _equal(ours: Cell, theirs: Cell) -> None:
    """Weights, loss terms and per-case scores, bit for bit."""
    one, other = (torch.load(cell.weights, weights_only=True) for cell in (ours, theirs))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert [entry["terms"] for entry in ours.history()] == [entry["terms"] for entry in theirs.history()]
    (records,), (expected,) = (
        [read_parquet(folder / "records.parquet") for folder in Path(cell.evaluations).iterdir()]
        for cell in (ours, theirs)
    )
    assert records == expected
