"""A thread that sends a journal's lines, with growing pauses while that fails. Imports no MLflow."""

from __future__ import annotations

import logging
import random
import threading
import time
from typing import Protocol

from acdis.tracking.journal import Journal

#: Seconds between attempts while the server is away: doubled from the first to the longest.
FIRST_PAUSE, LONGEST_PAUSE, PAUSE_WHEN_CLOSING = 0.5, 30.0, 1.0
#: Seconds between two looks for lines of other writers.
LOOK = 2.0
log = logging.getLogger(__name__)


class Destination(Protocol):
    """Where a journal's lines go."""

    address: str

    def send_some(self) -> None:
        """Send the next lines and mark them in the journal; raises whatever keeps it from that."""

    def without_password(self, text: str) -> str:
        """`text` as it may be logged."""


class Sender(threading.Thread):
    """Sends the journal's lines in order, and waits with growing pauses while that fails.

    Also those that another process writes, such as a worker on another host: it looks every `LOOK` seconds.
    """

    def __init__(self, journal: Journal, remote: Destination) -> None:
        super().__init__(name="acdis-tracking", daemon=True)
        self._journal, self._remote = journal, remote
        self._changed = threading.Condition()
        self._stopped = self._hurried = False
        self._failures = 0

    def wake(self) -> None:
        """There is something new to send."""
        with self._changed:
            self._changed.notify_all()

    def drain(self, timeout: float) -> int:
        """Wait until all is sent, at most `timeout` seconds; the number of lines that are not."""
        with self._changed:
            self._hurried = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: not self._journal.unsent() or not self.is_alive(), timeout)
            self._hurried = False
        return self._journal.unsent()

    def stop(self) -> None:
        """End the thread; a call that hangs is left behind, it dies with the process."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
        self.join(timeout=1.0)

    def run(self) -> None:
        """The thread: send while there is something to send."""
        while True:
            with self._changed:
                while not (self._stopped or self._journal.unsent() > 0):
                    self._changed.wait(LOOK)
                if self._stopped:
                    return
            try:
                self._remote.send_some()
            except Exception as error:  # whatever a network, a driver or a server does: training goes on
                self._failed(error)
            else:
                self._succeeded()

    def _succeeded(self) -> None:
        if self._failures:
            log.info("tracking: %s answers again", self._remote.address)
        self._failures = 0
        with self._changed:
            self._changed.notify_all()

    def _failed(self, error: Exception) -> None:
        if not self._failures:
            reason = self._remote.without_password(" ".join(str(error).split())[:300])
            log.warning("tracking: %s cannot be used now; kept on disk: %s", self._remote.address, reason)
        self._failures += 1
        pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** min(self._failures - 1, 10)) * random.uniform(0.7, 1.0)
        start = time.monotonic()
        with self._changed:
            while not self._stopped:
                limit = min(pause, PAUSE_WHEN_CLOSING) if self._hurried else pause
                left = start + limit - time.monotonic()
                if left <= 0:
                    break
                self._changed.wait(left)
