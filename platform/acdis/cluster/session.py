"""Connecting to Ray: the job's cluster, the one that RAY_ADDRESS names, or one of our own."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from acdis.cluster import temporary, token
from acdis.cluster.head import LOOPBACK
from acdis.config.documents import read_document
from acdis.errors import UserError
from acdis.machine import WORKER_ENVIRONMENT
from acdis.planning.cluster_file import hosts_of, of_file

# Before ray is imported anywhere: no usage statistics, and a token for whoever connects.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_AUTH_MODE", "token")
os.environ.setdefault("RAY_TRAIN_V2_ENABLED", "1")

#: Set on the head of a cluster that `ray up` made: its file. Set by slurm.sh: how many hosts there will be.
CLUSTER_FILE, HOSTS = "ACDIS_CLUSTER_FILE", "ACDIS_HOSTS"
#: How long a training waits for its workers; Ray Train's own variable.
PATIENCE = "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S"
#: What Ray says when it has waited for itself in vain.
_SLOW = "timed out during startup"


@contextlib.contextmanager
def connected(nested: bool = False) -> Iterator[None]:
    """Ray for the time of the block; a cluster that was there before is left running.

    The package that runs here is the package that runs on the workers: it is uploaded, and comes before
    any version that a node has installed. SIGTERM is taken as Ctrl-C, so that a stopped job ends in order.

    Args:
        nested: trainings are driven by processes of Ray's, which may die while Ray goes on.

    Raises:
        UserError: RAY_ADDRESS names no cluster that can be reached.
    """
    address = address_of(os.environ)
    _close_token()
    with contextlib.ExitStack() as stack:
        own = _own(stack, nested) if address == "local" else {}
        import ray

        package = Path(__file__).resolve().parents[1]
        stack.enter_context(interrupted_by_sigterm())
        stack.callback(ray.shutdown)
        _initialise(
            ray,
            address=address,
            runtime_env={"py_modules": [str(package)], "env_vars": WORKER_ENVIRONMENT},
            log_to_driver=bool(os.environ.get("ACDIS_VERBOSE")),
            logging_level=logging.ERROR,
            **own,
        )
        _on_terminate(_interrupt)  # Ray has put its own in place, which would end with Ray's exit code
        yield


def _own(stack: contextlib.ExitStack, nested: bool) -> dict[str, Any]:
    """Settings of a Ray of our own: on loopback, with our token, in a short folder. Before ray is imported.

    The dashboard is the Jobs API too, so it is there only where it is needed: what gives back the places of
    a training whose driver has died asks it for the driver. Without it a killed driver of `ablate` keeps its
    CPUs for good.
    """
    os.environ.update(LOOPBACK)
    folder = stack.enter_context(temporary.folder())
    stack.enter_context(token.settled(os.environ, folder.parent))
    return {"include_dashboard": nested, "_temp_dir": str(folder)}


def _close_token() -> None:
    """Ray itself makes its token readable for everybody."""
    file = token.known(os.environ)
    if token.close(file):
        print(
            f"Ray: others could read the token in {file}, now only you can; where somebody may have read it, "
            "remove the file and make another: ray get-auth-token --generate",
            file=sys.stderr,
        )


def address_of(environment: Any) -> str:
    """Where to connect: `local` for a Ray of our own.

    Raises:
        UserError: RAY_ADDRESS is that of the Jobs API or of Ray Client, where no training can be started.
    """
    address = str(environment.get("RAY_ADDRESS", "")).strip() or "local"
    if address.startswith(("http://", "https://")):
        raise UserError(
            f"RAY_ADDRESS: {address} is the address for submitting jobs; submit with `ray job submit`, "
            "or unset it to train on a Ray of your own"
        )
    if address.startswith("ray://"):
        raise UserError(
            f"RAY_ADDRESS: {address} is Ray Client's; submit with `ray job submit`, run on the cluster "
            "with RAY_ADDRESS=host:port, or unset it to train on a Ray of your own"
        )
    return address


def _initialise(ray: Any, address: str, **settings: Any) -> None:
    try:
        ray.init(address=address, **settings)
    except (ConnectionError, RuntimeError) as error:
        if address == "local":
            raise
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"RAY_ADDRESS: no Ray cluster can be reached at {address} ({reason})") from None
    except Exception as error:  # Ray raises no class of its own for it
        if _SLOW not in str(error):
            raise
        raise UserError(
            "Ray did not start within its 30 s: this machine is busy; give the same command again later"
        ) from None


@contextlib.contextmanager
def interrupted_by_sigterm() -> Iterator[None]:
    """SIGTERM is taken as Ctrl-C for the time of the block, where Python allows it."""
    before = _on_terminate(_interrupt)
    try:
        yield
    finally:
        _on_terminate(before)


def _interrupt(number: int, frame: Any) -> None:
    raise KeyboardInterrupt


def _on_terminate(handler: Any) -> Any:
    """Set the handler of SIGTERM, where Python allows it; returns the one before."""
    if threading.current_thread() is not threading.main_thread():
        return signal.SIG_DFL
    return signal.signal(signal.SIGTERM, handler)


def nodes(say: Callable[[str], None]) -> list[dict[str, float]]:
    """Resources of the nodes on which one may reckon. Ray must be connected.

    Those that are alive; of a cluster that grows by itself, those that it may grow to; of given hosts, those
    that came within `PATIENCE` seconds.

    Args:
        say: takes a line about hosts that are waited for.
    """
    if os.environ.get(HOSTS):
        return _arrived(int(os.environ[HOSTS]), say)
    file = os.environ.get(CLUSTER_FILE, "")
    if not file:
        return _alive()
    document = read_document(Path(file).expanduser(), "the cluster file", "must hold a cluster for `ray up`")
    hosts = hosts_of(document)
    if hosts is None:
        return list(of_file(document.path).nodes)
    return _arrived(hosts, say)


def _arrived(hosts: int, say: Callable[[str], None]) -> list[dict[str, float]]:
    """The nodes that are alive once all hosts are, or after `PATIENCE` seconds."""
    patience = float(os.environ.get(PATIENCE, "60"))
    deadline = time.monotonic() + patience
    alive = _alive()
    if len(alive) < hosts:
        say(f"Ray: {len(alive)} of {hosts} hosts are up; waiting for the others, {patience:g} s at most")
    while len(alive) < hosts and time.monotonic() < deadline:
        time.sleep(1)
        alive = _alive()
    if len(alive) < hosts:
        say(f"Ray: {hosts - len(alive)} of {hosts} hosts did not come up; going on without them")
    return alive


def _alive() -> list[dict[str, float]]:
    import ray

    return [node["Resources"] for node in ray.nodes() if node["Alive"]]
