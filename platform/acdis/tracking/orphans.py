"""Runs that nobody ended: their process was killed, so that they say RUNNING for ever."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from acdis import extras, files, home
from acdis.tracking import open_store, public, sqlite_path
from acdis.tracking.remote import CELL_TAG, SPEC_TAG, STATUSES
from acdis.tracking.runs import RunTracker

#: A SQLite file answers at its own pace, and importing MLflow takes seconds on a busy machine.
PATIENCE_WITH_FILES = 30.0
log = logging.getLogger(__name__)


def specs(base: Path) -> Path:
    """One folder per spec: its own journal, and lists of its cells."""
    return base / "ablations"


def close_orphans(
    base: Path, uri: str, experiment: str, busy: Callable[[str], bool], patience: float = 5.0
) -> list[str]:
    """End the runs that RUNNING is said of though nothing runs: their process was killed.

    Only runs of cells and specs that have a folder in this home: others may be trained elsewhere. What the
    journal still holds is sent first; a run that it does not end is KILLED.

    Args:
        base: ACDIS_HOME.
        busy: whether a process trains the cell of this name.
        patience: seconds for a server; a SQLite file is given more. What is left waits for the next start.

    Returns:
        Names of the cells and specs.
    """
    path = sqlite_path(uri)
    if not extras.installed("tracking") or (path is not None and not path.exists()):
        return []
    closed: list[str] = []
    deadline = time.monotonic() + allowed(uri, patience)

    def sweep() -> None:
        try:
            for name, where, tag in _orphans(base, uri, experiment, busy):
                if time.monotonic() > deadline:
                    return
                _end(where, uri, experiment, name, tag, deadline)
                closed.append(name)
        except Exception as error:  # whatever a network or a server does: the ablation goes on
            reason = " ".join(str(error).split())[:200].replace(uri, public(uri))
            log.warning("tracking: %s cannot be asked for runs to close: %s", public(uri), reason)

    sweeping = threading.Thread(target=sweep, name="acdis-orphans", daemon=True)
    sweeping.start()
    sweeping.join(max(0.0, deadline - time.monotonic()))
    return list(closed)


def _orphans(
    base: Path, uri: str, experiment: str, busy: Callable[[str], bool]
) -> Iterator[tuple[str, Path, str]]:
    """Name, folder and tag of each."""
    client = open_store(uri)
    known = client.get_experiment_by_name(experiment)
    for tag, rooms, taken in (
        (CELL_TAG, home.cells(base), busy),
        (SPEC_TAG, specs(base), lambda name: is_held(specs(base) / name)),
    ):
        wanted = f"attributes.status = 'RUNNING' and tags.`{tag}` LIKE '%'"
        runs = _every(client, known.experiment_id, wanted) if known else ()
        names = dict.fromkeys(run.data.tags[tag] for run in runs)
        yield from (
            (name, rooms / name, tag) for name in names if (rooms / name).is_dir() and not taken(name)
        )


def _every(client: Any, experiment: str, wanted: str) -> Iterator[Any]:
    token = None
    while True:
        page = client.search_runs([experiment], wanted, page_token=token)
        yield from page
        token = page.token
        if not token:
            return


def _end(where: Path, uri: str, experiment: str, name: str, tag: str, deadline: float) -> None:
    tracker = RunTracker(where, uri, experiment, name, name, running=False, tag=tag)
    if tracker.status not in STATUSES:
        tracker.finish("KILLED")
    tracker.close(max(0.0, deadline - time.monotonic()))


def held(where: Path) -> int:
    """A lock that says "in use"; several may hold it. The file's descriptor."""
    try:
        where.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(where / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise files.UnwritableError(where / "lock", error) from None
    with contextlib.suppress(OSError):  # a file system without locks
        fcntl.flock(descriptor, fcntl.LOCK_SH)  # who asks `is_held` has it for a moment only
    return descriptor


def is_held(where: Path) -> bool:
    """Whether some process holds it."""
    return files.is_held(where / "lock", shared=True)


def allowed(uri: str, with_server: float) -> float:
    """Seconds that a start may wait for the store at `uri`."""
    return with_server if uri.startswith("http") else PATIENCE_WITH_FILES
