"""Which modality helps which region: what adding it to a subset changes, on average."""

from __future__ import annotations

import numpy as np

from acdis.vocabulary import MODALITIES, SUBSETS

_PLACES = {frozenset(subset): place for place, subset in enumerate(SUBSETS)}
#: For each modality the pairs (without it, with it) of subsets: seven, since there is no empty subset.
PAIRS = tuple(
    tuple(
        (place, _PLACES[frozenset(subset) | {modality}])
        for place, subset in enumerate(SUBSETS)
        if modality not in subset
    )
    for modality in MODALITIES
)


def gains(values: np.ndarray) -> np.ndarray:
    """[4, 3]: mean over the seven subsets without a modality of what adding it changes.

    Args:
        values: [15, 3], subsets and regions in the vocabulary's order.
    """
    made = [
        np.mean([values[with_it] - values[without] for without, with_it in pairs], axis=0) for pairs in PAIRS
    ]
    return np.stack(made)
