"""Tracking: the only floor that speaks to MLflow, and what a run says about where it came from.

Here stands what concerns the store as a whole; importing it imports no MLflow.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from acdis import extras, files
from acdis.errors import UserError
from acdis.tracking import moved

#: MLflow's own patience with a dead server is minutes per call; the journal does the waiting here.
#: What the user has set stays. No telemetry, no emoji lines between the progress display.
ENVIRONMENT = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "15",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
#: Who in MLflow logs what its database says.
_DATABASE = "mlflow.store.db.utils"
#: How SQLite says that a file is none of its own, or no longer.
_DAMAGED = ("file is not a database", "malformed")
SCHEMES = ("http", "https", "sqlite", "postgresql", "mysql", "mssql", "databricks")


def default_uri(home: Path) -> str:
    """`sqlite:////…/mlflow.db` in the folder `home`."""
    return f"sqlite:///{home.resolve()}/mlflow.db"


def chosen_uri(given: str | None, home: Path) -> str:
    """Where runs are kept: as given, else as MLflow's MLFLOW_TRACKING_URI says, else in the folder `home`."""
    return given or os.environ.get("MLFLOW_TRACKING_URI") or default_uri(home)


def check_uri(uri: str) -> None:
    """Raise UserError for an address that MLflow could not use, before anything is started."""
    scheme = urlsplit(uri).scheme.split("+")[0]
    if scheme not in SCHEMES:
        known = "sqlite:////absolute/path.db, http://host:port or https://…"
        raise UserError(f"tracking.uri {public(uri)!r}: no MLflow store that can be used; give {known}")
    if scheme == "sqlite" and not sqlite_path(uri):
        raise UserError(
            f"tracking.uri {uri!r}: workers run in other folders, so the path must be absolute: "
            "four slashes, as in sqlite:////home/me/runs/mlflow.db"
        )


def sqlite_path(uri: str) -> Path | None:
    """The absolute path of a SQLite store; None for any other address, relative ones included."""
    parts = urlsplit(uri)
    path = parts.path[1:]
    sqlite = parts.scheme.startswith("sqlite") and not parts.netloc
    return Path(path) if sqlite and path.startswith("/") else None


def quiet() -> None:
    """Before MLflow is imported: no telemetry, and little patience; what the user has set stays."""
    for variable, value in ENVIRONMENT.items():
        os.environ.setdefault(variable, value)


def open_store(uri: str) -> Any:
    """An `MlflowClient`, its SQLite store created if need be (1.5 s the first time).

    Several processes of ours may do it at once. The lock does not hold off others: open the store once
    before starting `mlflow server` on it.
    """
    quiet()
    from mlflow import MlflowClient

    # Migrations of a new store announce themselves; nobody can do anything with that.
    for noisy in (_DATABASE, "alembic"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    logging.getLogger(_DATABASE).addFilter(_is_not_raised)
    path = sqlite_path(uri)
    with store_lock(uri):
        if path is not None:
            if not path.exists():
                _create(path)
            moved.rewrite(path)
        return MlflowClient(tracking_uri=uri)


def _is_not_raised(record: logging.LogRecord) -> bool:
    """What MLflow raises it logs as well, with a traceback, such as for a full disk; who is told says it."""
    return not record.exc_info


def without_mlflow(given: str | None) -> str | None:
    """The line for a user whose MLflow is not installed; none where it is.

    Args:
        given: `tracking.uri`.

    Raises:
        UserError: it is not installed, and a store is named that only it can speak to.
    """
    if extras.installed("tracking"):
        return None
    for key, value in {
        "tracking.uri": given,
        "MLFLOW_TRACKING_URI": os.environ.get("MLFLOW_TRACKING_URI"),
    }.items():
        if value:
            extras.need("tracking", f"{key}: {public(value)}")
    where = "what it would show stays in the cell's folder"
    return f"MLflow is not installed: {where} ({extras.command('tracking')})"


def check_store(uri: str, needed: bool = False) -> None:
    """Before anything is started: whether it is a store that this MLflow can use, or may be later.

    A server is not asked. What is away now may come back, and the journal waits for it; but no waiting helps
    with a database of another MLflow's schema, or one that is damaged. Without MLflow nothing is asked.

    Args:
        needed: it must be usable now; a SQLite store is made if it is not there, or brought to its place.

    Raises:
        UserError: it is not; how it is mended.
    """
    if uri.startswith(("http", "databricks")) or not extras.installed("tracking"):
        return
    path = sqlite_path(uri)
    try:
        schema = None if path is not None and not path.exists() else _schema(uri)
        if schema is not None:
            _compare(uri, schema)
        read_only = path is not None and path.exists() and not moved.is_writable(path)
        if needed and uri.startswith("sqlite") and not read_only:
            open_store(uri)
    except UserError:
        raise
    except Exception as error:
        said = " ".join(str(getattr(error, "orig", None) or error).split()).replace(user_part(uri), "")
        if needed or any(word in said for word in _DAMAGED):
            raise UserError(
                f"the MLflow store {public(uri)} cannot be used: {said[:200]}; mend that, or move it away: "
                "what cells have logged is in their folders too"
            ) from None


def _schema(uri: str) -> str | None:
    """The schema's version that the database has; none where it is empty."""
    from sqlalchemy import create_engine, inspect, text

    patience = {"connect_timeout": 10} if uri.startswith(("postgresql", "mysql")) else {}
    engine = create_engine(uri, connect_args=patience)
    try:
        with engine.connect() as connection:
            if not inspect(connection).has_table("alembic_version"):
                return None
            return connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
    finally:
        engine.dispose()


def _compare(uri: str, schema: str) -> None:
    from mlflow.store.db.utils import _get_latest_schema_revision
    from mlflow.store.db_migrations import versions

    expected = _get_latest_schema_revision()
    if schema == expected:
        return
    store = f"the MLflow store {public(uri)}"
    known = any(path.name.startswith(f"{schema}_") for path in Path(versions.__path__[0]).iterdir())
    if not known:
        raise UserError(
            f"{store} is of a newer MLflow (schema {schema}, this one has {expected}): install that one"
        )
    program = Path(sys.executable).parent / "mlflow"
    upgrade = shlex.join([str(program) if program.exists() else "mlflow", "db", "upgrade", public(uri)])
    raise UserError(
        f"{store} is of an older MLflow (schema {schema}, not {expected}): copy it, then run {upgrade}"
    )


def _create(path: Path) -> None:
    """A new SQLite store, made aside and moved into place: one killed while migrating never opens again."""
    from mlflow import MlflowClient

    for left in path.parent.glob(f"{path.name}.new-*"):
        left.unlink(missing_ok=True)
    # MLflow keeps an engine per address for the life of the process: the name must not come back.
    aside = path.with_name(f"{path.name}.new-{secrets.token_hex(8)}")
    MlflowClient(tracking_uri=f"sqlite:///{aside}")
    moved.settle(aside, moved.artifacts(path))
    files.publish(aside, path)


def experiment_id(client: Any, uri: str, name: str) -> str:
    """Id of the experiment; made if it is not there, with artifacts beside a SQLite store."""
    known = client.get_experiment_by_name(name)
    if known is None:
        path = sqlite_path(uri)
        location = moved.artifacts(path).as_uri() if path else None
        try:
            return str(client.create_experiment(name, artifact_location=location))
        except Exception:
            known = client.get_experiment_by_name(name)  # another process was quicker
            if known is None:
                raise
    if known.lifecycle_stage == "deleted":
        raise RuntimeError(
            f"experiment {name!r} is deleted there: restore it, or choose another tracking.experiment"
        )
    return str(known.experiment_id)


@contextlib.contextmanager
def store_lock(uri: str) -> Iterator[None]:
    """Among our processes on this host one at a time, for a SQLite store; nothing for a server."""
    path = sqlite_path(uri)
    if path is None:
        yield
        return
    with files.locked(Path(f"{path}.lock")):
        yield


def user_part(uri: str) -> str:
    """`user:password@` of an address, or a text that stands in none."""
    user, at, _ = urlsplit(uri).netloc.rpartition("@")
    return user + at if at else "\0"


def public(uri: str) -> str:
    """The address without user and password."""
    return uri.replace(user_part(uri), "")
