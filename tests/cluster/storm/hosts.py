"""The same on hosts of network namespaces: what takes a machine, or the network between two."""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import world
from storm.scene import Scene
from storm.world import STORE

from acdis.cluster import head
from acdis.tracking import default_uri, open_store

ROOT = Path(__file__).resolve().parents[3]
GCS, MLFLOW = 6379, 5000


@dataclass(frozen=True)
class Worker:
    """A host that trains."""

    name: str
    host: world.Host


class Hosts:
    """A head with MLflow and the command on it, and two workers with two CPUs each, every one a host.

    Args:
        base: a folder that all of them see, and all that is below it.
    """

    workers = ("a", "b")

    def __init__(self, base: Path) -> None:
        self.base = base / "of-the-hosts"
        self.base.mkdir()
        self.token = self.base / "token"
        self.token.write_text("0" * 64)
        self.hosts = world.World(self.base / "world", ["head", *self.workers], visible=[base, ROOT])
        self.head = self.hosts["head"]
        self.store = default_uri(self.base)
        self.uri = f"http://{self.head.address}:{MLFLOW}"
        self._nodes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self) -> None:
        self.hosts.__enter__()
        open_store(self.store)
        line = [sys.executable, "-m", "mlflow", "server", "--workers", "1", "--host", self.head.address]
        line += ["--port", str(MLFLOW), "--backend-store-uri", self.store]
        line += ["--artifacts-destination", str(self.base / "artifacts")]
        quiet = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "OMP_NUM_THREADS": "1"}
        self.head.start(line, self.base / "mlflow.log", quiet)
        world.wait_for(lambda: self.reachable(self.head, MLFLOW), "MLflow")
        self._ray("head", "--head", f"--port={GCS}", "--num-cpus=0", "--dashboard-host=127.0.0.1")
        for name in self.workers:
            self.start_node(name)

    def stop(self) -> None:
        self.hosts.close()

    def variables(self) -> dict[str, str]:
        """What leads to this cluster."""
        return {
            "RAY_ADDRESS": f"{self.head.address}:{GCS}",
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(self.token),
            "RAY_USAGE_STATS_ENABLED": "0",
            "OMP_NUM_THREADS": "1",
        }

    def command_on_the_head(self, place: Any) -> None:
        """Let a place's command run there."""
        variables = self.variables() | {"ACDIS_HOME": str(place.base)}
        place.start = lambda *words: self.head.start(place.command(*words), place.base / "log.txt", variables)

    def start_node(self, name: str) -> None:
        """Ray on a host, which is booted if it was powered off; again if it runs already."""
        host = self.hosts[name]
        if not host.running:
            host.boot()
        for _ in range(3):
            host.signal(9, lambda command: "ray" in command)
            process = self._ray(name, f"--address={self.head.address}:{GCS}", "--num-cpus=2")
            if process.poll() is None:
                return
        raise AssertionError(self._log(name).read_text()[-2000:])

    def trains(self, pid: int) -> bool:
        """As of `World`."""
        try:
            return bool(self.node_of(pid))
        except AssertionError:
            return False

    def node_of(self, pid: int) -> Worker:
        """The host whose process of that number trains."""
        for name in self.workers:
            for process in self.hosts[name].processes():
                if _inner(process) == pid and "RayTrainWorker" in world.command_of(process):
                    return Worker(name, self.hosts[name])
        raise AssertionError(f"no host has a training with the number {pid}")

    def runs(self, name: str) -> bool:
        """Whether Ray runs on a host."""
        return self._nodes[name].poll() is None

    def reachable(self, host: world.Host, port: int) -> bool:
        """Whether the desk can connect to a port."""
        line = f"import socket; socket.create_connection(({host.address!r}, {port}), 3)"
        return self.hosts.desk.run([sys.executable, "-c", line]).returncode == 0

    def _ray(self, name: str, *words: str) -> subprocess.Popen[bytes]:
        host, log = self.hosts[name], self._log(name)
        line = [*head.ray_command("start", *words, "--block", "--disable-usage-stats")]
        line += [f"--node-ip-address={host.address}", f"--object-store-memory={STORE}"]
        variables = {key: value for key, value in self.variables().items() if key != "RAY_ADDRESS"}
        written = len(log.read_text(errors="replace")) if log.exists() else 0
        process = host.start(line, log, variables)
        self._nodes[name] = process
        world.wait_for(
            lambda: (
                "Ray runtime started" in log.read_text(errors="replace")[written:]
                or process.poll() is not None
            ),
            f"Ray on {name}",
        )
        return process

    def _log(self, name: str) -> Path:
        return self.base / f"ray-{name}.log"


def taken_down(scene: Scene) -> Any:
    """The machine of the cell's worker loses its power, and is booted again after some seconds."""
    lost, cell, attempt = scene.node(), scene.cell, scene.state["attempt"]
    lost.host.kill()
    scene.later(scene.chance.uniform(2, 10), lambda: scene.world.start_node(lost.name))
    return lambda: cell.state().get("attempt") != attempt


def cut(seconds: float) -> Any:
    """The worker's cable is out for so long; the worker itself trains on."""

    def strike(scene: Scene) -> Any:
        lost, hosts = scene.node(), scene.world
        lost.host.cut()
        unreachable = not hosts.reachable(lost.host, 22)

        def restore() -> None:
            lost.host.restore()
            time.sleep(30)
            if not hosts.runs(lost.name):  # Ray had given the node up, and it has ended itself
                hosts.start_node(lost.name)

        scene.later(seconds, restore)
        return lambda: unreachable

    return strike


def _inner(process: int) -> int:
    """A process's number as its own host counts; 0 if it is gone."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return 0
    return int(next(line for line in lines if line.startswith("NSpid:")).split()[-1])
