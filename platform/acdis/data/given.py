"""A test case as it would be prepared if only a subset of its modalities had been scanned."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

import numpy as np

from acdis.config import Data
from acdis.data.cases import Case, Volume, read
from acdis.data.preprocess import Meta, on_brain
from acdis.vocabulary import MODALITIES, Subset


def by_given(
    case: Case, data: Data, subsets: Sequence[Subset]
) -> Iterator[tuple[list[Subset], np.ndarray, Meta]]:
    """Box, mask and normalisation from the given modalities alone; subsets with one mask come together.

    Yields:
        Such subsets, the images [4, D, H, W] on their box, and where it lies. What a subset lacks is in the
        images too, since others with the same mask may have it: no method looks at it.

    Raises:
        UserError: as `cases.read` and `preprocess.on_brain`.
    """
    volume = read(case)
    alike: dict[bytes, list[Subset]] = {}
    for subset in subsets:
        key = hashlib.sha256(np.packbits(_brain(volume, subset)).data).digest()
        alike.setdefault(key, []).append(subset)
    for together in alike.values():
        brain = _brain(volume, together[0])
        images, meta = on_brain(volume.images, brain, volume.spacing, volume.affine, data)
        yield together, images, meta


def _brain(volume: Volume, subset: Subset) -> np.ndarray:
    """bool [D, H, W]: where a modality of the subset is not background."""
    mask: np.ndarray = (volume.images[[MODALITIES.index(name) for name in subset]] != 0).any(axis=0)
    return mask
