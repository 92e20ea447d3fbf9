"""`data check`, `data prepare`, `data phantom`."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

from rich.table import Table

from acdis import config, home
from acdis.data import cases, phantom
from acdis.data.cases import CaseReport, Problem
from acdis.data.inputs import find_cases, prepare_cases
from acdis.errors import UserError, shown
from acdis.verbs.progress import Display


def check(root: Path) -> None:
    """Find and validate cases; print a table, then every problem.

    Raises:
        UserError: there are problems; the line says how many.
    """
    finding = cases.find(root)
    with Display() as display:
        reports = cases.check(
            finding.cases, _processes(), lambda done, of: display.count("checking cases", done, of)
        )
        problems = [*finding.problems, *(problem for report in reports for problem in report.problems)]
        display.console.print(_table(reports, finding.problems))
        for problem in problems:
            display.say(f"{shown(problem.case)}: {problem}")
        bad = len({problem.case for problem in problems})
        display.say(f"{len(finding.cases)} cases with all their files, {bad} with problems")
    if problems:
        raise UserError(
            f"{root}: {len(problems)} problems in {bad} cases, listed above; mend or remove these cases"
        )


def prepare(path: Path | None, root: Path, overrides: list[str]) -> None:
    """Build the preprocessed cache of every case below `root`, as an experiment (or the defaults) wants it.

    Raises:
        UserError: cases that cannot be used, once all others are prepared.
    """
    experiment = config.load(path, overrides)
    base = home.home()
    data = experiment.data.model_copy(update={"root": str(root.expanduser().resolve()), "phantoms": None})
    with Display() as display:
        found = find_cases(data, base, display.count)
        entries = prepare_cases(found, found.names, data, base, _processes(), display.count)
        display.say(f"{len(entries)} cases prepared in {home.cache(base)}")


def draw(out: Path, number: int, seed: int, shape: tuple[int, int, int], spacing: float) -> None:
    """Write phantoms as NIfTI cases."""
    with Display() as display:
        phantom.write(
            out, number, seed, shape, spacing, lambda done, of: display.count("drawing phantoms", done, of)
        )
        display.say(
            f"{number} phantoms in {out}: drawn, not measured; scores on them say nothing about patients"
        )


def _table(reports: list[CaseReport], missing: list[Problem]) -> Table:
    table = Table(title="cases")
    for heading in ("cases", "layout", "shape", "spacing mm", "labels", "problems"):
        table.add_column(heading, overflow="fold")
    groups = Counter(_row(report) for report in reports)
    for (layout, shape, spacing, labels, bad), count in sorted(groups.items()):
        table.add_row(str(count), layout, shape, spacing, labels, "yes" if bad else "none")
    if missing:
        table.add_row(
            str(len({problem.case for problem in missing})), "?", "?", "?", "?", "files are missing"
        )
    return table


def _row(report: CaseReport) -> tuple[str, str, str, str, bool]:
    """Cases that look alike share a row."""
    spacing = _text(report.spacing, "×")
    return (
        report.case.layout,
        _text(report.shape, ("×")),
        spacing,
        _text(report.labels, " "),
        bool(report.problems),
    )


def _text(values: tuple[float, ...] | None, separator: str) -> str:
    return separator.join(f"{value:g}" for value in values) if values else "?"


def _processes() -> int:
    return max(1, len(os.sched_getaffinity(0)))
