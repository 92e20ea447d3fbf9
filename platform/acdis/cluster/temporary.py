"""A folder for a Ray of our own: short, since its sockets' paths have a limit, and closed to other users.

Ray makes its folder writable for everybody, and code that its workers import lies in it: hence the closed
folder around it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from acdis.errors import UserError
from acdis.files import locked, sweep_folders

#: Most bytes of a socket's path, and the longest that Ray puts below the folder that it is given.
MOST = 103 if sys.platform == "darwin" else 107
BELOW = "/session_2026-01-01_00-00-00_000000_4194304/sockets/dash_TaskEventsHead"
#: Ray's folder in the closed one; what `mkdtemp` adds to a name.
RAY, RANDOM = "r", 8
OWN, LOCK = "acdis-own-", "lock"


@contextlib.contextmanager
def folder() -> Iterator[Path]:
    """Ray's, for the time of the block. What killed processes left behind is removed.

    It stays when the block fails, since Ray's logs are in it: until the next one is made.

    Raises:
        UserError: as `made`.
    """
    closed = made(OWN, os.environ)
    sweep_folders(closed.parent.glob(f"{OWN}*"), LOCK)
    with locked(closed / LOCK):
        yield closed / RAY
        remove(closed / RAY)
        if not (closed / RAY).exists():  # else an ending process has written there: left to the next
            remove(closed)


def made(prefix: str, environment: Mapping[str, str]) -> Path:
    """A new folder for this user alone, in RAY_TMPDIR or TMPDIR, or in `/tmp` where these are too long.

    Raises:
        UserError: none of them can be used.
    """
    wanted = environment.get("RAY_TMPDIR") or environment.get("TMPDIR") or tempfile.gettempdir()
    room = MOST - len(BELOW) - len(f"/{prefix}/{RAY}") - RANDOM
    for parent in (wanted, "/tmp"):
        if len(os.fsencode(parent)) <= room and os.access(parent, os.W_OK | os.X_OK):
            return Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
    raise UserError(
        f"TMPDIR: {wanted} cannot be used, nor can /tmp: Ray's sockets need a folder that can be written to, "
        f"with a path of at most {room} bytes; set RAY_TMPDIR to one"
    )


def remove(closed: Path) -> None:
    """All of it; processes that are just ending may still write there."""
    shutil.rmtree(closed, ignore_errors=True)
