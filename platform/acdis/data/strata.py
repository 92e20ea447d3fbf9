"""What a draw keeps alike on all sides of a split: whether a tumour enhances, and how large the lesion is."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from acdis import files
from acdis.data.cases import Case, read_labels
from acdis.data.fingerprints import file_hash, remember
from acdis.data.nifti import voxel_sizes
from acdis.errors import UserError

#: Lesions are told apart by size in so many groups of equal number.
SIZES = 3


@dataclass(frozen=True)
class Stratum:
    """A case's truth in two numbers: `volume` of the whole lesion in mm³ (or anything that grows with it)."""

    enhancing: bool
    volume: float


def kinds(strata: Mapping[str, Stratum]) -> dict[str, int]:
    """Name -> which of 2 × `SIZES` kinds: with or without ET, and the lesion's tercile by rank."""
    ranked = sorted(strata, key=lambda name: (strata[name].volume, name))
    tercile = {name: rank * SIZES // len(ranked) for rank, name in enumerate(ranked)}
    return {name: 2 * tercile[name] + stratum.enhancing for name, stratum in strata.items()}


def of_cases(
    cases: Sequence[Case], cache: Path, processes: int, progress: Callable[[int, int], None]
) -> dict[str, Stratum]:
    """Read each segmentation once; what was found is kept beside the files' hashes in the cache.

    A segmentation that cannot be used counts as empty: preparing the case says what is wrong with it.
    """
    strata: dict[str, Stratum] = {}
    with ThreadPoolExecutor(max(1, processes)) as pool:
        for case, stratum in zip(cases, pool.map(lambda case: _of_case(case, cache), cases), strict=True):
            strata[case.name] = stratum
            progress(len(strata), len(cases))
    return strata


def _of_case(case: Case, cache: Path) -> Stratum:
    try:
        parts = [file_hash(case.segmentation, cache), case.scheme.classes]
    except OSError:
        return Stratum(False, 0.0)
    note = cache / ".strata" / hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]
    with suppress(OSError, ValueError, LookupError, TypeError):
        tree = files.read_json(note, 200)
        if isinstance(tree["enhancing"], bool) and math.isfinite(tree["volume"]):
            return Stratum(tree["enhancing"], float(tree["volume"]))
    try:
        labels, affine = read_labels(case)
    except UserError:
        return Stratum(False, 0.0)
    volume = np.count_nonzero(labels) * math.prod(voxel_sizes(affine))
    stratum = Stratum(bool((labels == 3).any()), float(volume))
    remember(note, json.dumps({"enhancing": stratum.enhancing, "volume": stratum.volume}))
    return stratum
