"""The paper's Table 1: Dice of ten methods on BraTS2020, for every subset and region, in per cent."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from acdis.vocabulary import REGIONS

SOURCE = "Zhang et al. 2024 (arXiv:2408.13733), Table 1, BraTS2020"


@functools.cache
def table1() -> Mapping[str, np.ndarray]:
    """[15, 3] by method: subsets and regions in the vocabulary's order."""
    tree = json.loads(Path(__file__).with_name("table1.json").read_text(encoding="utf-8"))
    return {method: np.array([regions[region] for region in REGIONS]).T for method, regions in tree.items()}
