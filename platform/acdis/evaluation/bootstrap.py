"""The difference between two rows of a table, with a spread that stands on seeds and on cases.

Every seed scores the same cases, so seeds and cases are crossed: a resample draws the row's seeds, the
baseline's seeds (independently) and the cases (the same draw for both: pairs stay pairs), each with
replacement (the crossed hierarchical bootstrap; Owen 2007 calls it the pigeonhole bootstrap, and shows that
it errs to the wide side).

n values drawn from n have (n - 1)/n of the variance that they should: with three seeds a third is missing.
Draws are therefore rescaled around their mean by sqrt(n/(n - 1)) (Rao and Wu 1988). And a spread seen on few
seeds is itself uncertain: interval and p take Student's t with Welch and Satterthwaite's degrees of freedom
over the standard error of the resamples (Efron and Tibshirani 1993, chapter 12), not percentiles, which with
three seeds are far too narrow.
"""

from __future__ import annotations

import functools
import zlib
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtr, stdtrit

from acdis.evaluation.statistics import ALPHA

RESAMPLES = 10_000
SEED = 20


@dataclass(frozen=True)
class Effect:
    """Row minus baseline in one region.

    Attributes:
        delta: mean over seeds and cases.
        error: standard error, from the resamples.
        freedom: degrees of freedom of that error.
        low, high: 95 % interval, of this difference alone.
        p: two-sided, not corrected.
        parts: variance of delta that the row's seeds, the baseline's seeds and the cases bring.
        counts: of the same three.
    """

    delta: float
    error: float
    freedom: float
    low: float
    high: float
    p: float
    parts: tuple[float, float, float]
    counts: tuple[int, int, int]


def effects(row: np.ndarray, baseline: np.ndarray, key: str, resamples: int = RESAMPLES) -> list[Effect]:
    """One effect per region.

    Args:
        row: scores [S, N, R]: seeds, cases, regions.
        baseline: scores [T, N, R] of the same cases; S, T and N at least 2.
        key: the row's name, which seeds its draws: other rows, added or left out, change nothing here.
    """
    seeds = draws(len(row), f"row {key}", resamples)
    others = draws(len(baseline), "baseline", resamples)
    cases = draws(row.shape[1], "cases", resamples)
    found = []
    for region in range(row.shape[2]):
        drawn = resampled(row[..., region], baseline[..., region], seeds, others, cases)
        found.append(_effect(row[..., region], baseline[..., region], float(drawn.std())))
    return found


def resampled(
    row: np.ndarray, baseline: np.ndarray, seeds: np.ndarray, others: np.ndarray, cases: np.ndarray
) -> np.ndarray:
    """The difference in every resample [B], from scores [S, N], [T, N] and weights [B, S], [B, T], [B, N]."""
    return ((seeds @ row - others @ baseline) * cases).sum(axis=1)


@functools.lru_cache(maxsize=4)
def draws(count: int, key: str, resamples: int) -> np.ndarray:
    """Weights [B, count] of as many draws with replacement, rescaled; each row sums to 1."""
    generator = np.random.default_rng([SEED, zlib.crc32(key.encode())])
    drawn = generator.integers(count, size=(resamples, count))
    places = drawn + count * np.arange(resamples)[:, None]
    times = np.bincount(places.ravel(), minlength=resamples * count).reshape(resamples, count)
    return 1 / count + (times - 1) / count * np.sqrt(count / (count - 1))


def _effect(row: np.ndarray, baseline: np.ndarray, error: float) -> Effect:
    delta = float(row.mean() - baseline.mean())
    values = (row.mean(axis=1), baseline.mean(axis=1), row.mean(axis=0) - baseline.mean(axis=0))
    parts = tuple(float(each.var(ddof=1)) / len(each) for each in values)
    counts = tuple(len(each) for each in values)
    freedom = satterthwaite(parts, counts)
    half = float(stdtrit(freedom, 1 - ALPHA / 2)) * error
    p = 2 * float(stdtr(freedom, -abs(delta) / error)) if error else float(delta == 0)
    three, sizes = (parts[0], parts[1], parts[2]), (counts[0], counts[1], counts[2])
    return Effect(delta, error, freedom, delta - half, delta + half, p, three, sizes)


def satterthwaite(parts: tuple[float, ...], counts: tuple[int, ...]) -> float:
    """Degrees of freedom of a sum of variances, each estimated from its own count of values."""
    below = sum(part**2 / (count - 1) for part, count in zip(parts, counts, strict=True))
    return sum(parts) ** 2 / below if below else float(min(counts) - 1)
