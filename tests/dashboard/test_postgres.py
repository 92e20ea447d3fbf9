"""The same pages from a PostgreSQL store, where Debian's server is installed; one is started for that."""

from __future__ import annotations

import json
import os
import pwd
import re
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from acdis.dashboard import runs, summaries
from acdis.dashboard.store import MlflowStore, StoreAwayError

pytestmark = pytest.mark.slow


def _programs() -> Path:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    on_path = shutil.which("initdb")
    if not found and not on_path:
        pytest.skip("no PostgreSQL on this machine: apt-get install postgresql")
    pytest.importorskip("psycopg", reason="psycopg is not installed")
    return found[-1].parent if found else Path(str(on_path)).parent


@pytest.fixture(scope="module")
def database() -> Iterator[str]:
    """A server of its own on loopback; PostgreSQL will not run as root: Debian's user runs it then."""
    programs = _programs()
    user = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
    folder = Path(tempfile.mkdtemp(prefix="acdis-pg-"))  # short, for its socket
    if user:
        os.chown(folder, pwd.getpwnam("postgres").pw_uid, -1)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    def call(*words: str) -> None:
        done = subprocess.run([*user, *words], capture_output=True, text=True, cwd="/", timeout=600)
        assert done.returncode == 0, done.stdout + done.stderr

    data = str(folder / "data")
    control = [str(programs / "pg_ctl"), "-D", data, "-w", "-l", str(folder / "log")]
    try:
        call(str(programs / "initdb"), "-D", data, "-U", "acdis", "-A", "trust", "--no-sync", "-E", "UTF8")
        call(*control, "-o", f"-p {port} -h 127.0.0.1 -k {folder} -F", "start")
        try:
            yield f"postgresql+psycopg://acdis@127.0.0.1:{port}/postgres"
        finally:
            call(*control, "-m", "immediate", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def there(lab: Any, database: str) -> str:
    """MLflow's tables in PostgreSQL, and the lab's runs copied into them."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
    from sqlalchemy import MetaData, create_engine, insert, select

    SqlAlchemyStore(database, "file:///tmp/nowhere")
    ours, theirs = create_engine(lab.uri), create_engine(database)
    tables = MetaData()
    names = ["experiments", "runs", "tags", "params", "latest_metrics", "metrics"]
    tables.reflect(ours, only=names)
    target = MetaData()
    target.reflect(theirs, only=names)
    with ours.connect() as source, theirs.begin() as sink:
        sink.execute(target.tables["experiments"].delete())
        for name in names:
            found = [dict(row) for row in source.execute(select(tables.tables[name])).mappings()]
            if found:
                sink.execute(insert(target.tables[name]), found)
    ours.dispose()
    theirs.dispose()
    return database


def test_runs_and_scores_are_those_of_sqlite(there: str, lab: Any) -> None:
    one, two = MlflowStore(lab.uri), MlflowStore(there)
    assert runs.cells(two) == runs.cells(one)
    assert runs.specs(two) == runs.specs(one)
    first, second = summaries.of_runs(one), summaries.of_runs(two)
    assert first.keys() == second.keys()
    for run, scores in first.items():
        assert (second[run].dice == scores.dice).all()
        assert (second[run].dice_et500 == scores.dice_et500).all()


@pytest.mark.parametrize("elsewhere", [False, True], ids=["cells here", "trained elsewhere"])
def test_pages_are_those_of_sqlite(there: str, lab: Any, tmp_path: Path, elsewhere: bool) -> None:
    place: dict[str, Any] = {"base": tmp_path, "specs": ()} if elsewhere else {}
    one, two = lab.client(**place), lab.client(uri=there, **place)
    cell, other = lab.cell("fast", 0).name, lab.cell("slow", 1).name
    for address in (
        "",
        "table?spec=small",
        "subsets?spec=small&row=fast&against=slow",
        "cases?spec=small&y=fast",
        "curves?spec=small",
        f"run?cell={cell}&against={other}&spec=small",
    ):
        answer = two.get(f"/acdis/{address}")
        assert answer.status_code == 200
        assert answer.text == one.get(f"/acdis/{address}").text


def test_curves_are_read_from_it(there: str, lab: Any, tmp_path: Path) -> None:
    """The last value of an epoch that was sent twice; NaN is none."""
    from sqlalchemy import create_engine, text

    run = runs.cells(MlflowStore(there))[lab.cell("fast", 0).name].id
    columns = "key, value, timestamp, run_uuid, step, is_nan"
    line = text(f"INSERT INTO metrics ({columns}) VALUES ('train/loss', :value, :at, :run, :step, :nan)")
    engine = create_engine(there)
    with engine.begin() as connection:
        for at, (step, value) in enumerate([(1, 5.0), (1, 2.0), (2, 1.0), (3, 0.5)]):
            connection.execute(line, {"value": value, "at": at, "run": run, "step": step, "nan": step == 3})
    try:
        page = lab.client(base=tmp_path, uri=there, specs=()).get("/acdis/curves?spec=small&row=fast").text
    finally:
        with engine.begin() as connection:
            connection.execute(text("DELETE FROM metrics WHERE key = 'train/loss'"))
        engine.dispose()
    (chart,) = json.loads(re.search(r'id="data">(.*?)</script>', page, re.S)[1])  # type: ignore[index]
    assert [curve["mean"] for curve in chart["curves"]] == [[2.0, 1.0]]


def test_it_is_read_only(there: str) -> None:
    store = MlflowStore(there)
    with pytest.raises(StoreAwayError):
        store.rows("DELETE FROM tags")
    assert store.rows("SELECT count(*) FROM tags")[0][0] > 0


def test_a_change_is_seen(there: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from sqlalchemy import create_engine, text

    monkeypatch.setattr("acdis.dashboard.store.LONGEST", 10**9)

    store = MlflowStore(there)
    before = runs.cells(store)
    gone = next(iter(before.values())).id
    assert runs.cells(store) is before  # kept
    engine = create_engine(there)
    change = text("UPDATE runs SET lifecycle_stage = :stage WHERE run_uuid = :run")
    with engine.begin() as connection:
        connection.execute(change, {"stage": "deleted", "run": gone})
    assert gone not in {run.id for run in runs.cells(store).values()}
    with engine.begin() as connection:
        connection.execute(change, {"stage": "active", "run": gone})
    engine.dispose()
