"""`data check`, `data prepare`, `data phantom`."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from rich.table import Table

from acdis import config, home, machine, methods
from acdis.data import cases, lists, phantom, schemes, splits, strata
from acdis.data.cases import CaseReport, Problem
from acdis.data.found_cases import find_cases, refused
from acdis.data.inputs import expanded, notes_of, prepare_cases
from acdis.data.problems import gathered, way_out
from acdis.data.strata import Stratum
from acdis.errors import UserError
from acdis.files import write_text
from acdis.terminal.progress import Display

#: Labels of a segmentation that the table shows; an image taken for one holds thousands.
_SHOWN = 12


def check(root: Path, path: Path | None, overrides: list[str]) -> None:
    """Find and validate cases; print a table, what was taken for what, then every problem.

    Args:
        path, overrides: an experiment, whose `data` names files, labels, patients and the split.

    Raises:
        UserError: there are problems; the line says how many.
    """
    data = methods.load(path, overrides).data
    finding = cases.find(root, data)
    with Display() as display:
        reports = cases.check(
            finding.cases, machine.processors(), lambda done, of: display.count("checking cases", done, of)
        )
        problems = [*finding.problems, *(problem for report in reports for problem in report.problems)]
        display.console.print(_table(reports, finding.problems))
        for line in gathered([*finding.notes, *(note for report in reports for note in report.notes)]):
            display.say(line)
        for line in gathered(problems):
            display.say(line)
        absent = _absent(reports)
        if absent:
            display.say(f"no case holds {' or '.join(absent)}: are these the segmentations, and not masks?")
        bad = len({problem.case for problem in problems})
        persons = len({case.patient for case in finding.cases})
        having = "with a segmentation and an image at least" if data.incomplete else "with all their files"
        display.say(f"{len(finding.cases)} scans of {persons} patients {having}, {bad} with problems")
        if data.split.train is not None or data.split.counts is not None:
            for line in _split_lines(reports, data):
                display.say(line)
    if problems:
        raise UserError(
            f"{root}: {len(problems)} problems in {bad} cases, listed above; mend or remove these cases"
            + way_out(problems)
        )


def _absent(reports: list[CaseReport]) -> list[str]:
    """Classes that no segmentation that was read holds; labels that are not known are problems already."""
    read = [report for report in reports if report.labels]
    held = {index for report in read for value, index in report.case.scheme.classes if value in report.labels}
    return [name for name, index in schemes.CLASS_NAMES.items() if read and index not in held]


def _split_lines(reports: list[CaseReport], data: config.Data) -> list[str]:
    """Per part of the split: scans, patients, and how many have no ET."""
    known = {report.case.name: report for report in reports}
    patients = {name: report.case.patient for name, report in known.items()}
    kinds = strata.kinds({name: Stratum(report.enhancing, report.lesion) for name, report in known.items()})
    split = splits.resolve(expanded(data.split), list(known), None, patients, kinds)
    lines = []
    for part in splits.PARTS:
        names = getattr(split, part)
        without = sum(not known[name].enhancing for name in names)
        persons = len({patients[name] for name in names})
        lines.append(f"{part}: {len(names)} scans of {persons} patients, {without} without ET")
    return lines


def check_lists(paths: list[Path], out: Path | None = None) -> None:
    """Say of split files which of the field's published lists they hold.

    Raises:
        UserError: a file cannot be read, or holds no published list; `out` is given, which only folds need.
    """
    if out is not None:
        raise UserError("--out has an effect with --folds alone; leave it out")
    files = [file for path in paths for file in (sorted(path.glob("*.txt")) if path.is_dir() else [path])]
    if not files:
        raise UserError(f"{', '.join(map(str, paths))}: no split file (*.txt) there")
    strangers, prose = [], 0
    with Display() as display:
        for file in files:
            names = lists.read_list(file)
            published = lists.recognised(names)
            if published is not None:
                display.say(
                    f"{file.name}: {published.split}, {published.part}, {published.cases} cases: as published"
                )
            elif file not in paths and lists.is_prose(names):
                prose += 1
                display.say(f"{file.name}: sentences and no names, left out")
            else:
                strangers.append(file.name)
                display.say(f"{file.name}: {len(names)} names, none of the published lists")
    if prose == len(files):
        raise UserError(f"{', '.join(map(str, paths))}: no split file (*.txt) there")
    if strangers:
        raise UserError(
            f"{len(strangers)} of {len(files) - prose} files hold no published list: {', '.join(strangers)}"
        )


def draw_folds(paths: list[Path], count: int, seed: int, out: Path | None, overrides: list[str]) -> None:
    """Write lists of `count` folds: in each, one part tests and the others train; patients stay together.

    Raises:
        UserError: not one folder of cases, cases that lack files, too few patients, or no folder to write to,
            or one that holds other folds.
    """
    if len(paths) != 1:
        raise UserError(f"--folds takes one folder of cases, {len(paths)} are given")
    if out is None:
        raise UserError("--folds: give --out FOLDER, where their lists go")
    root = paths[0]
    _refuse_other_folds(out, count)
    data = config.load(None, overrides).data.model_copy(
        update={"root": str(root.resolve()), "phantoms": None}
    )
    base = home.home()
    with Display() as display:
        listed = find_cases(data, base, display.count)
        for line in notes_of(listed, ()):
            display.say(line)
        if listed.problems:
            raise refused(listed, gathered(listed.problems))
        read = strata.of_cases(
            list(listed.cases.values()),
            home.cache(base),
            machine.processors(),
            lambda done, of: display.count("reading segmentations", done, of),
        )
        kinds = strata.kinds(read)
        patients = {name: case.patient for name, case in listed.cases.items()}
        parts = splits.folds(list(patients), count, seed, patients, kinds)
        for number, test in enumerate(parts):
            train = sorted({name for part in parts for name in part} - set(test))
            for part, names in (("train", train), ("test", test)):
                write_text(out / f"fold{number}_{part}.txt", "\n".join(names) + "\n")
        sizes = ", ".join(str(len(part)) for part in parts)
        display.say(
            f"{count} folds of {len(set(patients.values()))} patients in {out}: {sizes} scans to test on"
        )


def _refuse_other_folds(out: Path, count: int) -> None:
    """Five folds beside what is left of ten would read as ten."""
    ours = {f"fold{number}_{part}.txt" for number in range(count) for part in ("train", "test")}
    others = sorted({path.name for path in out.glob("fold*_*.txt")} - ours)
    if others:
        raise UserError(f"{out}: holds lists of another draw ({others[0]} …); give a new folder to --out")


def prepare(path: Path | None, root: Path, overrides: list[str]) -> None:
    """Build the preprocessed cache of every case below `root`, as an experiment (or the defaults) wants it.

    Raises:
        UserError: cases that cannot be used, once all others are prepared.
    """
    experiment = methods.load(path, overrides)
    base = home.home()
    data = experiment.data.model_copy(update={"root": str(root.expanduser().resolve()), "phantoms": None})
    with Display() as display:
        listed = find_cases(data, base, display.count)
        entries = prepare_cases(listed, listed.names, data, base, machine.processors(), display.count)
        for note in notes_of(listed, entries.values()):
            display.say(note)
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
    for heading in ("cases", "data set", "shape", "spacing mm", "axes", "labels", "problems"):
        table.add_column(heading, overflow="fold")
    groups = Counter(_row(report) for report in reports)
    for (data_set, shape, spacing, axes, labels, bad), count in sorted(groups.items()):
        table.add_row(str(count), data_set, shape, spacing, axes, labels, "yes" if bad else "none")
    if missing:
        table.add_row(str(len({problem.case for problem in missing})), *"?????", "files are missing")
    return table


def _row(report: CaseReport) -> tuple[str, str, str, str, str, bool]:
    """Cases that look alike share a row."""
    spacing = _text(report.spacing, "×")
    return (
        report.case.data_set,
        _text(report.shape, ("×")),
        spacing,
        report.orientation or "?",
        _text(report.labels[:_SHOWN], " ") + (" …" if len(report.labels) > _SHOWN else ""),
        bool(report.problems),
    )


def _text(values: tuple[float, ...] | None, separator: str) -> str:
    return separator.join(f"{value:g}" for value in values) if values else "?"
