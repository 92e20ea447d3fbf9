"""`external`: a cell on other people's cases beside its own test cases, 15 subsets, with a test."""

from __future__ import annotations

from acdis import home
from acdis.errors import UserError
from acdis.evaluation.scores import read_file
from acdis.files import write_text
from acdis.report.external import markdown
from acdis.terminal.progress import Display
from acdis.workflow.score_again import Request, score_again

#: Beside the records of the other cases.
FILE = "external.md"


def external(request: Request) -> None:
    """Score the cases below `request.root`, and set them against the cell's own test cases.

    Raises:
        UserError: as `score_again`; the cell has no scores of its own test cases, or of other metrics.
    """
    base = home.home()
    with Display() as display:
        job = score_again(request, base, display).job
        cell, folder = job.cell, job.evaluation
        own = cell.state().get("evaluation")
        if own is None:
            raise UserError(
                f"{cell.name}: was trained without test cases, so there is nothing to compare with"
            )
        inside = read_file(cell.records(own))
        outside = read_file(cell.records(folder.name))
        text = markdown(cell.name, inside, outside)
        write_text(folder / FILE, text)
        display.say(text)
        display.say(f"written to {folder / FILE}")
