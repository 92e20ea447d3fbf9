"""One cell, one run, on real SQLite stores: kills, restarts, refusals, several processes."""

import json
import logging
import math
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from acdis.errors import UserError
from acdis.tracking import public
from acdis.tracking.journal import JOURNAL, SENT
from acdis.tracking.runs import RunTracker, check_uri, default_uri, open_store

VALUES = {f"loss/term_{i}": i / 7 for i in range(30)}

KILLED = """
import os, sys
from pathlib import Path
from acdis.tracking.runs import RunTracker
folder = Path(sys.argv[1])
tracker = RunTracker(folder, sys.argv[2], "test", "acdis-1", "first")
tracker.log_params({"seed": "0"})
for epoch in range(5):
    tracker.log_epoch(epoch, {"loss": 1 / (epoch + 1)})
assert tracker.drain(300) == 0
tracker.log_epoch(5, {"loss": 0.1})
with open(folder / "tracking.jsonl", "a") as file:
    file.write('{"op": "epoch", "time": 17')
os.kill(os.getpid(), 9)
"""

ONE_OF_SEVERAL = """
import sys
from pathlib import Path
from acdis.tracking.runs import RunTracker
tracker = RunTracker(Path(sys.argv[1]), sys.argv[2], "test", "acdis-1", "first")
tracker.log_epoch(int(sys.argv[3]), {"loss": 1.0})
print(tracker.close(300))
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "cell"


def tracker(folder: Path, uri: str, **options: Any) -> RunTracker:
    return RunTracker(folder, uri, "test", "acdis-1", "first", **options)


def runs(uri: str, deleted: bool = True) -> list[Any]:
    """The experiment's runs, deleted ones included: one made too many would stay among those."""
    client = open_store(uri)
    view = 3 if deleted else 1  # MLflow's ViewType
    return list(client.search_runs([client.get_experiment_by_name("test").experiment_id], run_view_type=view))


def history(uri: str, run: str, key: str) -> list[tuple[int, float]]:
    return [(point.step, point.value) for point in open_store(uri).get_metric_history(run, key)]


def test_everything_arrives(folder: Path, uri: str) -> None:
    told = tracker(folder, uri)
    told.log_params({"method": "acdis", "long": "x" * 7000, **{f"p{i}": str(i) for i in range(250)}})
    told.log_tags({"acdis.data_fingerprint": "f" * 64, "note": "first"})
    told.log_tags({"note": "second"})
    for epoch in range(3):
        told.log_epoch(epoch, {"loss": 1.0 - epoch / 10})
    told.log_metrics({"dice/ET/FLAIR": 0.5, "hd95/ET/FLAIR": math.nan, "hd95/ET/T1": math.inf})
    told.log_metrics({f"m{i}": float(i) for i in range(1500)})
    (folder / "reports").mkdir()
    (folder / "reports" / "table.md").write_text("| table |")
    told.log_artifact(folder / "reports" / "table.md", "evaluation")
    told.finish()
    assert told.close(300) == 0
    (run,) = runs(uri)
    assert run.info.run_id == told.run_id
    assert (run.info.status, run.info.run_name) == ("FINISHED", "first")
    times = [json.loads(line)["time"] for line in (folder / JOURNAL).read_text().splitlines()]
    assert (run.info.start_time, run.info.end_time) == (times[0], times[-1])
    assert len(run.data.params) == 252
    assert run.data.params["long"] == "x" * 5999 + "…"
    assert {key: run.data.tags[key] for key in ("acdis.cell", "note")} == {
        "acdis.cell": "acdis-1",
        "note": "second",
    }
    assert history(uri, run.info.run_id, "loss") == [(0, 1.0), (1, 0.9), (2, 0.8)]
    assert run.data.metrics["dice/ET/FLAIR"] == 0.5
    assert math.isnan(run.data.metrics["hd95/ET/FLAIR"])
    assert run.data.metrics["hd95/ET/T1"] > 1e308
    assert run.data.metrics["m1499"] == 1499
    kept = folder.parent / "home with space" / "mlartifacts" / run.info.run_id / "artifacts" / "evaluation"
    assert (kept / "table.md").read_text() == "| table |"
    assert told.skipped == 0
    assert "mlflow.db" in told.hint()


def test_killed_and_started_again_continues_the_same_run(folder: Path, uri: str) -> None:
    killed = subprocess.run([sys.executable, "-c", KILLED, str(folder), uri], capture_output=True, text=True)
    assert killed.returncode == -9, killed.stderr
    assert not (folder / JOURNAL).read_bytes().endswith(b"\n")
    again = tracker(folder, uri)
    again.log_params({"seed": "0"})
    for epoch in range(8):
        again.log_epoch(epoch, {"loss": 1 / (epoch + 1)})
    assert again.drain(300) == 0
    (run,) = runs(uri)
    assert run.info.status == "RUNNING"
    again.finish()
    assert again.close(300) == 0
    (run,) = runs(uri)
    assert run.info.status == "FINISHED"
    expected = {epoch: 1 / (epoch + 1) for epoch in range(8)} | {5: 0.1}
    assert history(uri, run.info.run_id, "loss") == sorted(expected.items())


def test_sent_but_not_marked_is_sent_again_without_trace(folder: Path, uri: str) -> None:
    told = tracker(folder, uri)
    told.log_params({"seed": "0"})
    told.log_epoch(0, {"loss": 0.5, "empty": math.nan})
    told.log_metrics({"dice/ET/mean": 0.25})
    told.finish("FAILED")
    assert told.close(300) == 0
    (folder / SENT).unlink()
    again = tracker(folder, uri, running=False)
    assert again.close(300) == 0
    (run,) = runs(uri)
    assert run.info.status == "FAILED"
    assert history(uri, run.info.run_id, "loss") == [(0, 0.5)]
    assert len(history(uri, run.info.run_id, "empty")) == 1
    assert history(uri, run.info.run_id, "dice/ET/mean") == [(0, 0.25)]


def test_scores_told_again_are_written_once(folder: Path, uri: str) -> None:
    for values in ({"a": 0.5, "b": math.nan}, {"a": 0.5, "b": math.nan}, {"a": 0.75, "b": math.nan}):
        told = tracker(folder, uri, running=False)
        told.log_metrics(values)
        assert told.close(300) == 0
    (run,) = runs(uri)
    assert history(uri, run.info.run_id, "a") == [(0, 0.5), (0, 0.75)]
    assert run.data.metrics["a"] == 0.75
    assert len(history(uri, run.info.run_id, "b")) == 1


def test_data_are_inputs_of_the_run_once(folder: Path, uri: str) -> None:
    told = tracker(folder, uri)
    for _ in range(2):
        told.log_data("training", "a" * 64, 10)
        told.log_data("testing", "b" * 64, 6)
    assert told.close(30) == 0
    (folder / SENT).unlink()  # sent, but not marked as such
    again = tracker(folder, uri)
    again.log_data("training", "a" * 64, 10)
    assert again.close(30) == 0
    assert again.skipped == 0
    assert (folder / JOURNAL).read_text().count('"op": "data"') == 2
    (run,) = runs(uri)
    found = {
        each.dataset.name: (each.dataset.digest, json.loads(each.dataset.profile), each.tags[0].value)
        for each in run.inputs.dataset_inputs
    }
    assert found == {
        "training": ("a" * 36, {"cases": 10}, "training"),
        "testing": ("b" * 36, {"cases": 6}, "testing"),
    }
    assert len(run.inputs.dataset_inputs) == 2


def test_a_changed_param_keeps_its_first_value(
    folder: Path, uri: str, caplog: pytest.LogCaptureFixture
) -> None:
    for workers in ("1", "2"):
        told = tracker(folder, uri)
        told.log_params({"scaling.workers": workers})
        assert told.close(300) == 0
    assert runs(uri)[0].data.params == {"scaling.workers": "1"}
    assert "scaling.workers stays 1" in caplog.text


def test_what_is_refused_does_not_block_the_rest(
    folder: Path, uri: str, caplog: pytest.LogCaptureFixture
) -> None:
    told = tracker(folder, uri)
    for epoch in range(3):
        told.log_epoch(epoch, {"bad+name": 1.0, "loss": float(epoch)})
    (folder / "gone.md").write_text("")
    told.log_artifact(folder / "gone.md")
    (folder / "gone.md").unlink()
    told.log_tags({"after": "yes"})
    assert told.close(300) == 0
    (run,) = runs(uri)
    assert len(history(uri, run.info.run_id, "loss")) == 3
    assert run.data.tags["after"] == "yes"
    assert told.skipped in (3, 4)  # the file may have been sent before it went
    assert caplog.text.count("bad+name' is not taken") == 1


def test_a_deleted_run_is_filled_again_from_the_journal(folder: Path, uri: str) -> None:
    told = tracker(folder, uri)
    told.log_epoch(0, {"loss": 0.5})
    assert told.drain(300) == 0
    first = told.run_id
    open_store(uri).delete_run(first)
    told.log_epoch(1, {"loss": 0.25})
    assert told.close(300) == 0
    (run,) = runs(uri, deleted=False)
    assert run.info.run_id == told.run_id != first
    assert history(uri, run.info.run_id, "loss") == [(0, 0.5), (1, 0.25)]


def test_an_epoch_costs_the_training_less_than_50_ms(folder: Path, uri: str) -> None:
    told = tracker(folder, uri)
    seconds = 0.0
    for epoch in range(20):
        start = time.thread_time()
        told.log_epoch(epoch, VALUES)
        seconds += (time.thread_time() - start) / 20
        time.sleep(0.05)  # so that sending goes on meanwhile, its import of MLflow included
    assert told.close(300) == 0
    assert seconds < 0.05
    print(f"log_epoch: {seconds * 1000:.2f} ms")


def test_several_processes_make_store_and_run_at_once(tmp_path: Path) -> None:
    uri = default_uri(tmp_path / "new")
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "mlflow.db.new-1-1").write_text("left by a process that was killed")
    started = [
        subprocess.Popen(
            [sys.executable, "-c", ONE_OF_SEVERAL, str(tmp_path / str(i)), uri, str(i)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for i in range(2)
    ]
    said = [process.communicate(timeout=600) for process in started]
    assert [out for out, _ in said] == ["0\n"] * 2  # nothing left
    noise = [line for _, err in said for line in err.splitlines()]  # of migrations, say
    # On a busy machine one waits longer than it takes to hear who is at it.
    assert [line for line in noise if not line.startswith("waiting for ")] == []
    (run,) = runs(uri)
    assert sorted(history(uri, run.info.run_id, "loss")) == [(0, 1.0), (1, 1.0)]
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["mlflow.db", "mlflow.db.lock"]


def test_nothing_to_send_asks_nobody(folder: Path, tmp_path: Path) -> None:
    told = tracker(folder, default_uri(tmp_path / "nowhere"), running=False)
    assert told.close(1) == 0
    assert told.run_id is None
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize(
    "uri", ["runs/mlflow.db", "sqlite:///mlflow.db", "sqlite://", "file:///tmp/x", "ftp://u:secret@h"]
)
def test_unusable_addresses_are_refused_at_once(uri: str) -> None:
    with pytest.raises(UserError, match=r"tracking\.uri") as caught:
        check_uri(uri)
    assert "secret" not in str(caught.value)


def test_passwords_are_not_shown() -> None:
    assert public("http://me:secret@host:5000/x") == "http://host:5000/x"
    assert public("http://host:5000") == "http://host:5000"


def test_wrong_use_is_an_error_at_once(folder: Path, uri: str, tmp_path: Path) -> None:
    told = tracker(folder, uri)
    with pytest.raises(ValueError, match="RUNNING"):
        told.finish("RUNNING")
    with pytest.raises(ValueError, match="other"):
        told.log_artifact(tmp_path / "other.md")
    told.close(300)


@pytest.fixture(autouse=True)
def _warnings_seen(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    with caplog.at_level(logging.INFO, logger="acdis"):
        yield
