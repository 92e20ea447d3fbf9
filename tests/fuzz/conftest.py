"""What every file of the fuzz suite uses: the cage, seeded mutations, and a count of the inputs.

`ACDIS_SEED` chooses the mutations (0); one seed always makes the same inputs. `ACDIS_FUZZ` multiplies their
number.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.strategies import SearchStrategy

SEED = int(os.environ.get("ACDIS_SEED", "0"))
FACTOR = float(os.environ.get("ACDIS_FUZZ", "1"))
LEAST = 1000


def _beside(name: str) -> Any:
    """A module of this folder: tests are no package."""
    known = f"acdis_fuzz_{name}"
    if known not in sys.modules:
        spec = importlib.util.spec_from_file_location(known, Path(__file__).with_name(f"{name}.py"))
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[known] = module
        spec.loader.exec_module(module)
    return sys.modules[known]


cage = _beside("cage")
mutate = _beside("mutate")


class Ledger:
    """How many inputs each entrance has seen, and how they ended."""

    def __init__(self) -> None:
        self.seen: dict[str, Counter[str]] = {}

    def note(self, entrance: str, kind: str) -> None:
        self.seen.setdefault(entrance, Counter())[kind] += 1

    @property
    def total(self) -> int:
        return sum(sum(kinds.values()) for kinds in self.seen.values())

    def lines(self) -> Iterator[str]:
        for entrance, kinds in self.seen.items():
            ends = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
            yield f"{entrance}: {sum(kinds.values())} inputs ({ends})"
        yield f"all: {self.total} inputs, ACDIS_SEED={SEED}"


LEDGER = Ledger()


def pytest_terminal_summary(terminalreporter: Any) -> None:
    if LEDGER.seen:
        terminalreporter.section("fuzz")
        for line in LEDGER.lines():
            terminalreporter.write_line(line)


@pytest.fixture(scope="session")
def ledger() -> Ledger:
    return LEDGER


class FuzzedHome:
    """Folders for one entrance: `home` (ACDIS_HOME), `data`, and `outside`, where nothing may appear."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.home, self.data, self.outside = (base / name for name in ("home", "data", "outside"))
        for folder in (self.home, self.data, self.outside):
            folder.mkdir()

    def tries(self, entrance: str, action: Callable[[], object], names: Sequence[str] = ()) -> str:
        """Run `action` in the cage, count it, and fail the test unless it is refused or sound; says which."""
        allowed = (self.home,)
        before = cage.listing(self.base, (self.home,))
        outcome = cage.run(action, allowed, names)
        LEDGER.note(entrance, outcome.kind)
        assert outcome.kind != "wrong", f"{outcome.words}\n--- printed:\n{outcome.printed[-1500:]}"
        assert cage.listing(self.base, (self.home,)) == before, "files outside of the home were changed"
        return str(outcome.kind)


@pytest.fixture
def room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FuzzedHome:
    made = FuzzedHome(tmp_path)
    monkeypatch.setenv("ACDIS_HOME", str(made.home))
    monkeypatch.chdir(made.outside)
    return made


def _fuzz(strategy: SearchStrategy[Any], inputs: int, attempt: Callable[[Any], object]) -> None:
    """Give `attempt` so many inputs; the first that fails is what the test shows."""

    @seed(SEED)
    @settings(
        max_examples=max(1, round(inputs * FACTOR)),
        database=None,
        deadline=None,
        phases=(Phase.generate,),  # inputs are small as they are, and shrinking takes minutes
        suppress_health_check=list(HealthCheck),
        print_blob=False,
    )
    @given(strategy)
    def each(one: Any) -> None:
        attempt(one)

    each()


@pytest.fixture(scope="session")
def fuzz() -> Callable[[SearchStrategy[Any], int, Callable[[Any], object]], None]:
    return _fuzz


@pytest.fixture(scope="session")
def mutations() -> Any:
    """The module `mutate.py`."""
    return mutate


@pytest.fixture(scope="session")
def long_names() -> bytes:
    """Scores in ten kilobytes: one name of 50 kB, to which 90,000 rows refer. Written out they take 9 GB."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    from acdis.evaluation.records import _schema

    rows, names = 90_000, pa.dictionary(pa.int32(), pa.string())
    schema = _schema()
    packed = pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, np.int32)), pa.array(["x" * 50_000]))
    columns = [
        packed if field.type == pa.string() else pa.array(np.zeros(rows), type=field.type) for field in schema
    ]
    fields = [field.with_type(names) if field.type == pa.string() else field for field in schema]
    stream = pa.BufferOutputStream()
    table = pa.Table.from_arrays(columns, schema=pa.schema(fields))
    pq.write_table(table, stream, write_page_checksum=True, store_schema=False)
    return stream.getvalue().to_pybytes()
