"""What of a checkout a job does not get: environments, outputs, and whatever is large.

Ray itself leaves out what `.gitignore` and `.rayignore` name. Here is what has no name of its own.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

#: What makes a folder one that no job needs, and what it is then called.
MARKS = {
    "pyvenv.cfg": "a virtual environment",
    "conda-meta": "a conda environment",
    "mlflow.db": "outputs of an ACDIS_HOME",
}
#: Bytes of one file that is no code, whatever it is called.
LARGE = 10 * 2**20
#: Most of them that are named.
TOLD = 10


def left_out(root: Path) -> dict[Path, str]:
    """Folders and files that are not uploaded, each with what it is."""
    reasons: dict[Path, str] = {}
    for folder, folders, files in os.walk(root):
        here = Path(folder)
        kind = next((MARKS[name] for name in (*files, *folders) if name in MARKS), "")
        if kind and here != root:
            reasons[here] = kind
            folders.clear()
            continue
        reasons |= {
            here / name: "a link" for name in folders if (here / name).is_symlink()
        }  # Ray would follow it
        folders[:] = [name for name in folders if name != ".git" and here / name not in reasons]
        for name in files:
            size = _size(here / name)
            if size is None:
                reasons[here / name] = "cannot be read"
            elif size > LARGE:
                reasons[here / name] = f"{size / 1e6:,.0f} MB"
    return reasons


def described(root: Path, reasons: dict[Path, str]) -> Iterator[str]:
    """A line for each that git does not ignore, which one may expect to be there; for the first `TOLD`."""
    ignored = _ignored(root, list(reasons))
    told = [path for path in reasons if path not in ignored]
    for path in told[:TOLD]:
        yield f"not uploaded: {path.relative_to(root)} ({reasons[path]})"
    if len(told) > TOLD:
        yield f"not uploaded: {len(told) - TOLD:,} more"


def pattern(path: Path) -> str:
    """The path, relative to the root, as a line of `.gitignore`."""
    return "/" + re.sub(r"([\\*?\[\]!# ])", r"\\\1", path.as_posix())


def _size(file: Path) -> int | None:
    """Bytes; none for a link to nothing, on which Ray would end."""
    try:
        return file.stat().st_size
    except OSError:
        return None


def _ignored(root: Path, paths: Sequence[Path]) -> set[Path]:
    names = "\0".join(str(path) for path in paths)
    line = ["git", "-C", str(root), "check-ignore", "-z", "--stdin"]
    try:
        done = subprocess.run(line, input=names, capture_output=True, text=True, check=False)
    except OSError:
        return set()
    return {Path(name) for name in done.stdout.split("\0") if name}
