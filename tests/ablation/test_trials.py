"""The durable study: nothing lost or drawn twice, whatever kills the search; and when trials are given up."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from acdis import files
from acdis.ablation.search_file import Settings
from acdis.ablation.trials import Trial, Trials, alone
from acdis.errors import UserError

SPACE = {
    "training.learning_rate": {"low": 1e-4, "high": 1e-2, "log": True},
    "method.options.base_width": {"low": 4, "high": 12, "step": 4},
    "method.options.consistency": {"choices": [["var", "covar"], ["mse"], []]},
}


def settings(trials: int = 16, **options: Any) -> Settings:
    return Settings.model_validate({"trials": trials, "pruner": {"name": "none"}, "space": SPACE} | options)


def score(values: Mapping[str, Any]) -> float:
    """A hand-made objective: highest at a rate of 0.01, a width of 12, and no loss."""
    return values["training.learning_rate"] * 10 + values["method.options.base_width"] / 100


def drawn(trials: list[Trial]) -> list[tuple[Any, ...]]:
    return [tuple(map(str, trial.values.values())) for trial in trials]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> list[Trial]:
    """A search in one go."""
    trials = Trials(tmp_path_factory.mktemp("study"), settings(), "m")
    while (trial := trials.ask()) is not None:
        trials.tell(trial.number, "done", score(trial.values))
    return trials.all()


def test_values_lie_in_their_domains_and_differ(undisturbed: list[Trial]) -> None:
    assert [trial.number for trial in undisturbed] == list(range(16))
    for trial in undisturbed:
        rate, width, losses = trial.values.values()
        assert 1e-4 <= rate <= 1e-2
        assert width in (4, 8, 12)
        assert losses in (["var", "covar"], ["mse"], [])
        assert trial.value == pytest.approx(rate * 10 + width / 100)
    assert len(set(drawn(undisturbed))) == 16
    rates = [trial.values["training.learning_rate"] for trial in undisturbed]
    assert sum(rates[10:]) / 6 > sum(rates[:10]) / 10  # after ten random trials TPE goes where it was good


def test_stopped_and_opened_again_it_draws_the_same(tmp_path: Path, undisturbed: list[Trial]) -> None:
    while True:
        trials = Trials(tmp_path, settings(), "m")
        for trial in [trial for trial in trials.all() if trial.status == "running"]:
            taken = trials.taken_up(trial)
            assert (taken.values, taken.cell) == (trial.values, f"cell-{trial.number}")
            trials.tell(trial.number, "done", score(trial.values))
        trial = trials.ask()
        if trial is None:
            break
        trials.note_cell(trial.number, f"cell-{trial.number}")  # and then the process is gone
    assert drawn(trials.all()) == drawn(undisturbed)
    assert [trial.value for trial in trials.all()] == [trial.value for trial in undisturbed]
    best = trials.best()
    assert best is not None
    assert best.value == max(trial.value or 0.0 for trial in undisturbed)


KILLED = """
import os, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from acdis.ablation.search_file import Settings
from acdis.ablation.trials import Trials, alone
import json
with alone(Path(sys.argv[1])):
    trials = Trials(Path(sys.argv[1]), Settings.model_validate(json.loads(sys.argv[3])), "m")
    trial = trials.ask()
    trials.report(trial.number, {1: 0.25})
    os.kill(os.getpid(), 9)
"""


def test_killed_with_a_torn_line_it_loses_no_trial(tmp_path: Path) -> None:
    wanted = settings()
    command = [
        sys.executable,
        "-c",
        KILLED,
        str(tmp_path),
        os.getcwd(),
        json.dumps(wanted.model_dump(mode="json")),
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == -9, done.stderr
    with (tmp_path / "study-m.jsonl").open("a") as file:
        file.write('{"op_code":6,"work')
    with alone(tmp_path):  # the lock went with the process
        trials = Trials(tmp_path, wanted, "m")
        (trial,) = trials.all()
        assert (trial.status, trial.epoch) == ("running", 1)
        assert trials.taken_up(trial).values == trial.values
        trials.tell(trial.number, "done", 0.5)
        assert [each.value for each in Trials(tmp_path, wanted, "m").all()] == [0.5]


def test_a_trial_killed_while_its_values_were_drawn_gets_all_of_them(tmp_path: Path) -> None:
    trials = Trials(tmp_path, settings(), "m")
    trials._study.ask().suggest_float("training.learning_rate", 1e-4, 1e-2, log=True)
    (torn,) = Trials(tmp_path, settings(), "m").all()
    assert list(torn.values) == ["training.learning_rate"]
    whole = Trials(tmp_path, settings(), "m").taken_up(torn)
    assert list(whole.values) == list(SPACE)
    assert whole.values["training.learning_rate"] == torn.values["training.learning_rate"]


def test_more_trials_go_on_and_another_meaning_begins_anew(tmp_path: Path) -> None:
    for wanted in (2, 3):
        trials = Trials(tmp_path, settings(wanted), "m")
        while (trial := trials.ask()) is not None:
            trials.tell(trial.number, "done", 0.5)
        assert len(trials.all()) == wanted
    assert trials.best().number == 0  # type: ignore[union-attr]  the first of equals
    assert Trials(tmp_path, settings(3), "other").all() == []


def test_two_searches_at_once_are_refused(tmp_path: Path) -> None:
    raised = pytest.raises(UserError, match=r"rates: process \d+ on .* runs this search")
    with alone(tmp_path / "rates"), raised, alone(tmp_path / "rates"):
        pass


def train(trials: Trials, curve: Callable[[int], float], epochs: int = 6) -> tuple[str | None, int]:
    """Report epoch by epoch: why it should be given up, and after which epoch."""
    trial = trials.ask()
    assert trial is not None
    for epoch in range(1, epochs + 1):
        reason = trials.report(trial.number, {done: curve(done) for done in range(1, epoch + 1)})
        if reason:
            trials.tell(trial.number, "pruned", reason=reason)
            return reason, epoch
    trials.tell(trial.number, "done", curve(epochs))
    return None, epochs


def test_the_median_prunes_what_lags_behind(tmp_path: Path) -> None:
    pruner = {"name": "median", "startup_trials": 2, "warmup_epochs": 2}
    trials = Trials(tmp_path, settings(pruner=pruner), "m")
    assert train(trials, lambda epoch: 0.1 * epoch)[0] is None
    assert train(trials, lambda epoch: 0.08 * epoch)[0] is None  # too few before it to judge by
    reason, epoch = train(trials, lambda epoch: 0.01 * epoch)
    assert epoch == 3  # the first after the warm-up
    assert reason == "pruned by median after epoch 3 at 0.0300"
    assert train(trials, lambda epoch: 0.2 * epoch)[0] is None
    told = trials.all()[2]
    assert (told.status, told.value, told.epoch, told.reason) == ("pruned", 0.03, 3, reason)
    assert trials.best().number == 3  # type: ignore[union-attr]


def test_asha_lets_the_best_of_each_rung_go_on(tmp_path: Path) -> None:
    trials = Trials(tmp_path, settings(pruner={"name": "asha", "min_epochs": 2, "reduction": 2}), "m")
    assert train(trials, lambda epoch: 0.1 * epoch)[0] is None
    reason, epoch = train(trials, lambda epoch: 0.05 * epoch)
    assert (epoch, reason) == (2, "pruned by asha after epoch 2 at 0.1000")


def test_epochs_that_were_missed_are_judged_in_order(tmp_path: Path) -> None:
    pruner = {"name": "median", "startup_trials": 1}
    trials = Trials(tmp_path, settings(pruner=pruner), "m")
    train(trials, lambda epoch: 0.1 * epoch)
    trial = trials.ask()
    assert trial is not None
    # Optuna judges the best so far: 0.35 beats the other trial's 0.3 at epoch 3.
    assert trials.report(trial.number, {1: 0.2, 2: 0.35, 3: 0.1}) is None
    assert trials.report(trial.number, {1: 0.2, 2: 0.35, 3: 0.1}) is None  # nothing new
    reason = trials.report(trial.number, {1: 0.2, 2: 0.35, 3: 0.1, 4: 0.1, 5: 0.9})
    assert reason == "pruned by median after epoch 4 at 0.1000"


def test_failures_are_kept_with_their_reason(tmp_path: Path) -> None:
    trials = Trials(tmp_path, settings(2), "m")
    for _ in range(2):
        trial = trials.ask()
        assert trial is not None
        trials.tell(trial.number, "failed", reason="diverged")
    assert trials.ask() is None
    assert [(trial.status, trial.reason) for trial in trials.all()] == [("failed", "diverged")] * 2
    assert trials.best() is None


def test_a_full_disk_is_no_damaged_study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is to be moved away."""
    from optuna.storages.journal import JournalFileBackend

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(JournalFileBackend, "append_logs", full)
    with pytest.raises(files.UnwritableError, match=r"study-m\.jsonl: cannot be written \(No space .* free"):
        Trials(tmp_path, settings(), "m")
