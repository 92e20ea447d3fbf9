"""One parent run per spec, one run per cell whatever shares it, orphans closed: on real stores."""

from __future__ import annotations

import errno
import json
import logging
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from acdis.files import UnwritableError
from acdis.tracking import open_store
from acdis.tracking.journal import JOURNAL, Journal, run_of, waiting
from acdis.tracking.runs import RunTracker
from acdis.tracking.specs import Link, SpecTracker, close_orphans, settle

FIRST = {"spec": "table2", "table": "table2", "row": "acct", "seed": 0}
SECOND = {"spec": "table3", "table": "table3", "row": "none", "seed": 0}

ABLATION = """
import os, sys
from pathlib import Path
from acdis.tracking.runs import RunTracker
from acdis.tracking.specs import SpecTracker
base, uri = Path(sys.argv[1]), sys.argv[2]
spec = SpecTracker(base, uri, "test", "table2")
spec.begin("Table 2", {"seeds": "0"}, {})
cell = RunTracker(base / "cells" / "acdis-1", uri, "test", "acdis-1", "acdis-1")
cell.log_roles([{"spec": "table2", "table": "table2", "row": "acct", "seed": 0}])
cell.log_epoch(1, {"train/loss": 1.0})
assert cell.drain(300) == spec.close(300) == 0
cell.log_epoch(2, {"train/loss": 0.5})
os.kill(os.getpid(), 9)
"""


def runs(uri: str) -> dict[str, Any]:
    """By name; a name that comes up twice fails."""
    client = open_store(uri)
    found = client.search_runs([client.get_experiment_by_name("test").experiment_id])
    named = {run.info.run_name: run for run in found}
    assert len(named) == len(found)
    return named


def train(base: Path, uri: str, cell: str, roles: Sequence[dict[str, Any]], epochs: int = 3) -> Path:
    """What a cell tells MLflow from its start to its end."""
    folder = base / "cells" / cell
    told = RunTracker(folder, uri, "test", cell, cell)
    told.log_roles(roles)
    for epoch in range(1, epochs + 1):
        told.log_epoch(epoch, {"train/loss": 1 / epoch})
    told.finish()
    assert told.close(300) == 0
    return folder


def link(folder: Path, role: dict[str, Any], roles: Sequence[dict[str, Any]], status: str = "done") -> Link:
    return Link(role["row"], f"label of {role['row']}", role["seed"], folder.name, folder, status, roles)


def start(base: Path, uri: str, spec: str, links: Sequence[Link], status: str = "FINISHED") -> str:
    """One `ablate` as the parent run sees it; returns the run's id."""
    tracker = SpecTracker(base, uri, "test", spec)
    tracker.begin(f"Title of {spec}", {"seeds": "0"}, {"acdis.git_commit": "abc"})
    tracker.cells(links)
    settle(links, uri, "test")
    tracker.cells(links)
    tracker.finish(status)
    assert tracker.close(300) == 0
    assert tracker.run_id
    return tracker.run_id


def test_a_colleagues_cell_that_cannot_be_written_is_left_alone(
    tmp_path: Path, uri: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "cells" / "theirs"
    folder.mkdir(parents=True)
    (folder / JOURNAL).write_text("{}\n")

    def theirs(*_: Any, **__: Any) -> None:
        raise UnwritableError(folder / JOURNAL, PermissionError(errno.EACCES, "Permission denied"))

    monkeypatch.setattr("acdis.tracking.specs.RunTracker", theirs)
    assert settle([link(folder, FIRST, [FIRST])], uri, "test") == 0
    assert f"{folder / JOURNAL}: cannot be written (Permission denied)" in caplog.text


def test_several_starts_are_one_parent_and_one_run_per_cell(tmp_path: Path, uri: str) -> None:
    parent = start(tmp_path, uri, "table2", [])
    for _ in range(2):
        folder = train(tmp_path, uri, "acdis-1", [FIRST])
        assert start(tmp_path, uri, "table2", [link(folder, FIRST, [FIRST])], "FAILED") == parent
    found = runs(uri)
    assert set(found) == {"table2", "acdis-1"}
    assert found["table2"].info.status == "FAILED"
    tags = found["acdis-1"].data.tags
    assert tags["mlflow.parentRunId"] == parent
    assert {key: tags[key] for key in ("row", "seed", "table", "acdis.roles")} == {
        "row": "acct",
        "seed": "0",
        "table": "table2",
        "acdis.roles": "table2/acct/0",
    }
    points = open_store(uri).get_metric_history(found["acdis-1"].info.run_id, "train/loss")
    assert [(point.step, point.value) for point in points] == [(1, 1.0), (2, 0.5), (3, 1 / 3)]


def test_a_shared_cell_is_linked_from_both_specs_and_runs_once(tmp_path: Path, uri: str) -> None:
    folder = train(tmp_path, uri, "acdis-1", [FIRST])
    first = start(tmp_path, uri, "table2", [link(folder, FIRST, [FIRST])])
    both = [FIRST, SECOND]
    second = start(tmp_path, uri, "table3", [link(folder, SECOND, both)])
    found = runs(uri)
    assert set(found) == {"table2", "table3", "acdis-1"}
    cell = found["acdis-1"]
    assert (cell.data.tags["mlflow.parentRunId"], cell.info.status) == (first, "FINISHED")
    assert cell.data.tags["acdis.roles"] == "table2/acct/0, table3/none/0"
    client = open_store(uri)
    tracked = client.search_runs([cell.info.experiment_id], "tags.`acdis.roles` LIKE '%table3/%'")
    assert [run.info.run_id for run in tracked] == [cell.info.run_id]
    listed = json.loads(Path(client.download_artifacts(second, "cells.json")).read_text())["cells"]
    assert [(entry["row"], entry["run_id"], entry["parent"]) for entry in listed] == [
        ("none", cell.info.run_id, "table2")
    ]
    table = Path(client.download_artifacts(second, "cells.md")).read_text()
    assert f"[{cell.info.run_id[:8]}](#/experiments/" in table
    assert "child of table2" in table
    tags = found["table3"].data.tags
    assert (tags["acdis.cells"], tags["acdis.cells.done"], tags["acdis.cells.shared"]) == (
        "1",
        "1",
        "acdis-1",
    )
    assert tags["mlflow.note.content"] == table
    assert found["table2"].data.tags["acdis.cells.shared"] == ""


def test_a_cell_of_train_becomes_a_child_when_a_spec_takes_it(tmp_path: Path, uri: str) -> None:
    folder = train(tmp_path, uri, "acdis-1", [])
    assert "mlflow.parentRunId" not in runs(uri)["acdis-1"].data.tags
    parent = start(tmp_path, uri, "table2", [link(folder, FIRST, [FIRST])])
    lines = len(Journal(folder).operations())
    assert start(tmp_path, uri, "table2", [link(folder, FIRST, [FIRST])]) == parent
    assert runs(uri)["acdis-1"].data.tags["mlflow.parentRunId"] == parent
    assert len(Journal(folder).operations()) == lines  # said once


def test_a_deleted_parent_is_made_again_with_its_children(tmp_path: Path, uri: str) -> None:
    folder = train(tmp_path, uri, "acdis-1", [FIRST])
    before = start(tmp_path, uri, "table2", [link(folder, FIRST, [FIRST])])
    open_store(uri).delete_run(before)
    after = start(tmp_path, uri, "table2", [link(folder, FIRST, [FIRST])])
    found = runs(uri)
    assert found["table2"].info.run_id == after != before
    # MLflow deletes no children with a parent through its client; the dashboard does
    assert found["acdis-1"].data.tags["mlflow.parentRunId"] == after


def test_a_long_list_stays_out_of_the_description(tmp_path: Path, uri: str) -> None:
    folder = tmp_path / "cells" / "acdis-1"
    many = [link(folder, FIRST | {"seed": seed}, [], "missing") for seed in range(300)]
    tracker = SpecTracker(tmp_path, uri, "test", "it's a spec")
    tracker.begin("Many", {}, {})
    tracker.cells(many)
    assert tracker.close(300) == 0
    assert "cells.md" in runs(uri)["it's a spec"].data.tags["mlflow.note.content"]
    assert len(json.loads((tracker.folder / "cells.json").read_text())["cells"]) == 300


def test_orphans_are_closed_and_busy_ones_stay(tmp_path: Path, uri: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", ABLATION, str(tmp_path), uri], capture_output=True, text=True
    )
    assert done.returncode == -9, done.stderr
    busy = RunTracker(tmp_path / "cells" / "acdis-2", uri, "test", "acdis-2", "acdis-2")
    elsewhere = RunTracker(tmp_path / "other" / "acdis-3", uri, "test", "acdis-3", "acdis-3")
    spec = SpecTracker(tmp_path, uri, "test", "table3")
    assert [told.drain(300) for told in (busy, elsewhere)] == [0, 0]
    assert spec._tracker.drain(300) == 0
    closed = close_orphans(tmp_path, uri, "test", lambda name: name == "acdis-2")
    assert sorted(closed) == ["acdis-1", "table2"]
    found = runs(uri)
    assert {name: run.info.status for name, run in found.items()} == {
        "table2": "KILLED",
        "acdis-1": "KILLED",
        "acdis-2": "RUNNING",
        "acdis-3": "RUNNING",
        "table3": "RUNNING",
    }
    assert found["acdis-1"].data.metrics["train/loss"] == 0.5  # what the killed one had not sent
    assert close_orphans(tmp_path, uri, "test", lambda name: name == "acdis-2") == []
    for told in (busy, elsewhere, spec):
        told.close(300)
    train(tmp_path, uri, "acdis-1", [FIRST])  # taken up again
    again = runs(uri)["acdis-1"]
    assert (again.info.status, again.info.run_id) == ("FINISHED", found["acdis-1"].info.run_id)


def test_a_run_that_ended_while_the_store_was_away_is_no_orphan(tmp_path: Path, uri: str) -> None:
    told = RunTracker(tmp_path / "cells" / "acdis-1", uri, "test", "acdis-1", "acdis-1")
    assert told.close(300) == 0
    Journal(tmp_path / "cells" / "acdis-1").append("status", status="FINISHED")
    assert close_orphans(tmp_path, uri, "test", lambda name: False) == ["acdis-1"]
    assert runs(uri)["acdis-1"].info.status == "FINISHED"


def test_without_a_store_there_is_nothing_to_close(tmp_path: Path) -> None:
    assert close_orphans(tmp_path, f"sqlite:///{tmp_path}/none/mlflow.db", "test", lambda name: False) == []
    assert not (tmp_path / "none").exists()


@pytest.mark.slow
def test_on_a_server_an_outage_stalls_nothing_and_loses_nothing(
    server: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "cells" / "acdis-1"
    done = subprocess.run(
        [sys.executable, "-c", ABLATION, str(tmp_path), server.uri], capture_output=True, text=True
    )
    assert done.returncode == -9, done.stderr
    server.kill()
    with caplog.at_level(logging.WARNING, logger="acdis"):
        begin = time.monotonic()
        assert close_orphans(tmp_path, server.uri, "test", lambda name: False, patience=5) == []
        tracker = SpecTracker(tmp_path, server.uri, "test", "table2")
        tracker.begin("Table 2", {"seeds": "0, 1"}, {})
        tracker.cells([link(folder, FIRST, [FIRST])])
        assert settle([link(folder, FIRST, [FIRST, SECOND])], server.uri, "test", patience=1) > 0
        tracker.finish()
        assert tracker.close(1) > 0
        assert time.monotonic() - begin < 100  # with room: left alone, it would ask for minutes
    assert "cannot be asked" in caplog.text
    server.start()
    assert settle([link(folder, FIRST, [FIRST, SECOND])], server.uri, "test", patience=300) == 0
    parent = start(tmp_path, server.uri, "table2", [link(folder, FIRST, [FIRST, SECOND])])
    assert close_orphans(tmp_path, server.uri, "test", lambda name: False, patience=300) == ["acdis-1"]
    found = runs(server.uri)
    assert set(found) == {"table2", "acdis-1"}
    assert {run.info.status for run in found.values()} == {"FINISHED", "KILLED"}
    assert found["table2"].info.run_id == parent == found["acdis-1"].data.tags["mlflow.parentRunId"]
    assert found["table2"].data.tags["acdis.seeds"] == "0"
    assert found["acdis-1"].data.tags["acdis.roles"] == "table2/acct/0, table3/none/0"
    points = open_store(server.uri).get_metric_history(found["acdis-1"].info.run_id, "train/loss")
    assert [point.step for point in points] == [1, 2]


def test_what_waits_is_counted_without_parsing(tmp_path: Path) -> None:
    assert (waiting(tmp_path), run_of(tmp_path)) == (0, None)
    journal = Journal(tmp_path)
    for step in range(5):
        journal.append("epoch", step=step, values={"loss": 1.0})
    assert waiting(tmp_path) == 5
    journal.mark(3, "abc")
    assert (waiting(tmp_path), run_of(tmp_path)) == (2, "abc")
    with (tmp_path / JOURNAL).open("a") as file:
        file.write('{"op": "torn')
    assert waiting(tmp_path) == 2
