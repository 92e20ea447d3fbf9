"""The ranking of a table: which rows, on which seeds and cases, and the section that shows it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from acdis.evaluation.ranking import RESAMPLES, Ranking, ranking
from acdis.report import phrases
from acdis.report.comparison import patients_of
from acdis.report.document import Section, Table
from acdis.report.facts import RowScores


@dataclass(frozen=True)
class Field:
    """Rows that are ranked, the seeds and cases that all of them have, and rows that lack some."""

    rows: tuple[RowScores, ...]
    seeds: tuple[int, ...]
    cases: tuple[str, ...]
    without: tuple[RowScores, ...]


def field(rows: Sequence[RowScores], baseline: str) -> Field | None:
    """The baseline (without it: the first row with scores), and every row that has its seeds and cases."""
    there = [row for row in rows if row.seeds]
    if not there:
        return None
    first = next((row for row in there if row.id == baseline), there[0])
    cases = frozenset.intersection(*(frozenset(scores.cases) for scores in first.seeds.values()))
    ranked = tuple(
        row
        for row in there
        if all(seed in row.seeds and cases <= set(row.seeds[seed].cases) for seed in first.seeds)
    )
    without = tuple(row for row in there if row not in ranked)
    return Field(ranked, tuple(sorted(first.seeds)), tuple(sorted(cases)), without)


def of(rows: Sequence[RowScores], baseline: str) -> tuple[Field, Ranking] | None:
    """The ranking of a table; none below two rows or without a case that all have."""
    ranked = field(rows, baseline)
    if ranked is None or len(ranked.rows) < 2 or not ranked.cases:
        return None
    seeds = [np.stack([row.seeds[seed].of(ranked.cases) for row in ranked.rows]) for seed in ranked.seeds]
    every = [row.seeds[seed] for row in ranked.rows for seed in ranked.seeds]
    return ranked, ranking(seeds, patients_of(every, ranked.cases))


def section(rows: Sequence[RowScores], baseline: str, labels: Mapping[str, str]) -> Section | None:
    """The ranking, rows in its order, under the labels of the other tables."""
    made = of(rows, baseline)
    if made is None:
        return None
    ranked, ranks = made
    body = [
        (
            labels[ranked.rows[place].id],
            f"{ranks.mean[place]:.2f}",
            str(ranks.place[place]),
            phrases.span(int(ranks.low[place]), int(ranks.high[place])),
            f"{100 * ranks.first[place]:.0f}",
        )
        for place in np.argsort(ranks.mean, kind="stable")
    ]
    head = ("Row", "Mean rank", "Place", "95 % of places", "First in %")
    text = (
        "Beside the verdicts, not instead of them: rows ranked by Dice in every seed × case × region × "
        f"subset (1 is best, ties share), {len(ranked.seeds)} seed{'s' * (len(ranked.seeds) > 1)} and "
        f"{len(ranked.cases)} cases; places in {RESAMPLES:,} resamples of seeds and patients. Rows that "
        "stand in an order need not differ."
    )
    notes = tuple(f"{labels[row.id]} is not ranked: it lacks seeds or cases." for row in ranked.without)
    return Section(3, "Ranking as challenges do it", (text,), Table(head, tuple(body), "lrrrr"), notes)
