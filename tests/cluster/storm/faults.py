"""The faults: what is broken, what can be seen of it afterwards, and how it is mended."""

from __future__ import annotations

import os
import shutil
import signal
import struct
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil
from storm.scene import Scene
from storm.world import PATIENCE, Node

Felt = Callable[[], bool]
_COMPILER = shutil.which("cc") or ""


@dataclass(frozen=True)
class Fault:
    """One way to break something.

    Attributes:
        strike: breaks it, arranges for its mending, and returns what tells whether it was felt.
        least: epochs that must be done before.
        kills: whether the cell's worker is dead when `strike` returns.
        alone: whether it has an ablation to itself: what it needs would be in others' way.
        lacking: why it cannot be done on this machine; empty where it can.
        prepare, tidy: before the ablation starts, and when it has ended.
    """

    name: str
    strike: Callable[[Scene], Felt]
    least: int = 1
    kills: bool = True
    alone: bool = False
    lacking: Callable[[], str] = str
    prepare: Callable[[Scene], None] = lambda scene: None
    tidy: Callable[[Scene], None] = lambda scene: None


def _restarted(scene: Scene) -> Felt:
    """Another process trains the cell afterwards."""
    cell, attempt = scene.cell, scene.state["attempt"]
    return lambda: cell.state().get("attempt") != attempt and cell.state().get("resumed_at", 0) >= 1


def worker(scene: Scene) -> Felt:
    process = psutil.Process(scene.state["pid"])
    assert "RayTrainWorker" in " ".join(process.cmdline())
    process.kill()
    return _restarted(scene)


def trial(scene: Scene) -> Felt:
    psutil.Process(scene.state["driver"]).kill()
    gone(scene.state["pid"])
    return _restarted(scene)


def raylet(scene: Scene) -> Felt:
    node = scene.node()
    (found,) = (each for each in node.processes() if each.name() == "raylet")
    found.kill()
    gone(scene.state["pid"])
    _again(scene, node)
    return _restarted(scene)


def node(scene: Scene) -> Felt:
    lost = scene.node()
    lost.signal(signal.SIGKILL)
    gone(scene.state["pid"])
    _again(scene, lost)
    return _restarted(scene)


def preempted(scene: Scene) -> Felt:
    """What a spot machine's end looks like: SIGTERM to `ray start`, which drains and stops its node."""
    lost = scene.node()
    lost.process.terminate()
    gone(scene.state["pid"])
    _again(scene, lost)
    return _restarted(scene)


def job(scene: Scene) -> Felt:
    assert scene.end_main() == -signal.SIGKILL
    gone(scene.state["pid"])
    scene.start()
    return _restarted(scene)


def sigterm(scene: Scene) -> Felt:
    assert scene.end_main(signal.SIGTERM) == 1
    gone(scene.state["pid"])
    scene.start()
    return _restarted(scene)


def ctrl_c(scene: Scene) -> Felt:
    assert scene.end_main(signal.SIGINT) == 1
    gone(scene.state["pid"])
    scene.start()
    return _restarted(scene)


def head(scene: Scene) -> Felt:
    """The head dies and comes back with nothing in its memory, as `ray up` would start it."""
    world = scene.world
    world.nodes["head"].signal(signal.SIGKILL)
    assert scene.main is not None
    assert scene.main.wait(timeout=900) != 0  # nobody waits for ever for a head that is gone
    for each in world.nodes.values():
        each.end()
    gone(scene.state["pid"])
    world.start_ray()
    scene.start()
    return _restarted(scene)


def frozen(scene: Scene) -> Felt:
    """A node that says nothing for 30 s and then goes on, as one that swaps or is migrated."""
    node = scene.node()
    world, cell, updated = scene.world, scene.cell, []

    def thaw() -> None:
        updated.append(cell.state()["updated"])
        node.signal(signal.SIGCONT)
        time.sleep(20)
        if not node.runs():  # Ray has given it up, and it has ended itself; or not: both are right
            world.start_node(node.name)

    node.signal(signal.SIGSTOP)
    stopped = time.time()
    scene.later(30, thaw)
    return lambda: updated[0] < stopped + 3


def mlflow_away(scene: Scene) -> Felt:
    world, before = scene.world, scene.world.proxy.spoilt
    world.mlflow.kill()
    scene.later(60, world.mlflow.start, meanwhile=True)
    return lambda: world.proxy.spoilt > before


def mlflow_refuses(scene: Scene) -> Felt:
    return _spoil(scene, "refuse")


def mlflow_is_slow(scene: Scene) -> Felt:
    return _spoil(scene, "slow")


def disk_full(scene: Scene) -> Felt:
    """Nothing can be written for 20 s."""
    ballast, refused = scene.place.base / "ballast", []
    with ballast.open("wb", buffering=0) as stream:
        try:
            while True:
                stream.write(bytes(1 << 16))
        except OSError as error:
            refused.append(error)
    scene.later(20, ballast.unlink)
    cell, pid = scene.cell, scene.state["pid"]
    return lambda: bool(refused) and cell.state().get("pid") != pid


def truncated(scene: Scene) -> Felt:
    """The job is killed, and half of its last checkpoint is lost."""
    assert scene.end_main() == -signal.SIGKILL
    gone(scene.state["pid"])
    last = scene.cell.folder / "last.pt"
    os.truncate(last, scene.chance.randrange(1, last.stat().st_size))
    scene.start()
    return _restarted(scene)


def clock(scene: Scene) -> Felt:
    """The workers' nodes have a clock that is an hour behind, or a day ahead, for 30 s."""
    cell, seen = scene.cell, []
    jump = scene.chance.choice((-3600, 86400))
    _set_clock(scene, jump)

    def watch() -> None:
        for _ in range(60):
            seen.append(cell.state().get("updated", 0) - time.time())
            time.sleep(0.5)
        _set_clock(scene, 0)

    scene.later(0, watch)
    return lambda: any(abs(each - jump) < 100 for each in seen)


def _with_clock(scene: Scene) -> None:
    """Workers whose clock can be set: a small library adds to it what stands in a file."""
    library = scene.world.base / "clock.so"
    source = Path(__file__).with_name("clock.c")
    subprocess.run([_COMPILER, "-O2", "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    _clock_file(scene).write_bytes(bytes(8))
    _renew_workers(scene, {"LD_PRELOAD": str(library), "ACDIS_CLOCK": str(_clock_file(scene))})


def _set_clock(scene: Scene, seconds: int) -> None:
    with _clock_file(scene).open("r+b") as stream:
        stream.write(struct.pack("q", seconds))


def _renew_workers(scene: Scene, variables: dict[str, str]) -> None:
    for name in scene.world.workers:
        scene.world.start_node(name, **variables)


def _clock_file(scene: Scene) -> Path:
    return scene.world.base / "clock"


def _small_home(scene: Scene) -> None:
    """The outputs on a file system of 96 MB."""
    base = scene.place.base
    kept = base.with_name(f"{base.name}-kept")
    shutil.copytree(base, kept)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=96m", "tmpfs", str(base)], check=True)
    shutil.copytree(kept, base, dirs_exist_ok=True)


def _no_small_home(scene: Scene) -> None:
    """What is on it is kept."""
    base = scene.place.base
    kept = base.with_name(f"{base.name}-kept")
    shutil.copytree(base, kept, dirs_exist_ok=True)
    subprocess.run(["umount", "--lazy", str(base)], check=True)


def _spoil(scene: Scene, mode: str) -> Felt:
    proxy = scene.world.proxy
    before, proxy.mode = proxy.spoilt, mode

    def mend() -> None:
        proxy.mode = "pass"

    scene.later(30, mend, meanwhile=True)
    return lambda: proxy.spoilt > before


def _again(scene: Scene, lost: Node) -> None:
    """The node comes back after some seconds, as a new one."""
    scene.later(scene.chance.uniform(2, 10), lambda: scene.world.start_node(lost.name))


def gone(pid: int) -> None:
    """Wait until the worker is no more: what it does afterwards would be no recovery."""
    deadline = time.monotonic() + PATIENCE
    while psutil.pid_exists(pid):
        try:
            if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                return
        except psutil.Error:
            return
        assert time.monotonic() < deadline, f"the worker {pid} outlives what it belonged to"
        time.sleep(0.05)


FAULTS = (
    Fault("worker: kill -9", worker),
    Fault("trial's driver: kill -9", trial),
    Fault("raylet: kill -9", raylet),
    Fault("node: all processes killed", node),
    Fault("node preempted: SIGTERM", preempted),
    Fault("node frozen for 30 s", frozen, kills=False),
    Fault("job: kill -9", job),
    Fault("job: SIGTERM", sigterm),
    Fault("job: Ctrl-C", ctrl_c),
    Fault("head: killed and restarted", head),
    Fault("MLflow server away for 60 s", mlflow_away, kills=False),
    Fault("MLflow answers 500 for 30 s", mlflow_refuses, kills=False),
    Fault("MLflow slow for 30 s", mlflow_is_slow, kills=False),
    Fault("last checkpoint truncated", truncated, least=2),
    Fault(
        "disk full for 20 s",
        disk_full,
        kills=False,
        alone=True,
        lacking=lambda: "" if os.geteuid() == 0 else "only root may mount a small file system",
        prepare=_small_home,
        tidy=_no_small_home,
    ),
    Fault(
        "clock an hour behind or a day ahead",
        clock,
        kills=False,
        alone=True,
        lacking=lambda: "" if _COMPILER else "no C compiler (apt install gcc)",
        prepare=_with_clock,
        tidy=lambda scene: _renew_workers(scene, {}),
    ),
)
BY_NAME = {fault.name: fault for fault in FAULTS}
