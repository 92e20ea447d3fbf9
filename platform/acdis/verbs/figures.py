"""`report figures`: Figures 1, 5, 6 and 7 of the paper for trained cells, as files and in MLflow."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from acdis import cells, home, machine
from acdis.cells import Cell
from acdis.data.found_cases import find_cases
from acdis.data.inputs import prepare_cases
from acdis.data.predictions import named_subset
from acdis.errors import UserError
from acdis.files import reason
from acdis.report.facts import PHANTOM_WARNING
from acdis.report.figures import DPI, FORMATS
from acdis.terminal.progress import Display
from acdis.tracking import check_store, without_mlflow
from acdis.vocabulary import MODALITIES
from acdis.workflow.jobs import tracking_of
from acdis.workflow.life import opened

if TYPE_CHECKING:
    from acdis.report.paper.figure_files import CaseView, Figure, Shown

#: Columns of a figure that can still be read.
MOST = 8
#: In the cell's folder and in its MLflow run.
FOLDER = "figures"


@dataclass(frozen=True)
class FiguresRequest:
    """What the user asked for.

    Attributes:
        runs: cells' names, the beginnings of them, or their folders.
        case: a test case of all of them; none: the first.
        out: folder to write to, a folder per cell in it; none: each cell's own folder, and its MLflow run.
        formats: of `report.figures.FORMATS`; none: PNG.
        dpi: dots per inch.
        index: axial slice of the file, from 0; none: the one with most tumour.
        subsets: the rows of Figure 5, such as `FLAIR_T2`; none: five from one modality to all.
        titles: whether the figures bear their titles.
    """

    runs: Sequence[str]
    case: str | None = None
    out: Path | None = None
    formats: Sequence[str] | None = None
    dpi: int = DPI
    index: int | None = None
    subsets: Sequence[str] | None = None
    titles: bool = True


def figures(request: FiguresRequest) -> None:
    """Draw what these cells can give, captions beside the figures as text.

    Figures 5 and 6, which compare, are filed under the first.

    Raises:
        UserError: no such format, subset or slice, no such cell, not trained yet, no such test case, cells
            that saw it differently, or a folder that cannot be written to.
    """
    shown, out = _shown(request), request.out
    base = home.home()
    trained = _trained(request.runs, base)
    name = _case(trained, request.case)
    if out is None:
        for cell in trained:
            without_mlflow(cell.experiment().tracking.uri)
            check_store(tracking_of(cell.experiment(), base)["uri"])
    with Display() as display:
        sights = [_sight(cell, name, base, display) for cell in trained]
        _refuse_unlike(sights)
        drawn = _draw(sights, out, display, shown)
        if out is None:
            _log(drawn, sights, base)
        if any(sight.experiment.data.phantoms is not None for sight in sights):
            display.say(PHANTOM_WARNING)


def _shown(request: FiguresRequest) -> Shown:
    from acdis.evaluation.examples import SHOWN
    from acdis.report.paper.figure_files import Shown
    from acdis.report.paper.slices import Style

    formats = request.formats or FORMATS[:1]
    if unknown := next((form for form in formats if form not in FORMATS), None):
        raise UserError(f"--format: {unknown!r} is none of {', '.join(FORMATS)}")
    subsets = SHOWN if request.subsets is None else [named_subset(name) for name in request.subsets]
    return Shown(Style(formats, request.dpi, request.titles), subsets, request.index)


def _trained(runs: Sequence[str], base: Path) -> list[Cell]:
    if not 1 <= len(runs) <= MOST:
        raise UserError(f"report figures: name 1 to {MOST} trained cells, as in: report figures acdis-0d1a7")
    trained = [cells.find_trained(base, run) for run in runs]
    names = [cell.name for cell in trained]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise UserError(f"report figures: {twice} is named twice; give each cell once")
    return trained


def _case(trained: Sequence[Cell], wanted: str | None) -> str:
    """A case that all cells were tested on: no cell has learned from it."""
    tests = [cell.test_cases() for cell in trained]
    common = [name for name in tests[0] if all(name in test for test in tests)]
    if wanted in common:
        return str(wanted)
    if not common:
        raise UserError(
            f"{', '.join(cell.name for cell in trained)}: have no test case that all of them share"
        )
    if wanted is None:
        return str(common[0])
    shown = ", ".join(common[:8]) + (" …" if len(common) > 8 else "")
    raise UserError(f"--case: {wanted!r} is no test case of every cell named; such are: {shown}")


def _sight(cell: Cell, name: str, base: Path, display: Display) -> CaseView:
    from acdis.report.paper.figure_files import CaseView

    experiment = cell.experiment()
    listed = find_cases(experiment.data, base, display.count).only([name])
    if name not in listed.names:
        raise UserError(f"{cell.name}: {name}: not found any more where data.root or data.phantoms say")
    threads = machine.processors()
    entry = prepare_cases(listed, [name], experiment.data, base, threads, display.count)[name]
    if lacking := [modality for modality in MODALITIES if modality not in entry.modalities]:
        raise UserError(
            f"{name}: has no {' and no '.join(lacking)}, and figures show all four; name another with --case"
        )
    return CaseView(cell, experiment, entry, listed.cases[name])


def _refuse_unlike(sights: Sequence[CaseView]) -> None:
    """One crop and one slice serve all cells, so all must have prepared the same case in the same way."""
    first, *others = sights
    for other in others:
        if other.entry.fingerprint != first.entry.fingerprint:
            raise UserError(
                f"{first.cell.name} and {other.cell.name}: {first.entry.name} was prepared differently "
                "(files, data.spacing, data.min_size or data.background): draw their figures one by one"
            )


def _draw(sights: Sequence[CaseView], out: Path | None, display: Display, shown: Shown) -> list[Figure]:
    from acdis.report.paper import figure_files

    def folder(cell: Cell) -> Path:
        return cell.folder / FOLDER if out is None else out / cell.name

    drawn = []
    try:
        for figure in figure_files.draw(sights, folder, display.say, shown):
            *pictures, caption = figure.files
            for picture in pictures:
                display.say(f"figure: {picture}")
            display.say(f"its caption: {caption}")
            drawn.append(figure)
    except OSError as error:
        raise UserError(
            f"{error.filename}: cannot be written ({reason(error)}); give another --out"
        ) from None
    return drawn


def _log(drawn: Iterable[Figure], sights: Sequence[CaseView], base: Path) -> None:
    """The figures as artifacts of the cells' runs; what a server does not take now waits in the journal."""
    for sight in sights:
        files = [file for figure in drawn if figure.cell.name == sight.cell.name for file in figure.files]
        if not files:
            continue
        place = tracking_of(sight.experiment, base)
        with sight.cell.alone(), opened(sight.cell.folder, sight.cell.name, place, running=False) as tracker:
            for file in files:
                tracker.log_artifact(file, FOLDER)
