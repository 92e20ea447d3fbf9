"""What a cluster has, asked over HTTP or by a child process, without ray in this one."""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from acdis.errors import UserError
from acdis.planning import resources

#: As Ray 2.60 answers, shortened.
ANSWER = {
    "result": True,
    "data": {
        "result": {
            "total": 3,
            "result": [
                {
                    "state": "ALIVE",
                    "resources_total": {"CPU": 8.0, "GPU": 2.0, "memory": 1e9, "driver": 16.0},
                },
                {"state": "DEAD", "resources_total": {"CPU": 64.0}},
                {"state": "ALIVE", "resources_total": {"CPU": 4.0}},
            ],
        }
    },
}
NODES = (
    {"CPU": 8.0, "GPU": 2.0, "memory": 1e9, "driver": 16.0},
    {"CPU": 4.0, "GPU": 0.0, "memory": 0.0, "driver": 0.0},
)


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        allowed = self.headers.get("Authorization") == "Bearer secret" and self.path == resources.NODES
        self.send_response(200 if allowed else 403)
        self.end_headers()
        self.wfile.write(json.dumps(ANSWER).encode())

    def log_message(self, *_: Any) -> None:
        """Quiet."""


@pytest.fixture
def address() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), _Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_our_own_head_is_asked_with_its_token(address: str, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("secret\n")
    state = {"address": address, "token": str(tmp_path / "token")}
    found = resources.available(state, {})
    assert (found.nodes, found.local) == (NODES, True)
    assert found.source == "this home's Ray head"


def test_the_jobs_address_is_asked_with_the_users_token(address: str, tmp_path: Path) -> None:
    for environment in ({"RAY_AUTH_TOKEN": "secret"}, {"RAY_AUTH_TOKEN_PATH": str(tmp_path / "token")}):
        (tmp_path / "token").write_text("secret")
        found = resources.available({}, environment | {"RAY_ADDRESS": address})
        assert (found.nodes, found.local) == (NODES, False)
    with pytest.raises(UserError, match="does not say what nodes it has"):
        resources.available({}, {"RAY_ADDRESS": address, "RAY_AUTH_TOKEN": "wrong"})
    with pytest.raises(UserError, match="is it up"):
        resources.available({}, {"RAY_ADDRESS": "http://127.0.0.1:9"})


def test_another_cluster_is_asked_by_a_child(monkeypatch: pytest.MonkeyPatch) -> None:
    said = 'warning\nNODES [{"CPU": 8.0, "GPU": 2.0, "memory": 1e9, "driver": 16.0}, {"CPU": 4.0}]\n'
    asked: list[dict[str, str]] = []

    def run(line: list[str], **settings: Any) -> subprocess.CompletedProcess[str]:
        asked.append(settings["env"])
        return subprocess.CompletedProcess(line, 0, said, "")

    monkeypatch.setattr(resources.subprocess, "run", run)
    found = resources.available({}, {"RAY_ADDRESS": "10.0.0.1:6379"})
    assert (found.nodes, found.local) == (NODES, False)
    assert asked[0]["RAY_ADDRESS"] == "10.0.0.1:6379"
    said = ""
    with pytest.raises(UserError, match=r"no Ray cluster can be reached at 10\.0\.0\.1:6379"):
        resources.available({}, {"RAY_ADDRESS": "10.0.0.1:6379"})


def test_without_a_cluster_it_is_this_machine() -> None:
    found = resources.available({}, {"RAY_ADDRESS": "local"})
    assert found.local
    assert found.nodes == (resources.this_machine(),)
    assert found.nodes[0]["CPU"] >= 1
    assert found.nodes[0]["memory"] > 2**28
