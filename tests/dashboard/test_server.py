"""Real servers: MLflow's pages as they were, ours beside them, with a path prefix and with MLflow's login."""

from __future__ import annotations

import base64
import contextlib
import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest

PASSWORD = "a-long-password-1"


class Served:
    """`mlflow server` on a lab's store, in a process group of its own."""

    def __init__(self, lab: Any, folder: Path, *words: str, prefix: str = "", **variables: str) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.address = f"http://127.0.0.1:{self.port}{prefix}"
        self.log = folder / "server.log"
        command = [sys.executable, "-m", "mlflow", "server", *words, "--workers", "1", "--host", "127.0.0.1"]
        command += ["--port", str(self.port), "--backend-store-uri", lab.uri]
        command += ["--static-prefix", prefix] if prefix else []
        own = {"ACDIS_HOME": str(lab.base), "ACDIS_SPECS": str(lab.spec), "OMP_NUM_THREADS": "1"}
        own |= {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
        with self.log.open("wb") as said:
            self.process = subprocess.Popen(
                command,
                env={**os.environ, **own, **variables},
                stdout=said,
                stderr=said,
                start_new_session=True,
                cwd=folder,
            )
        try:
            deadline = time.monotonic() + 600
            while self.get("/health")[0] != 200:
                assert time.monotonic() < deadline, self.log.read_text()
                assert self.process.poll() is None, self.log.read_text()
                time.sleep(0.2)
        except BaseException:
            self.end()
            raise

    def get(self, path: str, **headers: str) -> tuple[int, str, Mapping[str, str]]:
        """Status, text and headers; status 0 where nothing answers."""
        asked = urllib.request.Request(self.address + path, headers=headers)
        try:
            with urllib.request.urlopen(asked, timeout=600) as answer:
                return answer.status, answer.read().decode(), answer.headers
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode(), error.headers
        except OSError:
            return 0, "", {}

    def end(self) -> None:
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


@pytest.fixture(scope="module")
def serve(lab: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Served]]:
    """Starts servers, and ends them."""
    with contextlib.ExitStack() as stack:

        def start(*words: str, **more: Any) -> Served:
            served = Served(lab, tmp_path_factory.mktemp("server"), *words, **more)
            stack.callback(served.end)
            return served

        yield start


@pytest.fixture(scope="module")
def served(serve: Callable[..., Served]) -> Served:
    return serve("--app-name", "acdis", prefix="/lab")


@pytest.fixture(scope="module")
def plain(serve: Callable[..., Served]) -> Served:
    """MLflow alone, for comparison."""
    return serve(prefix="/lab")


@pytest.mark.slow
def test_mlflow_is_as_it_was(served: Served, plain: Served) -> None:
    for path in ("/", "/version", "/ajax-api/2.0/mlflow/experiments/search?max_results=5", "/nothing"):
        ours, theirs = served.get(path), plain.get(path)
        assert ours[:2] == theirs[:2], path
        kept = [{k: v for k, v in each[2].items() if k.lower() != "date"} for each in (ours, theirs)]
        assert kept[0] == kept[1], path


@pytest.mark.slow
def test_our_pages_below_a_prefix(served: Served) -> None:
    status, text, headers = served.get("/acdis/")
    assert status == 200
    assert "Table 9: a small ablation" in text
    assert "script-src 'self'" in headers["Content-Security-Policy"]
    assert served.get("/acdis")[1] == text
    links = re.findall(r'(?:href|src|data-source)="([^"#?]*)', text)
    assert "/lab/acdis/overview.json" in links
    assert "/lab/" in links
    for link in {each for each in links if each.startswith("/lab/acdis")}:
        assert served.get(link.removeprefix("/lab"))[0] == 200, link
    assert all(link.startswith(("/lab/", "data:")) for link in links if link), links


@pytest.mark.slow
def test_the_host_check_holds_for_our_pages(served: Served) -> None:
    assert served.get("/acdis/", Host="evil.example.org")[0] == 403


@pytest.mark.slow
def test_login(serve: Callable[..., Served], lab: Any, tmp_path: Path) -> None:
    ini = tmp_path / "auth.ini"
    ini.write_text(
        "[mlflow]\ndefault_permission = NO_PERMISSIONS\n"
        f"database_uri = sqlite:///{tmp_path}/auth.db\nadmin_username = boss\nadmin_password = {PASSWORD}\n"
    )
    variables = {"MLFLOW_AUTH_CONFIG_PATH": str(ini), "MLFLOW_FLASK_SERVER_SECRET_KEY": "x" * 32}
    served = serve("--app-name", "acdis-basic-auth", **variables)
    for path in ("/acdis/", "/acdis/overview.json", "/acdis/static/style.css"):
        status, text, headers = served.get(path)
        assert status == 401, path
        assert headers["WWW-Authenticate"].startswith("Basic"), path
        assert "Table 9" not in text
        assert served.get(path, Authorization=_basic("boss", "wrong-password"))[0] == 401
        assert served.get(path, Authorization=_basic("boss", PASSWORD))[0] == 200
    _user(served, "guest")
    assert served.get("/acdis/", Authorization=_basic("guest", PASSWORD))[0] == 403
    _may_read(served, "guest", lab)
    status, text, _ = served.get("/acdis/", Authorization=_basic("guest", PASSWORD))
    assert status == 200
    assert "Table 9" in text


def _basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def _client(served: Served) -> Any:
    from mlflow.server.auth.client import AuthServiceClient

    return AuthServiceClient(served.address)


def _user(served: Served, name: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_USERNAME", "boss")
        patch.setenv("MLFLOW_TRACKING_PASSWORD", PASSWORD)
        _client(served).create_user(name, PASSWORD)


def _may_read(served: Served, name: str, lab: Any) -> None:
    with sqlite3.connect(lab.base / "mlflow.db") as store:
        ids = [
            str(row[0]) for row in store.execute("SELECT experiment_id FROM experiments WHERE name='acdis'")
        ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_USERNAME", "boss")
        patch.setenv("MLFLOW_TRACKING_PASSWORD", PASSWORD)
        _client(served).grant_user_permission(name, "experiment", ids[0], "READ")


@pytest.mark.slow
def test_the_real_server_ends_when_the_command_is_killed(lab: Any, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "acdis", "dashboard", "--port", "0", "--store", lab.uri]
    log = tmp_path / "log"
    with log.open("w") as said:
        dashboard = subprocess.Popen(
            command,
            env=os.environ | {"ACDIS_HOME": str(lab.base)},
            stdout=subprocess.PIPE,
            stderr=said,
            text=True,
        )
    try:
        line = next((line for line in dashboard.stdout if line.startswith("dashboard: ")), "")
        assert line, log.read_text()
        servers = psutil.Process(dashboard.pid).children(recursive=True)
        assert len(servers) >= 2
        dashboard.kill()
        _, left = psutil.wait_procs(servers, timeout=300)
        assert not left
    finally:
        dashboard.kill()
        dashboard.wait()
        dashboard.stdout.close()
