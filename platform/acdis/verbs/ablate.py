"""`ablate`: train the missing cells of specs side by side; the same command goes on where it stopped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from acdis import extras, home
from acdis.terminal.progress import Display
from acdis.workflow import notify
from acdis.workflow.jobs import where_to_look
from acdis.workflow.opening import open_specs
from acdis.workflow.train_missing import train_missing


@dataclass(frozen=True)
class Request:
    """What the user asked for.

    Attributes:
        rows, seeds: only these; none: all of the spec.
        at_once: most cells side by side; none: as many as fit.
        failed: only cells that have failed.
        notify: whom to tell at the end: a command, or the address of a webhook.
    """

    specs: Sequence[Path]
    experiment: Path | None = None
    overrides: Sequence[str] = ()
    rows: Sequence[str] | None = None
    seeds: Sequence[int] | None = None
    at_once: int | None = None
    failed: bool = False
    notify: str | None = None


def ablate(request: Request) -> None:
    """Train, score and publish what is missing of the specs' cells.

    Raises:
        UserError: a spec, an experiment or its data is wrong, or a cell can never be placed.
        TrainingFailed: some cells failed, or have not come to an end; the others are done.
    """
    extras.need("cluster", "ablate")
    notify.check(request.notify)
    base = home.home()
    with Display() as display:
        members = open_specs(
            request.specs,
            request.experiment,
            request.overrides,
            request.rows,
            request.seeds,
            base,
            display,
            tracked=True,
        )
        with notify.told(request.notify, members, base, display.say):
            train_missing(members, base, display, request.at_once, request.failed)
        display.say(where_to_look(members[0].experiment, base))
