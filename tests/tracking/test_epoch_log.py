"""A worker writes epochs to the journal; the driver, in another process, sends them while it trains."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from acdis.tracking import chosen_uri
from acdis.tracking.epoch_log import EpochLog
from acdis.tracking.journal import Journal
from acdis.tracking.runs import RunTracker, open_store

_WORKER = """
import sys
from pathlib import Path
from acdis.tracking.epoch_log import EpochLog
log = EpochLog(Path(sys.argv[1]))
for epoch in (1, 2, 2, 3):
    log.log_epoch(epoch, {"train/loss": 1.0 / epoch})
print([name for name in ("mlflow", "requests") if name in sys.modules])
"""


def test_the_driver_sends_what_a_worker_writes_meanwhile(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    tracker = RunTracker(tmp_path / "cell", uri, "tests", "acdis-1", "acdis-1")
    assert tracker.drain(60) == 0
    done = subprocess.run(
        [sys.executable, "-c", _WORKER, str(tmp_path / "cell")], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
    client, deadline = open_store(uri), time.monotonic() + 20
    while len(client.get_metric_history(tracker.run_id, "train/loss")) < 3:  # nobody told the tracker
        assert time.monotonic() < deadline, "the epochs did not come to the server while the tracker was open"
        time.sleep(0.1)
    points = client.get_metric_history(tracker.run_id, "train/loss")
    assert [(point.step, point.value) for point in points] == [(1, 1.0), (2, 0.5), (3, 1 / 3)]
    assert tracker.close() == 0


def test_a_restarted_worker_tells_no_epoch_twice(tmp_path: Path) -> None:
    EpochLog(tmp_path).log_epoch(1, {"train/loss": 2.0})
    again = EpochLog(tmp_path)
    again.log_epoch(1, {"train/loss": 3.0})
    again.log_epoch(2, {"train/loss": float("nan")})
    told = [(line["step"], line["values"]["train/loss"]) for line in Journal(tmp_path).operations()]
    assert told == [(1, 2.0), (2, "nan")]


def test_mlflows_own_variable_names_the_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert chosen_uri(None, tmp_path) == f"sqlite:///{tmp_path.resolve()}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:5000")
    assert chosen_uri(None, tmp_path) == "http://127.0.0.1:5000"
    assert chosen_uri("http://other", tmp_path) == "http://other"
