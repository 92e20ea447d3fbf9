"""`dashboard`: what is refused before a server is started; tests/dashboard/test_browser.py starts one."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from acdis.errors import UserError
from acdis.verbs import dashboard as verb
from acdis.verbs.dashboard import DashboardRequest, dashboard


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACDIS_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("MLFLOW_FLASK_SERVER_SECRET_KEY", raising=False)
    monkeypatch.setattr(verb, "_served", None)  # nothing may be started


SPEC = """
base: experiment.yaml
baseline: a
rows: {a: {}, b: {set: {training.learning_rate: 0.001}}}
"""
EXPERIMENT = "data: {phantoms: {cases: 4}, split: {counts: [2, 1, 1]}}"


def test_a_spec_draws_and_prepares_nothing(tmp_path: Path) -> None:
    """On a laptop the cases are not there, and a home may be read-only."""
    (tmp_path / "experiment.yaml").write_text(EXPERIMENT)
    (tmp_path / "spec.yaml").write_text(SPEC)
    base = tmp_path / "home"
    known = base / "ablations" / "spec" / "facts.json"
    known.parent.mkdir(parents=True)
    known.write_text("what `ablate` has noted")
    verb._remember(DashboardRequest([tmp_path / "spec.yaml"]), base)
    assert [path.name for path in base.rglob("*")] == ["ablations", "spec", "facts.json"]
    assert known.read_text() == "what `ablate` has noted"


def test_a_port_that_is_taken() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=f"--port {port}: cannot be used.*another --port"):
            dashboard(DashboardRequest(port=port))


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
        dashboard(DashboardRequest(**{"port": 0} | more))
    assert "secret@" not in str(caught.value)


def test_without_the_package_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verb, "entry_points", lambda **_: ())
    with pytest.raises(UserError, match="make install"):
        dashboard(DashboardRequest(port=0))


def test_loopback_unless_told_otherwise() -> None:
    assert DashboardRequest().host == "127.0.0.1"
    command = verb._command(DashboardRequest(), Path("/home"), "sqlite:////x.db", "acdis", 5000)
    assert command[command.index("--host") + 1] == "127.0.0.1"
    assert "--disable-security-middleware" not in command


@pytest.mark.parametrize(
    ("host", "login", "said"),
    [
        ("0.0.0.0", False, 1),
        ("0.0.0.0", True, 0),
        ("localhost", False, 0),
        ("127.0.0.2", False, 0),
    ],
)
def test_without_a_login_other_hosts_are_let_in_and_it_says_so(
    host: str, login: bool, said: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def serve(*_: Any) -> Any:
        raise UserError("served")

    monkeypatch.setattr(verb, "check_store", lambda uri, needed: None)
    monkeypatch.setattr(verb, "_check", lambda *_: None)
    monkeypatch.setattr(verb, "_served", serve)
    with pytest.raises(UserError, match="served"):
        dashboard(DashboardRequest(port=0, host=host, login=login))
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == said
    assert all(f"--host {host} without --login" in line for line in lines)


def test_a_copy_of_the_store_goes_with_a_command_that_is_told_to_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIGTERM before there is a server."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    copies = tmp_path / "copies"
    copies.mkdir()

    def open_store(_: str) -> None:
        assert len(list(copies.iterdir())) == 1
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr("tempfile.tempdir", str(copies))
    monkeypatch.setattr(verb, "check_store", lambda uri, needed: None)
    monkeypatch.setattr(verb.moved, "is_writable", lambda _: False)
    monkeypatch.setattr(verb, "open_store", open_store)
    try:
        with pytest.raises(KeyboardInterrupt):
            dashboard(DashboardRequest(port=0))
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert list(copies.iterdir()) == []


@pytest.mark.parametrize("content", [b"no database", None])
def test_a_store_that_cannot_be_used_is_one_line(tmp_path: Path, content: bytes | None) -> None:
    store = tmp_path / "home" / "mlflow.db"
    store.parent.mkdir()
    store.write_bytes(content) if content else store.mkdir()
    with pytest.raises(UserError, match=r"mlflow\.db cannot be used"):
        dashboard(DashboardRequest(port=0))


#: Starts a stand-in for MLflow's server as `dashboard` does, a process below another.
STARTER = """
import os, sys
from acdis.dashboard.leash import LEASH_VARIABLE
from acdis.verbs.dashboard import _served
child = [sys.executable, "-c", sys.argv[1]]
middle = [sys.executable, "-c", "import subprocess, sys; subprocess.run(sys.argv[1:])", *child]
with _served(middle, os.environ | {LEASH_VARIABLE: "1"}) as server:
    server.wait()
"""
SERVER = (
    "import os, time; from acdis.dashboard.leash import follow; follow(); print(os.getpid(), flush=True); "
)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_the_server_ends_with_the_command_whatever_ends_that(number: int) -> None:
    line = [sys.executable, "-c", STARTER, SERVER + "time.sleep(600)"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}
    usual = lambda: signal.signal(number, signal.SIG_DFL) if number != signal.SIGKILL else None  # noqa: E731
    # Tests that `nohup` has started would hand on that SIGHUP is not heard.
    with subprocess.Popen(line, **pipes, preexec_fn=usual) as starter:
        try:
            server = psutil.Process(int(starter.stdout.readline()))
            above = server.parents()[:2]
            assert above[1].pid == starter.pid
            starter.send_signal(number)
            starter.wait(300)
            _, left = psutil.wait_procs([server, above[0]], timeout=300)
            assert not left
        finally:
            for process in (server, *above):
                with contextlib.suppress(psutil.Error):
                    process.kill()


def test_nohup_stays_what_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    before = {number: signal.getsignal(number) for number in (signal.SIGHUP, signal.SIGTERM)}
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with verb._served([sys.executable, "-c", ""], dict(os.environ)):
            assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
            assert signal.getsignal(signal.SIGTERM) == verb._interrupt
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
