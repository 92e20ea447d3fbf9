"""What the machine does meanwhile: MLflow's system metrics, sampled where the training runs.

MLflow's own monitor sends what it samples to the server, which a worker need not reach. Here its samplers run
in the worker, and an epoch takes their means with it: through the journal, as its other values.
"""

from __future__ import annotations

import threading
from contextlib import suppress
from typing import Any

from acdis.tracking import quiet


class SystemMetrics:
    """Samples processors, memory, disk, network and GPUs of this machine, until `close`.

    GPUs are seen where nvidia-ml-py is installed. The time between samples is MLflow's, 10 s unless
    MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL says otherwise.
    """

    def __init__(self) -> None:
        quiet()
        from mlflow.environment_variables import MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL as INTERVAL

        self._interval = INTERVAL.get() or 10.0
        self._monitors = _monitors()
        self._lock, self._ended = threading.Lock(), threading.Event()
        with self._lock:
            self._sample()  # processors are measured from one sample to the next: the first says nothing
            for monitor in self._monitors:
                monitor.clear_metrics()
        self._thread = threading.Thread(target=self._run, name="acdis-system-metrics", daemon=True)
        self._thread.start()

    def taken(self) -> dict[str, float]:
        """Means since this was last asked, under MLflow's names: `system/cpu_utilization_percentage`, …

        Of what is counted up (network, MB) the sum since the beginning.
        """
        with self._lock:
            self._sample()
            values: dict[str, float] = {}
            for monitor in self._monitors:
                means = monitor.aggregate_metrics()
                values |= {f"system/{name}": float(value) for name, value in means.items()}
                monitor.clear_metrics()
        return values

    def close(self) -> None:
        """End the sampling."""
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._ended.wait(self._interval):
            with self._lock:
                self._sample()

    def _sample(self) -> None:
        for monitor in self._monitors:
            monitor.collect_metrics()


def _monitors() -> list[Any]:
    from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor
    from mlflow.system_metrics.metrics.disk_monitor import DiskMonitor
    from mlflow.system_metrics.metrics.gpu_monitor import GPUMonitor
    from mlflow.system_metrics.metrics.network_monitor import NetworkMonitor

    found: list[Any] = [CPUMonitor(), DiskMonitor(), NetworkMonitor()]
    with suppress(ImportError, RuntimeError):  # no nvidia-ml-py, no GPU
        found.append(GPUMonitor())
    return found
