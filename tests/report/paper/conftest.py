"""A phantom, prepared, and small methods with weights as initialised."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from acdis import config, methods
from acdis.config import Experiment
from acdis.data import cache, cases, phantom
from acdis.data.prepared_case import Entry

TREE: dict[str, Any] = {
    "data": {"min_size": 16, "crop": [16, 16, 16]},
    "evaluation": {"window": [16, 16, 16], "stride": [8, 8, 8], "hd95": False},
    "training": {"precision": "fp32"},
}
SMALL = {"base_width": 4, "levels": 2}


@pytest.fixture(scope="session")
def experiment() -> Callable[..., Experiment]:
    """`experiment("rfnet", base_width=8)`."""

    def build(name: str = "acdis", **options: Any) -> Experiment:
        return methods.resolve(
            config.parse({**TREE, "method": {"name": name, "options": {**SMALL, **options}}}, "test")
        )

    return build


@pytest.fixture(scope="session")
def entry(tmp_path_factory: pytest.TempPathFactory, experiment: Callable[..., Experiment]) -> Entry:
    """A phantom of 24³ voxels at 6 mm, with a tumour."""
    folder = tmp_path_factory.mktemp("paper")
    phantom.write(folder / "cases", 1, 0, (24, 24, 24), 6.0)
    found = cases.find(folder / "cases").cases
    (prepared,) = cache.prepare(found, experiment().data, folder / "cache", 1).values()
    assert (np.asarray(prepared.labels()) > 0).any()
    return prepared
