"""What the figures were measured on: printed by every benchmark, kept in its JSON.

python benchmarks/machine.py
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

#: Instructions that decide how fast bf16 is on a CPU.
FLAGS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")
GB = 1e9


def facts(threads: int, packages: Sequence[str]) -> dict[str, Any]:
    """Processor, memory and versions as plain values; `threads` is what the benchmark computes with."""
    info = _cpuinfo()
    flags = info.get("flags", "").split()
    return {
        "processor": info.get("model name") or platform.processor() or platform.machine(),
        "flags": [flag for flag in FLAGS if flag in flags],
        "cpus": usable_cpus(),
        "threads": threads,
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GB, 1),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "versions": {name: version(name) for name in packages},
        "load": round(os.getloadavg()[0], 2),
    }


def line(where: dict[str, Any]) -> str:
    """`facts` in one line, for the record."""
    flags = f" ({', '.join(where['flags'])})" if where["flags"] else ""
    versions = ", ".join(f"{name} {number}" for name, number in where["versions"].items())
    return (
        f"machine: {where['processor']}{flags}, {where['cpus']} CPUs, {where['threads']} threads used, "
        f"{where['memory_gb']:g} GB, {where['system']}; Python {where['python']}, {versions}; "
        f"load of the last minute {where['load']:g}"
    )


def usable_cpus() -> int:
    """CPUs that this process may run on: fewer than the machine has, where it is confined."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def computes(side: str) -> bool:
    """Whether this CPU is worth measuring in a precision: emulated bf16 shows nothing."""
    from acdis.training.precision import cpu_has_bf16

    return side != "bf16" or cpu_has_bf16()


def environment() -> dict[str, str]:
    """What a worker of this platform has: its threads' way of waiting, its memory allocator."""
    from acdis.cluster.session import WORKER_ENVIRONMENT

    return os.environ | WORKER_ENVIRONMENT


def as_worker() -> None:
    """Start this script anew in the environment of this platform's workers, unless it has that already."""
    if environment() != dict(os.environ):
        os.execve(sys.executable, [sys.executable, *sys.argv], environment())


def apart(side: str, words: Sequence[str]) -> Any:
    """The JSON that a script prints in a fresh process with the environment of this platform's workers."""
    print(f"measuring {side} …", file=sys.stderr, flush=True)
    ended = subprocess.run(
        [sys.executable, *words], stdout=subprocess.PIPE, text=True, check=False, env=environment()
    )
    if ended.returncode:
        sys.exit(f"{side} ended with {ended.returncode} (killed for its memory?)")
    return json.loads(ended.stdout.splitlines()[-1])


def parser(about: str | None) -> argparse.ArgumentParser:
    """A benchmark's words: its docstring as help, and `--json`; the rest is its own."""
    made = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--json", type=Path, help="write the results to this file too")
    return made


def save(path: Path | None, results: dict[str, Any]) -> None:
    """Write the results as JSON; nothing where no file is asked for."""
    if path is not None:
        path.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


def _cpuinfo() -> dict[str, str]:
    """The first processor's entries in Linux's /proc/cpuinfo; empty elsewhere."""
    file = Path("/proc/cpuinfo")
    first = file.read_text(encoding="utf-8").split("\n\n")[0] if file.exists() else ""
    pairs = (entry.partition(":") for entry in first.splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}


if __name__ == "__main__":
    print(line(facts(usable_cpus(), ("numpy", "torch", "monai", "ray", "mlflow"))))
