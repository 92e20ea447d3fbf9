"""One host of a world: its namespaces, its cable, its processes. See world.py."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from world import World

NETWORK = "10.77.0"
#: Seconds for what is to come about, however busy the machine.
PATIENCE = 300
PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
UNSHARE = ["--net", "--mount", "--uts", "--ipc", "--pid", "--fork", "--kill-child", "--mount-proc"]


class Host:
    """One of them. Made and booted by its World.

    Attributes:
        name: also its host name, known to all others.
        address: in the world's network.
        home: `~` of root there.
        tmp: where its `/tmp` lies on the machine.
    """

    home = "/tmp/home"

    def __init__(self, world: World, name: str, number: int) -> None:
        self.world, self.name, self.number = world, name, number
        self.address = f"{NETWORK}.{number}"
        self.tmp = world.folder / "disks" / name
        self._port = f"port{number}"
        self._card = f"02:00:00:00:77:{number:02x}"  # the same after `boot`: others remember it
        self._outer: subprocess.Popen[bytes] | None = None
        self._init = 0

    def run(
        self,
        command: str | Sequence[str],
        env: Mapping[str, str] | None = None,
        timeout: float = PATIENCE,
        check: bool = False,
    ) -> subprocess.CompletedProcess[str]:
        """Run to the end, a text in a login shell; with `check` a failure shows what it said."""
        done = subprocess.run(
            [*self._enter(), *_words(command)],
            env=self.environment(env),
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout,
            stdin=subprocess.DEVNULL,
        )
        if check and done.returncode:
            raise AssertionError(f"{self.name}: {command}: {done.returncode}\n{done.stdout}\n{done.stderr}")
        return done

    def start(
        self, command: str | Sequence[str], log: Path, env: Mapping[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        """Start, output to the file `log`; it ends with the host at the latest."""
        with log.open("ab") as stream:
            return subprocess.Popen(
                [*self._enter(), *_words(command)],
                env=self.environment(env),
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def environment(self, more: Mapping[str, str] | None = None) -> dict[str, str]:
        """Nothing of the tester's own but the PATH and the language."""
        kept = {key: os.environ[key] for key in ("LANG", "LC_ALL") if key in os.environ}
        return kept | {"PATH": PATH, "HOME": self.home, "USER": "root"} | dict(more or {})

    def cut(self, other: Host | None = None) -> None:
        """Pull its cable, or lose what it and `other` send each other. Nobody is told: packets vanish."""
        if other is None:
            self.world.desk.run(["bridge", "link", "set", "dev", self._port, "state", "0"], check=True)
            return
        for here, there in ((self, other), (other, self)):
            nobody = ["lladdr", "02:00:00:00:00:01", "nud", "permanent", "dev", here.interface]
            here.run(["ip", "neigh", "replace", there.address, *nobody], check=True)

    def restore(self, other: Host | None = None) -> None:
        """Undo `cut` with the same argument."""
        if other is None:
            self.world.desk.run(["bridge", "link", "set", "dev", self._port, "state", "3"], check=True)
            return
        for here, there in ((self, other), (other, self)):
            here.run(["ip", "neigh", "del", there.address, "dev", here.interface], check=True)

    def freeze(self) -> None:
        """Stop every process (as a host that hangs); `thaw` lets them go on."""
        self.signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """After `freeze`."""
        self.signal(signal.SIGCONT)

    def signal(self, number: int, wanted: Callable[[str], bool] = lambda command: True) -> list[int]:
        """Send to every process whose command line is `wanted`; numbers of those that got it."""
        got = []
        for process in self.processes():
            with contextlib.suppress(OSError):
                if wanted(command_of(process)):
                    os.kill(process, number)
                    got.append(process)
        return got

    def processes(self) -> list[int]:
        """The machine's numbers of all its processes but the first."""
        mine = _namespace(self._init)
        numbers = [int(name) for name in os.listdir("/proc") if name.isdigit()]
        return [number for number in numbers if number != self._init and _namespace(number) == mine]

    @property
    def running(self) -> bool:
        """Whether it is booted."""
        return self._outer is not None

    @property
    def interface(self) -> str:
        """Its end of the cable; the desk's is the switch."""
        return "switch" if self is self.world.desk else "eth0"

    def kill(self) -> None:
        """Power off, without a word to anybody. Its disk stays."""
        if self._outer is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._init, signal.SIGKILL)
            self._outer.wait(timeout=PATIENCE)
            if self._outer.stdin is not None:
                self._outer.stdin.close()
            self._outer = None
        if self is not self.world.desk and self.world.desk.running:
            self.world.desk.run(["ip", "link", "del", self._port])  # gone with the namespace, a moment later

    def boot(self) -> None:
        """Start it: namespaces, disk, network, and, but on the desk, an sshd."""
        (self.tmp / "home").mkdir(parents=True, exist_ok=True)
        # Input that never comes: when this process ends, however it does, so does `cat`, and all with it.
        # Orphans become its children, and who ignores their end need not wait for them.
        self._outer = subprocess.Popen(
            ["unshare", *UNSHARE, "env", "--ignore-signal=CHLD", "cat"],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        self._init = _first_child(self._outer)
        self._mount()
        if self is self.world.desk:
            self._switch()
        else:
            self._plug()
            self.run(["/usr/sbin/sshd", "-f", str(self.world.ssh / "sshd_config")], check=True)

    def _mount(self) -> None:
        """A `/tmp` of its own in which the visible folders of the machine's still stand."""
        inside = [path for path in self.world.visible if Path("/tmp") in path.parents]
        etc = [
            f"mount --bind '{self.world.etc / name}' /etc/{name}" for name in ("passwd", "shadow", "hosts")
        ]
        lines = [*etc, "mount -t tmpfs none /run", "mkdir -p /run/sshd /run/machine"]
        lines += ["mount --rbind /tmp /run/machine"]
        lines += [f"mount --bind '{self.tmp}' /tmp"]
        for path in inside:
            lines += [
                f"mkdir -p '{path}'",
                f"mount --rbind '/run/machine/{path.relative_to('/tmp')}' '{path}'",
            ]
        lines += ["umount -l /run/machine", "mount -t tmpfs none /dev/shm", f"hostname {self.name}"]
        self.run(["sh", "-ec", "\n".join(lines)], check=True)

    def _switch(self) -> None:
        lines = [
            "ip link set lo up",
            "ip link add switch type bridge",
            f"ip addr add {self.address}/24 dev switch",
        ]
        self.run(["sh", "-ec", "\n".join([*lines, "ip link set switch up"])], check=True)

    def _plug(self) -> None:
        """A cable to the switch; the default route is how programs find their own address."""
        desk = self.world.desk
        ours = f"peer name eth0 address {self._card} netns /proc/{self._init}/ns/net"
        add = f"ip link add {self._port} type veth {ours}"
        # In the desk's network but with this machine's /proc, which knows the host by its first process.
        subprocess.run(["nsenter", f"--net=/proc/{desk._init}/ns/net", *add.split()], check=True)
        desk.run(
            ["sh", "-ec", f"ip link set {self._port} master switch\nip link set {self._port} up"], check=True
        )
        lines = ["ip link set lo up", f"ip addr add {self.address}/24 dev eth0", "ip link set eth0 up"]
        self.run(["sh", "-ec", "\n".join([*lines, f"ip route add default via {desk.address}"])], check=True)

    def _enter(self) -> list[str]:
        return ["nsenter", f"--target={self._init}", "--net", "--mount", "--uts", "--ipc", "--pid", "--wd=/"]


def wait_for(what: Callable[[], object], name: str) -> None:
    """Until `what()` is true."""
    deadline = time.monotonic() + PATIENCE
    while not what():
        if time.monotonic() > deadline:
            raise AssertionError(f"{name}: not within {PATIENCE} s")
        time.sleep(0.3)


def command_of(process: int) -> str:
    """The command line; empty if the process is gone."""
    try:
        return (
            Path(f"/proc/{process}/cmdline")
            .read_bytes()
            .replace(b"\0", b" ")
            .decode(errors="replace")
            .strip()
        )
    except OSError:
        return ""


def _words(command: str | Sequence[str]) -> list[str]:
    return ["bash", "--login", "-c", command] if isinstance(command, str) else list(command)


def _namespace(process: int) -> str:
    try:
        return os.readlink(f"/proc/{process}/ns/pid")
    except OSError:
        return ""


def _first_child(process: subprocess.Popen[bytes]) -> int:
    """Process 1 of the new namespace, as the machine counts, once its own /proc is mounted and `cat` runs."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline and process.poll() is None:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        if children and command_of(int(children[0])) == "cat":
            return int(children[0])
        time.sleep(0.01)
    raise AssertionError("unshare did not start a process of its own")
