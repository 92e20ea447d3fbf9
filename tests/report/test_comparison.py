"""Figures, differences and verdicts of a table against NumPy, scipy and cases made by hand."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import scipy.stats

from acdis.ablation.spec import Question
from acdis.evaluation import statistics
from acdis.evaluation.scores import Scores
from acdis.report.comparison import compare, figures
from acdis.report.facts import RowScores
from acdis.vocabulary import REGIONS


def _noisy(made: SimpleNamespace, level: float, seed: int, cases: int = 12) -> Scores:
    """Cases that differ by a lot, alike in all rows; a little noise of its own in each."""
    return made.scores(level + 0.02 * np.arange(cases), jitter=0.02, seed=seed)


def test_figures_are_means_over_cases_subsets_and_seeds(made: SimpleNamespace) -> None:
    seeds = {seed: _noisy(made, 0.4, seed) for seed in (0, 1, 2)}
    found = figures(seeds)
    means = np.array([100 * scores.dice.mean(axis=(0, 1)) for scores in seeds.values()])
    assert found.mean == pytest.approx(means.mean(axis=0))
    for place in range(3):
        column = means[:, place]
        low, high = scipy.stats.t.interval(0.95, 2, column.mean(), scipy.stats.sem(column))
        assert found.low is not None
        assert found.high is not None
        assert (found.low[place], found.high[place]) == pytest.approx((low, high))
    assert found.subsets == pytest.approx(
        100 * np.mean([s.dice.mean(axis=0) for s in seeds.values()], axis=0)
    )
    assert (found.seeds, found.cases) == (3, (12, 12))


def _rows(made: SimpleNamespace, **levels: Any) -> list[RowScores]:
    """Rows of one level, or of one per seed; three seeds where one level is given."""
    return [
        made.row(
            name,
            {
                seed: _noisy(made, one, 10 * place + seed)
                for seed, one in enumerate(level if isinstance(level, list) else [level] * 3)
            },
        )
        for place, (name, level) in enumerate(levels.items())
    ]


def test_one_seed_is_two_trainings_and_no_verdict_on_methods(made: SimpleNamespace) -> None:
    rows = _rows(made, base=[0.2], good=[0.7])
    result = compare(rows, "base")
    found = result.figures["good"]
    patients = 100 * rows[1].seeds[0].dice.mean(axis=1)[:, 0]
    low, high = scipy.stats.t.interval(0.95, 11, patients.mean(), scipy.stats.sem(patients))
    assert found.low is None
    assert found.patients_low is not None
    assert found.patients_high is not None
    assert (found.patients_low[0], found.patients_high[0]) == pytest.approx((low, high))
    assert result.tests == 0
    paired = 100 * (rows[1].seeds[0].dice - rows[0].seeds[0].dice).mean(axis=1)
    for place, each in enumerate(result.differences):
        assert (each.verdict, each.needed) == ("one seed", None)
        assert each.answer is not None
        wanted = scipy.stats.ttest_1samp(paired[:, place], 0)
        assert (each.delta, each.answer.p) == pytest.approx((paired[:, place].mean(), wanted.pvalue))


def test_it_is_the_multi_reader_analysis_of_all_rows(made: SimpleNamespace) -> None:
    rows = _rows(made, base=0.4, up=0.5, down=0.3, same=0.4)
    result = compare(rows, "base", margin=2.0)
    scores = np.array([[100 * s.dice.mean(axis=1) for s in row.seeds.values()] for row in rows])
    wanted = statistics.compare(scores, margin=2.0)
    assert [each.answer for each in result.differences] == wanted
    assert [(each.row, each.region) for each in result.differences] == [
        (name, region) for name in ("up", "down", "same") for region in REGIONS
    ]
    verdicts = {(each.row, each.region): each.verdict for each in result.differences}
    assert [verdicts["up", region] for region in REGIONS] == ["better"] * 3
    assert [verdicts["down", region] for region in REGIONS] == ["worse"] * 3
    assert [verdicts["same", region] for region in REGIONS] == ["equal"] * 3
    assert result.tests == 9
    assert result.left_out == ()
    up = result.differences[0]
    assert up.delta == pytest.approx(10, abs=1)
    assert (up.seeds, up.patients) == ((0, 1, 2), 12)


def test_only_what_is_declared_is_asked(made: SimpleNamespace) -> None:
    rows = _rows(made, base=0.4, a=0.41, b=0.43)
    asked = [Question("b", "a", ("TC",)), Question("a", "nowhere", REGIONS)]
    result = compare(rows, "base", asked)
    (only,) = result.differences
    assert (only.row, only.against, only.region, result.tests) == ("b", "a", "TC", 1)
    assert only.answer is not None
    assert only.answer.p_adjusted == only.answer.p
    every = [each for each in compare(rows, "base").differences if each.row == "b"]
    assert only.answer.error == pytest.approx(every[1].answer.error)  # the pool is all rows either way
    assert compare(rows, "base", []).differences == ()


def test_an_undecided_one_says_what_it_would_take(made: SimpleNamespace) -> None:
    rows = _rows(made, base=[0.40, 0.44, 0.40], row=[0.45, 0.41, 0.46], other=[0.42, 0.40, 0.44])
    for each in compare(rows, "base").differences:
        if each.row == "row":
            assert each.verdict == "undecided"
            assert each.needed is not None
            assert each.needed.seeds is not None
            assert 3 < each.needed.seeds <= 30


def test_a_row_with_fewer_seeds_costs_the_others_nothing(made: SimpleNamespace) -> None:
    whole = _rows(made, base=0.4, a=0.42, b=0.45)
    short = made.row("short", {1: _noisy(made, 0.5, 91)})
    result = compare([*whole, short], "base")
    before, after = compare(whole, "base"), {(each.row, each.region): each for each in result.differences}
    for each in before.differences:
        assert after[each.row, each.region].answer == each.answer
    assert {after["short", region].verdict for region in REGIONS} == {"one seed"}
    assert after["short", "WT"].seeds == (1,)
    assert result.left_out == (
        "Without the spread of short, which lack seeds or cases of the two: a with base, b with base.",
        "Without seeds 0, 2, which one of the two lacks: short with base.",
    )


def test_only_shared_seeds_and_cases_are_compared(made: SimpleNamespace) -> None:
    whole = _noisy(made, 0.4, 0, cases=8)
    few = Scores(whole.cases[:6], whole.dice[:6] + 0.1, whole.dice_et500[:6], None)
    rows = [made.row("base", {0: whole, 1: whole}), made.row("row", {0: few, 1: few})]
    result = compare(rows, "base")
    assert result.differences[0].patients == 6
    assert result.differences[0].delta == pytest.approx(10)
    assert result.figures["base"].cases == (8, 8)
    assert result.left_out == (
        "Without 2 cases that not all of their trainings were scored on (case006, case007): row with base.",
    )
    other = Scores(("x", "y"), whole.dice[:2], whole.dice_et500[:2], None)
    for seeds, what in (({0: other, 1: other}, "case"), ({5: whole, 6: whole}, "seed")):
        apart = compare([rows[0], made.row("row", seeds)], "base").differences
        assert {each.why for each in apart} == {f"no {what} in common"}
        assert all(math.isnan(each.delta) for each in apart)
    one = Scores(whole.cases[:1], whole.dice[:1], whole.dice_et500[:1], None)
    lonely = compare([rows[0], made.row("row", {0: one, 1: one})], "base").differences
    assert {(each.why, each.verdict) for each in lonely} == {("1 patient", "none")}


def test_two_scans_of_a_patient_are_one_case_of_the_statistics(made: SimpleNamespace) -> None:
    """Each patient scanned twice, the two scores around those of a table with one scan each."""

    def twice(once: Scores, known: bool) -> Scores:
        names = tuple(f"{case}-{scan}" for case in once.cases for scan in (0, 1))
        shift = np.tile([0.01, -0.01], len(once.cases))[:, None, None]
        dice = once.dice.repeat(2, axis=0) + shift
        patients = tuple(case for case in once.cases for _ in (0, 1)) if known else names
        return Scores(names, dice, once.dice_et500.repeat(2, axis=0), None, patients)

    single = {
        name: {s: _noisy(made, level, 7 * s) for s in range(3)} for name, level in (("a", 0.3), ("b", 0.31))
    }
    # Records of the first seed are of a version that did not know patients.
    double = {
        name: {s: twice(scores, s > 0) for s, scores in seeds.items()} for name, seeds in single.items()
    }
    one, other = (
        compare([made.row(name, seeds) for name, seeds in rows.items()], "a") for rows in (single, double)
    )
    for found, expected in zip(other.differences, one.differences, strict=True):
        assert found.patients == expected.patients == 12
        assert found.answer is not None
        assert expected.answer is not None
        assert (found.answer.low, found.answer.p) == pytest.approx((expected.answer.low, expected.answer.p))


def test_what_is_missing_is_left_out(made: SimpleNamespace) -> None:
    there = {seed: _noisy(made, 0.4, seed) for seed in range(2)}
    without_baseline = compare([made.row("base", {}), made.row("row", there)], "base")
    assert list(without_baseline.figures) == ["row"]
    assert without_baseline.differences == ()
    assert compare([made.row("base", there), made.row("row", {})], "base").differences == ()
    assert compare([made.row("row", there)], "base").differences == ()


def test_agreement_with_the_papers_order(made: SimpleNamespace) -> None:
    levels = {"a": 0.2, "b": 0.4, "c": 0.3, "d": 0.5}
    paper = {"a": 10.0, "b": 20.0, "c": 30.0, "d": 40.0}
    rows = [
        made.row(name, {0: made.scores([level, level])}, paper=dict.fromkeys(REGIONS, paper[name]))
        for name, level in levels.items()
    ]
    rows.append(made.row("unpublished", {0: made.scores([0.9, 0.9])}))
    rows.append(made.row("missing", {}, paper=dict.fromkeys(REGIONS, 50.0)))
    for each in compare(rows, "a").agreement:
        assert (each.tau, each.agreeing, each.pairs, each.rows) == (pytest.approx(4 / 6), 5, 6, 4)
