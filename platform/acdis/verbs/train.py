"""`train`: an experiment file in, a trained and scored cell out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from acdis import home, methods
from acdis.ablation.expansion import decide
from acdis.ablation.file_kinds import expect
from acdis.errors import UserError
from acdis.report.facts import PHANTOM_WARNING
from acdis.terminal.progress import Display
from acdis.tracking.lineage import lineage
from acdis.workflow import launching
from acdis.workflow.jobs import check_parents, job_of, where_to_look
from acdis.workflow.life import complete, projection
from acdis.workflow.opening import prepare


def train(path: Path, overrides: Sequence[str]) -> None:
    """Train one cell, score it on its test cases, and show the table. A finished cell is only shown again.

    Raises:
        UserError: the experiment, the data or the place for outputs is wrong.
    """
    try:
        experiment = decide(methods.load(path, overrides))
    except UserError:
        expect(path, "experiment")  # of another kind, it has other faults than those that were found
        raise
    launching.check(experiment.scaling)
    base = home.home()
    check_parents([experiment], (), base)
    with Display() as display:
        inputs = prepare(experiment, base, display, tracked=True).for_scoring(experiment.scored)
        tags = lineage()
        job = job_of(experiment, inputs, base, tags)
        display.say(f"cell {job.cell.name} in {job.cell.folder}")
        with job.cell.alone():
            text = complete(
                job, tags, lambda: launching.launch(job, display.say, _shown(display)), display.say
            )
        display.say(text)
        if experiment.data.phantoms is not None:
            display.say(PHANTOM_WARNING)
        display.say(where_to_look(experiment, base))


def _shown(display: Display) -> Callable[[dict[str, Any]], None]:
    """Shows a cell's state, and says once what a measured step says about the whole run."""
    said = False

    def show(state: dict[str, Any]) -> None:
        nonlocal said
        if not said and "projected_seconds" in state:
            said = True
            display.say(projection(state))
        display.state(state)

    return show
