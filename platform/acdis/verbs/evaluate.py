"""`evaluate`: score a trained run again, on the same or other data, without training."""

from __future__ import annotations

from acdis import home
from acdis.report.facts import PHANTOM_WARNING
from acdis.terminal.progress import Display
from acdis.workflow.jobs import where_to_look
from acdis.workflow.score_again import Request, score_again


def evaluate(request: Request) -> None:
    """Score a finished cell and show the table.

    Raises:
        UserError: as `score_again`.
    """
    base = home.home()
    with Display() as display:
        scored = score_again(request, base, display)
        display.say(scored.table)
        if scored.job.experiment.data.phantoms is not None:
            display.say(PHANTOM_WARNING)
        display.say(where_to_look(scored.job.experiment, base))
