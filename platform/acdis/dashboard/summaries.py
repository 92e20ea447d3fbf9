"""Scores as the store has them: means over cases, no case by itself. Enough for figures, not for tests.

Reading them takes one query for all runs; reading a thousand files of per-case records takes seconds.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from acdis.dashboard.store import MlflowStore
from acdis.evaluation.scores import Scores
from acdis.tracking.remote import CELL_TAG
from acdis.vocabulary import REGIONS, SUBSETS, metric_name

#: Stands for all cases of a run.
ALL_CASES = "mean over cases"
_METRICS = (
    "SELECT m.run_uuid, m.key, m.value FROM latest_metrics m "
    "JOIN tags t ON t.run_uuid = m.run_uuid AND t.key = :tag "
    "WHERE m.is_nan = :no AND (m.key LIKE 'dice/%' OR m.key LIKE 'dice\\_et500/%' ESCAPE '\\' "
    "OR m.key LIKE 'hd95/%')"
)
_NAMES = [
    *(metric_name("dice", region, subset) for subset in SUBSETS for region in REGIONS),
    *(metric_name("hd95", region, subset) for subset in SUBSETS for region in REGIONS),
    *(metric_name("dice_et500", "ET", subset) for subset in SUBSETS),
]
_PLACES = {name: place for place, name in enumerate(_NAMES)}
_FIGURES = len(SUBSETS) * len(REGIONS)


def of_runs(store: MlflowStore) -> Mapping[str, Scores]:
    """By the run's id; runs that lack a Dice or have one that is none are left out. Raises StoreAwayError."""
    return store.kept("summaries", _read)


def _read(store: MlflowStore) -> Mapping[str, Scores]:
    by_run: dict[str, list[float]] = {}
    for run, key, value in store.rows(_METRICS, tag=CELL_TAG, no=False):
        place = _PLACES.get(key)
        if place is not None:
            by_run.setdefault(run, [np.nan] * len(_NAMES))[place] = value
    made = {run: _scores(np.array(values)) for run, values in by_run.items()}
    return {run: scores for run, scores in made.items() if scores is not None}


def _scores(values: np.ndarray) -> Scores | None:
    dice, hd95, et500 = np.split(values, (_FIGURES, 2 * _FIGURES))
    if not ((dice >= 0) & (dice <= 1)).all():  # false for NaN as well
        return None
    shape = (1, len(SUBSETS), len(REGIONS))
    distances = hd95.reshape(shape) if np.isfinite(hd95).all() else None
    return Scores((ALL_CASES,), dice.reshape(shape), et500.reshape(1, -1), distances, hd95_convention="")
