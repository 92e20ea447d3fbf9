"""What a run has to tell the tracking server: on disk first, one operation a line, then sent.

The journal is the truth and the server a view of it: every line keeps the time at which it was written,
so that sending it twice changes nothing, and a server that lost the run can be filled again.
Imports no MLflow.
"""

from __future__ import annotations

import errno
import json
import logging
import math
import os
import random
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from acdis import files

JOURNAL = "tracking.jsonl"
SENT = "tracking.sent"

#: MLflow's limits for one `log_batch`, and for the length of values (characters).
MOST_ENTITIES = 1000
MOST_PARAMS = MOST_TAGS = 100
LONGEST = {"param": 6000, "tag": 8000}

#: Seconds between attempts while the server is away: doubled from the first to the longest.
FIRST_PAUSE, LONGEST_PAUSE, PAUSE_WHEN_CLOSING = 0.5, 30.0, 1.0
#: Seconds between two looks for lines of other writers.
LOOK = 2.0

Operation = dict[str, Any]
#: What reading a line or file raises that says anything else than we write.
_UNREADABLE = (OSError, ValueError, TypeError, LookupError, AttributeError, OverflowError, RecursionError)
log = logging.getLogger(__name__)


class Entity(NamedTuple):
    """One param, tag or metric point as MLflow counts them; `time` in ms since 1970."""

    kind: str
    key: str
    value: Any
    time: int
    step: int


class Journal:
    """The file `tracking.jsonl` of a cell's folder and, in `tracking.sent`, how far it was sent.

    Appending is one `write` to a file opened for appending: it survives `kill -9` (not a power cut, which
    may cost the last lines). A last line without its end is cut off when the journal is opened. One process
    at a time should write; a second one loses nothing, but could log an epoch that the first also logs.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder.resolve()
        self.path = self.folder / JOURNAL
        self._lock = threading.RLock()
        self._operations: list[Operation] = []
        self._offset = 0
        self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        self._repair()
        self._refresh()
        # A power cut may have taken lines that were already sent; what is written next must be sent again.
        self.sent, self.run, self.skipped = _read_sent(self.folder / SENT, len(self._operations))

    def append(self, op: str, **content: Any) -> None:
        """Write one operation and return; raises OSError when the disk is full."""
        with self._lock:
            self._refresh()
            last = self._operations[-1]["time"] if self._operations else 0
            # Times must rise: MLflow orders points of one step by them, and clocks are set back at times.
            line = {"op": op, "time": max(time.time_ns() // 1_000_000, last + 1), **content}
            self._write((json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n").encode())
            self._refresh()

    def operations(self, start: int = 0) -> list[Operation]:
        """All whole lines from `start` on, those of other writers included."""
        with self._lock:
            self._refresh()
            return self._operations[start:]

    def unsent(self) -> int:
        """How many lines wait to be sent, those of other writers included."""
        with self._lock:
            self._refresh()
            return len(self._operations) - self.sent

    def mark(self, lines: int, run: str, skipped: int = 0) -> None:
        """Note that `lines` more are with the run `run`, of which some entities had to be skipped."""
        with self._lock:
            self.sent, self.run, self.skipped = self.sent + lines, run, self.skipped + skipped
            content = {"lines": self.sent, "run": self.run, "skipped": self.skipped}
            files.write_text(self.folder / SENT, json.dumps(content))

    def rewind(self) -> None:
        """Send everything again: the run that had it is gone."""
        with self._lock:
            self.sent, self.run, self.skipped = 0, None, 0

    def _write(self, line: bytes) -> None:
        written = os.write(self._file, line)
        if written != len(line):
            os.ftruncate(self._file, os.fstat(self._file).st_size - written)
            raise OSError(errno.ENOSPC, "no space left for the tracking journal", str(self.path))

    def _repair(self) -> None:
        content = self.path.read_bytes()
        whole = content.rfind(b"\n") + 1
        if whole != len(content):
            log.warning("%s: dropped a last line that was not written to its end", self.path)
            os.ftruncate(self._file, whole)

    def _refresh(self) -> None:
        size = os.fstat(self._file).st_size
        if size <= self._offset:
            return
        content = os.pread(self._file, size - self._offset, self._offset)
        whole = content[: content.rfind(b"\n") + 1]
        self._offset += len(whole)
        self._operations += [_parse(line) for line in whole.split(b"\n")[:-1]]


def _parse(line: bytes) -> Operation:
    """An operation; a line that cannot be read counts as one of its own kind, so that counting stays true."""
    try:
        operation = json.loads(line)
        operation = {**operation, "op": str(operation["op"]), "time": int(operation["time"])}
        if "step" in operation:
            operation["step"] = int(operation["step"])
        entities(operation)
        return operation
    except _UNREADABLE:
        return {"op": "unreadable", "time": 0}


def _read_sent(path: Path, lines: int) -> tuple[int, str | None, int]:
    """Lines sent, run, skipped. Whatever cannot be read means: send again, which changes nothing."""
    try:
        content = json.loads(path.read_text())
        return min(int(content["lines"]), lines), str(content["run"]), int(content["skipped"])
    except _UNREADABLE:
        return 0, None, 0


def waiting(folder: Path) -> int:
    """How many lines of the folder's journal were not sent; 0 where there is none. Quick: parses none."""
    try:
        lines = (folder / JOURNAL).read_bytes().count(b"\n")
    except OSError:
        return 0
    return lines - _read_sent(folder / SENT, lines)[0]


def run_of(folder: Path) -> str | None:
    """MLflow's id of the run that has the folder's journal; none before the first contact."""
    return _read_sent(folder / SENT, 0)[1]


def epochs_of(folder: Path) -> dict[int, dict[str, float]]:
    """What the folder's journal has about each epoch, under MLflow's names; for who only reads.

    It is whole while the training runs and after a kill, whatever the server does.
    """
    try:
        lines = (folder / JOURNAL).read_bytes().split(b"\n")[:-1]
    except OSError:
        return {}
    told = [_parse(line) for line in lines if b'"epoch"' in line]
    return {
        int(line["step"]): {key: float(value) for key, value in line["values"].items()}
        for line in reversed(told)  # the first word on an epoch counts
        if line["op"] == "epoch"
    }


def encode_values(values: Mapping[str, float]) -> dict[str, float | str]:
    """JSON knows no NaN or inf: they are written as the words that `float` reads."""
    numbers = {key: float(value) for key, value in values.items()}
    return {key: value if math.isfinite(value) else repr(value) for key, value in numbers.items()}


def shortened(kind: str, value: str) -> str:
    """`value`, cut with an ellipsis where MLflow would refuse its length."""
    limit = LONGEST[kind]
    return value if len(value) <= limit else value[: limit - 1] + "…"


def entities(operation: Operation) -> list[Entity]:
    """The params, tags or metric points of one operation; none for one of another kind."""
    op, when = operation["op"], operation["time"]
    if op in ("params", "tags"):
        kind = op[:-1]
        return [Entity(kind, k, shortened(kind, v), when, 0) for k, v in operation["values"].items()]
    if op in ("epoch", "metrics"):
        return [
            Entity("metric", k, float(v), when, operation["step"]) for k, v in operation["values"].items()
        ]
    return []


def next_batch(operations: Sequence[Operation]) -> tuple[int, list[Entity]]:
    """Lines at the head that can go together (at least one, if it is of that kind), and their entities.

    A tag that is set twice keeps its last value, a param its first: MLflow takes a name once per call.
    """
    lines = 0
    points: list[Entity] = []
    named: dict[tuple[str, str], Entity] = {}
    for operation in operations:
        new = entities(operation)
        if not new and operation["op"] not in ("params", "tags", "epoch", "metrics"):
            break
        if lines and len(points) + len(named) + len(new) > MOST_ENTITIES:
            break
        lines += 1
        for entity in new:
            if entity.kind == "metric":
                points.append(entity)
            elif entity.kind == "tag" or (entity.kind, entity.key) not in named:
                named[entity.kind, entity.key] = entity
    return lines, [*named.values(), *points]


def chunks(batch: Sequence[Entity]) -> Iterator[list[Entity]]:
    """Cut into pieces that one `log_batch` may hold."""
    most = {"param": MOST_PARAMS, "tag": MOST_TAGS, "metric": MOST_ENTITIES}
    chunk: list[Entity] = []
    count = dict.fromkeys(most, 0)
    for entity in batch:
        if len(chunk) == MOST_ENTITIES or count[entity.kind] == most[entity.kind]:
            yield chunk
            chunk, count = [], dict.fromkeys(most, 0)
        chunk.append(entity)
        count[entity.kind] += 1
    if chunk:
        yield chunk


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
