"""The hierarchical bootstrap against plain loops and simulated truth; numbers needed by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats

from acdis.evaluation.bootstrap import Effect, draws, effects, resampled, satterthwaite
from acdis.evaluation.needed import MOST, Needed, needed, wilcoxon_cases


def _scores(seeds: int, cases: int, draw: np.random.Generator, seed_sd: float, case_sd: float) -> np.ndarray:
    """[seeds, cases, 1]; the case effects are drawn anew for each call."""
    own = draw.normal(0, seed_sd, (seeds, 1, 1)) + draw.normal(0, case_sd, (1, cases, 1))
    return own + draw.normal(0, 0.5, (seeds, cases, 1))


def _loop(row: np.ndarray, baseline: np.ndarray, times: list[np.ndarray], shrink: list[float]) -> float:
    """One resample, case by case and seed by seed, from how often each was drawn."""
    scaled = [
        [1 / len(t) + (int(n) - 1) / len(t) * factor for n in t]
        for t, factor in zip(times, shrink, strict=True)
    ]
    total = 0.0
    for case, weight in enumerate(scaled[2]):
        ours = sum(scaled[0][seed] * row[seed, case] for seed in range(len(row)))
        theirs = sum(scaled[1][seed] * baseline[seed, case] for seed in range(len(baseline)))
        total += weight * (ours - theirs)
    return total


def test_the_vectorised_resamples_are_those_of_a_plain_loop() -> None:
    draw = np.random.default_rng(5)
    row, baseline = draw.normal(size=(3, 6)), draw.normal(size=(4, 6))
    weights = [draws(3, "row a", 50), draws(4, "baseline", 50), draws(6, "cases", 50)]
    found = resampled(row, baseline, *weights)
    shrink = [math.sqrt(count / (count - 1)) for count in (3, 4, 6)]
    for number in range(50):
        times = [
            np.rint((each[number] - 1 / each.shape[1]) * each.shape[1] / factor + 1)
            for each, factor in zip(weights, shrink, strict=True)
        ]
        assert all(each.sum() == len(each) and (each >= 0).all() for each in times)
        assert found[number] == pytest.approx(_loop(row, baseline, times, shrink))


def test_spread_is_that_of_an_own_bootstrap_and_of_the_closed_form() -> None:
    draw = np.random.default_rng(6)
    row, baseline = _scores(4, 9, draw, 1, 1), _scores(3, 9, draw, 1, 1)
    (effect,) = effects(row, baseline, "a")
    # Owen 2007: with rescaled draws the variances of the parts add up, and each interaction comes on top.
    assert effect.error**2 > sum(effect.parts)
    own = []
    for _ in range(4000):
        s, t, c = (draw.integers(count, size=count) for count in (4, 3, 9))
        own.append(row[s][:, c].mean() - baseline[t][:, c].mean())
    # Unscaled draws have (n - 1)/n of each part: between the smallest and the largest of these factors.
    assert 2 / 3 < np.var(own) / effect.error**2 < 1


def test_the_parts_by_hand() -> None:
    # Row seeds mean 1 and 3 (variance 2, /2), baseline 0 and 0, cases differ by 1 and 3 (variance 2, /2).
    row, baseline = np.array([[0.0, 2.0], [2.0, 4.0]])[..., None], np.zeros((2, 2, 1))
    (effect,) = effects(row, baseline, "a")
    assert effect.delta == 2.0
    assert effect.parts == pytest.approx((1.0, 0.0, 1.0))
    assert effect.counts == (2, 2, 2)
    assert effect.freedom == pytest.approx(2.0)  # (1 + 1)² / (1²/1 + 1²/1)
    # No interaction here, so the variance is 1 + 1 = 2 to within the resamples.
    assert effect.error == pytest.approx(math.sqrt(2), rel=0.03)
    t = scipy.stats.t(2)
    assert effect.high - effect.delta == pytest.approx(t.ppf(0.975) * effect.error)
    assert effect.p == pytest.approx(2 * t.sf(2 / effect.error))


def test_the_same_every_time_and_independent_of_other_rows() -> None:
    draw = np.random.default_rng(7)
    row, baseline = draw.normal(size=(3, 5, 3)), draw.normal(size=(3, 5, 3))
    first = effects(row, baseline, "a")
    for _ in range(6):
        effects(draw.normal(size=(2, 7, 3)), draw.normal(size=(4, 7, 3)), "b")
    assert effects(row, baseline, "a") == first
    assert effects(row, baseline, "c") != first


def test_nothing_differs_from_itself() -> None:
    same = np.full((2, 3, 1), 0.7)
    assert effects(same, same, "a")[0].p == 1.0


@pytest.mark.parametrize(("seeds", "cases"), [(3, 5), (3, 20), (5, 10)])
def test_coverage_on_simulated_data(seeds: int, cases: int) -> None:
    """95 % intervals hold the truth at least 93 times in 100, also with three seeds, and are not idle."""
    draw = np.random.default_rng([seeds, cases])
    hits, rounds = 0, 400
    for number in range(rounds):
        row = _scores(seeds, cases, draw, 1.0, 0.0) + draw.normal(0, 1.0, (1, cases, 1)) + 2.0
        baseline = _scores(seeds, cases, draw, 1.0, 0.0)
        (effect,) = effects(row, baseline, f"row {number}", resamples=400)
        hits += effect.low <= 2.0 <= effect.high
    assert 0.93 <= hits / rounds <= 0.995


def test_false_alarms_are_as_rare_as_promised() -> None:
    """Case effects that both share cancel: with no true difference p < 0.05 comes up at most 1 time in 20."""
    draw = np.random.default_rng(11)
    alarms = 0
    for number in range(400):
        shared = draw.normal(0, 5, (1, 8, 1))
        row, baseline = (shared + _scores(3, 8, draw, 1.0, 0.0) for _ in range(2))
        alarms += effects(row, baseline, f"row {number}", resamples=400)[0].p < 0.05
    assert alarms / 400 <= 0.065


def _effect(delta: float, parts: tuple[float, float, float], counts: tuple[int, int, int]) -> Effect:
    error = math.sqrt(sum(parts))
    freedom = satterthwaite(parts, counts)
    return Effect(delta, error, freedom, delta - error, delta + error, 0.5, parts, counts)


def test_cases_needed_by_hand() -> None:
    """Spread between cases alone, 400 now, standard deviation 10, effect 1: the textbook's n for one test."""
    effect = _effect(1.0, (0.0, 0.0, 100 / 400), (3, 3, 400))
    # n = (1.959964 + 0.841621)² × 100 / 1² = 784.9, a little more by t instead of z
    found = needed(effect, np.full(400, 1.0), tests=1, wilcoxon_says_so=True)
    assert found.by_cases is not None
    assert 785 <= found.by_cases[0] <= 790


def test_seeds_needed_is_the_first_that_a_plain_search_finds() -> None:
    parts, counts = (0.3, 0.2, 0.001), (3, 3, 50)
    found = needed(_effect(1.2, parts, counts), np.full(50, 1.2), tests=6, wilcoxon_says_so=True)
    for seeds in range(3, 200):
        each = (parts[0] * 3 / seeds, parts[1] * 3 / seeds, parts[2])
        freedom = sum(each) ** 2 / (
            each[0] ** 2 / (seeds - 1) + each[1] ** 2 / (seeds - 1) + each[2] ** 2 / 49
        )
        t = scipy.stats.t(freedom)
        if (t.ppf(1 - 0.05 / 12) + t.ppf(0.8)) * math.sqrt(sum(each)) <= 1.2:
            break
    assert found.by_seeds == (50, seeds)
    assert found.by_cases is None  # three seeds spread too much, whatever the cases


def test_wilcoxon_needs_at_least_what_its_smallest_p_allows() -> None:
    # Noether with q = 1: (z(1 - 0.05/30) + z(0.8))² / 0.75 = (2.9352 + 0.8416)² / 0.75 = 19.02 -> 20
    assert wilcoxon_cases(np.array([1.0, 2.0, 3.0, 4.0, 5.0]), tests=15) == 20
    # One test: (1.95996 + 0.84162)² / 0.75 = 10.5 -> 11
    assert wilcoxon_cases(np.array([1.0, 2.0, 3.0, 4.0, 5.0]), tests=1) == 11


def test_more_than_there_are() -> None:
    """Where thirty cases were not enough the answer is never thirty."""
    found = wilcoxon_cases(np.linspace(0.1, 1, 30), tests=1)
    assert found == 31


def test_ranks_against_the_mean_give_no_number() -> None:
    one_outlier = np.array([-1.0, -1.0, -1.0, -1.0, 50.0])
    assert wilcoxon_cases(one_outlier, tests=1) is None
    effect = _effect(9.2, (1.0, 1.0, 1.0), (3, 3, 5))
    assert needed(effect, one_outlier, 1, wilcoxon_says_so=False) == Needed(None, None)


def test_no_effect_no_number() -> None:
    effect = _effect(0.0, (1.0, 1.0, 1.0), (3, 3, 5))
    assert needed(effect, np.array([1.0, -1.0, 0.5, -0.5, 0.0]), 1, wilcoxon_says_so=False) == Needed(
        None, None
    )
    tiny = _effect(1e-4, (1.0, 1.0, 1.0), (3, 3, 5))
    assert needed(tiny, np.full(5, 1e-4), 1, wilcoxon_says_so=True) == Needed(None, None)
    assert MOST == 10_000


def test_with_more_of_both_where_neither_alone_would_do() -> None:
    effect = _effect(1.0, (0.2, 0.2, 0.2), (3, 3, 5))
    found = needed(effect, np.array([1.0, 2.0, 0.5, 1.0, 0.5]), tests=15, wilcoxon_says_so=False)
    assert found.by_cases is None
    assert found.by_seeds is not None
    cases, seeds = found.by_seeds
    assert cases >= 20
    assert 3 < seeds < 60
