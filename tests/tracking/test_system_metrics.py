"""System metrics: sampled in the worker, taken along by epochs, in a real store under MLflow's names."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import psutil
import pytest

from acdis.tracking.epoch_log import EpochLog
from acdis.tracking.runs import RunTracker, open_store
from acdis.tracking.system_metrics import SystemMetrics


def test_epochs_take_them_to_the_store(tmp_path: Path, uri: str) -> None:
    """Memory and disk are what psutil says; a restarted worker measures on; unasked nothing is measured."""
    for epochs in ((1, 2), (2, 3)):  # the second after a kill
        log = EpochLog(tmp_path / "cell", measured=True)
        for epoch in epochs:
            log.log_epoch(epoch, {"train/loss": 1.0})
        log.close()
    EpochLog(tmp_path / "cell").log_epoch(4, {"train/loss": 1.0})
    tracker = RunTracker(tmp_path / "cell", uri, "tests", "acdis-1", "acdis-1")
    assert tracker.close(300) == 0
    client = open_store(uri)
    points = client.get_metric_history(tracker.run_id, "system/system_memory_usage_percentage")
    assert [point.step for point in points] == [1, 2, 3]
    used = psutil.virtual_memory().used / psutil.virtual_memory().total * 100
    assert all(abs(point.value - used) < 20 for point in points)
    values = client.get_run(tracker.run_id).data.metrics
    assert values["system/disk_usage_percentage"] == pytest.approx(psutil.disk_usage("/").percent, abs=5)
    assert {"system/cpu_utilization_percentage", "system/network_receive_megabytes"} <= values.keys()
    assert values["train/loss"] == 1.0


def test_it_samples_between_epochs_and_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """At every interval one more; an average goes over those since it was last taken."""
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.01")
    system = SystemMetrics()
    (processors,) = (each for each in system._monitors if type(each).__name__ == "CPUMonitor")
    deadline = time.monotonic() + 60
    while len(processors.metrics["cpu_utilization_percentage"]) < 3:
        assert time.monotonic() < deadline, "nothing was sampled"
        time.sleep(0.01)
    assert 0 <= system.taken()["system/cpu_utilization_percentage"] <= 100
    system.close()
    assert "acdis-system-metrics" not in {thread.name for thread in threading.enumerate()}
