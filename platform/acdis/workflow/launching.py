"""Where one cell is trained and scored: on Ray, or without it in this process."""

from __future__ import annotations

import os
from collections.abc import Callable

from acdis import extras
from acdis.cluster import alone, session
from acdis.cluster.train import Job, Show
from acdis.cluster.train import launch as launch_on_ray
from acdis.config import Scaling
from acdis.planning.placement import idle_gpus, share
from acdis.planning.resources import this_machine


def check(scaling: Scaling) -> None:
    """Before cases are prepared.

    Raises:
        UserError: Ray is not installed, and what is asked for cannot be done without it.
    """
    address = os.environ.get("RAY_ADDRESS", "").strip()
    asked = {
        f"scaling.workers: {scaling.workers} workers": scaling.workers > 1,
        f"scaling.storage: {scaling.storage}": scaling.storage is not None,
        f"RAY_ADDRESS: {address}": address not in ("", "local"),
    }
    for what, is_asked in asked.items():
        if is_asked:
            extras.need("cluster", what)


def launch(job: Job, say: Callable[[str], None], show: Show, again: bool = False) -> None:
    """Train (from the last checkpoint, if there is one) and score one cell.

    Args:
        say: takes a line for the user.
        show: called with the cell's state.
        again: score even if there are records already.

    Raises:
        UserError: the run's input was wrong, or its workers can never be placed.
        TrainingFailed: it diverged, or Ray gave up restarting it.
        TrainingStopped: it was asked to stop.
    """
    scaling = job.experiment.scaling
    if not extras.installed("cluster"):
        say(f"in this process: Ray is not installed ({extras.command('cluster')})")
        alone.launch(job, share([this_machine()], scaling), show, again)
        return
    say("Ray: connecting, or starting one of our own (about 10 s)")
    with session.connected():
        nodes = session.nodes(say)
        if idle := idle_gpus(nodes, scaling):
            say(idle)
        launch_on_ray(job, share(nodes, scaling), show, again)
