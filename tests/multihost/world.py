"""Several hosts on one machine: network, process, mount and host-name namespaces of their own.

    with World(folder, ["head", "one", "two"], visible=[checkout]) as world:
        world["one"].run("hostname")    # CompletedProcess
        world["one"].cut()              # its cable is pulled; `restore` plugs it in again
        world["one"].kill()             # power off: every process of it ends at once; `boot` starts it again

The hosts hang on one switch, which is the desk's (`world.desk`: the machine of whoever types `ray up`). Each
has an sshd, a `/tmp` (its disk), a `/dev/shm` and a home of its own; all other paths, and those in `visible`,
are the machine's, the same for all: shared storage. Nothing of it reaches the machine's own network, and no
name of it is seen outside. Needs root on Linux, iproute2, openssh-server and rsync.

**Nothing outlives the process that made it**: process 1 of each host ends when its input does, and with it
the kernel ends all others of that host, after `kill -9` of the test too.
"""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from hosts import PATH, PATIENCE, UNSHARE, Host, command_of, wait_for

__all__ = ["Host", "World", "command_of", "missing", "wait_for"]

#: The desk's number in the network; hosts follow from the second on.
DESK, FIRST = 1, 11
_TOOLS = {"ip": "iproute2", "bridge": "iproute2", "/usr/sbin/sshd": "openssh-server", "rsync": "rsync"}


@functools.cache
def missing() -> str:
    """Why no world can be made here; empty if it can."""
    if os.name != "posix" or os.geteuid() != 0:
        return "namespaces of several hosts need root"
    packages = sorted({package for tool, package in _TOOLS.items() if shutil.which(tool, path=PATH) is None})
    if packages:
        return f"needs {', '.join(packages)}"
    try:
        tried = subprocess.run(
            ["unshare", *UNSHARE, "ip", "link", "add", "switch", "type", "bridge"],
            capture_output=True,
            text=True,
        )
    except OSError as error:
        return f"unshare: {error}"
    return "" if tried.returncode == 0 else f"no namespaces here: {tried.stderr.strip()[:200]}"


class World:
    """Hosts by name, and the desk, for the time of a `with` block.

    Args:
        folder: gets the hosts' disks, keys and `shared`, a folder that every host sees.
        names: of the hosts.
        visible: folders below /tmp that every host sees where they are (others it sees anyway).
    """

    def __init__(self, folder: Path, names: Sequence[str], visible: Sequence[Path] = ()) -> None:
        self.folder = folder.resolve()
        self.ssh, self.etc, self.shared = (self.folder / name for name in ("ssh", "etc", "shared"))
        self.visible = [path.resolve() for path in (*visible, self.ssh, self.shared)]
        self.desk = Host(self, "desk", DESK)
        self.hosts = {name: Host(self, name, FIRST + place) for place, name in enumerate(names)}
        self.key = self.ssh / "key"

    def __getitem__(self, name: str) -> Host:
        return self.hosts[name]

    def __iter__(self) -> Iterator[Host]:
        return iter(self.hosts.values())

    def __enter__(self) -> World:
        try:
            self._prepare()
            for host in (self.desk, *self):
                host.boot()
            self._wait_for_ssh()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Power all of it off. The folder stays: logs are in it."""
        for host in (*self, self.desk):
            host.kill()

    def _prepare(self) -> None:
        for path in (self.ssh, self.etc, self.shared):
            path.mkdir(parents=True, exist_ok=True)
        for name in ("key", "host_key"):
            make = [
                "ssh-keygen",
                "-q",
                "-t",
                "ed25519",
                "-N",
                "",
                "-C",
                "acdis test",
                "-f",
                str(self.ssh / name),
            ]
            if not (self.ssh / name).exists():
                subprocess.run(make, check=True, stdin=subprocess.DEVNULL)
        settings = {
            "HostKey": self.ssh / "host_key",
            "AuthorizedKeysFile": self.ssh / "key.pub",
            "PidFile": "none",
            "StrictModes": "no",
            "UsePAM": "no",
            "PasswordAuthentication": "no",
            "PermitRootLogin": "prohibit-password",
            "MaxStartups": "100",
        }
        (self.ssh / "sshd_config").write_text("".join(f"{key} {value}\n" for key, value in settings.items()))
        self._accounts()

    def _accounts(self) -> None:
        """The machine's, but with root's home on the host's own disk."""
        for name, root in (
            ("passwd", f"root:x:0:0:root:{Host.home}:/bin/bash"),
            ("shadow", "root:*:19000::::::"),
        ):
            lines = Path("/etc", name).read_text().splitlines()
            others = [line for line in lines if not line.startswith("root:")]
            (self.etc / name).write_text("\n".join([root, *others, ""]))
            (self.etc / name).chmod(0o600 if name == "shadow" else 0o644)
        known = [f"{host.address} {host.name}" for host in (self.desk, *self)]
        (self.etc / "hosts").write_text("\n".join(["127.0.0.1 localhost", *known, ""]))

    def _wait_for_ssh(self) -> None:
        deadline = time.monotonic() + PATIENCE
        for host in self:
            while self.desk.run(self.ssh_line(host, "true")).returncode:
                if time.monotonic() > deadline:
                    said = self.desk.run(self.ssh_line(host, "true")).stderr
                    raise AssertionError(f"{host.name}: no ssh from the desk: {said}")
                time.sleep(0.2)

    def ssh_line(self, host: Host, *command: str, options: Sequence[str] = ()) -> list[str]:
        """A command line for the desk."""
        quiet = [
            "StrictHostKeyChecking=no",
            "UserKnownHostsFile=/dev/null",
            "LogLevel=ERROR",
            "BatchMode=yes",
        ]
        flags = [word for option in quiet for word in ("-o", option)]
        return ["ssh", "-i", str(self.key), *flags, *options, f"root@{host.address}", *command]
