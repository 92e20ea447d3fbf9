"""Tables of MLflow that are read and mended past its API: this fails when another MLflow has others.

`pyproject.toml` keeps MLflow below the next minor version for their sake.
"""

from __future__ import annotations

import importlib
import pkgutil
import re
import sqlite3
from pathlib import Path

import pytest

from acdis import dashboard
from acdis.dashboard.store import MlflowStore, StoreAwayError
from acdis.tracking import moved


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A store as this MLflow makes it."""
    from mlflow.tracking import MlflowClient

    found = f"sqlite:///{tmp_path_factory.mktemp('store')}/mlflow.db"
    client = MlflowClient(found)
    run = client.create_run(client.create_experiment("one"))
    client.log_metric(run.info.run_id, "dice/mean", 0.5)
    client.log_param(run.info.run_id, "seed", "0")
    client.set_tag(run.info.run_id, "acdis.cell", "acdis-0123456789ab")
    return found


def statements() -> dict[str, str]:
    """Every query that a module of the dashboard holds, by module and name."""
    found: dict[str, str] = {}
    for info in pkgutil.walk_packages(dashboard.__path__, "acdis.dashboard."):
        module = importlib.import_module(info.name)
        for name, value in vars(module).items():
            for place, text in enumerate(value if isinstance(value, tuple) else (value,)):
                if isinstance(text, str) and text.startswith("SELECT "):
                    found[f"{info.name}.{name}[{place}]"] = text
    return found


def test_every_query_can_be_asked(uri: str) -> None:
    known = statements()
    assert len(known) >= 8
    for where, statement in known.items():
        values = dict.fromkeys(re.findall(r":(\w+)", statement), "x")
        try:
            MlflowStore(uri).rows(statement, **values)
        except StoreAwayError as error:
            pytest.fail(f"{where}: {error}")
    with pytest.raises(StoreAwayError):  # it would be seen
        MlflowStore(uri).rows(known["acdis.dashboard.cellview._PARAMS[0]"].replace("key", "name"), run="x")


def test_every_place_that_a_move_mends_is_there(uri: str) -> None:
    with sqlite3.connect(Path(uri.removeprefix("sqlite:///"))) as database:
        for table, column in moved._PLACES:
            columns = {str(row[1]) for row in database.execute(f"PRAGMA table_info({table})")}
            assert column in columns, f"{table}.{column}"
