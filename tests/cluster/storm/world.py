"""Two or three Ray nodes and an MLflow server behind a proxy, on loopback: made to be broken and mended."""

from __future__ import annotations

import http.client
import os
import secrets
import shutil
import signal
import subprocess
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import psutil
from mlflow_server import MLflowServer

from acdis.cluster import head

#: Seconds until what must come about has; a node that is lost takes Ray a minute at times.
PATIENCE = 600

#: Bytes of each node's object store: nothing large goes through it.
STORE = 100_000_000
#: Of the head and the workers: all of loopback, but not the address to which Ray lets no second node come.
ADDRESSES = ("127.0.0.2", "127.0.0.3", "127.0.0.4")


class World:
    """A head without training CPUs, workers with one CPU each, and `mlflow server`.

    Every node is a `ray start --block` with a mark of its own, by which exactly its processes are found.
    """

    def __init__(self, base: Path, workers: Sequence[str] = ("a", "b")) -> None:
        self.base = base
        gcs, dashboard, client = head.free_ports(3)
        self.gcs, self.dashboard, self.client = f"{ADDRESSES[0]}:{gcs}", dashboard, client
        self.token = base / "token"
        self.token.touch(0o600)
        self.token.write_text(secrets.token_hex(32))
        self.temporary = tempfile.mkdtemp(prefix="acdis-")  # short: a socket's path has 107 characters
        self.workers = tuple(workers)
        self.nodes: dict[str, Node] = {}
        self.mlflow = MLflowServer(base / "mlflow")
        self.proxy = Proxy(self.mlflow.port)

    @property
    def state(self) -> dict[str, str]:
        """What `places` wants to know of a head."""
        return {"gcs": self.gcs, "token": str(self.token)}

    def start(self) -> None:
        """Everything, and wait until it is up."""
        self.mlflow.start()
        self.start_ray()

    def start_ray(self) -> None:
        """Head and workers."""
        self.start_head()
        for name in self.workers:
            self.start_node(name)

    def start_head(self, **variables: str) -> None:
        self._start(
            "head",
            variables,
            "--head",
            "--num-cpus=0",
            f"--port={self.gcs.rpartition(':')[2]}",
            "--dashboard-host=127.0.0.1",
            f"--dashboard-port={self.dashboard}",
            f"--ray-client-server-port={self.client}",
            f"--temp-dir={self.temporary}",
        )
        _until(self._answers, lambda: f"the head is not up: {self.nodes['head'].said()}")

    def start_node(self, name: str, cpus: int = 1, **variables: str) -> None:
        """Start a worker node, again if there was one of that name, and wait until it has joined."""
        for _ in range(3):  # on a busy machine it takes longer than the 30 s that Ray allows
            self._start(name, variables, f"--address={self.gcs}", f"--num-cpus={cpus}")
            node = self.nodes[name]
            _until(lambda node=node: node.joined() or not node.runs(), node.said)
            if node.runs():
                return
        raise AssertionError(self.nodes[name].said())

    def mend(self) -> None:
        """Start anew every worker that is not there."""
        for name in self.workers:
            if not self.nodes[name].runs():
                self.start_node(name)

    def node_of(self, pid: int) -> Node:
        """The node that a process belongs to."""
        return next(node for node in self.nodes.values() if pid in {each.pid for each in node.processes()})

    def trains(self, pid: int) -> bool:
        """Whether that process is a training that lives: a state may be of one that is dead."""
        try:
            return "RayTrainWorker" in " ".join(psutil.Process(pid).cmdline())
        except psutil.Error:
            return False

    def stop(self) -> None:
        """End everything that was started here."""
        self.proxy.close()
        self.mlflow.kill()
        for node in self.nodes.values():
            node.end()
        shutil.rmtree(self.temporary, ignore_errors=True)

    def _start(self, name: str, variables: dict[str, str], *words: str) -> None:
        if name in self.nodes:
            self.nodes[name].end()
        self.nodes[name] = Node(name, self, variables, words)

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.dashboard}/api/version", timeout=60):
                return True
        except urllib.error.HTTPError as error:
            return error.code in (401, 403)
        except OSError:
            return False


class Node:
    """A `ray start --block` and all that came of it."""

    def __init__(self, name: str, world: World, variables: dict[str, str], words: Sequence[str]) -> None:
        self.name, self.mark = name, secrets.token_hex(8)
        self.log = world.base / f"node-{name}.log"
        agent, grpc, runtime, metrics = head.free_ports(4)
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("RAY_", "ACDIS_"))}
        environment = kept | {
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(world.token),
            "RAY_USAGE_STATS_ENABLED": "0",
            "OMP_NUM_THREADS": "1",
            head.MARK: self.mark,
            **variables,
        }
        line = [
            *head.ray_command("start", *words, "--block", "--disable-usage-stats"),
            f"--node-ip-address={ADDRESSES[('head', *world.workers).index(name)]}",
            f"--dashboard-agent-listen-port={agent}",
            f"--dashboard-agent-grpc-port={grpc}",
            f"--runtime-env-agent-port={runtime}",
            f"--metrics-export-port={metrics}",
            "--min-worker-port=0",
            "--max-worker-port=0",
            f"--object-store-memory={STORE}",
        ]
        self._written = len(self.log.read_text(errors="replace")) if self.log.exists() else 0
        with self.log.open("ab") as said:
            self.process = subprocess.Popen(
                line,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                start_new_session=True,
            )

    def joined(self) -> bool:
        """Whether it has become a node of the cluster."""
        return "Ray runtime started" in self.log.read_text(errors="replace")[self._written :]

    def runs(self) -> bool:
        """Whether `ray start` has not ended."""
        return self.process.poll() is None

    def processes(self) -> list[psutil.Process]:
        """All of this node, trainings on it included."""
        return head.processes(self.mark)

    def signal(self, number: int) -> None:
        """To every process of the node."""
        for process in self.processes():
            _send(process, number)

    def end(self) -> None:
        """Kill what is left of it, until nothing is."""
        while self.processes():
            self.signal(signal.SIGKILL)
            self.process.poll()  # lest it stay as a zombie
            time.sleep(0.1)

    def said(self) -> str:
        """The end of its log."""
        return self.log.read_text(errors="replace")[-2000:]


class Proxy:
    """Passes requests on to MLflow; refuses them with 500 or delays them when told to.

    Attributes:
        mode: `pass`, `refuse`, or `slow`.
        spoilt: requests that were not simply passed on.
    """

    def __init__(self, target: int) -> None:
        self.mode, self.spoilt, self.delay = "pass", 0, 4.0
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _answer(self) -> None:
                content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                status, headers, body = proxy.answer(target, self.command, self.path, self.headers, content)
                self.send_response(status)
                for key, value in headers:
                    self.send_header(key, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                """Nobody reads it."""

        for verb in ("GET", "POST", "PUT", "PATCH", "DELETE"):
            setattr(Handler, f"do_{verb}", Handler._answer)
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.uri = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def answer(
        self, port: int, method: str, path: str, headers: Any, content: bytes
    ) -> tuple[int, list[tuple[str, str]], bytes]:
        """Status, headers and body."""
        if self.mode != "pass":
            self.spoilt += 1
        if self.mode == "refuse":
            return 500, [("Content-Type", "text/plain")], b"Internal Server Error"
        if self.mode == "slow":
            time.sleep(self.delay)
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        try:
            kept = {key: value for key, value in headers.items() if key.lower() not in ("host", "connection")}
            connection.request(method, path, content or None, kept)
            answer = connection.getresponse()
            body = answer.read()
            dropped = ("content-length", "transfer-encoding", "connection")
            return answer.status, [kv for kv in answer.getheaders() if kv[0].lower() not in dropped], body
        except OSError:
            self.spoilt += 1
            return 502, [("Content-Type", "text/plain")], b"Bad Gateway"
        finally:
            connection.close()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def _send(process: psutil.Process, number: int) -> None:
    try:
        process.send_signal(number)
    except psutil.Error:
        return


def _until(true: Any, why: Any) -> None:
    deadline = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < deadline, why()
        time.sleep(0.2)
