"""Whether probabilities mean what they say, row by row: ECE and the reliability curve."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from acdis.evaluation.calibration import BINS, curve
from acdis.report import phrases
from acdis.report.document import Section, Table
from acdis.report.facts import RowScores
from acdis.vocabulary import REGIONS

#: Rows of a spec up to which curves are shown.
MOST_ROWS = 24
#: What must stand beside every ECE.
RULE = (
    "ECE, expected calibration error: mean over voxels of |mean probability − share of the region| in "
    f"{BINS} bins of equal width, over the voxels of the box about the brain. Most of these are surely "
    "background: compare rows on the same cases, not with papers that count other voxels."
)


def section(rows: Sequence[RowScores], labels: Mapping[str, str]) -> Section | None:
    """Of the rows of which every seed was scored with `calibration`; none where no row was, or of too many.

    Args:
        labels: what the rows are called.
    """
    counted = [row for row in rows if row.seeds and all(_is_there(row, seed) for seed in row.seeds)]
    if not counted or len(counted) > MOST_ROWS:
        return None
    body = []
    for row in counted:
        errors = np.mean([scores.further["ece"].mean(axis=(0, 1)) for scores in row.seeds.values()], axis=0)
        for place, region in enumerate(REGIONS):
            _, shares = curve(pooled(row)[place])
            figures = (phrases.ABSENT if math.isnan(share) else f"{100 * share:.1f}" for share in shares)
            body.append((labels[row.id], region, f"{100 * errors[place]:.2f}", *figures))
    edges = [f"{place / BINS:g}–{(place + 1) / BINS:g}" for place in range(BINS)]
    head = ("Row", "Region", "ECE %", *edges)
    text = (
        f"{RULE} Here its mean over cases, 15 subsets and seeds. Beside it the reliability curve: of the "
        "voxels with a probability in a bin, the per cent that are of the region, all cases, subsets and "
        "seeds together.",
    )
    return Section(3, "Calibration", text, Table(head, tuple(body), "ll" + "r" * (BINS + 1)))


def pooled(row: RowScores) -> np.ndarray:
    """[3, 3, BINS]: `calibration.counts` by region, over seeds, cases and subsets."""
    every = [scores.calibration for scores in row.seeds.values() if scores.calibration is not None]
    total: np.ndarray = np.sum(every, axis=(0, 1))
    return total


def _is_there(row: RowScores, seed: int) -> bool:
    scores = row.seeds[seed]
    return scores.calibration is not None and "ece" in scores.further
