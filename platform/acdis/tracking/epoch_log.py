"""What a worker tells of a training: epochs, into a file of its own. It speaks to no server.

Whoever drives the training takes them over into its journal and sends them (`runs.RunTracker`): it may be the
only one that reaches the server, whose address can be the loopback of its host. Imports no MLflow, unless
system metrics are wanted.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path

from acdis import files
from acdis.tracking.journal import EPOCHS, encode_values, epochs_of, worker_lines
from acdis.tracking.system_metrics import SystemMetrics


class EpochLog:
    """The epochs of one cell, written by its leading worker alone. Raises OSError for a full disk.

    The file is replaced as a whole: nothing is appended to a file that another host may have open.

    Args:
        measured: each epoch takes the system metrics of this machine with it, sampled until `close`.
    """

    def __init__(self, folder: Path, measured: bool = False) -> None:
        self._path = folder / EPOCHS
        self._lines = list(worker_lines(folder).values())
        self._latest = max((json.loads(line)["time"] for line in self._lines), default=0)
        self._known = set(epochs_of(folder))
        self._system = SystemMetrics() if measured else None

    def log_epoch(self, epoch: int, values: Mapping[str, float]) -> None:
        """Values at step `epoch`; ignored if they are known, also from before a kill."""
        if epoch in self._known:
            return
        if self._system:
            values = {**values, **self._system.taken()}
        self._latest = max(time.time_ns() // 1_000_000, self._latest + 1)  # clocks are set back at times
        line = {"op": "epoch", "time": self._latest, "step": int(epoch)}
        text = json.dumps(line | {"values": encode_values(values)}, ensure_ascii=False, allow_nan=False)
        self._lines.append(f"{text}\n".encode())
        files.write_bytes(self._path, b"".join(self._lines))
        self._known.add(epoch)

    def close(self) -> None:
        """No more is measured."""
        if self._system:
            self._system.close()
