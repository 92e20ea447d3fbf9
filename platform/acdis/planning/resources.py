"""What a cluster has, asked without importing ray: `plan` must be quick, and the import alone is not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from acdis import files, machine
from acdis.errors import UserError

#: Ray's State API; 10,000 is the most that it gives.
NODES = "/api/v0/nodes?detail=1&limit=10000"
SECONDS = 60
#: Most bytes, and most values, of Ray's answer: its own limit are 10,000 nodes.
_LARGEST_ANSWER, _MOST_VALUES = 2**26, 2**22
#: What is counted of a node, and what the head of a cluster has for those that drive trainings from it.
KINDS, DRIVER = ("CPU", "GPU", "memory"), "driver"

# Runs in a process of its own, with the user's environment: RAY_ADDRESS, tokens.
_ASK = (
    "import json, ray\n"
    "ray.init(address='auto', log_to_driver=False, logging_level='ERROR')\n"
    "print('NODES ' + json.dumps([node['Resources'] for node in ray.nodes() if node['Alive']]))\n"
    "ray.shutdown()\n"
)


@dataclass(frozen=True)
class Resources:
    """Nodes as Ray counts them: `CPU`, `GPU`, `memory` in bytes, and `driver` each.

    Attributes:
        source: where this was asked, in words.
        local: whether it is this machine.
    """

    nodes: tuple[dict[str, float], ...]
    source: str
    local: bool


def available(own: Mapping[str, Any], environment: Mapping[str, str] = os.environ) -> Resources:
    """The cluster that RAY_ADDRESS names, else this home's own head if it runs, else this machine.

    Args:
        own: what `cluster.head.running` says of this home's head; empty where none runs.

    Raises:
        UserError: RAY_ADDRESS names a cluster that does not answer.
    """
    address = environment.get("RAY_ADDRESS", "").strip()
    if address.startswith(("http://", "https://")):
        return Resources(_of_api(address, _token(environment)), f"the cluster at {address}", False)
    if address and address != "local":
        return Resources(_of_ray(address, environment), f"the cluster at {address}", False)
    if own:
        token = Path(own["token"]).read_text(encoding="utf-8").strip()
        return Resources(_of_api(own["address"], token), "this home's Ray head", True)
    return Resources((this_machine(),), "this machine", True)


def this_machine() -> dict[str, float]:
    """CPUs that this process may use, GPUs of NVIDIA's driver, bytes of memory."""
    return {
        "CPU": float(machine.processors()),
        "GPU": float(_gpus()),
        "memory": float(psutil.virtual_memory().total),
    }


def _gpus() -> int:
    cards = Path("/proc/driver/nvidia/gpus")
    there = len(list(cards.iterdir())) if cards.is_dir() else 0
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return there
    return min(there, len([name for name in visible.split(",") if name.strip() not in ("", "-1")]))


def _of_api(address: str, token: str | None) -> tuple[dict[str, float], ...]:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    request = urllib.request.Request(address.rstrip("/") + NODES, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=SECONDS) as answer:
            nodes = files.json_of(answer.read(_LARGEST_ANSWER), _MOST_VALUES)["data"]["result"]["result"]
        return _nodes([node["resources_total"] for node in nodes if node["state"] == "ALIVE"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"Ray at {address} does not say what nodes it has ({error}); is it up?") from None


def _of_ray(address: str, environment: Mapping[str, str]) -> tuple[dict[str, float], ...]:
    variables = {**environment, "RAY_USAGE_STATS_ENABLED": "0"}
    variables.setdefault("RAY_AUTH_MODE", "token")
    try:
        done = subprocess.run(
            [sys.executable, "-c", _ASK],
            env=variables,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise UserError(f"RAY_ADDRESS: no answer from {address} in {SECONDS} s; is the cluster up?") from None
    answers = [line for line in done.stdout.splitlines() if line.startswith("NODES ")]
    if not answers:
        reason = next(reversed([line for line in done.stderr.splitlines() if line.strip()]), "no answer")
        raise UserError(f"RAY_ADDRESS: no Ray cluster can be reached at {address} ({reason[:200]})")
    return _nodes(json.loads(answers[-1].removeprefix("NODES ")))


def _nodes(nodes: Any) -> tuple[dict[str, float], ...]:
    return tuple({key: float(node.get(key, 0)) for key in (*KINDS, DRIVER)} for node in nodes)


def _token(environment: Mapping[str, str]) -> str | None:
    """As Ray finds it: in a variable, in the file that a variable names, in the user's folder."""
    given = environment.get("RAY_AUTH_TOKEN")
    if given:
        return given.strip()
    path = Path(environment.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token").expanduser()
    return path.read_text(encoding="utf-8").strip() if path.is_file() else None
