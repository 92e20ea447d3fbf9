"""Tests and intervals for few cases and few seeds. NumPy and scipy.special only: quick to import.

What stands on seeds and cases at once is in `bootstrap`, how many of them would be needed in `needed`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr, stdtr, stdtrit

from acdis.errors import UserError
from acdis.evaluation.mrmc import mean_squares, unequal_rows
from acdis.vocabulary import REGIONS

#: Of every test and interval in a report.
ALPHA = 0.05
#: Up to here the Wilcoxon test is exact, ties or not; beyond, by its normal approximation.
EXACT_CASES = 200
#: Differences are rounded to this many digits before they are ranked: 1e-17 is a tie, not a difference.
DIGITS = 10

#: Standard errors below this (points) are rounding, not spread.
NOTHING = 1e-9


@dataclass(frozen=True)
class Comparison:
    """One row minus another in one region, in points.

    Attributes:
        row, against: places of the two rows.
        region: of `REGIONS`.
        delta: mean over seeds and patients.
        low, high: 95 % interval of this difference alone.
        p: two-sided, not corrected; with one seed about cases alone: these two trainings only.
        p_adjusted: by Holm over the family.
        verdict: better, worse, equal (within the margin), undecided; `one seed`: nothing about the method.
        error, freedom: standard error of delta and its degrees of freedom.
        apart: one of the two spreads more than the table; the error is from this pair's own differences.
        seeds, patients: how many of each all rows have.
    """

    row: int
    against: int
    region: str
    delta: float
    low: float
    high: float
    p: float
    p_adjusted: float
    verdict: str
    error: float
    freedom: float
    apart: bool
    seeds: int
    patients: int


def compare(
    scores: np.ndarray,
    baseline: int = 0,
    patients: Sequence[str] | None = None,
    *,
    family: Sequence[tuple[int, str] | tuple[int, str, int]] | None = None,
    margin: float = 1.0,
) -> list[Comparison]:
    """Which rows of a table differ, by a multi-reader multi-case analysis (`mrmc`), Holm over the family.

    Args:
        scores: [R, S, N, 3] in per cent, rows × seeds × cases × regions, seeds and cases the same for every
            row; NaN where a score is missing. A seed that a row lacks wholly is left out for all rows, then
            every case of which a score is missing.
        baseline: the row that the others are compared with.
        patients: of each case; scans of one patient are averaged first. None or empty: each its own.
        family: what is asked, (row, region) against the baseline or (row, region, other row); by default
            every row but the baseline in every region. Only this is answered.
        margin: points within which two rows are equal, by two one-sided tests.

    Raises:
        UserError: the scores have another shape, or no seed or case is left; a row or region does not exist.
    """
    values, count = _complete(np.asarray(scores, dtype=np.float64), patients), len(scores)
    if family is None:
        family = [(row, region) for row in range(count) if row != baseline for region in REGIONS]
    asked = [(*question, baseline)[:3] for question in family]
    for row, region, other in asked:
        if region not in REGIONS or row == other or not (0 <= row < count and 0 <= other < count):
            raise UserError(
                f"compare: {row} with {other} in {region}: give two rows of 0 to {count - 1}, "
                f"and one of {', '.join(REGIONS)}"
            )
    seeds, persons = values.shape[1:3]
    apart = [unequal_rows(values[..., place]) if seeds > 1 < persons else () for place in range(len(REGIONS))]
    errors = []
    for row, region, other in asked:
        place = REGIONS.index(region)
        errors.append(_error(values[..., place], row, other, apart[place]))
    deltas = [
        float((values[row, ..., REGIONS.index(region)] - values[other, ..., REGIONS.index(region)]).mean())
        for row, region, other in asked
    ]
    differs = [2 * _tail(abs(delta), *error) for delta, error in zip(deltas, errors, strict=True)]
    adjusted = holm(differs)
    same = holm([_tail(margin - abs(delta), *error) for delta, error in zip(deltas, errors, strict=True)])
    answers = []
    for place, (row, region, other) in enumerate(asked):
        delta, (error, freedom) = deltas[place], errors[place]
        half = float(stdtrit(freedom, 1 - ALPHA / 2)) * error
        verdict = "one seed" if seeds == 1 else _verdict(delta, adjusted[place], same[place])
        out = bool({row, other} & set(apart[REGIONS.index(region)]))
        answers.append(
            Comparison(
                row,
                other,
                region,
                delta,
                delta - half,
                delta + half,
                min(1.0, differs[place]),
                adjusted[place],
                verdict,
                error,
                freedom,
                out,
                seeds,
                persons,
            )
        )
    return answers


def _complete(scores: np.ndarray, patients: Sequence[str] | None) -> np.ndarray:
    """[R, S, patients, 3] without the seeds and cases that a row lacks, scans of a patient averaged."""
    if scores.ndim != 4 or scores.shape[3] != len(REGIONS):
        raise UserError(f"compare: scores {list(scores.shape)} are not [rows, seeds, cases, {len(REGIONS)}]")
    names = np.asarray(patients if patients is not None and len(patients) else range(scores.shape[2]))
    if len(names) != scores.shape[2]:
        raise UserError(f"compare: {len(names)} patients for {scores.shape[2]} cases; give one for each case")
    kept = scores[:, ~np.isnan(scores).all(axis=(2, 3)).any(axis=0)]
    whole = ~np.isnan(kept).any(axis=(0, 1, 3))
    if not kept.shape[1] or not whole.any():
        raise UserError(
            "compare: no seed and case has scores of all rows; leave a row out or train what lacks"
        )
    kept, names = kept[:, :, whole], names[whole]
    return np.stack([kept[:, :, names == name].mean(axis=2) for name in np.unique(names)], axis=2)


def _error(scores: np.ndarray, row: int, other: int, apart: tuple[int, ...]) -> tuple[float, float]:
    """Standard error of row − other in scores [R, S, N] and its degrees of freedom.

    Where one of the two lies apart, from the two alone: with two rows the mean squares are those of their
    paired seed differences, and this is Welch's error over them and the cases.
    """
    seeds, persons = scores.shape[1:]
    if persons == 1:
        return math.inf, 1.0
    if seeds == 1:
        differences = scores[row, 0] - scores[other, 0]
        return float(differences.std(ddof=1)) / math.sqrt(persons), persons - 1.0
    pooled = [row, other]
    if not {row, other} & set(apart):
        pooled = [place for place in range(len(scores)) if place not in apart]
    return mean_squares(scores[pooled]).difference()


def _tail(distance: float, error: float, freedom: float) -> float:
    """One-sided p of so large a distance."""
    if error < NOTHING:
        return 0.0 if distance > NOTHING else 0.5
    return float(stdtr(freedom, -distance / error))


def _verdict(delta: float, p_differs: float, p_same: float) -> str:
    if p_differs <= ALPHA:
        return "better" if delta > 0 else "worse"
    return "equal" if p_same <= ALPHA else "undecided"


def t_interval(values: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """95 % interval of the mean over the first axis (seeds), by Student's t: (low, high).

    None with fewer than two values: one seed has no spread.
    """
    count = len(values)
    if count < 2:
        return None
    mean = values.mean(axis=0)
    half = stdtrit(count - 1, 1 - ALPHA / 2) * values.std(axis=0, ddof=1) / math.sqrt(count)
    return mean - half, mean + half


def wilcoxon(differences: np.ndarray) -> float:
    """Two-sided p of the Wilcoxon signed-rank test on paired differences [N].

    Differences of zero are ranked with the others and then left out (Pratt 1959), so that cases in which
    nothing changes still count as cases; ties share their mean rank. Up to `EXACT_CASES` cases p is exact,
    the share of all 2^n sign patterns of these very ranks: n cases can never give less than 2 / 2^n.
    """
    values = np.round(np.asarray(differences, dtype=np.float64), DIGITS)
    ranks = _ranks(np.abs(values))
    kept = ranks[values != 0]
    if not len(kept):
        return 1.0
    positive = ranks[values > 0].sum()
    return _exact(kept, positive) if len(kept) <= EXACT_CASES else _normal(kept, positive)


def _ranks(values: np.ndarray) -> np.ndarray:
    """1 for the smallest; equal values share the mean of their ranks."""
    ordered = np.sort(values)
    low = np.searchsorted(ordered, values, side="left")
    high = np.searchsorted(ordered, values, side="right")
    return (low + high + 1) / 2


def _exact(ranks: np.ndarray, positive: float) -> float:
    """Distribution of the sum of positive ranks, one rank after the other; doubled ranks are whole."""
    doubled = np.rint(2 * ranks).astype(np.int64)
    chance = np.zeros(doubled.sum() + 1)
    chance[0] = 1.0
    for rank in doubled:
        moved = np.zeros_like(chance)
        moved[rank:] = chance[: len(chance) - rank]
        chance = (chance + moved) / 2
    found = round(2 * positive)
    tail = min(chance[: found + 1].sum(), chance[found:].sum())
    return float(min(1.0, 2 * tail))


def _normal(ranks: np.ndarray, positive: float) -> float:
    """With continuity correction."""
    distance = abs(positive - ranks.sum() / 2) - 0.5
    return float(min(1.0, 2 * ndtr(-max(distance, 0.0) / math.sqrt((ranks**2).sum() / 4))))


def smallest_p(cases: int) -> float:
    """The least two-sided p that the test can give: 0.0625 for five cases."""
    return min(1.0, 2.0 ** (1 - cases))


def fewest_cases(tests: int) -> int:
    """Cases below which Holm over so many tests can reject nothing: the least n with tests × 2/2^n ≤ 0.05."""
    cases = 1
    while tests * smallest_p(cases) > ALPHA:
        cases += 1
    return cases


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjusted p-values (1979), in the order given; compare each with 0.05.

    The smallest is multiplied by the number of tests m, the next by m - 1, …; none is below one before it.
    """
    order = sorted(range(len(p_values)), key=lambda place: p_values[place])
    adjusted = [0.0] * len(p_values)
    reached = 0.0
    for step, place in enumerate(order):
        reached = max(reached, min(1.0, (len(order) - step) * p_values[place]))
        adjusted[place] = reached
    return adjusted


def kendall(ours: Sequence[float], theirs: Sequence[float]) -> tuple[float, int, int] | None:
    """Kendall's τ-b of two orders of the same rows, pairs that agree, pairs in all; None below two rows.

    None as well where all values of one side are equal: there is no order to agree with.
    """
    first, second = (np.round(np.asarray(side, dtype=np.float64), DIGITS) for side in (ours, theirs))
    upper = np.triu_indices(len(first), k=1)
    one = np.sign(first[:, None] - first[None, :])[upper]
    two = np.sign(second[:, None] - second[None, :])[upper]
    norm = math.sqrt(float((one**2).sum()) * float((two**2).sum()))
    if not norm:
        return None
    return float((one * two).sum()) / norm, int((one * two > 0).sum()), len(one)
