"""The trials of a search: a durable Optuna study that is asked for values and told what came of them.

Optuna is imported inside the functions: that takes a second.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from acdis import files
from acdis.ablation.search_file import Domain, Pruner, Settings
from acdis.errors import UserError

Status = Literal["running", "done", "pruned", "failed"]


@dataclass(frozen=True)
class Trial:
    """One trial as the study knows it.

    Attributes:
        number: from 0.
        values: {dotted key: value}.
        value: of the objective; of a pruned trial the last that was seen, if any.
        epoch: the last that was reported; 0 before the first.
        cell: name of its cell; empty before it has one.
        reason: why it was pruned or has failed.
    """

    number: int
    values: Mapping[str, Any]
    status: Status
    value: float | None = None
    epoch: int = 0
    cell: str = ""
    reason: str = ""


class Trials:
    """The study in `folder`, whose lock the caller holds; searches of another meaning have another file.

    Every answer is on disk before the call returns: a process that is killed loses no trial, and one that
    was running is among `all` as `running` when the study is opened again. A damaged file is a UserError.
    """

    def __init__(self, folder: Path, settings: Settings, meaning: str) -> None:
        import optuna
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        path = folder / f"study-{meaning}.jsonl"
        _repair(path)
        self.settings = settings
        self._optuna = optuna
        try:
            self._study = optuna.create_study(
                storage=JournalStorage(JournalFileBackend(str(path), _NoLock())),
                study_name=meaning,
                direction="maximize",
                pruner=_pruner(settings.pruner),
                load_if_exists=True,
            )
            self.all()
        except OSError as error:
            raise files.UnwritableError(path, error) from None
        except Exception as error:  # Optuna plays the file back without a look at what it says
            reason = " ".join(str(error).split())[:150] or type(error).__name__
            raise UserError(
                f"{path}: cannot be read ({type(error).__name__}: {reason}); move it away to begin anew"
            ) from None

    def all(self) -> list[Trial]:
        """Every trial, by number."""
        return [self._seen(frozen) for frozen in self._study.get_trials(deepcopy=False)]

    def ask(self) -> Trial | None:
        """The next trial, `running` from now on; none when there are as many as were wanted.

        What is drawn depends on the sampler's seed, the trial's number and what was told so far: a search
        that was stopped draws what it would have drawn.
        """
        number = len(self._study.get_trials(deepcopy=False))
        if number >= self.settings.trials:
            return None
        self._study.sampler = self._sampler(number)
        return self._complete(self._study.ask())

    def taken_up(self, trial: Trial) -> Trial:
        """A running trial of a process that is gone; values that it had not drawn are drawn now."""
        self._study.sampler = self._sampler(trial.number)
        return self._complete(self._handle(trial.number))

    def note_cell(self, number: int, cell: str) -> None:
        """Which cell the trial trains."""
        self._handle(number).set_user_attr("cell", cell)

    def report(self, number: int, epochs: Mapping[int, float]) -> str | None:
        """Objective by epoch (from 1), known ones included; says why if the trial should be given up."""
        handle = self._handle(number)
        known = self._frozen(number).intermediate_values
        for epoch in sorted(epochs.keys() - known.keys()):
            handle.report(epochs[epoch], step=epoch)
            if handle.should_prune():
                return f"pruned by {self.settings.pruner.name} after epoch {epoch} at {epochs[epoch]:.4f}"
        return None

    def tell(self, number: int, status: Status, value: float | None = None, reason: str = "") -> Trial:
        """What came of a running trial."""
        if reason:
            self._handle(number).set_user_attr("reason", reason)
        states = self._optuna.trial.TrialState
        if status == "done":
            self._study.tell(number, value)
        else:
            self._study.tell(number, state=states.PRUNED if status == "pruned" else states.FAIL)
        return self._seen(self._frozen(number))

    def best(self) -> Trial | None:
        """The trial that ended with the highest value, the first of equals."""
        done = [trial for trial in self.all() if trial.status == "done" and trial.value is not None]
        return max(done, key=lambda trial: (trial.value, -trial.number), default=None)

    def _complete(self, handle: Any) -> Trial:
        for key, domain in self.settings.space.items():
            _suggest(handle, key, domain)
        return self._seen(self._frozen(handle.number))

    def _sampler(self, number: int) -> Any:
        import numpy as np

        seed = int(np.random.SeedSequence([self.settings.seed, number]).generate_state(1)[0])
        samplers = self._optuna.samplers
        return (
            samplers.RandomSampler(seed)
            if self.settings.sampler == "random"
            else samplers.TPESampler(seed=seed)
        )

    def _frozen(self, number: int) -> Any:
        return self._study.get_trials(deepcopy=False)[number]

    def _handle(self, number: int) -> Any:
        return self._optuna.trial.Trial(self._study, self._frozen(number)._trial_id)

    def _seen(self, frozen: Any) -> Trial:
        names: dict[str, Status] = {"COMPLETE": "done", "PRUNED": "pruned", "FAIL": "failed"}
        space = self.settings.space
        return Trial(
            number=frozen.number,
            values={key: _value(space[key], frozen.params[key]) for key in space if key in frozen.params},
            status=names.get(frozen.state.name, "running"),
            value=frozen.value,
            epoch=max(frozen.intermediate_values, default=0),
            cell=frozen.user_attrs.get("cell", ""),
            reason=frozen.user_attrs.get("reason", ""),
        )


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Keep a second process from running the same search.

    Raises:
        UserError: another process does.
    """
    path = folder / "lock"
    held = contextlib.ExitStack()
    try:
        held.enter_context(files.locked(path, patience=1.0))
    except files.HeldError:
        raise UserError(
            f"{folder.name}: {files.holder(path)} runs this search; wait for it or stop it"
        ) from None
    with held:
        yield


class _NoLock:
    """Optuna's own lock outlives a killed process by half a minute; `alone` does not."""

    def acquire(self) -> bool:
        return True

    def release(self) -> None:
        pass


def _repair(path: Path) -> None:
    """Cut off a last line that was not written to its end: the next one would make the file unreadable."""
    if path.exists():
        content = path.read_bytes()
        os.truncate(path, content.rfind(b"\n") + 1)


def _suggest(handle: Any, key: str, domain: Domain) -> None:
    if domain.choices is not None:
        handle.suggest_categorical(key, domain.texts)
    elif domain.whole:
        handle.suggest_int(key, domain.low, domain.high, step=domain.step or 1, log=domain.log)
    else:
        handle.suggest_float(key, domain.low, domain.high, step=domain.step, log=domain.log)


def _value(domain: Domain, drawn: Any) -> Any:
    return json.loads(drawn) if domain.choices is not None else drawn


def _pruner(wanted: Pruner) -> Any:
    import optuna

    if wanted.name == "none":
        return optuna.pruners.NopPruner()
    if wanted.name == "asha":
        return optuna.pruners.SuccessiveHalvingPruner(wanted.min_epochs or 1, wanted.reduction or 4)
    startup = 5 if wanted.startup_trials is None else wanted.startup_trials
    # Optuna's steps count from 0, epochs from 1.
    return optuna.pruners.MedianPruner(startup, (wanted.warmup_epochs or 0) + 1)
