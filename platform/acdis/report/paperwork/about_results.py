"""What came out: statistics as `report` computed them, verdicts, floors, failures, and what limits it all."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from acdis.evaluation.mrmc import UNEQUAL
from acdis.evaluation.ranking import RESAMPLES
from acdis.evaluation.sample_size import POWER
from acdis.evaluation.scores import Scores
from acdis.evaluation.statistics import ALPHA
from acdis.report import floors, phrases, ranked
from acdis.report.comparison import Comparison, Difference
from acdis.report.facts import PHANTOM_WARNING, RowScores, SpecFacts
from acdis.report.paperwork.study import Facts, Study, counted, each_row, listed
from acdis.vocabulary import REGIONS, SUBSETS, subset_name

#: A case counts as failed below this Dice, per cent, mean over the subsets: as in the model card.
FAILED = 50.0


def facts(study: Study) -> Facts:
    """By what they are about."""
    by_spec: Facts = {
        "design": [], "questions": [], "verdict_rules": [], "results": [], "verdicts": [], "power": [],
        "ranking": [],
    }  # fmt: skip
    for spec, rows, result in study.compared:
        mark = f"{spec.name}: " if study.several else ""
        told = {
            "design": _design(rows, result),
            "questions": _questions(spec, result),
            "verdict_rules": _rules(spec, result),
            "results": _results(rows, result),
            "verdicts": _verdicts(spec, result),
            "power": _power(spec, result),
            "ranking": _ranking(spec, rows),
        }
        for name, lines in told.items():
            by_spec[name] += [mark + line for line in lines]
    every = [row for _, rows, _ in study.compared for row in rows]
    return by_spec | {
        "intervals": _intervals(study),
        "floors": [*floors.first_lines(every), *floors.notes_on(every)],
        "failures": each_row(study, _failures),
        "subset_range": each_row(study, _subset_range),
        "internal": _internal(study),
        "external": _external(study),
        "limits": list(_limits(study)),
        "other_sources": _other_sources(study),
    }


def _design(rows: Sequence[RowScores], result: Comparison) -> Iterator[str]:
    there = [row for row in rows if row.seeds]
    if not there:
        return
    seeds = phrases.span(*_ends(len(row.seeds) for row in there))
    cases = phrases.span(*_ends(len(scores.cases) for row in there for scores in row.seeds.values()))
    yield f"{counted(len(there), 'row')} × {seeds} seeds × {cases} cases"
    if result.tests:
        yield (
            "multi-reader multi-case analysis with seeds as readers (Obuchowski and Rockette 1995; degrees "
            "of freedom after Hillis 2007): rows share seeds and patients, and all rows together estimate "
            f"the spread; a row that spreads otherwise (Brown–Forsythe, shared level {UNEQUAL:g}) is judged "
            "by its own pairs"
        )


def _ends(numbers: Iterable[int]) -> tuple[int, int]:
    every = list(numbers)
    return min(every), max(every)


def _questions(spec: SpecFacts, result: Comparison) -> Iterator[str]:
    if not result.tests:
        return
    asked = (
        "declared in the spec" if spec.family is not None else f"every row with the baseline, {spec.baseline}"
    )
    yield f"{counted(result.tests, 'question')} ({asked}, regions apart); p adjusted by Holm over them"


def _rules(spec: SpecFacts, result: Comparison) -> Iterator[str]:
    if result.tests:
        yield (
            f"better or worse: adjusted p at most {ALPHA:g}; equal within {phrases.points(spec.margin)}: two "
            "one-sided tests against that margin, Holm; else undecided; p is two-sided"
        )
    if any(difference.verdict == "one seed" for difference in result.differences):
        yield "one seed: the two trainings are compared over patients, and nothing is said of the methods"


def _intervals(study: Study) -> list[str]:
    if any(result.tests for _, _, result in study.compared):
        return [
            "95 % intervals: Student's t over seeds for a row's mean, of the multi-reader multi-case error "
            "for a difference alone"
        ]
    if any(row.low is not None for _, _, result in study.compared for row in result.figures.values()):
        return ["95 % intervals: Student's t over seeds for a row's mean"]
    alone = [row.patients_low for _, _, result in study.compared for row in result.figures.values()]
    if any(low is not None for low in alone):
        return [
            "one seed, so no spread over seeds; 95 % intervals over patients hold for these trained models "
            "alone"
        ]
    return []


def _results(rows: Sequence[RowScores], result: Comparison) -> Iterator[str]:
    for row in rows:
        if (figures := result.figures.get(row.id)) is None:
            continue
        means = ", ".join(
            f"{region} "
            + phrases.mean(
                figures.mean[place],
                None if figures.low is None else figures.low[place],
                None if figures.high is None else figures.high[place],
            )
            for place, region in enumerate(REGIONS)
        )
        yield (
            f"{row.label}: Dice in per cent, mean over cases, subsets and seeds: {means} "
            f"({counted(figures.seeds, 'seed')})"
        )


def _verdicts(spec: SpecFacts, result: Comparison) -> Iterator[str]:
    for difference in result.differences:
        yield (
            f"{_question(spec, difference)}: {phrases.signed(difference.delta)} "
            f"points ({phrases.interval(difference)}), p adjusted "
            f"{phrases.p_value(difference.answer.p_adjusted if difference.answer else None)}: "
            f"{phrases.verdict(difference, spec.margin)}"
            + (", of these two trainings only" if difference.verdict == "one seed" else "")
        )


def _question(spec: SpecFacts, difference: Difference) -> str:
    labels = {row.id: row.label for row in spec.rows}
    return f"{labels[difference.row]} − {labels[difference.against]}, {difference.region}"


def _power(spec: SpecFacts, result: Comparison) -> Iterator[str]:
    """What undecided questions would take; the only sample size that is reckoned here, and after the fact."""
    open_ones = [difference for difference in result.differences if difference.needed is not None]
    if not open_ones:
        return
    told = "; ".join(
        f"{_question(spec, difference)}: {phrases.verdict(difference, spec.margin)}"
        for difference in open_ones
    )
    yield f"for a power of {100 * POWER:g} %, if the difference that was seen is the true one: {told}"


def _ranking(spec: SpecFacts, rows: Sequence[RowScores]) -> Iterator[str]:
    made = ranked.of(rows, spec.baseline)
    if made is None:
        return
    which, ranks = made
    order = np.argsort(ranks.mean, kind="stable")
    told = ", ".join(f"{which.rows[place].label} {ranks.mean[place]:.2f}" for place in order)
    yield (
        f"mean rank of Dice in every seed × case × region × subset, {RESAMPLES:,} resamples: {told}; "
        "beside the verdicts, not instead of them"
    )


def _by_case(scores: Scores) -> np.ndarray:
    """[N, 3] per cent, mean over the subsets."""
    return np.asarray(100 * scores.dice.mean(axis=1))


def _failures(row: RowScores) -> str:
    counts = np.sum([(_by_case(scores) < FAILED).sum(axis=0) for scores in row.seeds.values()], axis=0)
    of = sum(len(scores.cases) for scores in row.seeds.values())
    told = ", ".join(f"{region} {count}" for region, count in zip(REGIONS, counts, strict=True))
    return f"cases with a mean Dice over the subsets below {FAILED:g} %: {told} of {of} (all seeds)"


def _subset_range(row: RowScores) -> str:
    dice = np.mean([100 * scores.dice.mean(axis=0) for scores in row.seeds.values()], axis=0)  # [15, 3]
    parts = []
    for place, region in enumerate(REGIONS):
        low, high = int(np.argmin(dice[:, place])), int(np.argmax(dice[:, place]))
        parts.append(
            f"{region} {dice[low, place]:.2f} ({subset_name(SUBSETS[low])}) to {dice[high, place]:.2f} "
            f"({subset_name(SUBSETS[high])})"
        )
    return f"Dice from the worst subset to the best: {', '.join(parts)}"


def _internal(study: Study) -> list[str]:
    if not study.scored:
        return []
    return ["scores are on test cases of the same data as the training's; external evaluations stand apart"]


def _external(study: Study) -> list[str]:
    lines = {
        f"{run.label}: {text.lstrip('# ')}": None for run in study.trained for text in run.papers.external
    }
    return list(lines)


def _limits(study: Study) -> Iterator[str]:
    """What a reader must know before believing more than was shown."""
    if drawn := [spec.name for spec, _, _ in study.compared if spec.phantoms]:
        yield PHANTOM_WARNING + (f" ({', '.join(drawn)})" if len(drawn) < len(study.compared) else "")
    yield from floors.first_lines([row for _, rows, _ in study.compared for row in rows])
    alone = [row.label for _, rows, _ in study.compared for row in rows if len(row.seeds) == 1]
    if alone:
        yield f"one seed, so nothing can be said of the method: {listed(alone)}"
    missing = [
        f"{run.label} seed {run.cell.seed} ({run.cell.standing})" for run in study.runs if not run.cell.scored
    ]
    if missing:
        yield f"without scores: {listed(missing)}"
    every = [difference for _, _, result in study.compared for difference in result.differences]
    open_ones = sum(difference.verdict == "undecided" for difference in every)
    if open_ones:
        yield f"{counted(open_ones, 'question')} undecided"
    for spec, _, _ in study.compared:
        notes = [f"{row.label}: {row.note}" for row in spec.rows if row.note]
        yield from notes
        yield from (f"{row.label} is absent: {row.reason}" for row in spec.absent)
    if study.scored and not _external(study):
        yield "one data set: no evaluation on other people's cases is recorded for these cells"


def _other_sources(study: Study) -> list[str]:
    named = [
        spec.source for spec, _, _ in study.compared if spec.source and any(row.paper for row in spec.rows)
    ]
    return [f"published figures beside ours are from: {', '.join(dict.fromkeys(named))}"] if named else []
