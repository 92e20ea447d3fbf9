"""The shipped cluster.local.yaml on a world's hosts: `ray up`, jobs through an ssh tunnel, `ray down`."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml
from world import PATIENCE, Host, World, wait_for

ROOT = Path(__file__).resolve().parents[2]
DASHBOARD, MLFLOW = 8265, 5000


class Cluster:
    """Ray on the hosts of a world, the first of them the head.

    Args:
        options: further variables of node.env.
    """

    def __init__(self, world: World, options: dict[str, str] | None = None) -> None:
        self.world = world
        self.head, *self.workers = world
        self.home = world.shared / "home"
        self.file = world.folder / "shared" / "cluster.yaml"
        self.said_up = ""
        self._write(options or {})
        self.desk_run("umask 077 && ray get-auth-token --generate >/dev/null", check=True)
        self.token = (world.desk.tmp / "home" / ".ray" / "auth_token").read_text().strip()

    def _write(self, options: dict[str, str]) -> None:
        """What docs/cluster.md tells users to change: addresses, user and key, node.env. Nothing else."""
        tree: dict[str, Any] = yaml.safe_load((ROOT / "cluster.local.yaml").read_text())
        tree["provider"] |= {
            "head_ip": self.head.address,
            "worker_ips": [host.address for host in self.workers],
        }
        tree["auth"] = {"ssh_user": "root", "ssh_private_key": str(self.world.key)}
        deploy = self.world.shared / "deploy"
        shutil.copytree(ROOT / "deploy", deploy, dirs_exist_ok=True)
        variables = {
            "ACDIS_SHARED": str(self.world.shared),
            "ACDIS_VENV": sys.prefix,
            "ACDIS_MLFLOW_PORT": str(MLFLOW),
            "ACDIS_RAY_OPTIONS": f"--object-store-memory={256 * 2**20}",
        } | options
        lines = [f"{name}='{value}'" for name, value in variables.items()]
        (deploy / "node.env").write_text("\n".join([*lines, (ROOT / "deploy" / "node.env").read_text()]))
        tree["file_mounts"]["~/acdis/deploy"] = str(deploy)
        self.file.write_text(yaml.safe_dump(tree))

    def desk_run(self, command: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """A shell command on the desk, in the checkout, with the tools of this Python."""
        variables = {
            "PATH": f"{Path(sys.executable).parent}:{self.world.desk.environment()['PATH']}",
            "RAY_AUTH_MODE": "token",
            "RAY_USAGE_STATS_ENABLED": "0",
            "PYTHONUNBUFFERED": "1",
        } | options.pop("env", {})
        return self.world.desk.run(["bash", "-c", f"cd '{ROOT}' && {command}"], env=variables, **options)

    def up(self) -> str:
        """`ray up`; what it said."""
        return self.desk_run(
            f"ray up --yes --no-config-cache '{self.file}' 2>&1", timeout=2 * PATIENCE, check=True
        ).stdout

    def down(self) -> str:
        """`ray down`; what it said."""
        return self.desk_run(f"ray down --yes '{self.file}' 2>&1", check=True).stdout

    @contextlib.contextmanager
    def tunnel(self, *ports: int) -> Iterator[None]:
        """The head's loopback ports on the desk's, as `ssh -L` does it."""
        forward = [word for port in ports or (DASHBOARD,) for word in ("-L", f"{port}:127.0.0.1:{port}")]
        options = ["-N", "-o", "ExitOnForwardFailure=yes", *forward]
        line = self.world.ssh_line(self.head)
        process = self.world.desk.start([*line[:1], *options, *line[1:]], self.world.folder / "tunnel.log")
        try:
            for port in ports or (DASHBOARD,):
                wait_for(lambda port=port: reaches(self.world.desk, "127.0.0.1", port), f"tunnel to {port}")
            yield
        finally:
            process.terminate()
            process.wait(timeout=PATIENCE)

    def submit(
        self, words: Sequence[str], timeout: float = 900, **variables: str
    ) -> subprocess.CompletedProcess[str]:
        """`ray job submit -- python experiments/main.py WORDS`; needs the tunnel."""
        environment = json.dumps({"env_vars": variables, "excludes": ["/tests", "/docs"]})
        return self.desk_run(
            f"ray job submit --address http://127.0.0.1:{DASHBOARD} --working-dir . "
            f"--runtime-env-json '{environment}' -- python experiments/main.py {' '.join(words)} 2>&1",
            timeout=timeout,
        )

    def ask(
        self, host: Host, address: str, port: int, path: str, header: str = "", body: str = ""
    ) -> tuple[int, str]:
        """An HTTP request from `host` to `address`: the status and what was answered. 0: nobody answers."""
        lines = [
            f"{'POST' if body else 'GET'} {path} HTTP/1.0",
            "Host: localhost",
            *([header] if header else []),
        ]
        lines += ["Content-Type: application/json", f"Content-Length: {len(body)}", "", body]
        request = host.tmp / "request"  # not in the command line: it may hold the token
        request.write_text("\r\n".join(lines))
        talk = f"exec 3<>/dev/tcp/{address}/{port}; cat /tmp/request >&3; cat <&3"
        try:
            said = host.run(["timeout", "120", "bash", "-c", talk]).stdout
        finally:
            request.unlink()
        found = re.match(r"HTTP/1\.\d (\d+)", said)
        return int(found[1]) if found else 0, said.partition("\n\n")[2]

    @property
    def bearer(self) -> str:
        """The header that is let in."""
        return f"Authorization: Bearer {self.token}"

    def nodes(self) -> list[dict[str, Any]]:
        """The nodes that are alive, as the dashboard says it."""
        _, said = self.ask(self.head, "127.0.0.1", DASHBOARD, "/api/v0/nodes?detail=1", self.bearer)
        with contextlib.suppress(ValueError, KeyError, TypeError):
            found: list[dict[str, Any]] = json.loads(said)["data"]["result"]["result"]
            return [node for node in found if node["state"] == "ALIVE"]
        return []

    def wait_for_nodes(self, count: int) -> None:
        """Until so many nodes are alive."""
        wait_for(lambda: len(self.nodes()) == count, f"{count} nodes")


def reaches(host: Host, address: str, port: int) -> bool:
    """Whether a TCP connection from `host` is taken."""
    return host.run(["timeout", "2", "bash", "-c", f"exec 3<>/dev/tcp/{address}/{port}"]).returncode == 0
