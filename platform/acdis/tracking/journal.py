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
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from acdis import files

JOURNAL = "tracking.jsonl"
SENT = "tracking.sent"
#: What a worker tells: a file of its own, since hosts that append to one file on shared storage lose lines.
EPOCHS = "epochs.jsonl"

#: MLflow's limits for one `log_batch`, and for the length of values (characters).
MOST_ENTITIES = 1000
#: Of a journal that is read, bytes and lines, and of one of its lines, values: beyond, it is not one of ours.
LARGEST, MOST_LINES, MOST_VALUES = 2**27, 250_000, 10_000
MOST_PARAMS = MOST_TAGS = 100
LONGEST = {"param": 6000, "tag": 8000}

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

    Appending is one `write` to a file opened for appending, then onto the disk: it survives `kill -9` and a
    power cut. A last line without its end is cut off when the journal is opened. One process at a time should
    write; a second one on this host loses nothing, but could log what the first also logs.
    The epochs that a worker tells, perhaps on another host, are taken over from its file.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        self.path = self.folder / JOURNAL
        self._lock = threading.RLock()
        self._operations: list[Operation] = []
        self._offset = 0
        self._followed: os.stat_result | None = None
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise files.UnwritableError(self.path, error) from None
        self._repair()
        self._refresh()
        # A power cut may have taken lines that were already sent; what is written next must be sent again.
        self.sent, self.run, self.skipped = _read_sent(self.folder / SENT, len(self._operations))

    def append(self, op: str, **content: Any) -> None:
        """Write one operation and return; raises OSError when the disk is full."""
        with self._lock:
            self._refresh()
            last = max((line["time"] for line in self._operations[-2:]), default=0)
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
        try:
            written = os.write(self._file, line)
            if written != len(line):
                os.ftruncate(self._file, os.fstat(self._file).st_size - written)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            files.sync(self._file)
        except OSError as error:
            raise files.UnwritableError(self.path, error) from None

    def _repair(self) -> None:
        content = self.path.read_bytes()
        whole = content.rfind(b"\n") + 1
        if whole != len(content):
            log.warning("%s: dropped a last line that was not written to its end", self.path)
            os.ftruncate(self._file, whole)

    def _refresh(self) -> None:
        self._read()
        new = self._of_the_worker()
        if not new:
            return
        try:
            self._write(new)
        except OSError as error:  # a full disk: who only looks goes on, and the next look tries again
            log.warning("%s: epochs cannot be taken over now (%s)", self.path, files.reason(error))
            self._followed = None
        self._read()

    def _of_the_worker(self) -> bytes:
        """Lines of its file about epochs that are not known here, as they are: with their times."""
        try:
            now = os.stat(self.folder / EPOCHS)
        except OSError:
            return b""
        before, self._followed = self._followed, now
        if before is not None and (before.st_mtime_ns, before.st_ino) == (now.st_mtime_ns, now.st_ino):
            return b""
        known = {line["step"] for line in self._operations if line["op"] == "epoch"}
        return b"".join(text for step, text in worker_lines(self.folder).items() if step not in known)

    def _read(self) -> None:
        size = os.fstat(self._file).st_size
        if size <= self._offset:
            return
        content = os.pread(self._file, size - self._offset, self._offset)
        whole = content[: content.rfind(b"\n") + 1]
        self._offset += len(whole)
        self._operations += [_parse(line) for line in whole.split(b"\n")[:-1]]


def _content(path: Path) -> bytes:
    """Of a journal that somebody else may have written.

    Raises:
        OSError, TooLargeError: as `files.read`.
    """
    content = files.read(path, LARGEST)
    if (lines := content.count(b"\n")) > MOST_LINES:
        raise files.TooLargeError(f"holds {lines:,} lines, {MOST_LINES:,} at most")
    return content


def worker_lines(folder: Path) -> dict[int, bytes]:
    """By epoch, what a worker has told: whole lines; empty where there are none."""
    try:
        lines = _content(folder / EPOCHS).splitlines(keepends=True)
    except (OSError, files.TooLargeError):
        return {}
    told = [(line, _parse(line)) for line in lines if line.endswith(b"\n")]
    by_epoch = {
        line["step"]: text for text, line in reversed(told) if line["op"] == "epoch" and "step" in line
    }
    return dict(sorted(by_epoch.items()))


def _parse(line: bytes) -> Operation:
    """An operation; a line that cannot be read counts as one of its own kind, so that counting stays true."""
    try:
        operation = files.json_of(line, MOST_VALUES)
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
        content = files.read_json(path)
        return min(int(content["lines"]), lines), str(content["run"]), int(content["skipped"])
    except _UNREADABLE:
        return 0, None, 0


def waiting(folder: Path) -> int:
    """How many lines of the folder's journal were not sent; 0 where there is none. Quick: parses none."""
    try:
        content = _content(folder / JOURNAL)
    except (OSError, files.TooLargeError):
        return 0
    lines = content.count(b"\n")
    untaken = len(worker_lines(folder)) - content.count(b'"op": "epoch"')
    return lines - _read_sent(folder / SENT, lines)[0] + max(0, untaken)


def run_of(folder: Path) -> str | None:
    """MLflow's id of the run that has the folder's journal; none before the first contact."""
    return _read_sent(folder / SENT, 0)[1]


def epochs_of(folder: Path) -> dict[int, dict[str, float]]:
    """What worker and driver have written about each epoch, under MLflow's names; for who only reads.

    It is whole while the training runs and after a kill, whatever the server does.
    """
    try:
        lines = _content(folder / JOURNAL).split(b"\n")[:-1]
    except (OSError, files.TooLargeError):
        lines = []
    told = [_parse(line) for line in [*lines, *worker_lines(folder).values()] if b'"epoch"' in line]
    by_epoch = {
        int(line["step"]): {key: float(value) for key, value in line["values"].items()}
        for line in reversed(told)  # the first word on an epoch counts
        if line["op"] == "epoch"
    }
    return dict(sorted(by_epoch.items()))


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
