"""The same scores for kinds of cases: with and without ET, small and large lesions, sites or grades."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from acdis import files
from acdis.errors import UserError
from acdis.evaluation.scores import Scores
from acdis.report import floors
from acdis.report.document import Section, Table
from acdis.report.facts import RowScores
from acdis.vocabulary import REGIONS

#: Rows of a spec up to which strata are shown, and values of a column that make groups.
MOST_ROWS, MOST_GROUPS = 24, 12
#: Cases below which lesions are not told apart by size: two in each third.
LEAST_CASES = 6
_THIRDS = ("small", "middle", "large")

#: {column: {case or patient: value}}
Groups = Mapping[str, Mapping[str, str]]


def read_groups(path: Path) -> dict[str, dict[str, str]]:
    """A CSV file with a header: names of cases or patients first, then a column for each way to group them.

    Raises:
        UserError: it cannot be read, has no second column, a name twice, or a column of too many values.
    """
    try:
        text = files.read(path, files.TEXT).decode("utf-8-sig")
    except (OSError, UnicodeDecodeError, files.TooLargeError) as error:
        raise UserError(f"--strata {path}: cannot be read ({files.reason(error)})") from None
    head, *lines = [line for line in csv.reader(io.StringIO(text)) if any(line)] or [[]]
    if len(head) < 2 or not lines:
        raise UserError(f"--strata {path}: give a header such as case,site and a line for each case below it")
    groups: dict[str, dict[str, str]] = {column.strip(): {} for column in head[1:]}
    for number, line in enumerate(lines, 2):
        if len(line) != len(head):
            raise UserError(
                f"--strata {path}, line {number}: {len(line)} values where the header has {len(head)}"
            )
        name = line[0].strip()
        for column, value in zip(groups, line[1:], strict=True):
            if name in groups[column]:
                raise UserError(f"--strata {path}, line {number}: {name} is there twice; keep one line")
            groups[column][name] = value.strip()
    for column, values in groups.items():
        if len(set(values.values())) > MOST_GROUPS:
            raise UserError(
                f"--strata {path}: {column} has {len(set(values.values()))} different values; at most "
                f"{MOST_GROUPS} make groups that can be read"
            )
    return groups


def section(rows: Sequence[RowScores], labels: Mapping[str, str], groups: Groups) -> Section | None:
    """Means of every row and of the floors by stratum; none of too many rows, or with nothing to tell apart.

    Args:
        labels: what the rows are called.
        groups: of `read_groups`; may be empty.
    """
    scored = [row for row in rows if row.seeds]
    if not scored or len(scored) > MOST_ROWS:
        return None
    body: list[tuple[str, ...]] = []
    held: dict[str, floors.Levels | None] = {}
    for row in scored:
        first = next(iter(row.seeds.values()))
        for name, chosen in _strata(first, groups):
            held.setdefault(name, floors.levels(first, chosen))
            means = np.mean([_mean(scores, chosen) for scores in row.seeds.values()], axis=0)
            body.append((labels[row.id], name, str(len(chosen)), *(f"{100 * value:.2f}" for value in means)))
    if not body:
        return None
    for name, level in held.items():
        if level is not None:
            body += [(label, name, str(level.cases), *figures) for label, figures in floors.in_figures(level)]
    head = ("Row", "Cases with", "Cases", *(f"{region} %" for region in REGIONS))
    return Section(
        3,
        "By kind of case",
        ("Dice, mean over cases, 15 subsets and seeds. Kinds of cases may differ in more than their name.",),
        Table(head, tuple(body), "llrrrr"),
    )


def _mean(scores: Scores, chosen: Sequence[str]) -> np.ndarray:
    """[3], over those of the cases that were scored."""
    there = [case for case in chosen if case in scores.cases]
    mean: np.ndarray = scores.of(there).mean(axis=(0, 1))
    return mean


def _strata(scores: Scores, groups: Groups) -> Iterator[tuple[str, list[str]]]:
    """Names of groups that have cases, and these; a group of all cases says nothing."""
    for name, chosen in (*_by_truth(scores), *_by_table(scores, groups)):
        if 0 < len(chosen) < len(scores.cases):
            yield name, chosen


def _by_truth(scores: Scores) -> Iterator[tuple[str, list[str]]]:
    if scores.truth is None:
        return
    whole, enhancing = scores.truth[:, 0], scores.truth[:, 2]
    yield "ET", [case for case, ml in zip(scores.cases, enhancing, strict=True) if ml > 0]
    yield "no ET", [case for case, ml in zip(scores.cases, enhancing, strict=True) if ml == 0]
    if len(scores.cases) < LEAST_CASES:
        return
    order = np.argsort(whole, kind="stable")
    for name, places in zip(_THIRDS, np.array_split(order, len(_THIRDS)), strict=True):
        low, high = whole[places[0]], whole[places[-1]]
        yield (
            f"a {name} lesion ({low:.3g} to {high:.3g} ml)",
            [scores.cases[place] for place in sorted(places)],
        )


def _by_table(scores: Scores, groups: Groups) -> Iterator[tuple[str, list[str]]]:
    patients = dict(zip(scores.cases, scores.patients or scores.cases, strict=True))
    for column, values in groups.items():
        known = {case: values.get(case, values.get(patients[case], "")) for case in scores.cases}
        for value in sorted(set(known.values())):
            chosen = [case for case in scores.cases if known[case] == value]
            yield (f"{column} {value}" if value else f"{column} not known"), chosen
