"""Which ports processes listen on, and from where these can be reached."""

from __future__ import annotations

import contextlib
import http.client
import ipaddress
import json
import os
import socket
import urllib.request
from collections.abc import Iterable
from pathlib import Path

import psutil

#: A second address of loopback: what listens on 127.0.0.1 alone is not there, what listens everywhere is.
ELSEWHERE = "127.0.0.2"
#: How the kernel's table writes that a socket listens.
LISTEN = "0A"


def family(pid: int) -> set[int]:
    """The process and all that it has started."""
    process = psutil.Process(pid)
    return {pid, *(child.pid for child in process.children(recursive=True))}


def token_of(pid: int) -> Path:
    """The file with the token of the Ray that the process has started."""
    environments = [child.environ() for child in psutil.Process(pid).children()]
    (file,) = {each["RAY_AUTH_TOKEN_PATH"] for each in environments if "RAY_AUTH_TOKEN_PATH" in each}
    return Path(file)


def listening(pids: Iterable[int]) -> dict[int, str]:
    """Address by port."""
    wanted = set(pids)
    return {
        each.laddr.port: each.laddr.ip.removeprefix("::ffff:")
        for each in psutil.net_connections("tcp")
        if each.status == "LISTEN" and each.pid in wanted
    }


def listening_in_its_namespace(pid: int) -> list[str]:
    """Where one process listens, as its own network knows: the address of each socket, IPv4's as such."""
    own = set()
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            own.add(os.readlink(descriptor))
    found = []
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            _, local, _, state, *_, inode = line.split()[:10]
            if state == LISTEN and f"socket:[{inode}]" in own:
                words = bytes.fromhex(local.partition(":")[0])
                packed = b"".join(words[at : at + 4][::-1] for at in range(0, len(words), 4))
                address = ipaddress.ip_address(packed)
                found.append(str(getattr(address, "ipv4_mapped", None) or address))
    return found


def assert_on_loopback_alone(pids: Iterable[int]) -> dict[int, str]:
    """Nothing listens elsewhere, and nothing answers there; returns what listens."""
    found = listening(pids)
    assert found
    assert set(found.values()) == {"127.0.0.1"}, found
    assert not [port for port in found if _answers(ELSEWHERE, port)]
    return found


def lists_jobs(port: int, token: str = "") -> bool:
    """Whether Ray's Jobs API is there and lets in whoever has this token, or none."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    asked = urllib.request.Request(f"http://127.0.0.1:{port}/api/jobs/", headers=headers)
    try:
        with urllib.request.urlopen(asked, timeout=5) as answer:
            return isinstance(json.load(answer), list)
    except (OSError, ValueError, http.client.HTTPException):
        return False


def who_lists_jobs(ports: Iterable[int], token: str) -> list[int]:
    """Those that let the token in; asked again for a while: a busy machine answers late."""
    for _ in range(20):
        found = [port for port in ports if lists_jobs(port, token)]
        if found:
            return found
    return []


def _answers(address: str, port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection((address, port), timeout=2):
        return True
    return False
