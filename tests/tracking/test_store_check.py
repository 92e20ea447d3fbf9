"""A store that this MLflow cannot use is said before anything starts, with the command that mends it."""

from __future__ import annotations

import logging
import os
import shlex
import sqlite3
import stat
from contextlib import closing
from pathlib import Path

import pytest
from mlflow.store.db.utils import _get_latest_schema_revision

from acdis import tracking
from acdis.errors import UserError
from acdis.tracking import check_store

#: Of MLflow's first migrations.
OLD = "bd07f7e963c5"


def _store(folder: Path, schema: str) -> str:
    """The part of a store that says which MLflow made it."""
    with closing(sqlite3.connect(folder / "mlflow.db")) as base:
        base.execute("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL)")
        base.execute("INSERT INTO alembic_version VALUES (?)", (schema,))
        base.commit()
    return f"sqlite:///{folder}/mlflow.db"


@pytest.mark.parametrize("needed", [False, True])
def test_another_schema_is_one_line_with_the_command(tmp_path: Path, needed: bool) -> None:
    uri = _store(tmp_path, OLD)
    with pytest.raises(UserError) as caught:
        check_store(uri, needed)
    assert "older MLflow" in str(caught.value)
    *_, program, verb, word, named = shlex.split(str(caught.value))
    assert (os.path.basename(program), verb, word, named) == ("mlflow", "db", "upgrade", uri)
    assert "\n" not in str(caught.value)


def test_a_newer_store_is_not_to_be_upgraded(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"of a newer MLflow \(schema ffffffffffff.*install that one"
    ) as caught:
        check_store(_store(tmp_path, "ffffffffffff"))
    assert "upgrade" not in str(caught.value)


@pytest.mark.parametrize("content", [b"no store at all" * 100, b"SQLite format 3\0" + b"\xff" * 8000])
def test_a_damaged_store_is_one_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "mlflow.db").write_bytes(content)
    with pytest.raises(UserError, match=r"mlflow\.db cannot be used: .*move it away"):
        check_store(f"sqlite:///{tmp_path}/mlflow.db")


def test_what_may_come_back_or_is_not_there_yet_is_no_error(tmp_path: Path) -> None:
    away = "postgresql://me:secret@127.0.0.1:9/runs"
    for uri in (f"sqlite:///{tmp_path}/mlflow.db", "http://127.0.0.1:9", away, _store_of_today(tmp_path)):
        check_store(uri)
    with pytest.raises(
        UserError, match=r"the MLflow store postgresql://127\.0\.0\.1:9/runs cannot"
    ) as caught:
        check_store(away, needed=True)
    assert "secret" not in str(caught.value)


def _store_of_today(folder: Path) -> str:
    (folder / "today").mkdir()
    return _store(folder / "today", _get_latest_schema_revision())


def test_a_store_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").mkdir()
    with pytest.raises(UserError, match="cannot be used: unable to open database file"):
        check_store(f"sqlite:///{tmp_path}/mlflow.db", needed=True)
    (tmp_path / "file").touch(stat.S_IRUSR)
    with pytest.raises(UserError, match=r"file/mlflow.*File exists"):
        check_store(f"sqlite:///{tmp_path}/file/mlflow.db", needed=True)


def test_a_full_disk_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(uri: str) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(tracking, "open_store", full)
    with pytest.raises(UserError, match=r"mlflow\.db cannot be used: database or disk is full; mend that"):
        check_store(f"sqlite:///{tmp_path}/mlflow.db", needed=True)


def test_mlflow_says_no_traceback_for_what_it_raises(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It does both for a full disk; the one line is the journal's."""
    tracking.open_store(f"sqlite:///{tmp_path}/mlflow.db")
    log = logging.getLogger("mlflow.store.db.utils")
    try:
        raise sqlite3.OperationalError("database or disk is full")
    except sqlite3.OperationalError:
        log.exception("SQLAlchemy database error")
    assert not caplog.records
    log.propagate, before = True, log.propagate
    try:
        log.warning("a table is missing")
    finally:
        log.propagate = before
    assert "a table is missing" in caplog.text
