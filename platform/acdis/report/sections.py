"""From facts and comparisons to a document, in the order in which a reader asks."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from acdis.report import (
    calibration,
    costs,
    floats,
    floors,
    other_sources,
    patterns,
    phrases,
    ranked,
    strata,
    subsets_of_row,
)
from acdis.report.comparison import Comparison, Difference
from acdis.report.document import Document, Section, Table
from acdis.report.facts import PHANTOM_WARNING, RowFacts, RowScores, SpecFacts
from acdis.vocabulary import REGIONS

#: Cells that are missing are named one by one up to here; all of them stand in the table of cells.
NAMED = 12

#: A spec with its scores and what they say.
Compared = tuple[SpecFacts, Sequence[RowScores], Comparison]


def document(compared: Sequence[Compared], groups: strata.Groups | None = None) -> Document:
    """The whole report.

    Args:
        groups: kinds of cases that scores are told apart by, besides those that the truth shows.
    """
    specs = [spec for spec, _, _ in compared]
    drawn = [spec.name for spec in specs if spec.phantoms]
    which = "" if len(drawn) == len(specs) else f" (of {', '.join(drawn)})"
    minimum = " or ".join(sorted({f"{spec.et_minimum:g}" for spec in specs}))
    margin = " or ".join(phrases.points(value) for value in sorted({spec.margin for spec in specs}))
    sections = [section for one in compared for section in _spec(*one, groups or {})]
    return Document(
        "; ".join(dict.fromkeys(spec.title for spec in specs)),
        (PHANTOM_WARNING + which,) if drawn else (),
        (*sections, Section(2, "How to read this", phrases.how_to_read(minimum, margin))),
        tuple(floors.first_lines([row for _, rows, _ in compared for row in rows])),
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
        means = floors.beside_means(_means(spec, rows, result, marks), rows)
        sections += [Section(2, spec.title, tuple(standing_lines(spec))), means]
        if any(row.paper for row in spec.rows):
            sections.append(
                Section(3, "Order of the rows beside the paper's", tuple(order_lines(spec, result)))
            )
        chosen = [row for row in rows if (spec.name, row.id) == detail and row.id in result.figures]
        sections += [subsets_of_row.section(row, result.figures[row.id]) for row in chosen]
    return Document(whole.title, whole.warnings, tuple(sections), whole.first)


def _spec(
    spec: SpecFacts, rows: Sequence[RowScores], result: Comparison, groups: strata.Groups
) -> Iterator[Section]:
    marks = _marks(spec.rows)
    yield Section(2, f"{spec.title} ({spec.name})", tuple(standing_lines(spec)))
    means = floors.beside_means(_means(spec, rows, result, marks), rows)
    yield replace(means, float=floats.means(spec, rows, result))
    warned, title = floats.warnings(spec, rows), floats.unnumbered(spec.title)
    sources = other_sources.section((*spec.rows, *spec.absent))
    if sources is not None:
        about = f"{title}. {other_sources.TITLE}, per cent."
        yield _for_latex(sources, about, f"{spec.name}-sources", ())
    yield from _differences(spec, rows, result, marks)
    if any(row.paper for row in spec.rows):
        yield Section(3, "Order of the rows beside the paper's", notes=tuple(order_lines(spec, result)))
    labels = {row.id: _label(row, marks, spec.baseline) for row in spec.rows}
    plain = {labels[row.id]: row.label for row in spec.rows}
    ranking = ranked.section(rows, spec.baseline, labels)
    if ranking is not None:
        yield replace(ranking, notes=(*ranking.notes, *_notes(spec.rows, marks)))
    kinds = strata.section(rows, labels, groups)
    if kinds is not None:
        about = f"{title}. Dice in per cent by kind of case, mean over cases, 15 subsets and seeds."
        yield _for_latex(kinds, about, f"{spec.name}-kinds", warned, plain)
    lacking = patterns.section(rows, labels)
    if lacking is not None:
        about = " ".join((f"{title}.", *lacking.text))
        yield _for_latex(lacking, about, f"{spec.name}-patterns", warned, plain)
    calibrated = calibration.section(rows, labels)
    if calibrated is not None:
        about = " ".join((f"{title}.", *calibrated.text))
        yield _for_latex(calibrated, about, f"{spec.name}-calibration", warned, plain)
    spent = costs.section(costs.of_rows(spec.rows, rows))
    if spent is not None:
        yield _for_latex(spent, f"{title}. {costs.HOW}", f"{spec.name}-cost", warned)
    yield _cells(spec, result)
    for row in rows:
        if row.id in result.figures:
            yield subsets_of_row.section(row, result.figures[row.id])


def _for_latex(
    section: Section,
    about: str,
    name: str,
    warned: tuple[str, ...],
    labels: Mapping[str, str] | None = None,
) -> Section:
    """With its table as papers print it, under this caption; see `floats.plain`."""
    if section.table is None:
        return section
    return replace(section, float=floats.plain(section.table, about, name, warned, labels))


def _marks(rows: Sequence[RowFacts]) -> dict[str, str]:
    """`[1]` and so on, by row, for those with a note."""
    return {row.id: f"[{number}]" for number, row in enumerate((row for row in rows if row.note), 1)}


def _notes(rows: Sequence[RowFacts], marks: dict[str, str]) -> tuple[str, ...]:
    return tuple(f"{marks[row.id]} {row.label}: {row.note}" for row in rows if row.note)


def _label(row: RowFacts, marks: dict[str, str], baseline: str) -> str:
    words_of_it = (row.label, "(baseline)" if row.id == baseline else "", marks.get(row.id, ""))
    return " ".join(word for word in words_of_it if word)


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
    for row in spec.absent:
        yield f"Absent: {row.label}: {row.reason}."
    if spec.post_processing:
        yield f"Labels were post-processed before they were scored: {spec.post_processing}."
    if spec.excluded:
        rules = "; ".join(f"{count}: {reason}" for reason, count in spec.excluded.items())
        yield f"Left out of the grid by rule: {rules}."
    if len(seeds) == 1:
        yield "One seed: no row can be called better or worse."


def _means(spec: SpecFacts, rows: Sequence[RowScores], result: Comparison, marks: dict[str, str]) -> Section:
    with_paper = any(row.paper for row in spec.rows)
    regions = [[f"{region} %", "paper"] if with_paper else [f"{region} %"] for region in REGIONS]
    head = ("Row", "Seeds", "Cases", *(name for pair in regions for name in pair), "Hours")
    body = []
    for row, scores in zip(spec.rows, rows, strict=True):
        figures = result.figures.get(row.id)
        seeds = f"{figures.seeds if figures else 0} of {len(row.cells)}"
        cases = phrases.span(*figures.cases) if figures else phrases.ABSENT
        words = phrases.means(figures.mean, figures.low, figures.high) if figures else [phrases.ABSENT] * 3
        if with_paper:
            words = [word for pair in zip(words, _of_paper(row), strict=True) for word in pair]
        label = _label(row, marks, spec.baseline)
        body.append((label, seeds, cases, *words, phrases.hours(scores.hours)))
    return Section(
        3,
        "Dice, mean over cases and 15 subsets",
        (),
        Table(head, tuple(body), "lr" + "r" * (len(head) - 2)),
        (*_notes(spec.rows, marks), *one_seed_lines(spec, result)),
    )


def _of_paper(row: RowFacts) -> Iterator[str]:
    for region in REGIONS:
        theirs = (row.paper or {}).get(region)
        yield phrases.ABSENT if theirs is None else f"{theirs:.2f}"


def _differences(
    spec: SpecFacts, rows: Sequence[RowScores], result: Comparison, marks: dict[str, str]
) -> Iterator[Section]:
    """What is said about methods, and apart from it what one seed each says about two trainings."""
    title = f"Difference to the baseline ({spec.baseline})" if spec.family is None else "Declared comparisons"
    if not result.differences:
        yield Section(3, title, (f"None: {_why_none(spec, result)}.",))
        return
    alone = [difference for difference in result.differences if difference.verdict == "one seed"]
    others = [difference for difference in result.differences if difference.verdict != "one seed"]
    text = (phrases.family(result, spec.family is not None), *left_out_lines(result))
    if others or not alone:
        section = _compared(spec, title, text, others, marks)
        yield replace(section, float=floats.differences(spec, rows, result, others))
        text = ()
    if alone:
        text += (
            "One seed of each row, paired over patients: intervals and p say how far the patients agree on "
            "these trained models. Another seed may turn every one of them round.",
        )
        title = f"These two trainings only: {title[0].lower()}{title[1:]}"
        section = _compared(spec, title, text, alone, marks)
        yield replace(section, float=floats.differences(spec, rows, result, alone))


def _why_none(spec: SpecFacts, result: Comparison) -> str:
    if spec.family is not None:
        return "no declared comparison has both its rows here with scores"
    if spec.baseline not in {row.id for row in spec.rows}:
        return "it is not among the rows asked for"
    return "no other row has scores yet" if spec.baseline in result.figures else "it has no scores yet"


def left_out_lines(result: Comparison) -> tuple[str, ...]:
    """Seeds, cases and rows that comparisons go without; a few by name."""
    more = len(result.left_out) - NAMED
    return (*result.left_out[:NAMED], *([f"And {more} more like these."] if more > 0 else []))


def _compared(
    spec: SpecFacts,
    title: str,
    text: tuple[str, ...],
    differences: Sequence[Difference],
    marks: dict[str, str],
) -> Section:
    labels = {row.id: _label(row, marks, spec.baseline) for row in spec.rows}
    paper = {row.id: row.paper or {} for row in spec.rows}
    head = (
        "Row",
        "Region",
        "Seeds",
        "Patients",
        "Δ",
        "95 % interval",
        "Δ paper",
        "p",
        "p adjusted",
        "Verdict",
    )
    body = []
    for difference in differences:
        row, answer = labels[difference.row], difference.answer
        if difference.against != spec.baseline:
            row += f" − {labels[difference.against]}"
        body.append(
            (
                row,
                difference.region,
                str(len(difference.seeds)),
                str(difference.patients),
                phrases.signed(difference.delta),
                phrases.interval(difference),
                phrases.signed(published(paper, difference)),
                phrases.p_value(answer.p if answer else None),
                phrases.p_value(answer.p_adjusted if answer else None),
                phrases.verdict(difference, spec.margin),
            )
        )
    named = {name for difference in differences for name in (difference.row, difference.against)}
    notes = _notes([row for row in spec.rows if row.id in named - {spec.baseline}], marks)
    return Section(3, title, text, Table(head, tuple(body), "llrrrrrrrl"), notes)


def published(paper: Mapping[str, Mapping[str, float]], difference: Difference) -> float:
    """The same difference in the paper; NaN where it has none."""
    ours, theirs = (
        paper.get(name, {}).get(difference.region) for name in (difference.row, difference.against)
    )
    return math.nan if ours is None or theirs is None else ours - theirs


def one_seed_lines(spec: SpecFacts, result: Comparison) -> Iterator[str]:
    """Where a row has one seed: how its patients spread, of this trained model alone."""
    for row in spec.rows:
        figures = result.figures.get(row.id)
        if figures and figures.patients_low is not None and figures.patients_high is not None:
            pairs = zip(REGIONS, figures.patients_low, figures.patients_high, strict=True)
            spans = ", ".join(f"{region} {low:.2f} to {high:.2f}" for region, low, high in pairs)
            yield f"{row.label}: one seed; 95 % over patients, for this trained model alone: {spans}."


def order_lines(spec: SpecFacts, result: Comparison) -> Iterator[str]:
    """Kendall's τ beside the paper's order, and which rows were read from garbled tick marks."""
    if not result.agreement:
        yield "Kendall's τ: not to be had yet; it takes two rows with scores and figures of the paper."
        return
    for order in result.agreement:
        yield (
            f"{order.region}: Kendall's τ = {phrases.signed(order.tau)} "
            f"({order.agreeing} of {order.pairs} pairs of rows in the paper's order, {order.rows} rows)"
        )
    fewest = min(figures.seeds for figures in result.figures.values())
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
            dice = [phrases.ABSENT] * 3
            if cell.scored:
                dice = [f"{value:.2f}" for value in result.figures[row.id].per_seed[cell.seed]]
            body.append(
                (
                    row.id,
                    str(cell.seed),
                    cell.cell,
                    cell.standing,
                    cell.code,
                    *dice,
                    phrases.hours(cell.hours),
                )
            )
    head = ("Row", "Seed", "Cell", "State", "Code", *(f"{region} %" for region in REGIONS), "Hours")
    return Section(3, "Cells", (), Table(head, tuple(body), "lllllrrrr"))
