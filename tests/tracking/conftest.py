"""A real `mlflow server` of the tests' own, and stores that cost nothing to make."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from acdis.tracking import default_uri, open_store


class Server:
    """One server process group of the test's own, on a store that outlives it."""

    def __init__(self, home: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.home = home
        self.uri = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [sys.executable, "-m", "mlflow", "server", "--workers", "1", "--host", "127.0.0.1"]
        command += ["--port", str(self.port), "--backend-store-uri", default_uri(self.home)]
        command += ["--artifacts-destination", str(self.home / "artifacts")]
        environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "OMP_NUM_THREADS": "1"}
        with (self.home / "server.log").open("ab") as said:
            self.process = subprocess.Popen(
                command, env=environment, stdout=said, stderr=said, start_new_session=True, cwd=self.home
            )
        deadline = time.monotonic() + 90
        while not self.answers():
            assert time.monotonic() < deadline, (self.home / "server.log").read_text()
            assert self.process.poll() is None, (self.home / "server.log").read_text()
            time.sleep(0.1)

    def answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.uri}/health", timeout=2) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def kill(self) -> None:
        if self.process is not None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that answers; a test that kills it starts it again."""
    home = tmp_path_factory.mktemp("server")
    open_store(default_uri(home))
    server = Server(home)
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
