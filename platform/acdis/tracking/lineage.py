"""Where a run came from: code, versions of what it stands on, and the device. Tags, as MLflow keeps them.

Imports neither torch nor MLflow at module level.
"""

from __future__ import annotations

import os
import platform
import subprocess
from collections import Counter
from importlib import metadata
from pathlib import Path

from acdis import machine

COMMIT, DIRTY = "acdis.git_commit", "acdis.git_dirty"
#: Set where a job is submitted: the copy of the checkout that Ray uploads has no `.git`.
COMMIT_VARIABLE, DIRTY_VARIABLE = "ACDIS_GIT_COMMIT", "ACDIS_GIT_DIRTY"
UNKNOWN = "unknown"

#: Name in the tag, name of the distribution.
VERSIONS = {"torch": "torch", "ray": "ray", "monai": "monai", "mlflow": "mlflow", "acdis": "acdis-platform"}


def lineage() -> dict[str, str]:
    """Tags of this process: git commit and state, versions, device. Never raises for what is missing."""
    versions = {f"acdis.version.{name}": _version(package) for name, package in VERSIONS.items()}
    return {
        **_code(),
        **versions,
        "acdis.version.python": platform.python_version(),
        "acdis.device": device(),
    }


def git_state(path: Path) -> dict[str, str]:
    """`acdis.git_commit` and `acdis.git_dirty` ('true', 'false') of the work tree that holds `path`.

    Both 'unknown' where there is no git, no commit yet, or the tree ignores `path` (a package installed
    in a `.venv` inside somebody's checkout is not that checkout's code). Untracked files make it dirty.
    """
    commit = _git(path, "rev-parse", "HEAD")
    if commit is None or _git(path, "check-ignore", "--quiet", ".") is not None:
        return {COMMIT: UNKNOWN, DIRTY: UNKNOWN}
    changes = _git(path, "status", "--porcelain")
    return {COMMIT: commit, DIRTY: UNKNOWN if changes is None else str(bool(changes)).lower()}


def device() -> str:
    """`2 × NVIDIA H200`, or the processor's model and the threads that this process may use."""
    gpus = _gpus()
    if gpus:
        return ", ".join(f"{count} × {name}" for name, count in Counter(gpus).items())
    return f"{_processor()}, {machine.processors()} threads"


def _code() -> dict[str, str]:
    commit = os.environ.get(COMMIT_VARIABLE, "").strip()
    if not commit:
        return git_state(Path(__file__).resolve().parent)
    dirty = os.environ.get(DIRTY_VARIABLE, "").strip().lower()
    return {COMMIT: commit, DIRTY: dirty if dirty in ("true", "false") else UNKNOWN}


def _git(path: Path, *arguments: str) -> str | None:
    """Standard output, stripped; None if git is not there, fails or takes longer than 10 s."""
    command = ("git", "-C", str(path), *arguments)
    # No optional locks: looking must not write the index of a checkout that somebody works in.
    environment = {**os.environ, "GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C"}
    try:
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, ValueError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _version(package: str) -> str:
    if package == "acdis-platform":
        # The code that runs may be an uploaded copy, another than the installed distribution.
        from acdis.version import __version__

        return __version__
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "absent"


def _gpus() -> list[str]:
    try:
        import torch

        return [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    except (ImportError, RuntimeError, AssertionError):
        return []


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()
