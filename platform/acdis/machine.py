"""What this machine gives a process: processors, and memory taken at the peak and still free."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil

_PROC = Path("/proc/self")
_CGROUPS = Path("/sys/fs/cgroup")


def processors() -> int:
    """CPUs that this process may use: its affinity where the system knows one (macOS does not)."""
    affinity = getattr(os, "sched_getaffinity", None)
    return max(1, len(affinity(0)) if affinity else os.cpu_count() or 1)


def reset_peak() -> None:
    """Linux: start this process's peak of resident memory anew; elsewhere there is none.

    glibc keeps much of what was freed, and what comes next would hide in it: it is given back first.
    """
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
    try:
        (_PROC / "clear_refs").write_text("5")
    except OSError:
        return


def peak() -> int:
    """Peak of this process's resident memory since `reset_peak`, bytes; off Linux what it holds now."""
    try:
        for line in (_PROC / "status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return resident()


def resident() -> int:
    """What this process holds now, bytes."""
    return int(psutil.Process().memory_info().rss)


def free() -> int:
    """What this process may still take, bytes: of the machine's memory, and of its cgroups' (a container's,
    a batch system's), where they have a limit."""
    return min([int(psutil.virtual_memory().available), *_left_in_cgroups()])


def _left_in_cgroups() -> Iterator[int]:
    """Limit minus use of each cgroup (version 2) that this process is in."""
    try:
        paths = [line[3:] for line in (_PROC / "cgroup").read_text().splitlines() if line.startswith("0::")]
    except OSError:
        return
    for path in paths:
        own = _CGROUPS / path.strip("/")
        for folder in (own, *own.parents):
            if folder == _CGROUPS.parent:
                break
            try:
                limit = (folder / "memory.max").read_text().strip()
                used = int((folder / "memory.current").read_text())
                cached = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
            except (OSError, ValueError):
                continue
            if limit != "max":
                yield int(limit) - used + int(cached.get("inactive_file", 0))  # that much is given back


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
