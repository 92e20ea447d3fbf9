"""Somebody hears how an ablation ended: by a command, by a webhook; what goes wrong with that is one line."""

from __future__ import annotations

import json
import shlex
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from acdis.ablation.expansion import Member, resolve
from acdis.ablation.spec import load
from acdis.data.inputs import Inputs
from acdis.errors import UserError
from acdis.workflow import notify

SPEC = """
title: Two
base: base.yaml
seeds: [0, 1]
baseline: a
rows: {a: {}, b: {set: {training.epochs: 2}}}
"""
TOLD = "acdis: two ended: 4 cells: 4 missing"


@pytest.fixture
def members(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Member]:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "base.yaml").write_text("data: {phantoms: {cases: 4}}")
    (tmp_path / "two.yaml").write_text(SPEC)
    return resolve([load(tmp_path / "two.yaml")], lambda _: Inputs((), (), ()))


@pytest.fixture
def hook() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """A server of this machine that keeps what it is told."""
    heard: list[dict[str, Any]] = []

    class Hook(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            heard.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(404 if self.path == "/no" else 204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Hook) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", heard
        server.shutdown()
        thread.join()


def test_a_webhook_hears_it(
    members: list[Member], tmp_path: Path, hook: tuple[str, list[dict[str, Any]]]
) -> None:
    said: list[str] = []
    with notify.told(hook[0], members, tmp_path, said.append):
        assert hook[1] == []
    assert hook[1] == [{"text": TOLD, "specs": ["two"]}]
    with notify.told(f"{hook[0]}/no", members, tmp_path, said.append):
        pass
    (line,) = said
    assert line.startswith("--notify: not told (")


@pytest.mark.parametrize(
    ("error", "outcome"),
    [(None, "ended"), (KeyboardInterrupt(), "was stopped"), (UserError("no"), "ended with failures")],
)
def test_a_command_hears_how_it_ended(
    members: list[Member], tmp_path: Path, error: BaseException | None, outcome: str
) -> None:
    file = tmp_path / "heard by $HOME"

    def run() -> None:
        script = (
            "import os, sys; told = [os.environ['ACDIS_MESSAGE'], *sys.argv[2:], sys.stdin.read()]; "
            "open(sys.argv[1], 'w').write('|'.join(told))"
        )
        target = shlex.join([sys.executable, "-c", script, str(file), "{}"])
        with notify.told(target, members, tmp_path, pytest.fail):
            if error is not None:
                raise error

    if error is None:
        run()
    else:
        with pytest.raises(type(error)):
            run()
    told = TOLD.replace("ended", outcome)
    assert file.read_text() == f"{told}|{told}|{told}\n"


def test_a_command_that_fails_is_a_line(
    members: list[Member], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(notify, "PATIENCE", 0.2)
    for target in ("false", "sleep 30", "no-such-command", "unclosed 'quote", "http://127.0.0.1:9/"):
        with notify.told(target, members, tmp_path, said.append):
            pass
    assert len(said) == 5
    assert all(line.startswith("--notify: not told (") and "\n" not in line for line in said)


def test_nobody_hears_where_nobody_is_named(members: list[Member], tmp_path: Path) -> None:
    with notify.told(None, members, tmp_path, pytest.fail):
        pass


@pytest.mark.parametrize("target", ["", "  ", "ftp://example.org", "file:///etc/passwd"])
def test_what_can_never_be_told_is_refused_first(target: str) -> None:
    with pytest.raises(UserError, match=r"--notify .*: give a command, or an address"):
        notify.check(target)
