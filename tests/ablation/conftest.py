"""Small spec files, and cases that exist on paper only."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from acdis.ablation.spec import Spec, load
from acdis.data.inputs import Inputs
from acdis.data.prepared_case import Entry
from acdis.data.preprocess import Box, Meta

BASE = """\
data:
  min_size: 64
  crop: [32, 32, 32]
method:
  options: {base_width: 8, afeb_tokens: 4}
training: {epochs: 5, iterations: 2, precision: fp32}
evaluation: {window: [32, 32, 32], stride: [32, 32, 32]}
"""


def _entry(name: str) -> Entry:
    side = (8, 8, 8)
    meta = Meta(
        Box((0, 0, 0), side), side, (1.0, 1.0, 1.0), side, (1.0, 1.0, 1.0), ((1.0, 0.0, 0.0, 0.0),) * 4
    )
    return Entry(name, Path("nowhere") / name, "ab" * 32, meta)


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Writes a file (and `base.yaml` beside it); returns its path."""
    (tmp_path / "base.yaml").write_text(BASE)

    def written(text: str, name: str = "own.yaml") -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    return written


@pytest.fixture(scope="session")
def tables(checkout: Path) -> dict[str, Spec]:
    """The paper's tables as they stand in the checkout."""
    return {name: load(checkout / "ablations" / f"{name}.yaml") for name in ("table2", "table3", "grid")}


@pytest.fixture(scope="session")
def inputs() -> Inputs:
    """Three cases to train on, one to validate, two to test: prepared nowhere."""
    return Inputs((_entry("a"), _entry("b"), _entry("c")), (_entry("d"),), (_entry("e"), _entry("f")))
