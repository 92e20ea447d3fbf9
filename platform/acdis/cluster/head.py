"""A Ray head on loopback with token authentication: started once, found again, ended exactly.

What belongs to the head is known by a mark in its processes' environment, so that stopping ends these
processes and no others.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

from acdis.cells import read_json
from acdis.cluster import temporary, token
from acdis.errors import UserError
from acdis.files import locked, write_json

MARK = "ACDIS_HEAD"
START_SECONDS = 120
STOP_SECONDS = 15
#: How the folder of its sockets and logs begins.
TEMPORARY = "acdis-ray-"
#: Ray's name for it is about other systems; what it does is to make 127.0.0.1 the node's address. Without it
#: Ray takes the host's address instead, and every one of its ports listens to the network.
LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}


def start(base: Path) -> dict[str, Any]:
    """The head of this home: the one that runs, or a new one.

    Returns:
        `address` (of the Jobs API), `gcs`, `token` (path), `mark`.

    Raises:
        UserError: Ray did not come up; its log is named.
    """
    with _alone(base):
        state = running(base)
        if state:
            return state
        _end(base)  # what is left of one that died half
        for patch in _folder(base).glob("*.patch"):  # of jobs that died with it
            patch.unlink(missing_ok=True)
        state = _new_state(_folder(base))
        write_json(_folder(base) / "head.json", state)
        try:
            log = _folder(base) / "head.log"
            _wait(_launch(log, state), state, log)
        except BaseException:  # Ctrl-C too: no half-started head stays
            _end(base)
            raise
        return state


def running(base: Path) -> dict[str, Any]:
    """The state of the head of this home if it answers, else an empty mapping."""
    state = _read_state(base)
    return state if state and processes(state["mark"]) and _answers(state["address"]) else {}


def stop(base: Path) -> int:
    """End the processes of this home's head; returns how many there were."""
    with _alone(base):
        return _end(base)


def processes(mark: str) -> list[psutil.Process]:
    """The head and all that it started: those whose environment carries the mark, and their descendants.

    Some of Ray's processes write their title over their environment, hence the descendants.
    """
    by_pid: dict[int, psutil.Process] = {}
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.environ().get(MARK) == mark:
                by_pid[process.pid] = process
    for process in list(by_pid.values()):
        with contextlib.suppress(psutil.Error):
            by_pid |= {child.pid: child for child in process.children(recursive=True)}
    by_pid.pop(os.getpid(), None)
    return list(by_pid.values())


def environment(state: dict[str, Any]) -> dict[str, str]:
    """What a process needs to be let in by this head."""
    kept = {key: value for key, value in os.environ.items() if key != token.VALUE}  # it would come first
    return kept | {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": state["token"],
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ADDRESS": state["address"],
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
    }


def ray_command(*words: str) -> list[str]:
    """The `ray` command of this interpreter's environment."""
    return [sys.executable, "-m", "ray.scripts.scripts", *words]


def free_ports(count: int) -> list[int]:
    """TCP ports of loopback that nobody listens on just now."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for endpoint in sockets:
            endpoint.bind(("127.0.0.1", 0))
        return [endpoint.getsockname()[1] for endpoint in sockets]
    finally:
        for endpoint in sockets:
            endpoint.close()


def _new_state(folder: Path) -> dict[str, Any]:
    gcs, dashboard, agent, client = free_ports(4)
    return {
        "mark": secrets.token_hex(8),
        "gcs": f"127.0.0.1:{gcs}",
        "address": f"http://127.0.0.1:{dashboard}",
        "agent": agent,
        "client": client,
        "token": str(token.own(folder)),
        "temporary": str(temporary.made(TEMPORARY, os.environ)),
    }


def _read_state(base: Path) -> dict[str, Any]:
    """Empty where there was no head, or where a crash left half a file."""
    try:
        state = read_json(_folder(base) / "head.json")
    except ValueError:
        return {}
    if not {"mark", "address", "temporary"} <= state.keys():
        return {}
    return state | {"token": str(_folder(base) / "token")}  # wherever the home is by now


def _launch(log: Path, state: dict[str, Any]) -> subprocess.Popen[bytes]:
    """Every port is free or chosen by the system, so that other Rays on this machine do not collide."""
    line = [
        *ray_command("start", "--head", "--block", "--disable-usage-stats"),
        "--node-ip-address=127.0.0.1",
        f"--port={state['gcs'].rpartition(':')[2]}",
        "--dashboard-host=127.0.0.1",
        f"--dashboard-port={state['address'].rpartition(':')[2]}",
        f"--dashboard-agent-listen-port={state['agent']}",
        f"--ray-client-server-port={state['client']}",
        "--min-worker-port=0",
        "--max-worker-port=0",
        f"--temp-dir={Path(state['temporary']) / temporary.RAY}",
    ]
    # A job must not take its outputs' place from whoever happened to start the head.
    own = {key: value for key, value in environment(state).items() if not key.startswith("ACDIS_")}
    variables = own | LOOPBACK | {MARK: state["mark"]}
    del variables["RAY_ADDRESS"]
    with log.open("wb") as stream:
        return subprocess.Popen(
            line,
            env=variables,
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def _wait(process: subprocess.Popen[bytes], state: dict[str, Any], log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not (_answers(state["address"]) and _listens(state["agent"])):  # the agent is what starts jobs
        if process.poll() is not None or time.monotonic() > deadline:
            raise UserError(f"the Ray head did not come up; its log is {log}")
        time.sleep(0.3)


def _answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"{address}/api/version", timeout=5):
            return True
    except urllib.error.HTTPError as error:
        return error.code in (401, 403)  # it wants a token, so it is up
    except OSError:
        return False


def _listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def _end(base: Path) -> int:
    state = _read_state(base)
    if not state:
        return 0
    ours = processes(state["mark"])
    for process in ours:
        if "--block" in _command(process):  # `ray start --block` ends the rest in order
            _signal(process, signal.SIGTERM)
    _, left = psutil.wait_procs(ours, timeout=STOP_SECONDS)
    for process in {*left, *processes(state["mark"])}:
        _signal(process, signal.SIGKILL)
    folder = Path(state["temporary"])
    if folder.name.startswith(TEMPORARY):
        temporary.remove(folder)
    (_folder(base) / "head.json").unlink(missing_ok=True)
    return len(ours)


def _folder(base: Path) -> Path:
    folder = base / "head"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    return folder


@contextlib.contextmanager
def _alone(base: Path) -> Iterator[None]:
    """One process at a time starts or stops the head of a home."""
    with locked(_folder(base) / "lock"):
        yield


def _command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def _signal(process: psutil.Process, number: int) -> None:
    with contextlib.suppress(psutil.Error):
        process.send_signal(number)  # psutil makes sure that the pid is still this process's
