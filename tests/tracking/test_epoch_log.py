"""A worker writes epochs to the journal; the driver, in another process, sends them while it trains."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from acdis.tracking import chosen_uri
from acdis.tracking.epoch_log import EpochLog
from acdis.tracking.journal import EPOCHS, JOURNAL, Journal, epochs_of, waiting
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
    assert tracker.drain(300) == 0
    done = subprocess.run(
        [sys.executable, "-c", _WORKER, str(tmp_path / "cell")], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
    client, deadline = open_store(uri), time.monotonic() + 300
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


def _told(folder: Path) -> list[tuple[int, str]]:
    lines = [line for line in Journal(folder).operations() if line["op"] == "epoch"]
    return [(line["step"], line["values"]["train/loss"]) for line in lines]


def test_worker_and_driver_each_write_a_file_of_their_own(tmp_path: Path) -> None:
    """On storage that hosts share, two that append to one file overwrite each other's lines."""
    driver = Journal(tmp_path)
    driver.append("tags", values={"a": "b"})
    before = (tmp_path / JOURNAL).read_bytes()
    worker = EpochLog(tmp_path)
    for epoch in (1, 2):
        worker.log_epoch(epoch, {"train/loss": 1.0})
    assert (tmp_path / JOURNAL).read_bytes() == before
    assert waiting(tmp_path) == 3
    assert driver.unsent() == 3
    assert waiting(tmp_path) == 3
    worker.log_epoch(3, {"train/loss": 1.0})
    assert [line.get("step") for line in driver.operations()] == [None, 1, 2, 3]
    times = [json.loads(line)["time"] for line in (tmp_path / EPOCHS).read_text().splitlines()]
    assert [line["time"] for line in driver.operations(1)] == times
    assert _told(tmp_path) == [(1, 1.0), (2, 1.0), (3, 1.0)]


def test_epochs_of_a_file_that_was_cut_at_any_byte(tmp_path: Path) -> None:
    worker = EpochLog(tmp_path)
    for epoch in (1, 2, 3):
        worker.log_epoch(epoch, {"train/loss": 1.0})
    whole = (tmp_path / EPOCHS).read_bytes()
    ends = [place + 1 for place, byte in enumerate(whole) if byte == ord("\n")]
    for size in range(0, len(whole), 7):
        (tmp_path / EPOCHS).write_bytes(whole[:size])
        assert list(epochs_of(tmp_path)) == [1, 2, 3][: sum(end <= size for end in ends)]
        again = EpochLog(tmp_path)
        again.log_epoch(3, {"train/loss": 1.0})
        assert 3 in epochs_of(tmp_path)


def test_a_worker_goes_on_where_an_older_version_wrote_into_the_journal(tmp_path: Path) -> None:
    Journal(tmp_path).append("epoch", step=1, values={"train/loss": 5.0})
    worker = EpochLog(tmp_path)
    worker.log_epoch(1, {"train/loss": 6.0})
    worker.log_epoch(2, {"train/loss": 7.0})
    assert _told(tmp_path) == [(1, 5.0), (2, 7.0)]
    assert epochs_of(tmp_path) == {1: {"train/loss": 5.0}, 2: {"train/loss": 7.0}}


def test_mlflows_own_variable_names_the_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert chosen_uri(None, tmp_path) == f"sqlite:///{tmp_path.resolve()}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:5000")
    assert chosen_uri(None, tmp_path) == "http://127.0.0.1:5000"
    assert chosen_uri("http://other", tmp_path) == "http://other"
