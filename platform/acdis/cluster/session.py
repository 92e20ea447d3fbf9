"""Connecting to Ray: the job's cluster, the one that RAY_ADDRESS names, or one of our own."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from acdis.cluster import temporary, token
from acdis.cluster.growth import hosts_of, of_file
from acdis.cluster.head import LOOPBACK
from acdis.cluster.resources import DRIVER
from acdis.config import Scaling
from acdis.config.documents import read_document
from acdis.errors import UserError

# Before ray is imported anywhere: no usage statistics, and a token for whoever connects.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_AUTH_MODE", "token")
os.environ.setdefault("RAY_TRAIN_V2_ENABLED", "1")

#: Threads of a torch operation that wait for each other spin for microseconds and then sleep (libgomp's
#: default is milliseconds). One training step on two cores, seconds: 2.3 with the machine to itself, 4.8 with
#: one more busy process; spinning as by default 2.5 and over 14; sleeping at once 2.9 and 4.5.
#: glibc gives large arrays back to the system when they are freed, and the next one costs a page fault every
#: 4 kB: half of the time of an elementwise operation at 80³. Here it keeps them, on huge pages.
_KEEP_ARRAYS = {"hugetlb": 1, "mmap_threshold": 2**33, "trim_threshold": 2**34}
WORKER_ENVIRONMENT = {
    "GOMP_SPINCOUNT": "1000",
    "GLIBC_TUNABLES": ":".join(f"glibc.malloc.{name}={value}" for name, value in _KEEP_ARRAYS.items()),
}


#: Set on the head of a cluster that `ray up` made: its file. Set by slurm.sh: how many hosts there will be.
CLUSTER_FILE, HOSTS = "ACDIS_CLUSTER_FILE", "ACDIS_HOSTS"
#: How long a training waits for its workers; Ray Train's own variable.
PATIENCE = "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S"


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
        stack.callback(_on_terminate, _on_terminate(_interrupt))
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


def _interrupt(number: int, frame: Any) -> None:
    raise KeyboardInterrupt


def _on_terminate(handler: Any) -> Any:
    """Set the handler of SIGTERM, where Python allows it; returns the one before."""
    if threading.current_thread() is not threading.main_thread():
        return signal.SIG_DFL
    return signal.signal(signal.SIGTERM, handler)


@dataclass(frozen=True)
class Room:
    """What one worker gets.

    Attributes:
        cpus: CPUs that Ray sets aside, and threads that torch uses.
        gpus: 0 or 1.
    """

    cpus: int
    gpus: int


def room(scaling: Scaling) -> Room:
    """Share out what the cluster has.

    Raises:
        UserError: the workers can never be placed; the sum is shown.
    """
    return share(nodes(), scaling)


def share(nodes: Sequence[dict[str, float]], scaling: Scaling) -> Room:
    """What each worker gets on these nodes: as many CPUs as still leave room for every worker, or for as many
    as there must be.

    Raises:
        UserError: as `room`.
    """
    gpus = int(scaling.gpu)
    most = max((int(node.get("CPU", 0)) for node in nodes), default=1)
    wanted = [scaling.cpus_per_worker] if scaling.cpus_per_worker else range(most, 0, -1)
    fitting = (
        cpus
        for least in (scaling.workers, scaling.least)
        for cpus in wanted
        if sum(_places(node, cpus, gpus) for node in nodes) >= least
    )
    cpus = next(fitting, scaling.cpus_per_worker or 1)
    places = sum(_places(node, cpus, gpus) for node in nodes)
    if places < scaling.least:
        kinds = Counter(f"{node.get('CPU', 0):g} CPUs, {node.get('GPU', 0):g} GPUs" for node in nodes)
        have = " + ".join(f"{number} × ({kind})" if number > 1 else kind for kind, number in kinds.items())
        raise UserError(
            f"scaling.workers: {scaling.least} workers of {cpus} CPUs and {gpus} GPUs each do not fit the "
            f"cluster ({have}: room for {places}); set fewer workers, scaling.cpus_per_worker, or "
            "scaling.gpu=false"
        )
    return Room(cpus, gpus)


def side_by_side(nodes: Sequence[dict[str, float]], scaling: Scaling, cells: int) -> tuple[Room, int]:
    """What each worker gets, and how many cells run at once: as many as the scarcest resource allows.

    Without `scaling.cpus_per_worker` a worker gets as many CPUs as cost no cell its place. `cells` counts all
    cells of the specs, not those still missing: threads must not change when an ablation goes on.

    Raises:
        UserError: as `room`.
    """
    share(nodes, scaling)  # one must fit
    gpus = int(scaling.gpu)
    most = max(int(node.get("CPU", 0)) for node in nodes)
    wanted = [scaling.cpus_per_worker] if scaling.cpus_per_worker else range(1, most + 1)

    most_driven = drivers(nodes)

    def at_once(cpus: int) -> int:
        places = sum(_places(node, cpus, gpus) for node in nodes)
        trainings = max(places // scaling.workers, int(places >= scaling.least))
        return min(cells, trainings, most_driven or trainings)

    cpus = max(wanted, key=lambda cpus: (at_once(cpus), cpus))
    return Room(cpus, gpus), at_once(cpus)


def drivers(nodes: Sequence[dict[str, float]]) -> int:
    """How many trials the head drives at once, where it says so; 0 where it does not."""
    return int(sum(node.get(DRIVER, 0) for node in nodes))


def nodes(say: Callable[[str], None] = print) -> list[dict[str, float]]:
    """Resources of the nodes on which one may reckon. Ray must be connected.

    Those that are alive; of a cluster that grows by itself, those that it may grow to; of given hosts, those
    that came within `PATIENCE` seconds.
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
    found = _alive()
    if len(found) < hosts:
        say(f"Ray: {len(found)} of {hosts} hosts are up; waiting for the others, {patience:g} s at most")
    while len(found) < hosts and time.monotonic() < deadline:
        time.sleep(1)
        found = _alive()
    if len(found) < hosts:
        say(f"Ray: {hosts - len(found)} of {hosts} hosts did not come up; going on without them")
    return found


def _alive() -> list[dict[str, float]]:
    import ray

    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def _places(node: dict[str, float], cpus: int, gpus: int) -> int:
    by_cpu = int(node.get("CPU", 0) // cpus)
    return min(by_cpu, int(node.get("GPU", 0) // gpus)) if gpus else by_cpu
