"""A disk that is full or gone is a line a minute in the server's log, and no traceback for each request."""

from __future__ import annotations

import errno
import logging
import sqlite3
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from acdis.files import reason

#: Who logs what went wrong with a request: MLflow's store, handlers and Flask app, the server, our pages.
_LOGGERS = (
    "mlflow.store.db.utils",
    "mlflow.server.handlers",
    "mlflow.server.mlflow_response",
    "mlflow.server",
    "uvicorn.error",
    "acdis.dashboard.safe_answers",
    "acdis.dashboard.read_ahead",
)
_OF_DISKS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO}
_OF_SQLITE = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN}
_AGAIN_AFTER = 60.0  # seconds


class DiskFilter(logging.Filter):
    """Of records about such a disk the first of each minute, as one line; all others as they are.

    Args:
        base: the home, which the line names.
    """

    def __init__(self, base: Path | None) -> None:
        super().__init__()
        self._where = base or "the store"
        self._said = -_AGAIN_AFTER

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record is to be written."""
        error = (record.exc_info and record.exc_info[1]) or sys.exc_info()[1]
        disk_error = next(_of_a_disk(error), None) if record.levelno >= logging.ERROR else None
        if disk_error is None:
            return True
        if time.monotonic() - self._said < _AGAIN_AFTER:
            return False
        self._said = time.monotonic()
        record.msg = (
            "nothing more can be written below %s (%s): pages are shown, what is sent to MLflow is "
            "refused; free space there"
        )
        record.args, record.exc_info, record.exc_text = (self._where, reason(disk_error)), None, None
        return True


def install(base: Path | None) -> None:
    """From now on, in this process."""
    one = DiskFilter(base)
    for name in _LOGGERS:
        logging.getLogger(name).addFilter(one)


def _of_a_disk(error: BaseException | None) -> Iterator[Exception]:
    """What a disk said, of an error, what it wraps and what it came from."""
    seen: set[int] = set()
    rest = [error]
    while rest:
        one = rest.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        if isinstance(one, OSError) and one.errno in _OF_DISKS:
            yield one
        if isinstance(one, sqlite3.Error) and getattr(one, "sqlite_errorcode", 0) & 0xFF in _OF_SQLITE:
            yield one
        rest += [one.__cause__, one.__context__, getattr(one, "orig", None)]
