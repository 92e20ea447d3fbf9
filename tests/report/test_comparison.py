"""Figures, differences and verdicts of a table against NumPy, scipy and cases made by hand."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.stats

from acdis.evaluation.scores import Scores
from acdis.report.comparison import compare, figures
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


def test_with_one_seed_no_spread_and_no_verdict(made: SimpleNamespace) -> None:
    rows = [made.row("base", {0: _noisy(made, 0.2, 0)}), made.row("good", {0: _noisy(made, 0.7, 1)})]
    result = compare(rows, "base")
    assert result.figures["good"].low is None
    assert result.tests == 0
    assert [each.verdict for each in result.differences] == ["none"] * 3
    assert all(each.why == "1 seed" and each.effect is None for each in result.differences)
    assert all(each.p_wilcoxon is None and each.p_bootstrap is None for each in result.differences)
    assert result.differences[0].delta == pytest.approx(50, abs=2)


@pytest.mark.parametrize(("ours", "theirs", "who"), [(1, 3, "of the row"), (3, 1, "of the baseline")])
def test_one_seed_on_one_side_is_not_enough(made: SimpleNamespace, ours: int, theirs: int, who: str) -> None:
    rows = [
        made.row("base", {seed: _noisy(made, 0.2, seed) for seed in range(theirs)}),
        made.row("row", {seed: _noisy(made, 0.5, 10 + seed) for seed in range(ours)}),
    ]
    assert {each.why for each in compare(rows, "base").differences} == {f"1 seed {who}"}


def test_a_plain_effect_is_found_both_ways(made: SimpleNamespace) -> None:
    rows = [
        made.row("base", {seed: _noisy(made, 0.4, seed) for seed in range(4)}),
        made.row("up", {seed: _noisy(made, 0.5, 10 + seed) for seed in range(4)}),
        made.row("down", {seed: _noisy(made, 0.3, 20 + seed) for seed in range(4)}),
        made.row("same", {seed: _noisy(made, 0.4, 30 + seed) for seed in range(4)}),
    ]
    result = compare(rows, "base")
    assert result.tests == 9
    verdicts = {(each.row, each.region): each.verdict for each in result.differences}
    assert [verdicts["up", region] for region in REGIONS] == ["better"] * 3
    assert [verdicts["down", region] for region in REGIONS] == ["worse"] * 3
    assert [verdicts["same", region] for region in REGIONS] == ["undecided"] * 3
    up = result.differences[0]
    assert up.delta == pytest.approx(10, abs=1)
    assert (up.seeds, up.cases) == ((4, 4), 12)
    # All twelve cases point one way: 2/2^12, the smallest of nine tests.
    assert up.p_wilcoxon == pytest.approx(9 * 2 / 2**12)


def test_five_cases_decide_nothing_however_large_the_effect(made: SimpleNamespace) -> None:
    rows = [
        made.row("base", {seed: _noisy(made, 0.1, seed, cases=5) for seed in range(10)}),
        made.row("row", {seed: _noisy(made, 0.8, 10 + seed, cases=5) for seed in range(10)}),
    ]
    for each in compare(rows, "base").differences:
        assert each.verdict == "undecided"
        assert each.p_wilcoxon is not None
        assert each.p_wilcoxon >= 0.0625
        assert each.p_bootstrap is not None
        assert each.p_bootstrap < 0.001
        assert each.needed is not None
        assert each.needed.by_cases is not None
        assert each.needed.by_cases[0] >= 7  # 3 tests: 2/2^7 × 3 <= 0.05 < 2/2^6 × 3


def test_seeds_that_contradict_each_other_decide_nothing(made: SimpleNamespace) -> None:
    """All cases say better, and so would chance: one seed of the row is bad, the other two are good."""
    rows = [
        made.row("base", {seed: _noisy(made, 0.40, seed, cases=20) for seed in range(3)}),
        made.row(
            "row", {seed: _noisy(made, (0.2, 0.6, 0.6)[seed], 10 + seed, cases=20) for seed in range(3)}
        ),
    ]
    for each in compare(rows, "base").differences:
        assert each.p_wilcoxon is not None
        assert each.p_wilcoxon < 0.001
        assert each.p_bootstrap is not None
        assert each.p_bootstrap > 0.05
        assert each.verdict == "undecided"
        assert each.needed is not None
        assert each.needed.by_seeds is not None
        assert each.needed.by_seeds[0] == 20
        assert each.needed.by_seeds[1] > 3


def test_only_shared_cases_are_compared(made: SimpleNamespace) -> None:
    whole = _noisy(made, 0.4, 0, cases=8)
    few = Scores(whole.cases[:6], whole.dice[:6] + 0.1, whole.dice_et500[:6], None)
    rows = [made.row("base", {0: whole, 1: whole}), made.row("row", {0: few, 1: few})]
    result = compare(rows, "base")
    assert result.differences[0].cases == 6
    assert result.differences[0].delta == pytest.approx(10)
    assert result.figures["base"].cases == (8, 8)
    other = Scores(("x", "y"), whole.dice[:2], whole.dice_et500[:2], None)
    apart = compare([rows[0], made.row("row", {0: other, 1: other})], "base").differences
    assert {each.why for each in apart} == {"no case in common with the baseline"}
    assert all(math.isnan(each.delta) for each in apart)


def test_two_scans_of_a_patient_are_one_case_of_the_statistics(made: SimpleNamespace) -> None:
    """Each patient scanned twice, the two scores around those of a table with one scan each."""

    def twice(once: Scores) -> Scores:
        names = tuple(f"{case}-{scan}" for case in once.cases for scan in (0, 1))
        shift = np.tile([0.01, -0.01], len(once.cases))[:, None, None]
        dice = once.dice.repeat(2, axis=0) + shift
        patients = tuple(case for case in once.cases for _ in (0, 1))
        return Scores(names, dice, once.dice_et500.repeat(2, axis=0), None, patients)

    single = {
        name: {s: _noisy(made, level, 7 * s) for s in range(3)} for name, level in (("a", 0.3), ("b", 0.31))
    }
    double = {name: {s: twice(scores) for s, scores in seeds.items()} for name, seeds in single.items()}
    one, other = (
        compare([made.row(name, seeds) for name, seeds in rows.items()], "a") for rows in (single, double)
    )
    for found, expected in zip(other.differences, one.differences, strict=True):
        assert found.cases == expected.cases == 12
        assert found.delta == pytest.approx(expected.delta)
        assert found.p_wilcoxon == pytest.approx(expected.p_wilcoxon)


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
