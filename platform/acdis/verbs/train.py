"""`train`: an experiment file in, a trained and scored cell out."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from acdis import files, home, methods
from acdis.ablation import cells
from acdis.ablation.members import settle
from acdis.cluster.train import Job
from acdis.config import Experiment
from acdis.data.inputs import Inputs
from acdis.report.facts import PHANTOM_WARNING
from acdis.tracking import chosen_uri, public
from acdis.tracking.lineage import lineage
from acdis.tracking.patch import of_this_run
from acdis.tracking.runs import check_uri, default_uri
from acdis.verbs import publish
from acdis.verbs.cell import check_parents, complete, evaluation_folder, projection, tracking_of
from acdis.verbs.progress import Display
from acdis.verbs.specs import prepare

#: What the commit does not have, for a reviewer.
CHANGES = "changes.patch"


def train(path: Path, overrides: Sequence[str]) -> None:
    """Train one cell, score it on its test cases, and show the table. A finished cell is only shown again.

    Raises:
        UserError: the experiment, the data or the place for outputs is wrong.
    """
    experiment = resolve(methods.load(path, overrides))
    base = home.home()
    check_parents([experiment], (), base)
    with Display() as display:
        inputs = prepare(experiment, base, display, tracked=True).for_scoring(experiment.scored)
        tags = lineage()
        job = job_of(experiment, inputs, base, tags)
        display.say(f"cell {job.cell.name} in {job.cell.folder}")
        with job.cell.alone():
            text = complete(job, tags, lambda: _launch(job, display), display.say)
        display.say(text)
        if experiment.data.phantoms is not None:
            display.say(PHANTOM_WARNING)
        display.say(where_to_look(experiment, base))


def job_of(experiment: Experiment, inputs: Inputs, base: Path, tags: dict[str, str]) -> Job:
    """The experiment's cell, its folder made, with all that training it takes."""
    name = cells.cell_name(experiment, inputs.fingerprint, methods.version(experiment.method.name))
    cell = cells.create(
        base, name, experiment, {"tags": tags, "splits": split_names(inputs), **learned_from(inputs)}
    )
    if cell.weights.exists() and not (cell.folder / "history.json").exists():
        publish.history(cell)
    if not (cell.folder / CHANGES).exists():
        files.write_text(cell.folder / CHANGES, of_this_run())
    evaluation = evaluation_folder(cell, experiment, inputs.test_fingerprint)
    return Job(experiment, cell, inputs, evaluation, tracking_of(experiment, base), base)


def _launch(job: Job, display: Display) -> None:
    from acdis.cluster import session
    from acdis.cluster.train import launch

    said = False

    def show(state: dict[str, Any]) -> None:
        nonlocal said
        if not said and "projected_seconds" in state:
            said = True
            display.say(projection(state))
        display.state(state)

    display.say("Ray: connecting, or starting one of our own (about 10 s)")
    with session.connected():
        launch(job, session.room(job.experiment.scaling), show)


def resolve(experiment: Experiment) -> Experiment:
    """Options validated and written out, `auto` decided, the place for tracking checked."""
    check_uri(experiment.tracking.uri or "sqlite:////")
    return settle(experiment)


def split_names(inputs: Inputs) -> dict[str, list[str]]:
    """Which cases did what: kept with the cell, so that it can be scored again."""
    parts = {"train": inputs.train, "validation": inputs.validation, "test": inputs.test}
    return {name: [entry.name for entry in entries] for name, entries in parts.items()}


def learned_from(inputs: Inputs) -> dict[str, dict[str, str]]:
    """By what else than its name a case is known again that trained or chose the weights."""
    entries = (*inputs.train, *inputs.validation)
    return {
        "voxels": {entry.name: entry.voxels for entry in entries},
        "patients": {entry.name: entry.patient for entry in entries},
    }


def where_to_look(experiment: Experiment, base: Path) -> str:
    """The line that opens the dashboard, with the program that belongs to this Python."""
    uri = chosen_uri(experiment.tracking.uri, base)
    if uri.startswith("http"):
        return f"dashboard: {public(uri)}"
    program = Path(sys.executable).parent / "acdis"
    command = ["env", f"ACDIS_HOME={base}", str(program) if program.exists() else "acdis", "dashboard"]
    command += [] if uri == default_uri(base) else ["--store", public(uri)]
    return f"dashboard: {shlex.join(command)}"
