"""A real `mlflow server` of the tests' own, and stores that cost nothing to make."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow_server import MLflowServer

from acdis.tracking import default_uri, open_store


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MLflowServer]:
    """A server that answers; a test that kills it starts it again."""
    server = MLflowServer(tmp_path_factory.mktemp("server"))
    server.start()
    yield server
    server.kill()


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow store without runs; making one takes over a second, copying it nothing."""
    home = tmp_path_factory.mktemp("empty")
    open_store(default_uri(home))
    return home / "mlflow.db"


@pytest.fixture
def uri(tmp_path: Path, empty_store: Path) -> str:
    """A SQLite store of the test's own."""
    home = tmp_path / "home with space"
    home.mkdir()
    shutil.copy(empty_store, home / "mlflow.db")
    return default_uri(home)
