"""Runs one input in a forked child that is watched: time, memory, writes, what it prints, how it ends.

A child per input: a crash, a hang or a full memory ends the child and not the tests. It is forked from a
process that has imported everything, so it takes milliseconds.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import resource
import select
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from acdis.errors import UserError

#: Of the processor: a machine with other work takes longer. A child that only waits is given up after `WAIT`.
SECONDS, WAIT = 10, 600.0
MEMORY = 2 * 2**30
#: The child cannot get more than this, lest a bomb reach the machine; `MEMORY` is what may be used.
_ADDRESS_SPACE = 6 * 2**30
_MOST_WORDS = 4000

#: What changes something outside of the process: which of the event's arguments are paths, and where the
#: descriptor of the folder stands that each is relative to.
_CHANGES = {
    "os.chmod": {0: 2},
    "os.chown": {0: 3},
    "os.link": {0: 2, 1: 3},
    "os.mkdir": {0: 2},
    "os.remove": {0: 1},
    "os.rename": {0: 2, 1: 3},
    "os.rmdir": {0: 1},
    "os.symlink": {1: 2},
    "os.truncate": {0: None},
    "os.utime": {0: 3},
}
#: What no input may make the platform do at all. `pickle.find_class`: Python's own pickle looks for a class.
_NEVER = (
    "os.exec",
    "os.fork",
    "os.forkpty",
    "os.posix_spawn",
    "os.spawn",
    "os.startfile",
    "os.system",
    "pickle.find_class",
    "subprocess.Popen",
    "socket.connect",
    "socket.bind",
)
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


class Escaped(BaseException):
    """An input made the platform do what it must not; nothing in the platform catches this."""


@dataclass(frozen=True)
class Outcome:
    """How an input ended.

    Attributes:
        kind: `refused` (a UserError), `sound` (it was taken, and its check held), or `wrong`.
        words: the UserError's message, or what is wrong.
        printed: what went to stdout and stderr.
    """

    kind: str
    words: str
    printed: str = ""


def run(action: Callable[[], object], allowed: Sequence[Path], names: Sequence[str] = ()) -> Outcome:
    """Do `action` in a child.

    Args:
        action: raises UserError, or returns once it has checked that what came out is sound.
        allowed: folders in which it may write.
        names: one of these must stand in the UserError: the file or the key. None: anything will do.
    """
    with tempfile.TemporaryFile() as said:
        reader, writer = os.pipe()
        pid = os.fork()
        if not pid:
            _child(action, allowed, writer, said.fileno())
        os.close(writer)
        answer, late = _listen(reader)
        if late:
            os.kill(pid, signal.SIGKILL)
        _, status, _ = os.wait4(pid, 0)
        said.seek(0)
        printed = said.read().decode("utf-8", "replace")
    if late:
        return Outcome("wrong", f"hung: there was no answer after {WAIT:.0f} s", printed)
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGXCPU:
        return Outcome("wrong", f"hung: {SECONDS} s of processor time were not enough", printed)
    if not answer:
        return Outcome("wrong", f"the process died (wait status {status})", printed)
    return _judged(json.loads(answer), names, printed)


def _listen(reader: int) -> tuple[bytes, bool]:
    """What the child writes until it closes the pipe, and whether that took too long."""
    answer, end = b"", time.monotonic() + WAIT
    with open(reader, "rb", buffering=0) as stream:
        while True:
            ready, _, _ = select.select([stream], [], [], max(0.0, end - time.monotonic()))
            if not ready:
                return answer, True
            part = stream.read(65536)
            if not part:
                return answer, False
            answer += part


def _judged(said: dict[str, Any], names: Sequence[str], printed: str) -> Outcome:
    kind, words = said["kind"], said["words"]
    if said["memory"] > MEMORY:
        return Outcome("wrong", f"took {said['memory'] / 2**30:.1f} GiB ({kind}: {words[:300]})", printed)
    if said["escaped"]:
        return Outcome("wrong", f"{said['escaped']} ({kind}: {words[:300]})", printed)
    if "Traceback (most recent call last)" in printed:
        return Outcome("wrong", f"a traceback was printed ({kind})", printed)
    if kind == "refused" and (fault := _fault(words, names)):
        return Outcome("wrong", f"{fault}: {words[:600]!r}", printed)
    return Outcome(kind, words, printed)


def _fault(words: str, names: Sequence[str]) -> str:
    """What is wrong with the words of a UserError."""
    if not words.strip():
        return "an empty error"
    if len(words) > _MOST_WORDS:
        return f"an error of {len(words)} characters"
    if any(not each.isprintable() and each != "\n" for each in words):
        return "an error with control characters"
    if names and not any(name in words for name in names):
        return f"an error that names none of {', '.join(names)}"
    return ""


def _child(action: Callable[[], object], allowed: Sequence[Path], writer: int, said: int) -> None:
    """Everything from here on happens in the fork, which never returns."""
    report: dict[str, Any] = {
        "kind": "wrong",
        "words": "the harness itself failed",
        "escaped": "",
        "memory": 0,
    }
    try:
        os.dup2(said, 1)
        os.dup2(said, 2)
        sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)
        before = _resident()
        _limit()
        report |= _attempt(action, allowed)
        report["memory"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before
        with contextlib.suppress(Exception):
            sys.stdout.flush()
    finally:
        with contextlib.suppress(BaseException):
            os.write(writer, json.dumps(report).encode())
        os._exit(0)


def _resident() -> int:
    pages = Path("/proc/self/statm").read_text().split()
    return int(pages[1]) * resource.getpagesize()


def _limit() -> None:
    """No bytecode, no core files, and an end to memory and to time."""
    sys.dont_write_bytecode = True
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    spent = math.ceil(time.process_time())
    resource.setrlimit(resource.RLIMIT_CPU, (spent + SECONDS, spent + SECONDS + 1))
    now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + _ADDRESS_SPACE, now + _ADDRESS_SPACE))


def _attempt(action: Callable[[], object], allowed: Sequence[Path]) -> dict[str, Any]:
    escaped: list[str] = []
    threading.excepthook = lambda caught: escaped.append(f"a thread died: {caught.exc_value!r}")
    sys.unraisablehook = lambda caught: escaped.append(f"an exception nobody saw: {caught.exc_value!r}")
    sys.addaudithook(_watch([os.path.realpath(folder) for folder in allowed], escaped))
    try:
        action()
    except UserError as error:
        result = {"kind": "refused", "words": str(error)}
    except BaseException:
        result = {"kind": "wrong", "words": traceback.format_exc()[-3000:]}
    else:
        result = {"kind": "sound", "words": ""}
    return result | {"escaped": "; ".join(escaped[:3])}


def _watch(allowed: Sequence[str], escaped: list[str]) -> Callable[[str, tuple[Any, ...]], None]:
    """Notes and forbids what must not happen. An audit hook cannot be removed: the child ends with it."""

    def note(words: str) -> None:
        escaped.append(words)
        raise Escaped(words)

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event in _NEVER:
            note(f"{event} {arguments!r}"[:300])
        for path in _written(event, arguments):
            if not _within(path, allowed):
                note(f"{event} of {path!r}, outside")

    return hook


def _written(event: str, arguments: tuple[Any, ...]) -> Iterator[Any]:
    """The paths that an event writes to, moves or removes."""
    if event == "open":
        path, mode, flags = arguments
        if (isinstance(mode, str) and set(mode) & set("wax+")) or (flags or 0) & _WRITING:
            yield path
    for at, beside in _CHANGES.get(event, {}).items():
        folder = -1 if beside is None else arguments[beside]
        path = arguments[at]
        if not isinstance(path, int) and folder is not None and folder >= 0:
            path = os.path.join(os.readlink(f"/proc/self/fd/{folder}"), os.fsdecode(path))
        yield path


def _within(path: Any, allowed: Sequence[str]) -> bool:
    if isinstance(path, int) or path is None:
        return True  # a descriptor: its opening was seen
    try:
        real = os.path.realpath(os.fsdecode(path))
    except (TypeError, ValueError):
        return False
    return real == os.devnull or any(real == folder or real.startswith(folder + os.sep) for folder in allowed)


def listing(folder: Path, without: Sequence[Path]) -> dict[str, tuple[int, int]]:
    """Size and time of change of all below `folder` but what lies in `without`: C code raises no events."""
    found: dict[str, tuple[int, int]] = {}
    skipped = {str(each) for each in without}
    for place, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if os.path.join(place, name) not in skipped]
        for name in (*folders, *files):
            path = os.path.join(place, name)
            if path not in skipped:
                status = os.lstat(path)
                found[path] = (status.st_size if name in files else 0, status.st_mtime_ns)
    return found
