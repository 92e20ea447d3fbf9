"""One cluster for the folder: three hosts, `ray up cluster.local.yaml`, and at the end `ray down`."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from launched import ROOT, Cluster
from world import World, missing

#: Seconds of training; a worker on each of two hosts, since each has two CPUs.
TINY = {
    "data": {
        "phantoms": {"cases": 4, "seed": 3, "shape": [32, 32, 32], "spacing": 5.0},
        "split": {"counts": [2, 1, 1], "seed": 0},
        "min_size": 16,
        "crop": [16, 16, 16],
        "lesion_crops": 0.6,
    },
    "method": {"options": {"base_width": 4, "levels": 3, "synthesis_start": 2}},
    "training": {"epochs": 3, "iterations": 4, "batch_size": 2, "learning_rate": 1e-3, "precision": "fp32"},
    "evaluation": {"window": [16, 16, 16], "stride": [16, 16, 16]},
}
ROWS = {
    "title": "Two rows",
    "base": "tiny.yaml",
    "seeds": [0],
    "baseline": "slow",
    "rows": {
        "slow": {"set": {"training.learning_rate": 5e-4}},
        "fast": {"set": {"training.learning_rate": 2e-3}},
    },
}


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """Up, with a head and two workers; skipped where no hosts can be made."""
    if missing():
        pytest.skip(missing())
    folder = Path(tempfile.mkdtemp(prefix="acdis-hosts-"))
    try:
        with World(folder, ["head", "one", "two"], visible=[ROOT, Path(sys.prefix)]) as world:
            made = Cluster(world)
            (world.shared / "tiny.yaml").write_text(yaml.safe_dump(TINY))
            (world.shared / "rows.yaml").write_text(yaml.safe_dump(ROWS))
            made.said_up = made.up()
            made.wait_for_nodes(3)
            yield made
    finally:
        shutil.rmtree(folder, ignore_errors=True)
