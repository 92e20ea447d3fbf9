"""A cell inside and outside: Welch's test against scipy's, patients as units, and what the table says."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from acdis.evaluation.external import shifts
from acdis.evaluation.scores import Scores
from acdis.report.external import markdown
from acdis.vocabulary import REGIONS


def scores(seed: int, cases: int, level: float, spread: float, patients: tuple[str, ...] = ()) -> Scores:
    draw = np.random.default_rng(seed)
    dice = np.clip(
        level + spread * draw.standard_normal((cases, 1, 3)) + 0.02 * draw.random((cases, 15, 3)), 0, 1
    )
    return Scores(tuple(f"c{n:02}" for n in range(cases)), dice, dice[..., 2], None, patients)


def test_the_test_is_welchs() -> None:
    inside, outside = scores(0, 12, 0.8, 0.05), scores(1, 7, 0.72, 0.1)
    found = shifts(inside, outside)
    p_values = []
    for place, shift in enumerate(found):
        one, other = (100 * each.dice.mean(axis=1)[:, place] for each in (inside, outside))
        expected = stats.ttest_ind(other, one, equal_var=False)
        interval = expected.confidence_interval(0.95)
        assert shift.delta == pytest.approx(other.mean() - one.mean())
        assert (shift.low, shift.high) == pytest.approx((interval.low, interval.high))
        assert shift.p == pytest.approx(expected.pvalue)
        p_values.append(expected.pvalue)
    assert [shift.p_adjusted for shift in found] == pytest.approx(_holm(p_values))


def _holm(p_values: list[float]) -> list[float]:
    """By its definition: the largest, over those not larger, of p times the number that are left."""
    return [
        min(1.0, max(sum(other >= q for other in p_values) * q for q in p_values if q <= p)) for p in p_values
    ]


def test_verdicts() -> None:
    inside = scores(0, 20, 0.8, 0.02)
    assert {each.verdict for each in shifts(inside, scores(1, 20, 0.6, 0.02))} == {"lower"}
    assert {each.verdict for each in shifts(scores(1, 20, 0.6, 0.02), inside)} == {"higher"}
    assert {each.verdict for each in shifts(inside, scores(0, 20, 0.8, 0.02))} == {"undecided"}
    assert {each.verdict for each in shifts(inside, scores(1, 1, 0.6, 0.02))} == {"too few"}


def test_scans_of_one_patient_count_once() -> None:
    inside = scores(0, 8, 0.8, 0.05)
    twice = Scores(
        tuple(f"c{n:02}" for n in range(16)),
        np.repeat(inside.dice, 2, axis=0),
        np.repeat(inside.dice_et500, 2, axis=0),
        None,
        tuple(f"p{n // 2}" for n in range(16)),
    )
    outside = scores(1, 6, 0.7, 0.05)
    for one, other in zip(shifts(inside, outside), shifts(twice, outside), strict=True):
        assert one.p == pytest.approx(other.p)
        assert one.inside == pytest.approx(other.inside)


def test_what_the_table_says() -> None:
    inside, outside = scores(0, 20, 0.8, 0.02), scores(1, 10, 0.6, 0.02)
    text = markdown("acdis-0", inside, outside)
    lines = text.splitlines()
    assert lines[0] == "# acdis-0: inside (20 patients) and outside (10 patients)"
    rows = [line for line in lines if line.startswith(("| ●", "| ○"))]
    assert len(rows) == 15
    full = [cell.strip() for cell in rows[-1].strip("| ").split("|")]
    assert full[:4] == ["●"] * 4
    for place in range(len(REGIONS)):
        one, other = (100 * each.dice[:, -1, place].mean() for each in (inside, outside))
        shown = full[4 + 3 * place : 7 + 3 * place]
        assert [float(value.replace("−", "-")) for value in shown] == pytest.approx(
            [one, other, other - one], abs=0.006
        )
    assert all(f"- {region}: −" in text for region in REGIONS)
    assert text.count("lower outside") == 3
    assert "nan" not in markdown("acdis-0", inside, scores(1, 1, 0.6, 0.02))


def test_no_p_is_shown_as_less_than_it_is() -> None:
    """Three digits as in a report: 45 of them, every other of which would be rounded down."""
    for seed in range(15):
        inside, outside = scores(seed, 9, 0.8, 0.05), scores(seed + 100, 8, 0.77, 0.06)
        text = markdown("acdis-0", inside, outside)
        for shift in shifts(inside, outside):
            (line,) = (line for line in text.splitlines() if line.startswith(f"- {shift.region}: "))
            shown = line.partition("p adjusted ")[2].partition(":")[0]
            if shown == "<0.001":
                assert shift.p_adjusted < 0.001
            else:
                assert shift.p_adjusted <= float(shown) < shift.p_adjusted + 0.001
