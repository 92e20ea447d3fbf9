"""What a worker tells of a training: epochs, into the journal on disk. It speaks to no server.

Whoever drives the training follows the journal and sends what it says (`runs.RunTracker`): it may be the only
one that reaches the server, whose address can be the loopback of its host. Imports no MLflow.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from acdis.tracking.journal import Journal, encode_values


class EpochLog:
    """The epochs of one cell's journal. Raises OSError for a full disk."""

    def __init__(self, folder: Path) -> None:
        self._journal = Journal(folder)
        self._known = {line["step"] for line in self._journal.operations() if line["op"] == "epoch"}

    def log_epoch(self, epoch: int, values: Mapping[str, float]) -> None:
        """Values at step `epoch`; ignored if the journal has that epoch, also from before a kill."""
        if epoch not in self._known:
            self._journal.append("epoch", step=int(epoch), values=encode_values(values))
            self._known.add(epoch)
