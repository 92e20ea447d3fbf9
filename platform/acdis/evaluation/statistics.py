"""Which rows of a table differ, and intervals for few cases and few seeds.

NumPy and scipy.special only: quick to import. The mean squares are in `mrmc`, how many more seeds or cases it
would take in `needed`, the ranking of challenges in `ranking`.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from scipy.special import stdtr, stdtrit

from acdis.errors import UserError
from acdis.evaluation.mrmc import MeanSquares, mean_squares, uneven_rows, unsteady_rows
from acdis.vocabulary import REGIONS

#: Of every test and interval in a report.
ALPHA = 0.05
#: Values are rounded to this many digits before they are ranked: 1e-17 is a tie, not a difference.
DIGITS = 10

#: Standard errors below this (points) are rounding, not spread.
NOTHING = 1e-9
#: No p is 0: that would say more than any data can.
LEAST_P = sys.float_info.min


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
        squares: what these come from; none with one seed or one patient.
        apart: one of the two spreads more than the table over seeds or patients; that part of the error is
            from this pair's own differences.
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
    squares: MeanSquares | None
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
        UserError: the scores have another shape, or one is infinite; no seed or case is left; a row or region
            does not exist; the margin is not above 0.
    """
    if not margin > 0:
        raise UserError(f"compare: margin {margin} is no number of points above 0")
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
    several = min(values.shape[1:3]) > 1
    unsteady, uneven = (unsteady_rows(values), uneven_rows(values)) if several else ((), ())
    tables = {
        region: _Table(values[..., REGIONS.index(region)], several, unsteady, uneven)
        for region in {region for _, region, _ in asked}
    }
    return judged([tables[region].answer(row, other, region) for row, region, other in asked], margin)


def judged(answers: Sequence[Comparison], margin: float = 1.0) -> list[Comparison]:
    """The answers with p adjusted over all of them, and their verdicts.

    What stands on one seed is no answer about a method: it is a family of its own, without verdict.
    """
    adjusted: dict[int, tuple[float, float]] = {}
    for several in (True, False):
        places = [place for place, answer in enumerate(answers) if (answer.seeds > 1) == several]
        differs = holm([answers[place].p for place in places])
        same = holm(
            [
                _tail(margin - abs(answers[place].delta), answers[place].error, answers[place].freedom)
                for place in places
            ]
        )
        adjusted |= dict(zip(places, zip(differs, same, strict=True), strict=True))
    return [
        replace(
            answer,
            p_adjusted=adjusted[place][0],
            verdict="one seed" if answer.seeds == 1 else _verdict(answer.delta, *adjusted[place]),
        )
        for place, answer in enumerate(answers)
    ]


def _complete(scores: np.ndarray, patients: Sequence[str] | None) -> np.ndarray:
    """[R, S, patients, 3] without the seeds and cases that a row lacks, scans of a patient averaged."""
    if scores.ndim != 4 or scores.shape[3] != len(REGIONS):
        raise UserError(f"compare: scores {list(scores.shape)} are not [rows, seeds, cases, {len(REGIONS)}]")
    names = np.asarray(patients if patients is not None and len(patients) else range(scores.shape[2]))
    if len(names) != scores.shape[2]:
        raise UserError(f"compare: {len(names)} patients for {scores.shape[2]} cases; give one for each case")
    if np.isinf(scores).any():
        raise UserError("compare: a score is infinite; give per cent, and NaN where one is missing")
    kept = scores[:, ~np.isnan(scores).all(axis=(2, 3)).any(axis=0)]
    whole = ~np.isnan(kept).any(axis=(0, 1, 3))
    if not kept.shape[1] or not whole.any():
        raise UserError(
            "compare: no seed and case has scores of all rows; leave a row out or train what lacks"
        )
    kept, names = kept[:, :, whole], names[whole]
    return np.stack([kept[:, :, names == name].mean(axis=2) for name in np.unique(names)], axis=2)


class _Table:
    """Scores [R, S, N] of one region, and the mean squares of the rows that spread alike.

    Args:
        several: there are at least two seeds and two patients.
        unsteady, uneven: rows that do not spread as the others over seeds, and over patients.
    """

    def __init__(
        self, scores: np.ndarray, several: bool, unsteady: Sequence[int], uneven: Sequence[int]
    ) -> None:
        self.scores, self.several, self.unsteady, self.uneven = scores, several, unsteady, uneven

    @cached_property
    def pool(self) -> MeanSquares:
        """Of the rows that spread as the others."""
        return self._without({*self.unsteady, *self.uneven})

    @cached_property
    def steady(self) -> MeanSquares:
        """Also of those that spread more over patients: how their own seeds differ counts for them."""
        return self._without(self.unsteady)

    @cached_property
    def even(self) -> MeanSquares:
        """Of `pool`, and those that spread more over seeds."""
        return self._without(self.uneven)

    def _without(self, apart: Collection[int]) -> MeanSquares:
        return mean_squares(np.delete(self.scores, list(apart), axis=0))

    def answer(self, row: int, other: int, region: str) -> Comparison:
        """Row minus other; not adjusted and without verdict yet."""
        seeds, persons = self.scores.shape[1:]
        differences = self.scores[row] - self.scores[other]
        delta = float(differences.mean())
        unsteady, uneven = (bool({row, other} & {*apart}) for apart in (self.unsteady, self.uneven))
        squares = None
        if self.several:
            squares = self._squares(row, other, unsteady, uneven)
            error, freedom = squares.difference()
        elif persons > 1:
            error, freedom = float(differences[0].std(ddof=1)) / math.sqrt(persons), persons - 1.0
        else:
            error, freedom = math.inf, 1.0
        half = float(stdtrit(freedom, 1 - ALPHA / 2)) * error
        p = min(1.0, max(LEAST_P, 2 * _tail(abs(delta), error, freedom)))
        return Comparison(
            row,
            other,
            region,
            delta,
            delta - half,
            delta + half,
            p,
            p,
            "",
            error,
            freedom,
            squares,
            unsteady or uneven,
            seeds,
            persons,
        )

    def _squares(self, row: int, other: int, unsteady: bool, uneven: bool) -> MeanSquares:
        """Of two rows alone they are those of their paired differences: Welch's error."""
        if not (unsteady or uneven):
            return self.pool
        pair = mean_squares(self.scores[[row, other]])
        return (pair if unsteady else self.steady).with_cases_of(pair if uneven else self.even)


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

    None as well where all values of one side are equal: there is no order to agree with. Not scipy.stats's:
    its import takes a report 0.48 s of CPU, where its whole start takes 0.63, and it counts no pairs.
    """
    first, second = (np.round(np.asarray(side, dtype=np.float64), DIGITS) for side in (ours, theirs))
    upper = np.triu_indices(len(first), k=1)
    one = np.sign(first[:, None] - first[None, :])[upper]
    two = np.sign(second[:, None] - second[None, :])[upper]
    norm = math.sqrt(float((one**2).sum()) * float((two**2).sum()))
    if not norm:
        return None
    return float((one * two).sum()) / norm, int((one * two > 0).sum()), len(one)
