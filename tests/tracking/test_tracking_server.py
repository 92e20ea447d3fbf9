"""A real `mlflow server` on a free loopback port: away, back, refusing, raced."""

import logging
import math
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from acdis.tracking.runs import RunTracker, open_store

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def _noted(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    with caplog.at_level(logging.INFO, logger="acdis"):
        yield


def runs(server: Any, experiment: str) -> list[Any]:
    client = open_store(server.uri)
    return list(client.search_runs([client.get_experiment_by_name(experiment).experiment_id]))


def history(server: Any, run: str, key: str) -> list[tuple[int, float]]:
    return [(point.step, point.value) for point in open_store(server.uri).get_metric_history(run, key)]


def test_refusals_nan_and_repetition(server: Any, tmp_path: Path) -> None:
    told = RunTracker(tmp_path, server.uri, "refusals", "acdis-1", "first")
    told.log_params({f"p{i}": "ä" * 7000 for i in range(150)})  # far above the size of one request
    told.log_epoch(0, {"bad+name": 1.0, "loss": 0.5, "empty": math.nan, "endless": math.inf})
    assert told.close(300) == 0
    (tmp_path / "tracking.sent").unlink()
    again = RunTracker(tmp_path, server.uri, "refusals", "acdis-1", "first", running=False)
    assert again.close(300) == 0
    (run,) = runs(server, "refusals")
    assert run.info.run_id in again.hint()
    assert len(run.data.params) == 150
    assert history(server, run.info.run_id, "loss") == [(0, 0.5)]
    assert len(history(server, run.info.run_id, "empty")) == 1
    assert math.isnan(run.data.metrics["empty"])
    assert run.data.metrics["endless"] > 1e308
    assert told.skipped == 1


def test_two_makers_of_one_run_agree(server: Any, tmp_path: Path) -> None:
    pair = [RunTracker(tmp_path / str(i), server.uri, "raced", "acdis-1", "first") for i in range(2)]
    for i, told in enumerate(pair):
        told.log_epoch(i, {"loss": 1.0})
    assert [told.close(300) for told in pair] == [0, 0]
    (run,) = runs(server, "raced")
    assert sorted(history(server, run.info.run_id, "loss")) == [(0, 1.0), (1, 1.0)]


def _failed(caplog: pytest.LogCaptureFixture, trackers: int) -> None:
    """Wait until so many trackers have found the server away."""
    deadline = time.monotonic() + 300
    while caplog.text.count("cannot be used now; kept on disk") < trackers:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_server_away_for_a_while(
    server: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It waits for nobody: another thread than the training's asks the server."""
    connect, asking = socket.socket.connect, set[int]()

    def watched(self: socket.socket, address: Any) -> None:
        asking.add(threading.get_ident())
        connect(self, address)

    told = RunTracker(tmp_path, server.uri, "away", "acdis-1", "first")
    for epoch in range(3):
        told.log_epoch(epoch, {"loss": float(epoch)})
    assert told.drain(300) == 0
    server.kill()
    (tmp_path / "curves.png").write_bytes(b"png")
    monkeypatch.setattr(socket.socket, "connect", watched)
    for epoch in range(3, 23):
        told.log_epoch(epoch, {"loss": float(epoch), **{f"term/{i}": 1.0 for i in range(30)}})
    told.log_artifact(tmp_path / "curves.png", "training")
    _failed(caplog, 1)
    assert told.close(1) == 21
    assert asking
    assert threading.get_ident() not in asking
    assert "21 lines were not sent" in caplog.text

    again = RunTracker(tmp_path, server.uri, "away", "acdis-1", "first")  # the restarted training
    for epoch in range(20, 25):
        again.log_epoch(epoch, {"loss": float(epoch)})
    again.finish()
    _failed(caplog, 2)
    server.start()
    assert again.close(300) == 0
    (run,) = runs(server, "away")
    assert run.info.status == "FINISHED"
    assert history(server, run.info.run_id, "loss") == [(epoch, float(epoch)) for epoch in range(25)]
    assert len(history(server, run.info.run_id, "term/0")) == 20
    assert [file.path for file in open_store(server.uri).list_artifacts(run.info.run_id, "training")] == [
        "training/curves.png"
    ]
    assert "answers again" in caplog.text
