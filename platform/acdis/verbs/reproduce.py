"""`reproduce`: Tables 2 and 3 of the paper, trained and reported."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from acdis import extras, home
from acdis.ablation.expansion import Member
from acdis.cluster.train import TrainingFailed
from acdis.files import write_text
from acdis.report import rendering
from acdis.report.collect import collect, reader
from acdis.report.formats import RENDERERS, compared
from acdis.report.sections import brief
from acdis.terminal.progress import Display
from acdis.workflow.jobs import where_to_look
from acdis.workflow.opening import open_specs
from acdis.workflow.train_missing import train_missing

TABLES = ("table2.yaml", "table3.yaml")
#: Spec and row of ACDIS as the paper proposes it: its 15 subsets are shown.
FULL_METHOD = ("table3", "syn")


def reproduce(
    experiment: Path | None, overrides: Sequence[str], seeds: Sequence[int] | None, at_once: int | None
) -> None:
    """Train what is missing of both tables, then report them. Failed cells are said at the end.

    Raises:
        UserError: as `ablate`.
        TrainingFailed: some cells failed; the report shows the others.
    """
    extras.need("cluster", "reproduce")
    base = home.home()
    specs = tables()
    failure = None
    with Display() as display:
        members = open_specs(specs, experiment, overrides, None, seeds, base, display, tracked=True)
        try:
            train_missing(members, base, display, at_once)
        except TrainingFailed as error:
            failure = error
    _report(members, base)
    if failure is not None:
        raise failure
    print(where_to_look(members[0].experiment, base))  # what to do next stands at the end, below the report


def tables() -> list[Path]:
    """The two specs: the checkout's; of an installed package those of the working directory, which `init` has
    written, or else its own."""
    edited = [Path.cwd() / "ablations" / name for name in TABLES]
    if home.checkout() is None and all(path.is_file() for path in edited):
        return edited
    return [home.shipped() / "ablations" / name for name in TABLES]


def _report(members: Sequence[Member], base: Path) -> None:
    """The whole report as files, the short one on the terminal."""
    results = compared(collect(members, base), reader(base))
    print(rendering.markdown(brief(results, FULL_METHOD)))
    for ending, form in ((".md", "md"), (".html", "html")):
        file = base / "reports" / f"tables-2-and-3{ending}"
        write_text(file, RENDERERS[form](results))
        print(f"whole report: {file}")
