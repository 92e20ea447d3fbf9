"""`report`: tables beside the paper's, from the cells of a home or from a bundle alone. Trains nothing."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from acdis import home
from acdis.errors import UserError
from acdis.files import reason, sweep_beside, write_text
from acdis.report import bundle, per_case, spec_files, strata, subsets_forms
from acdis.report.facts import Reader, SpecFacts, with_scores
from acdis.report.formats import RENDERERS, beside, compared, render
from acdis.report.paperwork import cell_papers, checklist, elsewhere, lists
from acdis.report.paperwork.study import study
from acdis.report.sections import document
from acdis.report.subsets_table import table_of

#: `rows`: a line per row, with statistics; `subsets`: the field's table of 15 subsets.
LAYOUTS = ("rows", "subsets")
_ENDINGS = {".md": "md", ".tex": "latex", ".csv": "csv", ".html": "html", ".htm": "html"}


@dataclass(frozen=True)
class ReportRequest:
    """What the user asked for.

    Attributes:
        specs: spec files, or one bundle.
        form: of `RENDERERS`; none: what the ending of `out` says; without `out` tables for a terminal, else
            Markdown.
        out: file for the report; none: standard output.
        pack: file for a bundle.
        layout: of `LAYOUTS`.
        against: with the layout `subsets`, the row that verdicts are against; none: the baseline.
        standalone: LaTeX that compiles by itself, instead of tables to be put in by `\\input`.
        cases: the scores of every case instead of tables, as CSV.
        strata: CSV file with kinds of cases (sites, grades); none: those that the truth shows.
        checklist: a paper's checklist, filled, instead of tables.
    """

    specs: Sequence[Path]
    experiment: Path | None = None
    overrides: Sequence[str] = ()
    rows: Sequence[str] | None = None
    seeds: Sequence[int] | None = None
    form: str | None = None
    out: Path | None = None
    pack: Path | None = None
    layout: str = "rows"
    against: str | None = None
    standalone: bool = False
    cases: bool = False
    strata: Path | None = None
    checklist: str | None = None


def report(request: ReportRequest) -> None:
    """Print or write the report, and pack a bundle if one is asked for.

    Raises:
        UserError: no or a wrong spec, a damaged bundle or records, or an output that cannot be written.
    """
    form = _form(request)
    if not request.specs:
        raise UserError("report: name at least one spec file, such as ablations/table2.yaml, or a bundle")
    _check_layout(request, form)
    if request.cases:
        _check_cases(request, form)
    if request.checklist is not None:
        _check_checklist(request, request.checklist, form)
    if request.strata and (request.cases or request.layout != "rows" or form in ("csv", "challenger")):
        raise UserError("--strata: is for the tables of rows, as md, latex or html; leave the rest out")
    groups = strata.read_groups(request.strata) if request.strata else {}
    if request.pack is not None and not bundle.is_bundle(request.pack):
        raise UserError(f"--bundle {request.pack}: `report` knows bundles by their ending; name it .zip")
    specs, read = _packed(request) if any(map(bundle.is_bundle, request.specs)) else trained(request)
    if request.cases:
        text = per_case.render(specs, home.to_read())
    elif request.checklist is not None:
        text = _filled(request, request.checklist, specs, read)
    elif request.layout == "subsets":
        tables = [
            table_of(spec, [with_scores(row, read) for row in spec.rows], request.against) for spec in specs
        ]
        text = subsets_forms.FORMS[form](tables, request.standalone)
    elif request.out is None and request.form is None and sys.stdout.isatty():
        _on_terminal(specs, read, groups)
        return
    else:
        text = render(specs, read, form, groups, request.standalone)
        for line in beside(specs, read, form):
            print(line, file=sys.stderr)
    if request.out is None:
        sys.stdout.write(text)
    else:
        _write(request.out, text)


def _on_terminal(specs: Sequence[SpecFacts], read: Reader, groups: strata.Groups) -> None:
    from rich.console import Console

    from acdis.terminal.report_pages import show

    show(document(compared(specs, read), groups), Console(highlight=False))


def _check_layout(request: ReportRequest, form: str) -> None:
    if request.layout not in LAYOUTS:
        raise UserError(f"--layout: {request.layout!r} is none of {', '.join(LAYOUTS)}")
    if request.layout == "subsets" and form not in subsets_forms.FORMS:
        raise UserError(f"--format {form}: not with --layout subsets; give {', '.join(subsets_forms.FORMS)}")
    if request.layout != "subsets" and request.against:
        raise UserError("--against: has an effect with --layout subsets alone; leave it out")
    if request.standalone and form != "latex":
        raise UserError("--standalone: is LaTeX; give --format latex or an --out that ends in .tex")


def _check_cases(request: ReportRequest, form: str) -> None:
    if form != "csv" or request.layout != "rows":
        raise UserError("--cases: is CSV; give --format csv or an --out that ends in .csv, and no --layout")
    if packed := next(filter(bundle.is_bundle, request.specs), None):
        raise UserError(
            f"{packed}: --cases reads a home; the bundle holds the scores of every case as Parquet, "
            "cells/…/evaluations/…/records.parquet"
        )


def _check_checklist(request: ReportRequest, name: str, form: str) -> None:
    lists.check(name)
    if form != "md" or request.layout != "rows" or request.cases or request.strata:
        raise UserError(
            "--checklist: is Markdown; give an --out that ends in .md, and no --layout, --cases or --strata"
        )


def _filled(request: ReportRequest, name: str, specs: Sequence[SpecFacts], read: Reader) -> str:
    """The checklist, from what cells say of themselves in the home or in the bundle."""
    packed = next(filter(bundle.is_bundle, request.specs), None)
    base = home.to_read()
    contents = cell_papers.of_home(base) if packed is None else bundle.cell_files(packed)
    known = {cell.cell for spec in specs for row in (*spec.rows, *spec.unscored) for cell in row.cells}
    others = elsewhere.look(base, known) if packed is None else None
    whole = study(compared(specs, read), lambda cell: cell_papers.read(cell, contents), others)
    return checklist.render(whole, name)


def _form(request: ReportRequest) -> str:
    if request.form and request.form not in RENDERERS:
        raise UserError(f"--format: {request.form!r} is none of {', '.join(RENDERERS)}")
    ending = request.out.suffix.lower() if request.out else ".md"
    if ending == ".pdf":
        raise UserError(f"--out {request.out}: no PDF is written; give a .tex file and compile it, or .html")
    form = request.form or _ENDINGS.get(ending)
    if form is None:
        raise UserError(
            f"--out {request.out}: its ending says no format; give one of {', '.join(_ENDINGS)}, or --format"
        )
    return form


def _packed(request: ReportRequest) -> tuple[list[SpecFacts], Reader]:
    path, *more = request.specs
    changed = request.experiment or request.overrides or request.rows or request.seeds or request.pack
    if more or changed:
        raise UserError(
            f"{next(filter(bundle.is_bundle, request.specs))}: a bundle is reported alone and as it is; "
            "leave out other specs, --experiment, --rows, --seeds, --bundle and overrides"
        )
    return bundle.read(path)


def trained(request: ReportRequest) -> tuple[list[SpecFacts], Reader]:
    """What the cells of this home say of the specs; packs a bundle if one is asked for."""
    from acdis.report.collect import collect, reader
    from acdis.terminal.progress import Display
    from acdis.workflow.opening import open_specs

    base = home.to_read()
    # What is said on the way must not stand in the report: `acdis report … > table.csv`.
    with contextlib.redirect_stdout(sys.stderr), Display() as display:
        members = open_specs(
            request.specs,
            request.experiment,
            request.overrides,
            request.rows,
            request.seeds,
            base,
            display,
            looking=True,
            remembering=True,
        )
    specs = collect(members, base)
    if request.pack is not None:
        from acdis.tracking.patch import code

        files = [file for member in members for file in (member.spec.path, member.spec.base)]
        written = [source for file in dict.fromkeys(files) for source in spec_files.files(file)]
        bundle.write(request.pack, specs, written, base, code())
        print(f"bundle: {request.pack}", file=sys.stderr)
    return specs, reader(base)


def _write(path: Path, text: str) -> None:
    sweep_beside(path)
    try:
        write_text(path, text)
    except OSError as error:
        raise UserError(f"--out {path}: cannot be written ({reason(error)}); give another file") from None
    print(f"report: {path}", file=sys.stderr)
