"""`train`: an experiment file in, a trained and scored cell out."""

from __future__ import annotations

import contextlib
import os
import shlex
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from acdis import config, home, methods
from acdis.ablation import cells
from acdis.ablation.cells import Cell
from acdis.config import Experiment
from acdis.data.inputs import Inputs, open_inputs
from acdis.errors import UserError
from acdis.tracking import public
from acdis.tracking.lineage import lineage
from acdis.tracking.runs import RunTracker, check_uri, default_uri
from acdis.verbs import publish
from acdis.verbs.progress import Display, clock

#: Seconds that a start or a failure waits for a tracking server that is away, and the end of a run.
BEFORE_SECONDS, AFTER_SECONDS = 5.0, 30.0
PHANTOM_WARNING = (
    "These are phantoms at demo scale: the figures show that everything works. They say NOTHING about "
    "patients, nor about the scores in the paper."
)


def train(path: Path, overrides: Sequence[str]) -> None:
    """Train one cell, score it on its test cases, and show the table. A finished cell is only shown again.

    Raises:
        UserError: the experiment, the data or the place for outputs is wrong.
    """
    experiment = resolve(config.load(path, overrides))
    base = home.home()
    with Display() as display:
        inputs = prepare(experiment, base, display)
        name = cells.cell_name(experiment, inputs.fingerprint, methods.version(experiment.method.name))
        tags = lineage()
        cell = cells.create(base, name, experiment, {"tags": tags, "splits": split_names(inputs)})
        display.say(f"cell {name} in {cell.folder}")
        with cell.alone():
            text = _train(experiment, cell, inputs, base, tags, display)
        display.say(text)
        if experiment.data.phantoms is not None:
            display.say(PHANTOM_WARNING)
        display.say(where_to_look(experiment, base))


def resolve(experiment: Experiment) -> Experiment:
    """Options validated and written out, `auto` decided: what is hashed and what runs."""
    from acdis.training import precision

    experiment = methods.resolve(experiment)
    chosen = precision.resolve(experiment.training.precision, experiment.scaling.gpu)
    training = experiment.training.model_copy(update={"precision": chosen})
    check_uri(experiment.tracking.uri or "sqlite:////")
    return experiment.model_copy(update={"training": training})


def prepare(experiment: Experiment, base: Path, display: Display) -> Inputs:
    """The experiment's cases, found, checked and preprocessed."""
    inputs = open_inputs(experiment.data, base, max(1, len(os.sched_getaffinity(0))), display.count)
    if experiment.training.selection == "best" and not inputs.validation:
        raise UserError(
            "training.selection: 'best' needs validation cases; give data.split some, or choose 'last'"
        )
    display.say(
        f"cases: {len(inputs.train)} train, {len(inputs.validation)} validate, {len(inputs.test)} test"
    )
    return inputs


def split_names(inputs: Inputs) -> dict[str, list[str]]:
    """Which cases did what: kept with the cell, so that it can be scored again."""
    parts = {"train": inputs.train, "validation": inputs.validation, "test": inputs.test}
    return {name: [entry.name for entry in entries] for name, entries in parts.items()}


def tracking_of(experiment: Experiment, base: Path) -> dict[str, str]:
    """Where MLflow keeps the run."""
    return {"uri": experiment.tracking.uri or default_uri(base), "experiment": experiment.tracking.experiment}


def evaluation_folder(cell: Cell, experiment: Experiment, test_fingerprint: str) -> Path:
    """An evaluation has a name of its own: how it scores, and which cases."""
    settings = experiment.evaluation.model_dump(mode="json")
    return cell.evaluations / cells.digest({"evaluation": settings, "cases": test_fingerprint})


def where_to_look(experiment: Experiment, base: Path) -> str:
    """The line that opens the dashboard, with the `mlflow` that belongs to this Python."""
    uri = public(experiment.tracking.uri or default_uri(base))
    if uri.startswith("http"):
        return f"dashboard: {uri}"
    program = Path(sys.executable).parent / "mlflow"
    command = [str(program) if program.exists() else "mlflow", "server", "--backend-store-uri", uri]
    return f"dashboard: {shlex.join([*command, '--host', '127.0.0.1', '--port', '5000'])}"


def _train(
    experiment: Experiment, cell: Cell, inputs: Inputs, base: Path, tags: dict[str, str], display: Display
) -> str:
    evaluation = evaluation_folder(cell, experiment, inputs.test_fingerprint)
    tracking = tracking_of(experiment, base)
    before = cell.state()
    if is_finished(cell, evaluation, bool(inputs.test)):
        display.say("it is trained and scored already; nothing is trained again, this is what came out:")
    else:
        with tracker_of(cell, tracking, running=True, patience=BEFORE_SECONDS) as tracker:
            details = {"acdis.data_fingerprint": inputs.fingerprint, "acdis.method": experiment.method.name}
            publish.begin(tracker, cell, experiment, tags | details | {"acdis.seed": str(experiment.seed)})
        _launch(experiment, cell, inputs, evaluation, tracking, base, display)
    with tracker_of(cell, tracking, running=False) as tracker:
        publish.curves(tracker, cell)
        text = _published(tracker, cell, evaluation, experiment, inputs)
        if (before.get("status"), before.get("evaluation")) != ("done", evaluation.name):
            publish.cost(tracker, cell)
            tracker.finish("FINISHED")
    cell.update(status="done", evaluation=evaluation.name)
    return text


def is_finished(cell: Cell, evaluation: Path, scored: bool) -> bool:
    """Whether the final weights are there and, if there are cases to score, their scores."""
    return cell.weights.exists() and (not scored or (evaluation / "records.parquet").exists())


def _published(
    tracker: RunTracker, cell: Cell, evaluation: Path, experiment: Experiment, inputs: Inputs
) -> str:
    if not inputs.test:
        return "trained; no test cases, so no table (give data.split.test)"
    return publish.scores(
        tracker, cell, evaluation, experiment.evaluation, f"{cell.name}, seed {experiment.seed}"
    )


def _launch(
    experiment: Experiment,
    cell: Cell,
    inputs: Inputs,
    evaluation: Path,
    tracking: dict[str, str],
    base: Path,
    display: Display,
) -> None:
    from acdis.cluster import session
    from acdis.cluster.train import TrainingFailed, launch

    said = False

    def show(state: dict[str, Any]) -> None:
        nonlocal said
        if not said and "projected_seconds" in state:
            said = True
            display.say(projection(state))
        display.state(state)

    try:
        display.say("Ray: connecting, or starting one of our own (about 10 s)")
        with session.connected():
            launch(experiment, cell, inputs, evaluation, tracking, base, show)
    except (UserError, TrainingFailed, KeyboardInterrupt) as error:
        stopped = isinstance(error, KeyboardInterrupt)
        if stopped:
            cell.update(status="stopped")
        with tracker_of(cell, tracking, running=False, patience=BEFORE_SECONDS) as tracker:
            tracker.finish("KILLED" if stopped else "FAILED")
        raise


def projection(state: dict[str, Any]) -> str:
    """What a measured step says about the whole run."""
    resumed = f", going on after epoch {state['resumed_at']}" if state.get("resumed_at") else ""
    return (
        f"a step takes {state['step_seconds']:.2f} s and {state['peak_bytes'] / 2**30:.1f} GiB at its peak; "
        f"{clock(state['projected_seconds'])} of training steps ahead{resumed}"
    )


@contextlib.contextmanager
def tracker_of(
    cell: Cell, tracking: dict[str, str], running: bool, patience: float = AFTER_SECONDS
) -> Iterator[RunTracker]:
    """The cell's MLflow run. What a server has not taken in `patience` seconds waits for the next start."""
    tracker = RunTracker(
        cell.folder, tracking["uri"], tracking["experiment"], cell.name, cell.name, running=running
    )
    try:
        yield tracker
    finally:
        tracker.close(timeout=patience if tracking["uri"].startswith("http") else AFTER_SECONDS)
