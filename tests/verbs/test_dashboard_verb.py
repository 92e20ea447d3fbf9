"""`dashboard`: what is refused before a server is started; tests/dashboard/test_browser.py starts one."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest

from acdis.errors import UserError
from acdis.verbs import dashboard as verb
from acdis.verbs.dashboard import Wanted, dashboard


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACDIS_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("MLFLOW_FLASK_SERVER_SECRET_KEY", raising=False)
    monkeypatch.setattr(verb, "_served", None)  # nothing may be started


def test_a_port_that_is_taken() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=f"--port {port}: cannot be used.*another --port"):
            dashboard(Wanted(port=port))


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"store": "http://me:secret@example.org"}, r"--store http://example\.org: is a server"),
        ({"login": True}, "MLFLOW_FLASK_SERVER_SECRET_KEY is not set"),
        ({"host": "192.0.2.1"}, "--host 192.0.2.1 .*cannot be used"),
        ({"specs": [Path("nowhere.yaml")]}, "nowhere.yaml"),
    ],
)
def test_wrong_input_is_one_line(more: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=says) as caught:
        dashboard(Wanted(**{"port": 0} | more))
    assert "secret@" not in str(caught.value)


def test_without_the_package_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verb, "entry_points", lambda **_: ())
    with pytest.raises(UserError, match="make install"):
        dashboard(Wanted(port=0))


def test_loopback_unless_told_otherwise() -> None:
    assert Wanted().host == "127.0.0.1"
    command = verb._command(Wanted(), Path("/home"), "sqlite:////x.db", "acdis", 5000)
    assert command[command.index("--host") + 1] == "127.0.0.1"
    assert "--disable-security-middleware" not in command
