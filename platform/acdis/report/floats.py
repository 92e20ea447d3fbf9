"""The tables of a report as papers print them: multi-column heads, the best bold, a caption and a label."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence

import numpy as np

from acdis.evaluation.statistics import ALPHA
from acdis.report import floors, phrases
from acdis.report.comparison import Comparison, Difference
from acdis.report.document import Float, FloatCell, Table
from acdis.report.facts import PHANTOM_WARNING, RowScores, SpecFacts
from acdis.report.subsets_table import MARKS, ranks
from acdis.vocabulary import REGIONS

#: Behind a difference whose rows spread more than the others, see `phrases.verdict`.
OWN_SPREAD = "†"


def means(spec: SpecFacts, rows: Sequence[RowScores], result: Comparison) -> Float:
    """A line per row: in each region our Dice, the paper's, and the difference to the baseline."""
    against = {(each.row, each.region): each for each in result.differences if each.against == spec.baseline}
    with_paper = any(row.paper for row in spec.rows)
    heads = ("Dice", *(["paper"] if with_paper else []), *(["Δ"] if against else []))
    ours = _ranked([_of_ours(row, result) for row in rows])
    theirs = _ranked([[(row.paper or {}).get(region, math.nan) for region in REGIONS] for row in rows])
    body = []
    for number, row in enumerate(rows):
        figures, cells = result.figures.get(row.id), [FloatCell(row.label)]
        words = phrases.means(figures.mean, figures.low, figures.high) if figures else [phrases.ABSENT] * 3
        for place, region in enumerate(REGIONS):
            cells.append(FloatCell(words[place], ours[number][place]))
            if with_paper:
                cells.append(_printed((row.paper or {}).get(region), theirs[number][place]))
            if against:
                cells.append(_delta(against.get((row.id, region))))
        body.append(tuple(cells))
    below = floors.lines_for(rows)
    for label, _, floor in below:
        body.append((FloatCell(label), *(cell for figure in floor for cell in _beside(figure, heads))))
    whole = [("", ("Row",)), *((region, heads) for region in REGIONS)]
    return Float(
        warnings(spec, rows),
        _about_means(spec, rows, result, with_paper, bool(against)),
        f"{spec.name}-means",
        tuple(whole) if len(heads) > 1 else (("", ("Row", *REGIONS)),),
        tuple(body),
        "l" + "r" * len(heads) * len(REGIONS),
        len(below),
    )


def differences(
    spec: SpecFacts, rows: Sequence[RowScores], result: Comparison, shown: Sequence[Difference]
) -> Float:
    """A line per row and the row that it is compared with: difference, interval and p in each region.

    Args:
        shown: those of the comparison, which all stand on several seeds or all on one.
    """
    labels = {row.id: row.label for row in spec.rows}
    pairs = dict.fromkeys((each.row, each.against) for each in shown)
    known = {(each.row, each.against, each.region): each for each in shown}
    alone = all(each.verdict == "one seed" for each in shown)
    heads = ("Δ", "95 % interval", "p" if alone else "adjusted p")
    body = []
    for row, other in pairs:
        cells = [FloatCell(labels[row] + ("" if other == spec.baseline else f" − {labels[other]}"))]
        for region in REGIONS:
            one = known.get((row, other, region))
            answer = one.answer if one else None
            p = None if answer is None else answer.p if alone else answer.p_adjusted
            cells += [_delta(one), FloatCell(phrases.interval(one) if one else phrases.ABSENT)]
            cells.append(FloatCell(phrases.p_value(p)))
        body.append(tuple(cells))
    return Float(
        warnings(spec, rows),
        _about_differences(spec, result, alone),
        f"{spec.name}-{'two-trainings' if alone else 'differences'}",
        (("", ("Row",)), *((region, heads) for region in REGIONS)),
        tuple(body),
        "l" + "r" * len(heads) * len(REGIONS),
    )


def plain(
    table: Table, caption: str, name: str, warned: tuple[str, ...], names: Mapping[str, str] | None = None
) -> Float:
    """A table as it is.

    Args:
        caption: behind which stands a full stop.
        names: what stands for the text of a first cell, such as a row's label without the mark of its note.
    """
    known = names or {}
    body = tuple(
        tuple(FloatCell(known.get(text, text) if place == 0 else text) for place, text in enumerate(line))
        for line in table.body
    )
    return Float(warned, caption, name, (("", table.head),), body, table.align, int(table.last_apart))


def warnings(spec: SpecFacts, rows: Sequence[RowScores]) -> tuple[str, ...]:
    """What must stand before figures of our own."""
    return (*floors.first_lines(rows), *([PHANTOM_WARNING] if spec.phantoms else []))


def unnumbered(title: str) -> str:
    """Without `Table 2:` in front: LaTeX counts the tables of a paper itself."""
    return re.sub(r"^Table \w+: *", "", title) or title


def _of_ours(row: RowScores, result: Comparison) -> list[float]:
    figures = result.figures.get(row.id)
    return [math.nan] * len(REGIONS) if figures is None else figures.mean.tolist()


def _ranked(columns: Sequence[Sequence[float]]) -> list[list[int]]:
    """`subsets_table.ranks` of [R, 3] per cent."""
    placed: list[list[int]] = ranks(np.array(columns, dtype=float).reshape(-1, len(REGIONS))).tolist()
    return placed


def _printed(figure: float | None, rank: int) -> FloatCell:
    return FloatCell(phrases.ABSENT if figure is None else f"{figure:.2f}", rank)


def _delta(one: Difference | None) -> FloatCell:
    if one is None:
        return FloatCell("")
    spread = OWN_SPREAD if one.answer and one.answer.apart else ""
    return FloatCell(phrases.signed(one.delta), marks=MARKS.get(one.verdict, "") + spread)


def _beside(figure: str, heads: Sequence[str]) -> list[FloatCell]:
    """A floor's Dice, and nothing in the columns beside it."""
    return [FloatCell(figure), *(FloatCell("") for _ in heads[1:])]


def _about_means(
    spec: SpecFacts, rows: Sequence[RowScores], result: Comparison, with_paper: bool, with_delta: bool
) -> str:
    seeds = {seed for row in rows for seed in row.seeds}
    spread = any(figures.low is not None for figures in result.figures.values())
    said = [
        f"{unnumbered(spec.title)}. Dice in per cent, mean over test cases, 15 subsets of modalities and "
        f"{len(seeds)} seed{'s' * (len(seeds) != 1)}{'; ± half of the 95 % interval over seeds' * spread}.",
        "Best bold, second underlined.",
    ]
    if with_paper:
        said.append(f"“paper”: as printed{f' ({spec.source})' if spec.source else ''}.")
    if with_delta:
        said.append(f"Δ: row minus {_baseline(spec)}; {_marks(spec, result.differences)}.")
    return " ".join(said)


def _about_differences(spec: SpecFacts, result: Comparison, alone: bool) -> str:
    what = f"{unnumbered(spec.title)}. Differences of Dice in points, row minus {_baseline(spec)} unless said"
    if alone:
        return (
            f"{what}: these two trainings only, one seed of each row, paired over patients. Another seed may "
            "turn every one of them round."
        )
    return (
        f"{what}; intervals and p by a multi-reader multi-case analysis over seeds and patients, p by Holm "
        f"over {result.tests} question{'s' * (result.tests != 1)}: {_marks(spec, result.differences)}."
    )


def _marks(spec: SpecFacts, every: Sequence[Difference]) -> str:
    """What the marks say, of those that are there."""
    words = {
        "better": "better",
        "worse": "worse",
        "equal": f"equal within {phrases.points(spec.margin)}",
        "undecided": "undecided",
    }
    there = {one.verdict for one in every}
    said = [f"{MARKS[verdict]} {meaning}" for verdict, meaning in words.items() if verdict in there]
    if any(one.answer and one.answer.apart for one in every):
        said.append(f"{OWN_SPREAD} spreads more than the other rows")
    if not said:
        return "of one seed, which decides nothing about methods"
    return ", ".join(said) + f" (level {ALPHA:g})"


def _baseline(spec: SpecFacts) -> str:
    return next((row.label for row in spec.rows if row.id == spec.baseline), spec.baseline)
