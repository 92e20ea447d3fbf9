"""A home that was moved, copied, or mounted read-only: what MLflow's SQLite store needs to be opened there.

MLflow keeps the absolute address of every run's artifacts, and writes to the old place, made anew, when the
folder is elsewhere. (Its relative form, `mlflow-artifacts:`, is for clients of a server.) Imports no MLflow.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from pathlib import Path

from acdis import files

ARTIFACTS = "mlartifacts"
#: Where the store keeps addresses of artifacts.
_PLACES = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "storage_location"),
    ("model_versions", "source"),
    ("trace_tags", "value"),
)
#: How the folder of a copy begins, and what in it is held while the copy is used.
_COPY, _LOCK = "acdis-store-", "lock"
#: Seconds that another process may write meanwhile.
_PATIENCE = 30.0


def artifacts(store: Path) -> Path:
    """Where artifacts lie of a store that we make: in its folder."""
    return store.parent.resolve() / ARTIFACTS


def rewrite(store: Path, place: Path | None = None) -> bool:
    """Let the addresses in a store lead to `place`, by default the folder beside it; whether they did not.

    Raises:
        sqlite3.Error: it cannot be read, or is to be changed and cannot be written.
    """
    here = place or artifacts(store)
    connection = sqlite3.connect(_address(store), uri=True, timeout=_PATIENCE)
    with contextlib.closing(connection) as database, database:
        old = [root for root in _roots(database) if _has_moved(root, here)]
        for root in old:
            _replace(database, root, here.as_uri())
    return bool(old)


def settle(store: Path, place: Path) -> None:
    """Of a new store: MLflow's first experiment keeps its artifacts at `place`, not in the working folder."""
    with contextlib.closing(sqlite3.connect(store)) as database, database:
        database.execute("UPDATE experiments SET artifact_location = ?", (place.as_uri(),))


@contextlib.contextmanager
def readable(store: Path, place: Path) -> Iterator[Path]:
    """A copy of a store that cannot be written where it lies, for the time of the block.

    What a killed process has left of its own is removed.

    Args:
        place: of its artifacts, which stay where they are.
    """
    with (
        tempfile.TemporaryDirectory(prefix=_COPY) as folder,
        files.locked(Path(folder) / _LOCK),
    ):
        files.sweep_folders(Path(folder).parent.glob(f"{_COPY}*"), _LOCK)
        copy = Path(folder) / store.name
        for ending in ("", "-wal", "-journal"):  # what a killed process has left to be played back
            with contextlib.suppress(FileNotFoundError):
                shutil.copyfile(f"{store}{ending}", f"{copy}{ending}")
        if copy.exists():
            rewrite(copy, place)
        yield copy


def is_writable(store: Path) -> bool:
    """Whether SQLite can write to a store, which takes its folder too; or make one."""
    return os.access(store.parent, os.W_OK | os.X_OK) and (not store.exists() or os.access(store, os.W_OK))


def _address(store: Path) -> str:
    return f"{store.resolve().as_uri()}?mode=rw"


def _roots(database: sqlite3.Connection) -> list[str]:
    """Addresses of folders as we name them; MLflow's own end with the experiment's number."""
    if not _columns(database, "experiments"):
        return []
    rows = database.execute(
        "SELECT DISTINCT artifact_location FROM experiments WHERE artifact_location LIKE 'file:///%' "
        "AND substr(artifact_location, -length(?)) = ?",
        (f"/{ARTIFACTS}", f"/{ARTIFACTS}"),
    )
    return [str(location) for (location,) in rows]


def _has_moved(root: str, here: Path) -> bool:
    """A folder that somebody has chosen, which is there while ours is not, stays."""
    from urllib.parse import unquote, urlsplit

    return root != here.as_uri() and (here.is_dir() or not Path(unquote(urlsplit(root).path)).is_dir())


def _replace(database: sqlite3.Connection, old: str, new: str) -> None:
    for table, column in _PLACES:
        if column in _columns(database, table):
            database.execute(
                f"UPDATE {table} SET {column} = ? || substr({column}, ?) "
                f"WHERE {column} = ? OR substr({column}, 1, ?) = ?",
                (new, len(old) + 1, old, len(old) + 1, f"{old}/"),
            )


def _columns(database: sqlite3.Connection, table: str) -> set[str]:
    """Empty where a store of another version has no such table."""
    return {str(row[1]) for row in database.execute(f"PRAGMA table_info({table})")}
