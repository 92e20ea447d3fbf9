"""The trials of a search as cells: trained once each, given up, taken up. A stand-in does the training."""

from __future__ import annotations

import json
import shutil
import statistics
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from acdis import cells, files, methods
from acdis.ablation.expansion import decide
from acdis.ablation.search import Search, load
from acdis.ablation.trials import Trials
from acdis.cells import Cell, stop_request
from acdis.cluster.train import Job, TrainingFailed
from acdis.data import phantom
from acdis.data.inputs import Inputs, open_inputs
from acdis.errors import UserError
from acdis.terminal.progress import Display
from acdis.tracking.journal import Journal
from acdis.verbs.search import _link
from acdis.workflow import trial_cells as module
from acdis.workflow.trial_cells import BEST, Cases, Hunt, is_pruned

EPOCHS = 4
BASE = {
    "data": {"min_size": 16, "crop": [16, 16, 16]},
    "method": {"options": {"base_width": 4, "levels": 3}},
    "training": {"epochs": EPOCHS, "validate_every": 1, "precision": "fp32"},
    "evaluation": {"window": [16, 16, 16], "stride": [16, 16, 16]},
}
RATE = "training.learning_rate"
Curve = Callable[[Mapping[str, Any], int], float]


class Place:
    """A home with a search in it, and a training that only writes files."""

    def __init__(self, base: Path, space: dict[str, Any], **settings: Any) -> None:
        self.base = base
        (base / "base.yaml").write_text(yaml.safe_dump(BASE))
        tree = {
            "base": "base.yaml",
            "search": {"trials": 6, "pruner": {"name": "none"}, "space": space} | settings,
        }
        (base / "rates.yaml").write_text(yaml.safe_dump(tree))
        self.trained: list[str] = []

    def search(self) -> Search:
        return load(self.base / "rates.yaml")

    def open(self) -> Hunt:
        """As a new process would."""
        display = Display()
        cases = Cases(self.base, display)
        folder = self.base / "searches"
        folder.mkdir(exist_ok=True)
        search = self.search()
        cases.known[search.experiment(search.first).data] = Inputs((), (), ()), ("test-1",)
        return Hunt(search, Trials(folder, search.settings, search.meaning("data")), cases, {}, folder)

    def run(self, curve: Curve) -> Hunt:
        hunt = self.open()
        while (job := hunt.ask()) is not None:
            self.train(job, hunt, curve)
            hunt.over(job, "")
        return hunt

    def train(self, job: Job, hunt: Hunt, curve: Curve, until: int = EPOCHS) -> None:
        """Epoch by epoch from where the cell stands; as the worker does, it stops where it is asked to."""
        cell = job.cell
        self.trained.append(cell.name)
        history = cell.history()
        journal = Journal(cell.folder)
        cell.begin(status="training")
        for epoch in range(len(journal.operations()) + 1, until + 1):
            dice = {"dice/mean": curve(job.experiment.model_dump(), epoch)}
            journal.append("epoch", step=epoch, values={f"validation/{key}": v for key, v in dice.items()})
            hunt.look()
            reason = stop_request.asked(cell)
            if reason and epoch < EPOCHS:
                cell.update(status="stopped", reason=reason)
                return
        if until == EPOCHS:
            told = [line for line in journal.operations() if line["op"] == "epoch"]
            history = [
                {"epoch": line["step"], "validation": {"dice/mean": line["values"]["validation/dice/mean"]}}
                for line in told
            ]
            files.write_json(cell.folder / "history.json", {"epochs": history})
            cell.weights.write_bytes(b"weights")
            cell.update(status="done")


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PAUSE", 0.0)


def by_rate(tree: Mapping[str, Any], epoch: int) -> float:
    return 20 * tree["training"]["learning_rate"] * epoch


RATES = {RATE: {"low": 1e-4, "high": 1e-2, "log": True}}


def test_the_best_is_written_as_an_experiment_that_train_takes(tmp_path: Path) -> None:
    place = Place(tmp_path, RATES)
    hunt = place.run(by_rate)
    trials = hunt.trials.all()
    assert len(set(place.trained)) == len(trials) == 6
    best = max(trials, key=lambda trial: trial.values[RATE])
    assert best.value == pytest.approx(by_rate({"training": {"learning_rate": best.values[RATE]}}, EPOCHS))
    found = decide(methods.load(tmp_path / "searches" / BEST))
    assert cells.cell_name(found, Inputs((), (), ()).fingerprint, methods.version("acdis")) == best.cell
    assert (tmp_path / "searches" / BEST).read_text().startswith(f"# Search rates, trial {best.number}: ")
    cell = Cell(tmp_path / "cells" / best.cell)
    assert cell.roles() == [{"spec": "rates", "table": "rates", "row": f"trial-{best.number}", "seed": 0}]
    assert json.loads((cell.folder / "lineage.json").read_text())["splits"]["test"] == ["test-1"]
    assert place.open().ask() is None  # a second start has nothing to do


def test_equal_values_are_trained_once(tmp_path: Path) -> None:
    place = Place(tmp_path, {"method.options.consistency": {"choices": [["mse"], ["kl"]]}})
    hunt = place.run(lambda tree, epoch: 0.1 * epoch)
    assert len(place.trained) == 2
    assert [trial.value for trial in hunt.trials.all()] == [0.4] * 6


def test_equal_values_side_by_side_wait_for_the_one_that_trains(tmp_path: Path) -> None:
    place = Place(tmp_path, {"method.options.consistency": {"choices": [["mse"]]}}, trials=3)
    hunt = place.open()
    job = hunt.ask()
    assert job is not None
    assert [hunt.ask(), hunt.ask()] == [None, None]
    assert len(hunt.trials.all()) == 2  # the third is drawn when the first can teach something
    place.train(job, hunt, lambda tree, epoch: 0.1 * epoch)
    hunt.over(job, "")
    assert hunt.ask() is None
    assert [(trial.status, trial.value) for trial in hunt.trials.all()] == [("done", 0.4)] * 3


def test_a_cell_that_is_trained_already_is_only_read(tmp_path: Path) -> None:
    place = Place(tmp_path, {"method.options.consistency": {"choices": [["mse"], ["kl"]]}})
    place.run(lambda tree, epoch: 0.1 * epoch)
    shutil.rmtree(tmp_path / "searches")
    states = {path: path.read_text() for path in (tmp_path / "cells").glob("*/state.json")}
    again = place.run(lambda tree, epoch: 0.9)
    assert len(place.trained) == 2
    assert {trial.value for trial in again.trials.all()} == {0.4}
    assert {path: path.read_text() for path in (tmp_path / "cells").glob("*/state.json")} == states


def test_what_lags_behind_is_stopped_and_is_no_failure(tmp_path: Path) -> None:
    place = Place(tmp_path, RATES, trials=12, pruner={"name": "median", "startup_trials": 2})
    trials = place.run(by_rate).trials.all()
    pruned = [trial for trial in trials if trial.status == "pruned"]
    assert pruned
    assert {trial.status for trial in trials} == {"done", "pruned"}
    for trial in pruned:
        state = Cell(tmp_path / "cells" / trial.cell).state()
        assert is_pruned(state)
        assert state["reason"] == trial.reason == f"pruned by median after epoch 1 at {trial.value:.4f}"
        ended = [each.values[RATE] for each in trials[: trial.number] if each.status == "done"]
        assert trial.values[RATE] < statistics.median(ended)


def test_a_search_that_died_takes_its_trial_up_again(tmp_path: Path) -> None:
    place = Place(tmp_path, RATES)
    hunt = place.open()
    job = hunt.ask()
    assert job is not None
    place.train(job, hunt, by_rate, until=2)
    again = place.open()  # the first one is gone
    taken = again.ask()
    assert taken is not None
    assert (taken.cell, taken.experiment) == (job.cell, job.experiment)
    place.train(taken, again, by_rate)
    again.over(taken, "")
    (trial,) = again.trials.all()
    assert (trial.status, trial.epoch) == ("done", EPOCHS)
    assert trial.value == pytest.approx(by_rate(job.experiment.model_dump(), EPOCHS))


@pytest.mark.parametrize(
    ("state", "status"),
    [
        ({"status": "stopped", "reason": "pruned by median after epoch 1 at 0.1"}, "pruned"),
        ({"status": "failed", "reason": "diverged"}, "failed"),
    ],
)
def test_what_ended_before_the_search_could_say_so_is_not_trained_again(
    tmp_path: Path, state: dict[str, Any], status: str
) -> None:
    place = Place(tmp_path, RATES, trials=1)
    job = place.open().ask()
    assert job is not None
    job.cell.update(**state)
    again = place.open()
    assert again.ask() is None
    (trial,) = again.trials.all()
    assert (trial.status, trial.reason) == (status, state["reason"])


def test_ctrl_c_is_no_pruning(tmp_path: Path) -> None:
    place = Place(tmp_path, RATES, trials=1)
    job = place.open().ask()
    assert job is not None
    job.cell.update(status="stopped", reason=None)
    stop_request.ask(job.cell, "said before Ctrl-C")
    taken = place.open().ask()
    assert taken is not None
    assert taken.cell == job.cell
    assert stop_request.asked(taken.cell) is None


def test_one_failure_stops_nothing_and_three_at_the_start_do(tmp_path: Path) -> None:
    place = Place(tmp_path, RATES)
    hunt = place.open()
    for count in range(3):
        job = hunt.ask()
        assert job is not None
        job.cell.update(status="failed", reason="no memory")
        if count < 2:
            hunt.over(job, "")
    with pytest.raises(TrainingFailed, match="3 trials failed and none came to its end: no memory"):
        hunt.over(job, "")


def test_a_driver_that_died_is_a_failure_with_a_reason(tmp_path: Path) -> None:
    hunt = Place(tmp_path, RATES).open()
    job = hunt.ask()
    assert job is not None
    job.cell.update(status="training")
    hunt.over(job, "its driver died: killed")
    assert hunt.trials.all()[0].reason == "its driver died: killed"


def test_values_that_make_no_experiment_fail_without_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hunt = Place(tmp_path, RATES).open()

    def refuse(search: Search, values: Mapping[str, Any]) -> Any:
        raise UserError("these two do not go together")

    monkeypatch.setattr(Search, "experiment", refuse)
    with pytest.raises(TrainingFailed, match="these two do not go together"):
        hunt.ask()
    assert not (tmp_path / "cells").exists()


def test_the_weights_kept_are_those_that_count(tmp_path: Path) -> None:
    place = Place(tmp_path, {"training.selection": {"choices": ["last", "best"]}}, trials=4)
    curve = (0.1, 0.5, 0.3, 0.2)
    trials = place.run(lambda tree, epoch: curve[epoch - 1]).trials.all()
    values = {trial.values["training.selection"]: trial.value for trial in trials}
    assert values == {"last": 0.2, "best": 0.5}


def test_test_cases_are_never_read(tmp_path: Path) -> None:
    phantom.write(tmp_path / "cases", 4, seed=3, shape=(24, 24, 24), spacing=6.0)
    data = {"root": str(tmp_path / "cases"), "split": {"counts": [2, 1, 1]}}
    (tmp_path / "base.yaml").write_text(yaml.safe_dump(BASE | {"data": BASE["data"] | data}))
    tree = {"base": "base.yaml", "search": {"trials": 1, "pruner": {"name": "none"}, "space": RATES}}
    (tmp_path / "rates.yaml").write_text(yaml.safe_dump(tree))
    search = load(tmp_path / "rates.yaml")
    experiment = search.experiment(search.first)
    display = Display()
    whole = open_inputs(experiment.data, tmp_path / "whole", 1, display.count)
    (test,) = whole.test
    for file in (tmp_path / "cases" / test.name).iterdir():
        file.write_bytes(b"poison")
    with pytest.raises(UserError):
        open_inputs(experiment.data, tmp_path / "poisoned", 1, display.count)
    inputs, names = Cases(tmp_path / "home", display).of(experiment)
    assert (inputs.test, names) == ((), (test.name,))
    assert inputs.fingerprint == whole.fingerprint
    assert not list((tmp_path / "home").rglob(f"*{test.name}*"))


def test_without_validation_cases_there_is_nothing_to_choose_by(tmp_path: Path) -> None:
    phantom.write(tmp_path / "cases", 2, seed=3, shape=(24, 24, 24), spacing=6.0)
    data = {"root": str(tmp_path / "cases"), "split": {"counts": [1, 0, 1]}}
    place = Place(tmp_path, RATES)
    (tmp_path / "base.yaml").write_text(yaml.safe_dump(BASE | {"data": BASE["data"] | data}))
    search = place.search()
    with pytest.raises(UserError, match=r"data\.split: a search needs validation cases"):
        Cases(tmp_path / "home", Display()).of(search.experiment(search.first))


def test_a_cell_that_was_removed_or_torn_ends_no_search(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Of its trials two are over: one cell is gone, of the other a power cut has left half its roles."""
    place = Place(tmp_path, RATES, trials=2)
    first = place.run(by_rate)
    gone, torn = (Cell(tmp_path / "cells" / trial.cell) for trial in first.trials.all())
    shutil.rmtree(gone.folder)
    (torn.folder / "roles.json").write_text('{"roles": [')
    again = place.run(by_rate)
    assert f"{torn.folder / 'roles.json'}: is damaged" in caplog.text
    assert [(role["spec"], role["row"]) for role in torn.roles()] == [("rates", "trial-1")]
    assert not gone.folder.exists()
    links = [_link(trial, 0, tmp_path) for trial in again.trials.all()]
    assert [(link.row, link.cell, len(link.roles)) for link in links] == [
        ("trial-0", gone.name, 0),
        ("trial-1", torn.name, 1),
    ]


@pytest.mark.parametrize(
    "state",
    [
        {"status": "failed", "reason": f"last.pt: {files.UNWRITABLE}No space left on device); free space"},
        {"status": "training"},
    ],
)
def test_a_full_disk_is_no_fault_of_the_values(tmp_path: Path, state: dict[str, Any]) -> None:
    """With room again the same command takes the trial up; it may have had no room to say why it ended."""
    place = Place(tmp_path, RATES, trials=1)
    hunt = place.open()
    job = hunt.ask()
    assert job is not None
    job.cell.update(**state)
    with pytest.raises(TrainingFailed, match=r"trial 0: .*; the same command takes it up again"):
        hunt.over(job, "")
    (trial,) = place.run(by_rate).trials.all()
    assert (trial.status, place.trained) == ("done", [job.cell.name])
