"""What a small experiment's scores are held against, beside its tables; see `evaluation/floors.py`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from acdis.evaluation.scores import Scores
from acdis.report.document import Section, Table
from acdis.report.facts import RowScores
from acdis.vocabulary import REGIONS, SUBSETS

BRAIN, RULE = "whole brain as tumour (floor)", "threshold rule (floor)"
#: Rows that are named in a line; the table shows the others.
NAMED = 6


@dataclass(frozen=True)
class Levels:
    """Dice in per cent, mean over the cases that are scored.

    Attributes:
        brain: [3], the same for every subset.
        rule: [15, 3]; none where no rule was fitted.
        trained: cases that it was fitted on.
        cases: over how many the mean goes.
    """

    brain: np.ndarray
    rule: np.ndarray | None
    trained: int
    cases: int

    def mean(self) -> np.ndarray | None:
        """[3], the rule's mean over the 15 subsets."""
        return None if self.rule is None else self.rule.mean(axis=0)

    def beside(self) -> list[list[float]]:
        """16 × 3: the rule's 15 subsets and their mean; empty without a rule."""
        return [] if self.rule is None else [*self.rule.tolist(), self.rule.mean(axis=0).tolist()]

    def key(self) -> bytes:
        """Equal for floors that read the same."""
        return self.brain.tobytes() + (b"" if self.rule is None else self.rule.tobytes())


def levels(scores: Scores, cases: Sequence[str] = ()) -> Levels | None:
    """Floors of the cases that are scored, or of some of them; none where one of them has no floor."""
    floors = scores.floors
    places = {} if floors is None else {case: place for place, case in enumerate(floors.cases)}
    if floors is None or any(case not in places for case in scores.cases):
        return None
    chosen = [places[case] for case in cases or scores.cases]
    rule = None if floors.fitted is None else 100 * floors.fitted[chosen].mean(axis=0)
    return Levels(100 * floors.brain[chosen].mean(axis=0), rule, floors.trained, len(chosen))


def of_row(row: RowScores) -> Levels | None:
    """Those of its first seed that has some: seeds share their cases."""
    return next((floors for scores in row.seeds.values() if (floors := levels(scores))), None)


def region(row: RowScores, place: int) -> tuple[float | None, list[float] | None]:
    """Whole brain, and the rule on the 15 subsets, of the region at this place; none where there is none."""
    floors = of_row(row)
    if floors is None:
        return None, None
    return float(floors.brain[place]), None if floors.rule is None else floors.rule[:, place].tolist()


def first_lines(rows: Sequence[RowScores]) -> list[str]:
    """The line that a report begins with where a row lies below the whole brain."""
    worse = [f"{row.label} ({words})" for row in rows if (words := _below(row, brain=True))]
    if not worse:
        return []
    return [f"BELOW THE WHOLE BRAIN painted as tumour, so nothing was learned there: {_listed(worse)}."]


def notes_on(rows: Sequence[RowScores]) -> list[str]:
    """What floors there are, and which rows lie below the threshold rule."""
    known = [floors for row in rows if (floors := of_row(row))]
    if not known:
        return []
    lines = [explained(known[0])]
    if worse := [f"{row.label} ({words})" for row in rows if (words := _below(row, brain=False))]:
        lines.append(f"Below the threshold rule, mean over 15 subsets: {_listed(worse)}.")
    return lines


def explained(floors: Levels) -> str:
    """In a sentence, for who sees the word for the first time."""
    rule = (
        f"; threshold rule: on FLAIR or T2, T1ce and T1, fitted on the {floors.trained} training cases"
        if floors.rule is not None
        else ""
    )
    return f"Floors: the whole brain as tumour, whatever the subset{rule} (docs/data.md)."


def lines_for(rows: Sequence[RowScores]) -> list[tuple[str, str, tuple[str, ...]]]:
    """Label, cases, and Dice per region of each floor, below the rows of a table."""
    return [
        (label, str(floors.cases), figures)
        for floors in _different(rows)
        for label, figures in in_figures(floors)
    ]


def in_figures(floors: Levels) -> list[tuple[str, tuple[str, ...]]]:
    """Label, and Dice per region as text, of the brain and of the rule's mean over the subsets."""
    named = ((BRAIN, floors.brain), (RULE, floors.mean()))
    return [(label, _figures(values)) for label, values in named if values is not None]


def by_subset(rows: Sequence[RowScores]) -> list[tuple[str, str, np.ndarray]]:
    """Key, label, and Dice [16, 3] of each floor: the 15 subsets and their mean."""
    return [
        (key, label, values)
        for floors in _different(rows)
        for key, label, values in (
            ("floor:brain", BRAIN, np.tile(floors.brain, (len(SUBSETS) + 1, 1))),
            ("floor:rule", RULE, np.array(floors.beside())),
        )
        if len(values)
    ]


def beside_means(section: Section, rows: Sequence[RowScores]) -> Section:
    """The table of rows with a line for each floor, and notes on them."""
    if section.table is None:
        return section
    head, lines = section.table.head, []
    for label, cases, figures in lines_for(rows):
        known = {f"{region} %": figure for region, figure in zip(REGIONS, figures, strict=True)}
        known |= {head[0]: label, "Cases": cases}
        lines.append(tuple(known.get(name, "") for name in head))
    table = replace(section.table, body=(*section.table.body, *lines))
    return replace(section, table=table, notes=(*section.notes, *notes_on(rows)))


def beside_subsets(section: Section, row: RowScores) -> Section:
    """The table of a row's 15 subsets with the rule's Dice in three columns more, the brain's in a note."""
    floors = of_row(row)
    if floors is None or section.table is None:
        return section
    note = f"Whole brain as tumour: {_named(floors.brain)} for every subset."
    if floors.rule is None:
        return replace(section, notes=(*section.notes, note))
    table = section.table
    means = [*floors.rule, floors.rule.mean(axis=0)]
    wider = Table(
        (*table.head, *(f"rule {region} %" for region in REGIONS)),
        tuple((*line, *_figures(values)) for line, values in zip(table.body, means, strict=True)),
        table.align + "rrr",
        table.last_apart,
    )
    return replace(section, table=wider, notes=(*section.notes, note))


def columns(scores: Scores) -> list[tuple[str, ...]]:
    """Head, 15 subsets and their mean: what stands beside one evaluation's table, line by line."""
    floors = levels(scores)
    if floors is None or floors.rule is None:
        return [()] * (len(SUBSETS) + 2)
    lines = [_figures(values) for values in (*floors.rule, floors.rule.mean(axis=0))]
    return [tuple(f"rule {region} %" for region in REGIONS), *lines]


def notes(scores: Scores) -> list[str]:
    """Below one evaluation's table."""
    floors = levels(scores)
    if floors is None:
        return []
    lines = [explained(floors), f"Whole brain as tumour: {_named(floors.brain)} for every subset."]
    mean = floors.mean()
    if mean is not None:
        lines.append(f"Threshold rule: {_named(mean)}, mean over 15 subsets.")
    if mean is not None and (words := _fewer(_mean(scores), mean)):
        lines.append(f"Below the threshold rule, mean over 15 subsets: {words}.")
    return lines


def below(scores: Scores) -> list[str]:
    """The line before one evaluation's table where it lies below the whole brain."""
    floors = levels(scores)
    words = _fewer(_mean(scores), floors.brain) if floors else ""
    return (
        [f"BELOW THE WHOLE BRAIN painted as tumour, so nothing was learned there: {words}."] if words else []
    )


def _mean(scores: Scores) -> np.ndarray:
    return np.asarray(100 * scores.dice.mean(axis=(0, 1)))


def _below(row: RowScores, brain: bool) -> str:
    """`WT 4.10 < 4.90`: regions in which the mean over seeds, cases and subsets is below a floor."""
    floors = of_row(row)
    if floors is None:
        return ""
    floor = floors.brain if brain else floors.mean()
    ours = np.mean([_mean(scores) for scores in row.seeds.values()], axis=0)
    return "" if floor is None else _fewer(ours, floor)


def _fewer(ours: np.ndarray, floor: np.ndarray) -> str:
    """Regions in which a figure is below the floor as both are printed."""
    return ", ".join(
        f"{region} {mine:.2f} < {theirs:.2f}"
        for region, mine, theirs in zip(REGIONS, ours, floor, strict=True)
        if round(float(mine), 2) < round(float(theirs), 2)
    )


def _listed(words: Sequence[str]) -> str:
    more = f"; and {len(words) - NAMED} more" if len(words) > NAMED else ""
    return "; ".join(words[:NAMED]) + more


def _different(rows: Sequence[RowScores]) -> list[Levels]:
    """One for rows that share their cases."""
    return list({floors.key(): floors for row in rows if (floors := of_row(row))}.values())


def _figures(values: np.ndarray) -> tuple[str, ...]:
    return tuple(f"{value:.2f}" for value in values)


def _named(values: np.ndarray) -> str:
    return ", ".join(f"{region} {value:.2f}" for region, value in zip(REGIONS, values, strict=True)) + " %"
