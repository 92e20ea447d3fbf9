"""What Dice a subset lets expect, by the model's own test cases; and which subset does clearly better."""

from __future__ import annotations

from typing import Any

import numpy as np

from acdis.evaluation.scores import Scores
from acdis.vocabulary import MODALITIES, REGIONS, SUBSETS, Subset

#: Points of Dice from which another subset is worth a word, and standard errors that they must be off 0.
_WORTH, _ERRORS = 5.0, 2.0


def expected(scores: Scores, subset: Subset) -> dict[str, Any]:
    """Dice in per cent with these modalities.

    Returns:
        `cases`, and per region `mean` and `p5`, the 5th percentile over the cases.
    """
    dice = 100 * scores.dice[:, SUBSETS.index(subset)]
    regions = {
        region: {
            "mean": round(float(dice[:, at].mean()), 2),
            "p5": round(float(np.percentile(dice[:, at], 5)), 2),
        }
        for at, region in enumerate(REGIONS)
    }
    return {"cases": len(dice), **regions}


def better(scores: Scores, subset: Subset) -> list[str]:
    """Lines such as "with T1ce: ET +27 points", for each one more or one fewer modality that would do
    clearly better: by 5 points on average over the test cases, and by two standard errors."""
    lines = []
    own = 100 * scores.dice[:, SUBSETS.index(subset)]
    for modality in MODALITIES:
        other = tuple(m for m in MODALITIES if (m in subset) != (m == modality))
        if not other:
            continue
        gain = 100 * scores.dice[:, SUBSETS.index(other)] - own
        mean = gain.mean(axis=0)
        error = gain.std(axis=0, ddof=1) / np.sqrt(len(gain)) if len(gain) > 1 else np.full(3, np.inf)
        clear = [
            f"{region} {mean[at]:+.0f} points"
            for at, region in enumerate(REGIONS)
            if mean[at] >= _WORTH and mean[at] > _ERRORS * error[at]
        ]
        if clear:
            lines.append(f"{'without' if modality in subset else 'with'} {modality}: {', '.join(clear)}")
    return lines
