"""From facts and comparisons to a document, in the order in which a reader asks."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

from acdis.report import words
from acdis.report.comparison import Comparison, Difference, Figures
from acdis.report.document import Document, Section, Table
from acdis.report.facts import PHANTOM_WARNING, RowFacts, RowScores, SpecFacts
from acdis.vocabulary import MODALITIES, REGIONS, SUBSETS

PRESENT, MISSING = "●", "○"
#: Cells that are missing are named one by one up to here; all of them stand in the table of cells.
NAMED = 12

#: A spec with its scores and what they say.
Compared = tuple[SpecFacts, Sequence[RowScores], Comparison]


def document(compared: Sequence[Compared]) -> Document:
    """The whole report."""
    specs = [spec for spec, _, _ in compared]
    drawn = [spec.name for spec in specs if spec.phantoms]
    which = "" if len(drawn) == len(specs) else f" (of {', '.join(drawn)})"
    minimum = " or ".join(sorted({f"{spec.et_minimum:g}" for spec in specs}))
    sections = [section for each in compared for section in _spec(*each)]
    return Document(
        "; ".join(dict.fromkeys(spec.title for spec in specs)),
        (PHANTOM_WARNING + which,) if drawn else (),
        (*sections, Section(2, "How to read this", words.how_to_read(minimum))),
    )


def brief(compared: Sequence[Compared], detail: tuple[str, str]) -> Document:
    """Means, order of the rows and notes of each spec, and the 15 subsets of one row: for a terminal.

    Args:
        detail: spec and row whose 15 subsets are shown.
    """
    whole = document(compared)
    sections: list[Section] = []
    for spec, rows, result in compared:
        marks = _marks(spec.rows)
        sections += [Section(2, spec.title, tuple(standing_lines(spec))), _means(spec, rows, result, marks)]
        if any(row.paper for row in spec.rows):
            sections.append(
                Section(3, "Order of the rows beside the paper's", tuple(order_lines(spec, result)))
            )
        chosen = [row for row in rows if (spec.name, row.id) == detail and row.id in result.figures]
        sections += [_detail(row, result.figures[row.id]) for row in chosen]
    return Document(whole.title, whole.warnings, tuple(sections))


def _spec(spec: SpecFacts, rows: Sequence[RowScores], result: Comparison) -> Iterator[Section]:
    marks = _marks(spec.rows)
    yield Section(2, f"{spec.title} ({spec.name})", tuple(standing_lines(spec)))
    yield _means(spec, rows, result, marks)
    yield _differences(spec, result, marks)
    if any(row.paper for row in spec.rows):
        yield Section(3, "Order of the rows beside the paper's", notes=tuple(order_lines(spec, result)))
    yield _cells(spec, result)
    for row in rows:
        if row.id in result.figures:
            yield _detail(row, result.figures[row.id])


def _marks(rows: Sequence[RowFacts]) -> dict[str, str]:
    """`[1]` and so on, by row, for those with a note."""
    return {row.id: f"[{number}]" for number, row in enumerate((row for row in rows if row.note), 1)}


def _notes(rows: Sequence[RowFacts], marks: dict[str, str]) -> tuple[str, ...]:
    return tuple(f"{marks[row.id]} {row.label}: {row.note}" for row in rows if row.note)


def _label(row: RowFacts, marks: dict[str, str], baseline: str) -> str:
    words_of_it = (row.label, "(baseline)" if row.id == baseline else "", marks.get(row.id, ""))
    return " ".join(word for word in words_of_it if word)


def strength_line(result: Comparison) -> str:
    """What so many cases and seeds can carry at most."""
    tested = [difference.cases for difference in result.differences if difference.effect]
    return words.strength(result.tests, min(tested)) if tested else words.untested(len(result.differences))


def standing_lines(spec: SpecFacts) -> Iterator[str]:
    """How many cells are scored, what is missing and why, and what a single seed means."""
    cells = [(row, cell) for row in spec.rows for cell in row.cells]
    scored = sum(cell.scored for _, cell in cells)
    seeds = sorted({cell.seed for _, cell in cells})
    yield (
        f"{len(spec.rows)} row{'s' * (len(spec.rows) != 1)}, {len(seeds)} seed{'s' * (len(seeds) != 1)} "
        f"({', '.join(map(str, seeds))}); {scored} of {len(cells)} cells are scored."
        + (f" Paper: {spec.source}." if spec.source else "")
        + (f" Overrides: {' '.join(spec.overrides)}." if spec.overrides else "")
    )
    missing = [f"{row.id} seed {cell.seed} ({cell.standing})" for row, cell in cells if not cell.scored]
    if missing:
        more = f"; and {len(missing) - NAMED} more, see the table of cells" if len(missing) > NAMED else ""
        yield "Missing: " + "; ".join(missing[:NAMED]) + more + "."
    if spec.excluded:
        rules = "; ".join(f"{count}: {reason}" for reason, count in spec.excluded.items())
        yield f"Left out of the grid by rule: {rules}."
    if len(seeds) == 1:
        yield "One seed: no spread can be given, and no row can be called better or worse."


def _means(spec: SpecFacts, rows: Sequence[RowScores], result: Comparison, marks: dict[str, str]) -> Section:
    with_paper = any(row.paper for row in spec.rows)
    regions = [[f"{region} %", "paper"] if with_paper else [f"{region} %"] for region in REGIONS]
    head = ("Row", "Seeds", "Cases", *(name for pair in regions for name in pair), "Hours")
    body = []
    for row, scores in zip(spec.rows, rows, strict=True):
        found = result.figures.get(row.id)
        seeds = f"{found.seeds if found else 0} of {len(row.cells)}"
        cases = words.span(*found.cases) if found else words.ABSENT
        figures = [word for place in range(3) for word in _figure(found, row, place, with_paper)]
        label = _label(row, marks, spec.baseline)
        body.append((label, seeds, cases, *figures, words.hours(scores.hours)))
    return Section(
        3,
        "Dice, mean over cases and 15 subsets",
        (),
        Table(head, tuple(body), "lr" + "r" * (len(head) - 2)),
        _notes(spec.rows, marks),
    )


def _figure(found: Figures | None, row: RowFacts, place: int, with_paper: bool) -> list[str]:
    ours = words.ABSENT
    if found:
        ours = words.mean(
            found.mean[place],
            None if found.low is None else found.low[place],
            None if found.high is None else found.high[place],
        )
    theirs = (row.paper or {}).get(REGIONS[place])
    return [ours, *([words.ABSENT if theirs is None else f"{theirs:.2f}"] if with_paper else [])]


def _differences(spec: SpecFacts, result: Comparison, marks: dict[str, str]) -> Section:
    title = f"Difference to the baseline ({spec.baseline})"
    if not result.differences:
        known = spec.baseline in {row.id for row in spec.rows}
        why = "no other row has scores yet" if spec.baseline in result.figures else "it has no scores yet"
        return Section(3, title, (f"None: {why if known else 'it is not among the rows asked for'}.",))
    labels = {row.id: _label(row, marks, spec.baseline) for row in spec.rows}
    head = ("Row", "Region", "Seeds", "Cases", "Δ", "95 % interval", "Δ paper", "p Wilcoxon", "p bootstrap")
    figures_of_paper = {row.id: row.paper or {} for row in spec.rows}
    body = tuple(
        _difference(each, labels, published(figures_of_paper, each, spec.baseline))
        for each in result.differences
    )
    shown = [row for row in spec.rows if row.id in {each.row for each in result.differences}]
    table = Table((*head, "Verdict"), body, "llrrrrrrrl")
    return Section(3, title, (strength_line(result),), table, _notes(shown, marks))


def published(paper: Mapping[str, Mapping[str, float]], difference: Difference, baseline: str) -> float:
    """The same difference in the paper; NaN where it has none."""
    ours, theirs = (paper.get(name, {}).get(difference.region) for name in (difference.row, baseline))
    return math.nan if ours is None or theirs is None else ours - theirs


def _difference(difference: Difference, labels: dict[str, str], published: float) -> tuple[str, ...]:
    effect = difference.effect
    interval = f"{words.signed(effect.low)} to {words.signed(effect.high)}" if effect else words.ABSENT
    return (
        labels[difference.row],
        difference.region,
        f"{difference.seeds[0]} / {difference.seeds[1]}",
        str(difference.cases),
        words.signed(difference.delta),
        interval,
        words.signed(published),
        words.p_value(difference.p_wilcoxon),
        words.p_value(difference.p_bootstrap),
        words.verdict(difference),
    )


def order_lines(spec: SpecFacts, result: Comparison) -> Iterator[str]:
    """Kendall's τ beside the paper's order, and which rows were read from garbled tick marks."""
    if not result.agreement:
        yield "Kendall's τ: not to be had yet; it takes two rows with scores and figures of the paper."
        return
    for each in result.agreement:
        yield (
            f"{each.region}: Kendall's τ = {words.signed(each.tau)} "
            f"({each.agreeing} of {each.pairs} pairs of rows in the paper's order, {each.rows} rows)"
        )
    fewest = min(found.seeds for found in result.figures.values())
    yield (
        f"τ compares means alone, of {fewest} seed{'s' * (fewest != 1)} at the least: rows that differ by "
        "less than their spread stand in an order of chance."
    )
    garbled = [row.label for row in spec.rows if row.note and "garbled" in row.note]
    if garbled:
        yield f"Read from garbled tick marks of the paper: {', '.join(garbled)}."


def _cells(spec: SpecFacts, result: Comparison) -> Section:
    body = []
    for row in spec.rows:
        for cell in row.cells:
            found = result.figures[row.id].per_seed[cell.seed] if cell.scored else None
            dice = [words.ABSENT] * 3 if found is None else [f"{value:.2f}" for value in found]
            body.append(
                (row.id, str(cell.seed), cell.cell, cell.standing, cell.code, *dice, words.hours(cell.hours))
            )
    head = ("Row", "Seed", "Cell", "State", "Code", *(f"{region} %" for region in REGIONS), "Hours")
    return Section(3, "Cells", (), Table(head, tuple(body), "lllllrrrr"))


def _detail(row: RowScores, found: Figures) -> Section:
    """The 15 subsets of one row."""
    head = [*MODALITIES, *(f"{region} %" for region in REGIONS), "ET500 %"]
    head += [f"{region} HD95 mm" for region in REGIONS] if found.hd95 is not None else []
    body = [
        (*_present(subset), *_subset(found, place), *_others(found, place))
        for place, subset in enumerate(SUBSETS)
    ]
    means = [
        words.mean(
            found.mean[place],
            None if found.low is None else found.low[place],
            None if found.high is None else found.high[place],
        )
        for place in range(3)
    ]
    body.append(("mean", "of", "15", "", *means, *_others(found, None)))
    title = f"15 subsets: {row.label} ({row.id})"
    seeds = "1 seed: no spread" if found.seeds == 1 else f"{found.seeds} seeds"
    text = (f"{seeds}; {words.span(*found.cases)} cases.",)
    notes = (f"{row.label}: {row.note}",) if row.note else ()
    return Section(
        4,
        title,
        text,
        Table(tuple(head), tuple(body), "llll" + "r" * (len(head) - 4), last_apart=True),
        notes,
    )


def _present(subset: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(PRESENT if modality in subset else MISSING for modality in MODALITIES)


def _subset(found: Figures, place: int) -> list[str]:
    low, high = found.subsets_low, found.subsets_high
    return [
        words.mean(
            found.subsets[place, region],
            None if low is None else low[place, region],
            None if high is None else high[place, region],
        )
        for region in range(3)
    ]


def _others(found: Figures, place: int | None) -> list[str]:
    """ET500 and HD95 of one subset, or their means over the 15."""
    et500 = found.et500.mean() if place is None else found.et500[place]
    if found.hd95 is None:
        return [f"{et500:.2f}"]
    distances = found.hd95.mean(axis=0) if place is None else found.hd95[place]
    return [f"{et500:.2f}", *(f"{value:.2f}" for value in distances)]
