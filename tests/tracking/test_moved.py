"""A home that was moved or copied: artifacts are found where it is now, nothing is written where it was."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import tempfile
from pathlib import Path

import pytest

from acdis.tracking import default_uri, moved, open_store
from acdis.tracking.runs import RunTracker


def _as_another_process() -> None:
    """MLflow remembers by the run's id, in one process, where its artifacts lie."""
    from mlflow.tracking._tracking_service import utils

    utils._artifact_repos_cache.clear()


def _log(home: Path, name: str) -> str:
    """One more artifact of the home's run; the run."""
    folder = home / "cells" / "acdis-1"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(name)
    _as_another_process()
    tracker = RunTracker(folder, default_uri(home), "test", "acdis-1", "first", running=False)
    tracker.log_artifact(folder / name)
    assert tracker.close(300) == 0
    assert tracker.skipped == 0
    return str(tracker.run_id)


def _listed(home: Path, run: str) -> list[str]:
    _as_another_process()
    client = open_store(default_uri(home))
    return sorted(item.path for item in client.list_artifacts(run))


@pytest.fixture
def first(tmp_path: Path) -> Path:
    home = tmp_path / "altes Büro" / "home 100%"
    home.mkdir(parents=True)
    _log(home, "a.txt")
    return home


@pytest.mark.parametrize("copied", [False, True], ids=["moved", "copied"])
def test_artifacts_follow_the_home(first: Path, tmp_path: Path, copied: bool) -> None:
    before = _files(first)
    second = tmp_path / "neu'es Büro" / "home"
    second.parent.mkdir()
    if copied:
        shutil.copytree(first, second)
    else:
        shutil.move(first, second)
    run = _log(second, "b.txt")
    assert _listed(second, run) == ["a.txt", "b.txt"]
    assert (second / "mlartifacts" / run / "artifacts" / "b.txt").read_text() == "b.txt"
    assert _files(first) == (before if copied else set())
    with sqlite3.connect(second / "mlflow.db") as database:
        everything = "\n".join(database.iterdump())
    assert first.as_uri() not in everything
    if copied:
        assert _listed(first, run) == ["a.txt"]


def test_nothing_is_kept_in_the_working_folder(first: Path) -> None:
    """MLflow's first experiment, which it makes itself, had its artifacts there."""
    locations = {each.artifact_location for each in open_store(default_uri(first)).search_experiments()}
    assert locations == {(first / "mlartifacts").as_uri()}


def test_a_folder_that_somebody_has_chosen_stays(tmp_path: Path) -> None:
    chosen, store = tmp_path / "disk" / "mlartifacts", tmp_path / "db" / "mlflow.db"
    chosen.mkdir(parents=True)
    store.parent.mkdir()
    with sqlite3.connect(store) as database:
        database.execute("CREATE TABLE experiments (artifact_location TEXT)")
        database.executemany(
            "INSERT INTO experiments VALUES (?)",
            [(chosen.as_uri(),), ("mlflow-artifacts:/1",), ("s3://b/mlartifacts",)],
        )
    assert not moved.rewrite(store)
    shutil.rmtree(chosen)
    assert moved.rewrite(store)
    with sqlite3.connect(store) as database:
        found = [row[0] for row in database.execute("SELECT * FROM experiments")]
    assert found == [(store.parent / "mlartifacts").as_uri(), "mlflow-artifacts:/1", "s3://b/mlartifacts"]


def test_what_is_read_only_is_copied_to_be_looked_at(first: Path, tmp_path: Path) -> None:
    second = tmp_path / "mounted"
    shutil.move(first, second)
    before = _contents(second)
    with moved.readable(second / "mlflow.db", second / "mlartifacts") as copy:
        client = open_store(f"sqlite:///{copy}")
        (run,) = client.search_runs([client.get_experiment_by_name("test").experiment_id])
        assert [item.path for item in client.list_artifacts(run.info.run_id)] == ["a.txt"]
        client.set_tag(run.info.run_id, "note", "of somebody who only looks")
    assert not copy.parent.exists()
    assert _contents(second) == before


def test_the_copy_of_a_process_that_was_killed_is_removed_by_the_next(
    first: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    child = os.fork()
    if not child:
        with moved.readable(first / "mlflow.db", first / "mlartifacts"):
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    (left,) = folder.iterdir()
    assert (left / "mlflow.db").exists()
    with moved.readable(first / "mlflow.db", first / "mlartifacts") as copy:
        assert list(folder.iterdir()) == [copy.parent]
        with moved.readable(first / "mlflow.db", first / "mlartifacts"):
            assert copy.exists()  # of a process that lives
    assert list(folder.iterdir()) == []


def _files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def _contents(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in _files(folder)}
