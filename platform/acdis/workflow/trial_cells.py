"""The trials of a search as cells: drawn, trained once each, given up early, and told to the study."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from acdis import cells, files, home, machine, methods
from acdis.ablation.search import Search
from acdis.ablation.trials import Trial, Trials
from acdis.cells import Cell, stop_request
from acdis.cluster.train import Job, TrainingFailed
from acdis.config import Data, Experiment
from acdis.data.inputs import Inputs, open_for_learning
from acdis.errors import UserError
from acdis.files import write_text
from acdis.terminal.progress import Display
from acdis.tracking import check_store, check_uri, chosen_uri
from acdis.tracking.journal import epochs_of
from acdis.workflow.jobs import learned_from, split_names, tracking_of

#: So many failures before anything came to its end: it is not the values that are wrong.
MOST_FAILURES = 3
#: Seconds between two looks at the epochs of trials.
PAUSE = 2.0
BEST = "best.yaml"


class Cases:
    """Prepared cases, without those to test on: a search neither reads nor scores them."""

    def __init__(self, base: Path, display: Display) -> None:
        self.base, self.display = base, display
        self.known: dict[Data, tuple[Inputs, tuple[str, ...]]] = {}

    def of(self, experiment: Experiment) -> tuple[Inputs, tuple[str, ...]]:
        """What trains and validates, and the names of what tests.

        Raises:
            UserError: no usable cases, or none to validate on.
        """
        data = experiment.data
        if data not in self.known:
            check_uri(experiment.tracking.uri or "sqlite:////")
            check_store(chosen_uri(experiment.tracking.uri, self.base))
            threads = machine.processors()
            inputs, tests = open_for_learning(data, self.base, threads, self.display.count)
            if not inputs.validation:
                raise UserError("data.split: a search needs validation cases to choose by; give it some")
            self.display.say(
                f"cases: {len(inputs.train)} train, {len(inputs.validation)} validate; "
                f"{len(tests)} test cases are left unread"
            )
            self.known[data] = inputs, tests
        return self.known[data]


class Hunt:
    """Gives out jobs (`ask`), follows them (`look`), and takes what came of them (`over`)."""

    def __init__(
        self, search: Search, trials: Trials, cases: Cases, tags: dict[str, str], folder: Path
    ) -> None:
        self.search, self.trials, self.cases, self.tags, self.folder = search, trials, cases, tags, folder
        self.display = cases.display
        self.active: dict[str, list[int]] = {}
        self.jobs: dict[str, Job] = {}
        self.left = [trial for trial in trials.all() if trial.status == "running"]
        self.known = {trial.cell: trial for trial in trials.all() if trial.cell and trial.status != "running"}
        self.failures = self.ends = 0
        self.waiting = False
        self.looked = 0.0
        seed = search.experiment(search.first).seed
        for trial in self.known.values():  # what a power cut has left of their roles is written again
            cell = Cell(home.cells(cases.base) / trial.cell)
            if cell.folder.is_dir():
                self._note_role(trial.number, cell, seed)
        self._write_best()

    def ask(self) -> Job | None:
        """The next cell to train; trials that a cell has answered already are told at once.

        Raises:
            TrainingFailed: the first trials all failed.
        """
        while not self.waiting and (trial := self._next()) is not None:
            job = self._job(trial)
            if job is None:
                continue
            name = job.cell.name
            self.jobs.setdefault(name, job)
            if name in self.active:
                self.active[name].append(trial.number)
                self.waiting = True  # drawn before its twin was known: more of the same would teach nothing
            elif self._is_over(trial, job.cell):
                self._conclude(trial.number, job.cell, "")
            else:
                job.cell.check_writable()
                stop_request.forget(job.cell)  # what a search that is gone has asked for
                self.active[name] = [trial.number]
                return job
        return None

    def over(self, job: Job, died: str) -> None:
        """A training has ended; `died` says why its process has, if it has.

        Raises:
            TrainingFailed: the first trials all failed.
        """
        self.waiting = False
        for number in self.active.pop(job.cell.name):
            self._conclude(number, job.cell, died)

    def look(self) -> None:
        """Report the epochs of what trains, ask what is hopeless to stop, and show it all."""
        now = time.monotonic()
        if now - self.looked < PAUSE:
            return
        self.looked = now
        for name, numbers in self.active.items():
            cell = self.jobs[name].cell
            reasons = [self.trials.report(number, self._epochs(cell)) for number in numbers]
            if reasons[0] and not cell.weights.exists():
                stop_request.ask(cell, reasons[0])
        told = sum(trial.status != "running" for trial in self.trials.all())
        self.display.crowd(self._line(told), told, self.search.settings.trials)

    def _next(self) -> Trial | None:
        if self.left:
            trial = self.trials.taken_up(self.left.pop(0))
            self.display.say(f"trial {trial.number}: taken up again ({shown(trial.values)})")
            return trial
        asked = self.trials.ask()
        if asked is not None:
            self.display.say(f"trial {asked.number}: {shown(asked.values)}")
        return asked

    def _job(self, trial: Trial) -> Job | None:
        """The trial's cell with all that training it takes; none for values that make no experiment."""
        try:
            experiment = self.search.experiment(trial.values)
        except UserError as error:
            self._told(self.trials.tell(trial.number, "failed", reason=str(error)))
            return None
        inputs, tests = self.cases.of(experiment)
        base = self.cases.base
        version = methods.version(experiment.method.name)
        name = cells.cell_name(experiment, inputs.fingerprint, version)
        splits = split_names(inputs) | {"test": list(tests)}
        cell = cells.create(
            base, name, experiment, {"tags": self.tags, "splits": splits, **learned_from(inputs)}
        )
        self._note_role(trial.number, cell, experiment.seed)
        self.trials.note_cell(trial.number, name)
        evaluation = cell.evaluations / cells.evaluation_name(experiment, inputs.test_fingerprint)
        return Job(experiment, cell, inputs, evaluation, tracking_of(experiment, base), base)

    def _note_role(self, number: int, cell: Cell, seed: int) -> None:
        cell.add_role(spec=self.search.name, table=self.search.name, row=f"trial-{number}", seed=seed)

    def _is_over(self, trial: Trial, cell: Cell) -> bool:
        """Whether the cell says already what becomes of the trial: published, or tried in this study.

        Weights alone may be of a search that was killed before it had told MLflow: that is made up for.
        """
        state = cell.state()
        mine = cell.name in self.known or trial.cell == cell.name
        trained = cell.weights.exists() and state.get("status") == "done"
        failed = state.get("status") == "failed" and files.UNWRITABLE not in str(state.get("reason"))
        return trained or (mine and (is_pruned(state) or failed))

    def _conclude(self, number: int, cell: Cell, died: str) -> None:
        self.trials.report(number, self._epochs(cell))
        state = cell.state()
        if cell.weights.exists():
            trial = self.trials.tell(number, "done", self._value(cell))
        elif is_pruned(state):
            trial = self.trials.tell(number, "pruned", reason=state["reason"])
        else:
            reason = str(state.get("reason") or "") if state.get("status") == "failed" else died
            if not reason or files.UNWRITABLE in reason:  # a full disk says nothing about the values
                raise TrainingFailed(
                    f"trial {number}: {reason or 'it ended without weights, and could not write down why'}; "
                    "the same command takes it up again"
                )
            trial = self.trials.tell(number, "failed", reason=reason)
        self._told(trial)

    def _told(self, trial: Trial) -> None:
        twin = self.known.get(trial.cell)
        if trial.cell:
            self.known.setdefault(trial.cell, trial)
        self.display.say(
            f"trial {trial.number}: {said(trial)}" + (f", as trial {twin.number}" if twin else "")
        )
        self.failures += trial.status == "failed"
        self.ends += trial.status != "failed"
        if self.failures >= MOST_FAILURES and not self.ends:
            raise TrainingFailed(f"{self.failures} trials failed and none came to its end: {trial.reason}")
        if trial.status == "done":
            self._write_best()

    def _epochs(self, cell: Cell) -> dict[int, float]:
        """The objective by epoch, of those that were validated."""
        objective = self.search.settings.objective
        return {epoch: values[objective] for epoch, values in validated(cell).items() if objective in values}

    def _value(self, cell: Cell) -> float:
        """The objective of the weights that were kept."""
        epochs = validated(cell)
        kept = max(epochs)
        if cell.experiment().training.selection == "best":
            kept = max(epochs, key=lambda epoch: (epochs[epoch]["dice/mean"], -epoch))
        return epochs[kept][self.search.settings.objective]

    def _write_best(self) -> None:
        best = self.trials.best()
        if best is not None and best.value is not None:
            objective = self.search.settings.objective
            heading = (
                f"Search {self.search.name}, trial {best.number}: validation {objective} {best.value:.4f}"
            )
            write_text(self.folder / BEST, self.search.experiment_file(best.values, heading))

    def _line(self, told: int) -> str:
        best = self.trials.best()
        doing = [
            f"trial {numbers[0]}: epoch {self.jobs[name].cell.state().get('done', 0)}"
            for name, numbers in self.active.items()
        ]
        so_far = f", best {best.value:.4f} (trial {best.number})" if best else ""
        return f"{told} of {self.search.settings.trials} trials over{so_far} | {'; '.join(doing)}"


def validated(cell: Cell) -> dict[int, dict[str, float]]:
    """Validation by epoch (from 1): from the history, or from the journal while the cell is trained."""
    known = cell.validations()
    if known:
        return known
    start = "validation/"
    told = {
        epoch: {key.removeprefix(start): value for key, value in values.items() if key.startswith(start)}
        for epoch, values in epochs_of(cell.folder).items()
    }
    return {epoch: values for epoch, values in sorted(told.items()) if values}


def is_pruned(state: Mapping[str, Any]) -> bool:
    """Whether the cell was asked to stop; Ctrl-C gives no reason."""
    return state.get("status") == "stopped" and bool(state.get("reason"))


def shown(values: Mapping[str, Any]) -> str:
    """`training.learning_rate=0.0012, …`"""
    return ", ".join(
        f"{key}={value:.4g}" if isinstance(value, float) else f"{key}={value}"
        for key, value in values.items()
    )


def said(trial: Trial) -> str:
    """What came of it."""
    if trial.status == "done":
        return f"validation {trial.value:.4f}"
    return trial.reason or trial.status
