"""A table of rows × seeds: figures, differences and what they decide, order beside the paper's.

All in per cent of Dice. Seeds weigh the same, cases weigh the same, the 15 subsets weigh the same.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from acdis.ablation.spec import Question
from acdis.evaluation import statistics
from acdis.evaluation.sample_size import Needed, needed
from acdis.evaluation.scores import Scores
from acdis.evaluation.statistics import kendall, t_interval
from acdis.report.facts import RowScores
from acdis.vocabulary import REGIONS

#: Cases that are left out, and comparisons that go without something, are named one by one up to here.
NAMED = 12


@dataclass(frozen=True)
class Figures:
    """Means over seeds, and 95 % t intervals over seeds; `low` and `high` are none with one seed.

    Attributes:
        mean: [3], over cases and subsets; `subsets`: [15, 3], over cases.
        et500: [15], hd95: [15, 3] in mm or none; penalties: [15, 3], how many of the distances behind it are
            those of one empty mask.
        hd95_conventions: of the seeds, see `metrics.hd95`; an empty one is not known yet.
        further: [15, 3] by metric of `evaluation.metrics`, those that every seed has.
        seeds, cases: on which they stand; cases as (fewest, most) over the seeds.
        scores: behind each figure of a subset: cases of all seeds together.
        patients_low, patients_high: [3] with one seed, over patients: of this trained model alone.
    """

    mean: np.ndarray
    low: np.ndarray | None
    high: np.ndarray | None
    subsets: np.ndarray
    subsets_low: np.ndarray | None
    subsets_high: np.ndarray | None
    et500: np.ndarray
    hd95: np.ndarray | None
    penalties: np.ndarray | None
    per_seed: Mapping[int, np.ndarray]
    seeds: int
    cases: tuple[int, int]
    scores: int
    patients_low: np.ndarray | None
    patients_high: np.ndarray | None
    further: Mapping[str, np.ndarray]
    hd95_conventions: tuple[str, ...] = ("max",)


@dataclass(frozen=True)
class Difference:
    """Row minus another in one region.

    Attributes:
        seeds: that both rows have; patients: that all rows have which are compared with these seeds.
        answer: none where the data cannot carry one; `why` says why.
        needed: for an undecided one.
    """

    row: str
    against: str
    region: str
    delta: float
    seeds: tuple[int, ...]
    patients: int
    answer: statistics.Comparison | None = None
    why: str = ""
    needed: Needed | None = None

    @property
    def verdict(self) -> str:
        """As in `statistics.Comparison`; `none` where there is no answer."""
        return "none" if self.answer is None else self.answer.verdict


@dataclass(frozen=True)
class Agreement:
    """Kendall's τ with the paper's order in one region, pairs of rows that agree, pairs, rows."""

    region: str
    tau: float
    agreeing: int
    pairs: int
    rows: int


@dataclass(frozen=True)
class Comparison:
    """Everything that a report says about one spec.

    Attributes:
        figures: by row; rows without scores are not in it.
        differences: as asked, region by region.
        tests: how many of them stand on several seeds; Holm's family.
        left_out: seeds, cases and rows that a comparison goes without, in words.
    """

    figures: Mapping[str, Figures]
    differences: tuple[Difference, ...]
    agreement: tuple[Agreement, ...]
    tests: int
    left_out: tuple[str, ...] = ()


def compare(
    rows: Sequence[RowScores],
    baseline: str,
    family: Sequence[Question] | None = None,
    margin: float = 1.0,
) -> Comparison:
    """Figures of all rows, and the answers to what is asked, as far as there are scores.

    Args:
        family: none: every row with the baseline, in every region.
        margin: points within which rows count as equal.
    """
    known = {row.id: row.seeds for row in rows if row.seeds}
    if family is None:
        family = [Question(name, baseline, REGIONS) for name in known if name != baseline]
    asked = [question for question in family if question.row in known and question.against in known]
    grounds = _grounds(known, asked)
    differences = list(_differences(known, grounds))
    answers = statistics.judged(
        [difference.answer for difference in differences if difference.answer is not None], margin
    )
    tests, judged = sum(answer.seeds > 1 for answer in answers), iter(answers)
    shown = {name: figures(seeds) for name, seeds in known.items()}
    return Comparison(
        shown,
        tuple(
            difference if difference.answer is None else _judged(difference, next(judged), tests)
            for difference in differences
        ),
        tuple(_agreement(rows, shown)),
        tests,
        tuple(_left_out(known, grounds)),
    )


def figures(seeds: Mapping[int, Scores]) -> Figures:
    """Of one row; at least one seed."""
    every = list(seeds.values())
    by_subset = np.stack([100 * scores.dice.mean(axis=0) for scores in every])  # [S, 15, 3]
    means = by_subset.mean(axis=1)
    low, high = t_interval(means) or (None, None)
    subsets_low, subsets_high = t_interval(by_subset) or (None, None)
    distances = [scores.hd95.mean(axis=0) for scores in every if scores.hd95 is not None]
    counts = [len(scores.cases) for scores in every]
    patients_low, patients_high = None, None
    if len(every) == 1:
        patients = 100 * every[0].by_patient(every[0].cases).mean(axis=1)  # [patients, 3]
        patients_low, patients_high = t_interval(patients) or (None, None)
    return Figures(
        means.mean(axis=0),
        low,
        high,
        by_subset.mean(axis=0),
        subsets_low,
        subsets_high,
        np.mean([100 * scores.dice_et500.mean(axis=0) for scores in every], axis=0),
        np.mean(distances, axis=0) if len(distances) == len(every) else None,
        np.sum([scores.penalties for scores in every], axis=0) if len(distances) == len(every) else None,
        dict(zip(seeds, means, strict=True)),
        len(every),
        (min(counts), max(counts)),
        sum(counts),
        patients_low,
        patients_high,
        {
            name: np.mean([scores.further[name].mean(axis=0) for scores in every], axis=0)
            for name in every[0].further
            if all(name in scores.further for scores in every)
        },
        tuple(dict.fromkeys(scores.hd95_convention for scores in every)),
    )


@dataclass(frozen=True)
class _Ground:
    """What two rows are compared on: seeds and cases of both, and every row that has all of these."""

    seeds: tuple[int, ...]
    cases: tuple[str, ...]
    rows: tuple[str, ...]


_Known = Mapping[str, Mapping[int, Scores]]


def _grounds(known: _Known, asked: Sequence[Question]) -> list[tuple[Question, _Ground]]:
    """The questions with what they stand on; where nothing is missing it is the same for all."""
    cases = {
        (name, seed): frozenset(scores.cases)
        for name, seeds in known.items()
        for seed, scores in seeds.items()
    }
    pools: dict[tuple[tuple[int, ...], frozenset[str]], _Ground] = {}
    grounds = []
    for question in asked:
        pair = (question.row, question.against)
        seeds = tuple(sorted(known[pair[0]].keys() & known[pair[1]].keys()))
        common = frozenset.intersection(
            *(cases[name, seed] for name in pair for seed in seeds or known[name])
        )
        if (seeds, common) not in pools:
            rows = tuple(
                name
                for name, there in known.items()
                if all(seed in there and common <= cases[name, seed] for seed in seeds)
            )
            pools[seeds, common] = _Ground(seeds, tuple(sorted(common)), rows)
        grounds.append((question, pools[seeds, common]))
    return grounds


def _differences(known: _Known, grounds: Sequence[tuple[Question, _Ground]]) -> Iterator[Difference]:
    """Region by region, in the order asked; answers are not judged over the family yet."""
    questions: dict[_Ground, list[Question]] = {}
    for question, ground in grounds:
        questions.setdefault(ground, []).append(question)
    answers = {ground: _answers(known, ground, asked) for ground, asked in questions.items()}
    for question, ground in grounds:
        for region in question.regions:
            answer = answers[ground].get((question.row, region, question.against))
            patients = answer.patients if answer else 0
            delta = answer.delta if answer else math.nan
            why = "" if patients > 1 else "1 patient"
            if answer is None:
                why = f"no {'case' if ground.seeds else 'seed'} in common"
            yield Difference(
                question.row,
                question.against,
                region,
                delta,
                ground.seeds,
                patients,
                None if why else answer,
                why,
            )


def _answers(
    known: _Known, ground: _Ground, asked: Sequence[Question]
) -> dict[tuple[str, str, str], statistics.Comparison]:
    """By row, region and other row; none without a seed or a case."""
    if not ground.seeds or not ground.cases:
        return {}
    every = [[known[name][seed] for seed in ground.seeds] for name in ground.rows]
    scores = np.array(
        [[100 * seed_scores.of(ground.cases).mean(axis=1) for seed_scores in seeds] for seeds in every]
    )
    place = {name: number for number, name in enumerate(ground.rows)}
    family = [(question.row, region, question.against) for question in asked for region in question.regions]
    answers = statistics.compare(
        scores,
        patients=patients_of([seed_scores for seeds in every for seed_scores in seeds], ground.cases),
        family=[(place[row], region, place[against]) for row, region, against in family],
    )
    return dict(zip(family, answers, strict=True))


def patients_of(every: Sequence[Scores], cases: Sequence[str]) -> list[str]:
    """Who was scanned in each case. Older records do not know it, and newer ones of the same cases do."""
    who = dict(zip(cases, cases, strict=True))
    for scores in every:
        for case, patient in zip(scores.cases, scores.patients, strict=False):
            if patient != case and case in who:
                who[case] = patient
    return [who[case] for case in cases]


def _left_out(known: _Known, grounds: Sequence[tuple[Question, _Ground]]) -> Iterator[str]:
    """What comparisons go without, and which."""
    without: dict[str, list[str]] = {}
    for question, ground in grounds:
        both = [known[question.row], known[question.against]]
        seeds = sorted({*both[0], *both[1]} - {*ground.seeds})
        cases = {case for row in both for scores in row.values() for case in scores.cases} - {*ground.cases}
        rows = [name for name in known if name not in ground.rows]
        lost = []
        if seeds:
            lost.append(
                f"seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}, which one of the two lacks"
            )
        if cases:
            lost.append(
                f"{len(cases)} case{'s' * (len(cases) > 1)} that not all of their trainings were scored on "
                f"({_few(sorted(cases))})"
            )
        if rows and len(ground.rows) > 1:
            lost.append(f"the spread of {', '.join(rows)}, which lack seeds or cases of the two")
        for what in lost:
            without.setdefault(what, []).append(f"{question.row} with {question.against}")
    for what, pairs in without.items():
        yield f"Without {what}: {_few(pairs)}."


def _few(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more


def _judged(difference: Difference, answer: statistics.Comparison, tests: int) -> Difference:
    """With the verdict, and what it would take where that is open."""
    demand = None
    if answer.verdict == "undecided" and answer.squares is not None:
        demand = needed(answer.squares, answer.delta, tests)
    return replace(difference, answer=answer, needed=demand)


def _agreement(rows: Sequence[RowScores], by_row: Mapping[str, Figures]) -> list[Agreement]:
    """Region by region, over the rows that have our figure and the paper's."""
    made = []
    for place, region in enumerate(REGIONS):
        both = [row for row in rows if row.id in by_row and row.paper and region in row.paper]
        ours = [float(by_row[row.id].mean[place]) for row in both]
        theirs = [row.paper[region] for row in both if row.paper]
        order = kendall(ours, theirs)
        if order:
            made.append(Agreement(region, *order, rows=len(both)))
    return made
