"""`reproduce`: Tables 2 and 3 of the paper, trained and reported."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from acdis import home
from acdis.cluster.train import TrainingFailed
from acdis.errors import UserError
from acdis.files import write_text
from acdis.report import as_markdown
from acdis.report.forms import RENDERERS, compared
from acdis.report.sections import brief
from acdis.verbs.ablate import Request, ablate
from acdis.verbs.report import Wanted, trained

TABLES = ("table2.yaml", "table3.yaml")
#: Spec and row of ACDIS as the paper proposes it: its 15 subsets are shown.
FULL_METHOD = ("table3", "syn")


def reproduce(
    experiment: Path | None, overrides: Sequence[str], seeds: Sequence[int] | None, at_once: int | None
) -> None:
    """`ablate` what is missing of both tables, then `report` them. Failed cells are said at the end.

    Raises:
        UserError: not in a checkout, which has the specs, or as `ablate`.
        TrainingFailed: some cells failed; the report shows the others.
    """
    root = home.checkout()
    if root is None:
        raise UserError(
            "reproduce: needs a checkout, which has the specs; elsewhere name what to do: "
            "acdis ablate SPEC, acdis train FILE (see acdis --help)"
        )
    request = Request(
        [root / "ablations" / name for name in TABLES], experiment, overrides, seeds=seeds, at_once=at_once
    )
    look, failure = "", None
    try:
        look = ablate(request)
    except TrainingFailed as error:
        failure = error
    _report(request, home.home())
    if failure is not None:
        raise failure
    print(look)  # what to do next stands at the end, below the report


def _report(request: Request, base: Path) -> None:
    """The whole report as files, the short one on the terminal."""
    wanted = Wanted(request.specs, request.experiment, request.overrides, request.rows, request.seeds)
    found = compared(*trained(wanted))
    print(as_markdown.render(brief(found, FULL_METHOD)))
    for ending, form in ((".md", "md"), (".html", "html")):
        file = base / "reports" / f"tables-2-and-3{ending}"
        write_text(file, RENDERERS[form](found))
        print(f"whole report: {file}")
