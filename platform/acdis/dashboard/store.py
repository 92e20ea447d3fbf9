"""The server's own store, read by SQL: MLflow's search over 1,000 runs takes seconds. Never written to."""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Hashable, Sequence
from typing import Any, TypeVar
from urllib.parse import quote

from acdis.tracking import public, user_part

T = TypeVar("T")
#: Seconds after which a server's database is asked again, whatever its counters say.
LONGEST = 30
_COUNTERS = (
    "SELECT count(*), max(start_time), max(end_time), sum(CASE WHEN status = 'RUNNING' THEN 1 ELSE 0 END), "
    "sum(CASE WHEN lifecycle_stage = 'active' THEN 1 ELSE 0 END) FROM runs",
    "SELECT count(*), max(timestamp) FROM latest_metrics",
    "SELECT count(*), sum(length(value)) FROM tags WHERE key LIKE 'acdis.%'",
)
log = logging.getLogger(__name__)


class StoreAwayError(Exception):
    """The store cannot be read; one line, without passwords."""


class MlflowStore:
    """Rows of the store's tables, and what was made of them until the store changes."""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self._engine: Any = None
        self._file: tuple[int, int] | None = None
        self._lock = threading.RLock()
        self._kept: dict[str, tuple[Hashable, Any]] = {}

    @property
    def address(self) -> str:
        """Without user and password."""
        return public(self.uri)

    def rows(self, statement: str, **values: Any) -> Sequence[tuple[Any, ...]]:
        """All rows that a SELECT gives; `:name` in it stands for `values[name]`.

        Raises:
            StoreAwayError: it cannot be read.
        """
        from sqlalchemy import text
        from sqlalchemy.exc import SQLAlchemyError

        try:
            with self._lock, self._opened().connect() as connection:
                # The driver's own tuples: SQLAlchemy's would take longer than the query.
                return connection.execute(text(statement), values).cursor.fetchall()
        except (SQLAlchemyError, sqlite3.Error, ImportError) as error:
            raise StoreAwayError(self._reason(error)) from None

    def kept(self, name: str, load: Callable[[MlflowStore], T]) -> T:
        """What `load` makes of this store; made again only when the store has changed.

        Raises:
            StoreAwayError: it cannot be read.
        """
        with self._lock:
            now = self._mark()
            known = self._kept.get(name)
            if known is None or known[0] != now:
                known = self._kept[name] = (now, load(self))
            return known[1]

    def _mark(self) -> Hashable:
        """Equal as long as nothing has changed."""
        if self._path() is not None:
            (version,) = self.rows("PRAGMA data_version")
            return self._file, version[0]
        counters = tuple(tuple(self.rows(statement)[0]) for statement in _COUNTERS)
        return counters, int(time.time() / LONGEST)

    def _path(self) -> str | None:
        """Of a SQLite file, relative ones included."""
        scheme, _, path = self.uri.partition(":///")
        return path.partition("?")[0] if scheme.split("+")[0] == "sqlite" else None

    def _opened(self) -> Any:
        path = self._path()
        if path is None:
            return self._server()
        try:
            status = os.stat(path)
        except OSError:
            raise StoreAwayError(f"there is no store at {self.address} yet") from None
        if self._file != (status.st_dev, status.st_ino):  # new, or another file of that name
            self._file = (status.st_dev, status.st_ino)
            self._engine = _sqlite(path)
        return self._engine

    def _server(self) -> Any:
        from sqlalchemy import create_engine

        if self._engine is None:
            if "://" not in self.uri or self.uri.startswith(("http", "file")):
                raise StoreAwayError(
                    f"{self.address or 'this server'} has no database; give mlflow server one"
                )
            options = {"postgresql_readonly": True} if self.uri.startswith("postgresql") else {}
            self._engine = create_engine(self.uri, pool_pre_ping=True, execution_options=options)
        return self._engine

    def _reason(self, error: Exception) -> str:
        said = " ".join(str(getattr(error, "orig", None) or error).split())[:200]
        log.warning("the store cannot be read: %s", said.replace(user_part(self.uri), ""))
        return f"the store at {self.address} cannot be read; the server's log says why"


def _sqlite(path: str) -> Any:
    """One connection, opened read only; its `data_version` tells of others' writes."""
    from sqlalchemy import create_engine
    from sqlalchemy.pool import StaticPool

    address = f"file:{quote(os.path.abspath(path))}?mode=ro"

    def connect() -> sqlite3.Connection:
        return sqlite3.connect(address, uri=True, check_same_thread=False, timeout=10)

    return create_engine("sqlite://", creator=connect, poolclass=StaticPool)
