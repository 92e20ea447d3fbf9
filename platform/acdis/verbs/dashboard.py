"""`dashboard`: MLflow's server with our pages beside it, on one port, for as long as this command runs."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from acdis import extras, home
from acdis.dashboard.leash import LEASH_VARIABLE
from acdis.dashboard.settings import SPECS_VARIABLE, STRATA_VARIABLE
from acdis.data.inputs import Unprepared
from acdis.errors import UserError
from acdis.files import UnwritableError
from acdis.report import strata
from acdis.tracking import ENVIRONMENT, check_store, default_uri, moved, open_store, public, sqlite_path

#: Seconds that the server may take to start, and to end after Ctrl-C.
START, END = 120.0, 10.0
APP, PROTECTED = "acdis", "acdis-basic-auth"


@dataclass(frozen=True)
class DashboardRequest:
    """What the user asked for.

    Attributes:
        specs: spec files that are shown; none: what the home knows, and `ablations/*.yaml`.
        store: of MLflow; none: the home's.
        port: 0 for a free one.
        login: with MLflow's users and passwords.
        strata: CSV file with kinds of cases (sites, grades); none: those that the truth shows.
    """

    specs: Sequence[Path] = ()
    experiment: Path | None = None
    overrides: Sequence[str] = ()
    host: str = "127.0.0.1"
    port: int = 5000
    store: str | None = None
    prefix: str = ""
    login: bool = False
    strata: Path | None = None


def dashboard(request: DashboardRequest) -> None:
    """Serve until Ctrl-C, SIGTERM or SIGHUP; the server ends with this process, whatever ends that.

    Raises:
        UserError: a spec, its data or the file of kinds is wrong, the store cannot be used, the port is
            taken, or the package is not installed.
    """
    extras.need("tracking", "dashboard")
    base = home.to_read()
    uri = request.store or default_uri(base)
    app = PROTECTED if request.login else APP
    _check(request, uri, app)
    if request.specs:
        _remember(request, base)
    port = request.port or _free(request.host)
    check_store(uri, needed=True)
    if not request.login and not _is_loopback(request.host):
        print(
            f"--host {request.host} without --login: whoever reaches this port may read, change and delete "
            "all runs; from elsewhere rather use ssh -L",
            file=sys.stderr,
        )
    address = f"http://{'127.0.0.1' if request.host == '0.0.0.0' else request.host}:{port}{request.prefix}"
    _end_in_order()  # a copy of the store goes then too
    with (
        _opened(uri, base) as uri,
        _served(_command(request, base, uri, app, port), _environment(request)) as server,
    ):
        _wait(server, f"http://{request.host}:{port}/health")
        print(f"dashboard: {address}/acdis/   MLflow: {address}/   (Ctrl-C ends it)", flush=True)
        try:
            server.wait()
        except KeyboardInterrupt:  # how it is meant to end
            return
    if server.returncode:
        raise UserError(f"the server ended by itself ({server.returncode}); what it said stands above")


@contextlib.contextmanager
def _opened(uri: str, base: Path) -> Iterator[str]:
    """The store that is served: made once before a server of several processes would, or a copy."""
    path = sqlite_path(uri)
    if path is None or moved.is_writable(path):
        if uri.startswith("sqlite"):
            open_store(uri)
        yield uri
        return
    with moved.readable(path, moved.artifacts(path)) as copy:
        print(f"{path} is read-only: a copy is shown, and what is changed in MLflow's pages is not kept")
        open_store(f"sqlite:///{copy}")
        yield f"sqlite:///{copy}"


def _check(request: DashboardRequest, uri: str, app: str) -> None:
    if request.strata:
        strata.read_groups(request.strata)
    if uri.startswith("http"):
        raise UserError(
            f"--store {public(uri)}: is a server; run `dashboard` where its database is, or start that "
            "server with --app-name acdis"
        )
    if not any(point.name == app for point in entry_points(group="mlflow.app")):
        raise UserError(
            "MLflow does not know our pages: this package is not installed; run `make install` or `pip`"
        )
    if request.login:
        _check_login()
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((request.host, request.port))
        except OSError as error:
            where = f"--host {request.host} --port {request.port}"
            raise UserError(f"{where}: cannot be used ({error.strerror}); give another --port") from None


def _check_login() -> None:
    """What MLflow's login needs; without it the server would fail again and again."""
    if find_spec("flask_wtf") is None:
        raise UserError("--login: MLflow's login is not installed; run pip install 'mlflow[auth]'")
    if not os.environ.get("MLFLOW_FLASK_SERVER_SECRET_KEY"):
        raise UserError(
            "--login: MLFLOW_FLASK_SERVER_SECRET_KEY is not set; set it to a long random text that stays"
        )


def _remember(request: DashboardRequest, base: Path) -> None:
    """Name the cells of the specs asked for, so that the pages find them; no case is drawn or prepared.

    Where their cases are not here and no cell remembers them, the pages show what the home knows already.
    """
    from acdis.report import spec_outline
    from acdis.terminal.progress import Display
    from acdis.workflow.opening import open_specs

    with Display() as display:
        members = open_specs(
            request.specs,
            request.experiment,
            request.overrides,
            None,
            None,
            base,
            display,
            looking=True,
            remembering=True,
        )
        unnamed = {member.spec.name for member in members if isinstance(member.inputs, Unprepared)}
        try:
            spec_outline.save([member for member in members if member.spec.name not in unnamed], base)
        except UnwritableError as error:
            display.say(f"cells are shown as `ablate` has noted them: {error}")


def _command(request: DashboardRequest, base: Path, uri: str, app: str, port: int) -> list[str]:
    command = [sys.executable, "-m", "mlflow", "server", "--app-name", app, "--workers", "1"]
    command += ["--host", request.host, "--port", str(port), "--backend-store-uri", uri]
    command += ["--artifacts-destination", (base / "mlartifacts").as_uri()]
    return command + (["--static-prefix", request.prefix] if request.prefix else [])


def _environment(request: DashboardRequest) -> dict[str, str]:
    own = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"} | ENVIRONMENT
    if request.specs:
        own[SPECS_VARIABLE] = os.pathsep.join(str(path.resolve()) for path in request.specs)
    if request.strata:
        own[STRATA_VARIABLE] = str(request.strata.resolve())
    return own | dict(os.environ) | {"ACDIS_HOME": str(home.to_read()), LEASH_VARIABLE: "1"}


@contextlib.contextmanager
def _served(command: Sequence[str], environment: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """The server in a group of its own, ended with the block: Ctrl-C comes here first.

    Where this process is killed, the server sees its input end, and ends itself.
    """
    _end_in_order()
    server = subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, start_new_session=True)
    try:
        yield server
    finally:
        _end(server)


def _end_in_order() -> None:
    """SIGTERM and SIGHUP are taken as Ctrl-C."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:  # as nohup has it
            signal.signal(number, _interrupt)


def _interrupt(number: int, frame: Any) -> None:
    raise KeyboardInterrupt


def _end(server: subprocess.Popen[bytes]) -> None:
    for number, patience in ((signal.SIGTERM, END), (signal.SIGKILL, END)):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            server.wait(patience)


def _wait(server: subprocess.Popen[bytes], health: str) -> None:
    """Until the server answers."""
    deadline = time.monotonic() + START
    while time.monotonic() < deadline:
        if server.poll() is not None:
            return
        with contextlib.suppress(OSError), urllib.request.urlopen(health, timeout=2):
            return
        time.sleep(0.2)
    raise UserError(f"the server did not answer within {START:.0f} s; what it said stands above")


def _is_loopback(host: str) -> bool:
    """Whether only this machine reaches what listens there."""
    try:
        addresses = {str(place[4][0]) for place in socket.getaddrinfo(host, None)}
    except OSError:
        return False
    return all(ipaddress.ip_address(address).is_loopback for address in addresses)


def _free(host: str) -> int:
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])
