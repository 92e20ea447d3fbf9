"""Test cases that lack modalities, by what they have: they stand apart from the mean of the 15 subsets."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from acdis.evaluation.incomplete import Pattern
from acdis.evaluation.scores import Scores
from acdis.report.document import Section, Table
from acdis.report.facts import RowScores
from acdis.vocabulary import REGIONS, metric_name


def section(rows: Sequence[RowScores], labels: Mapping[str, str]) -> Section | None:
    """Means of every row by pattern; none where no test case lacks a modality.

    Args:
        labels: what the rows are called.
    """
    body: list[tuple[str, ...]] = []
    for row in rows:
        by_pattern: dict[tuple[str, ...], list[Pattern]] = {}
        for scores in row.seeds.values():
            for pattern in scores.incomplete:
                by_pattern.setdefault(pattern.modalities, []).append(pattern)
        for modalities, seeds in by_pattern.items():
            means = np.mean([dice(pattern) for pattern in seeds], axis=0)
            counts = str(len(seeds[0].cases)), str(seeds[0].subsets)
            figures = (f"{100 * value:.2f}" for value in means)
            body.append((labels[row.id], " + ".join(modalities), *counts, *figures))
    if not body:
        return None
    return Section(
        3,
        "Test cases that lack modalities",
        (
            "Dice, mean over cases, the subsets that they have, and seeds. They are in no other table: a "
            "mean of 15 subsets is of cases that have all four modalities.",
        ),
        Table(
            ("Row", "Cases with", "Cases", "Subsets", *(f"{r} %" for r in REGIONS)), tuple(body), "llrrrrr"
        ),
    )


def notes(scores: Scores) -> Iterator[str]:
    """A line for one evaluation's table; none where no test case lacks a modality."""
    if not scores.incomplete:
        return
    count = sum(len(pattern.cases) for pattern in scores.incomplete)
    told = "; ".join(
        f"{' + '.join(pattern.modalities)} ({len(pattern.cases)}, {pattern.subsets} subsets): "
        + ", ".join(f"{r} {100 * value:.2f}" for r, value in zip(REGIONS, dice(pattern), strict=True))
        for pattern in scores.incomplete
    )
    yield (
        f"{count} more test cases lack modalities; they are not in this table. By what they have, mean over "
        f"their subsets: {told} %."
    )


def dice(pattern: Pattern) -> list[float]:
    """Of WT, TC and ET, 0 to 1."""
    return [pattern.summary[metric_name("dice", region)] for region in REGIONS]
