"""The hosts themselves: names, disks, cables, freezing and power; and that nothing of them is left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from world import PATIENCE, World, command_of, missing, wait_for

pytestmark = pytest.mark.skipif(bool(missing()), reason=missing())
ROOT = Path(__file__).resolve().parents[2]
SSH = 22


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Two hosts."""
    with World(tmp_path_factory.mktemp("world"), ["one", "two"], visible=[ROOT]) as world:
        yield world


def _reach(world: World, here: str, there: str) -> bool:
    line = ["timeout", "1", "bash", "-c", f"exec 3<>/dev/tcp/{there}/{SSH}"]
    return world[here].run(line).returncode == 0


def test_a_host_has_its_own_name_processes_home_and_tmp(pair: World) -> None:
    lines = [
        "hostname",
        "echo ~",
        "touch /tmp/mine",
        "cd /proc",
        "for p in [0-9]*; do tr '\\0' ' ' < $p/cmdline; echo; done",
    ]
    said = pair.desk.run(pair.ssh_line(pair["two"], "; ".join(lines)), check=True)
    name, home, *processes = said.stdout.splitlines()
    assert (name, home) == ("two", "/tmp/home")
    assert sum(line.startswith("sshd") for line in processes) <= 4
    assert not any("-m pytest" in line for line in processes)
    assert (pair["two"].tmp / "mine").exists()
    assert not Path("/tmp/mine").exists()
    assert pair["one"].run(["ls", "/tmp/mine"]).returncode != 0
    assert (ROOT / "pyproject.toml").read_text() == pair["one"].run(["cat", f"{ROOT}/pyproject.toml"]).stdout
    (pair.shared / "note").write_text("all see this")
    assert pair["two"].run(["cat", str(pair.shared / "note")]).stdout == "all see this"


def test_the_machines_own_network_does_not_reach_a_host(pair: World) -> None:
    # The banner is asked for, since a machine behind a transparent proxy can connect to any address.
    line = ["bash", "-c", f"exec 3<>/dev/tcp/{pair['one'].address}/{SSH}; head -c 3 <&3"]
    assert pair["two"].run(line).stdout == "SSH"
    here = subprocess.run(["timeout", "5", *line], capture_output=True, text=True)
    assert "SSH" not in here.stdout


def test_a_cable_is_pulled_and_plugged_in_again(pair: World) -> None:
    pair["one"].cut()
    assert not _reach(pair, "two", "one")
    assert not _reach(pair, "one", "two")
    pair["one"].restore()
    wait_for(lambda: _reach(pair, "two", "one") and _reach(pair, "one", "two"), "the cable")


def test_two_hosts_lose_each_other_and_keep_the_desk(pair: World) -> None:
    pair["one"].cut(pair["two"])
    assert not _reach(pair, "one", "two")
    assert not _reach(pair, "two", "one")
    assert pair.desk.run(pair.ssh_line(pair["one"], "true")).returncode == 0
    pair["one"].restore(pair["two"])
    wait_for(lambda: _reach(pair, "one", "two") and _reach(pair, "two", "one"), "each other")


def test_a_frozen_host_says_nothing_until_it_thaws(pair: World, tmp_path: Path) -> None:
    process = pair["one"].start("while true; do date +%s%N; sleep 0.05; done", tmp_path / "log")
    wait_for(lambda: (tmp_path / "log").stat().st_size, "the first line")
    pair["one"].freeze()
    time.sleep(0.2)
    before = (tmp_path / "log").stat().st_size
    time.sleep(0.5)
    assert (tmp_path / "log").stat().st_size == before
    pair["one"].thaw()
    wait_for(lambda: (tmp_path / "log").stat().st_size > before, "the next line")
    process.kill()
    process.wait()


def test_power_off_ends_everything_of_one_host_and_boots_with_its_disk(pair: World, tmp_path: Path) -> None:
    sleeper = pair["two"].start(["sleep", "3600"], tmp_path / "log")
    pair["two"].run(["touch", "/tmp/kept"], check=True)
    wait_for(lambda: "sleep 3600" in map(command_of, pair["two"].processes()), "the sleeper")
    ours = pair["two"].processes()
    pair["two"].kill()
    sleeper.wait(timeout=PATIENCE)
    assert not any(Path(f"/proc/{process}").exists() for process in ours)
    assert not _reach(pair, "one", "two")
    pair["two"].boot()
    wait_for(lambda: _reach(pair, "one", "two"), "the booted host")
    assert pair["two"].run(["ls", "/tmp/kept"]).returncode == 0


_MAKER = """
import sys, time
from pathlib import Path
sys.path.insert(0, {here!r})
from world import World, command_of, wait_for
with World(Path({folder!r}), ["one"]) as world:
    world["one"].start(["sleep", "4321"], Path({folder!r}) / "log")
    wait_for(lambda: "sleep 4321" in map(command_of, world["one"].processes()), "the sleeper")
    print(*world["one"].processes(), *world.desk.processes(), flush=True)
    time.sleep(600)
"""


def test_nothing_outlives_a_maker_that_is_killed(tmp_path: Path) -> None:
    text = _MAKER.format(here=str(Path(__file__).parent), folder=str(tmp_path))
    maker = subprocess.Popen([sys.executable, "-c", text], stdout=subprocess.PIPE, text=True)
    assert maker.stdout is not None
    processes = [int(word) for word in maker.stdout.readline().split()]
    assert any(command_of(process) == "sleep 4321" for process in processes)
    os.kill(maker.pid, signal.SIGKILL)
    maker.wait()
    wait_for(lambda: not any(command_of(process) for process in processes), "their end")
    maker.stdout.close()
