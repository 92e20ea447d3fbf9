"""The code that stands here, for a reviewer: commit, versions, and what was not committed, as a patch.

Imports neither torch nor MLflow, and asks no device.
"""

from __future__ import annotations

import functools
import json
import os
import subprocess
from pathlib import Path

from acdis.files import reason
from acdis.tracking.lineage import COMMIT, DIRTY, VERSIONS, git_state
from acdis.tracking.lineage import _version as version

#: Bytes of a patch that are kept: more is no review.
LONGEST = 5 * 2**20
#: Names the file that holds them, where a job was submitted: its copy of the checkout has no `.git`.
PATCH_VARIABLE = "ACDIS_GIT_PATCH"


def code() -> dict[str, str]:
    """`commit.json` and `changes.patch` of the checkout that this package stands in; never raises."""
    root = Path(__file__).resolve().parent
    state = git_state(root)
    facts = {
        "commit": os.environ.get("ACDIS_GIT_COMMIT") or state[COMMIT],
        "dirty": state[DIRTY],
        "versions": {name: version(package) for name, package in VERSIONS.items()},
    }
    return {"commit.json": json.dumps(facts, indent=1), "changes.patch": of_this_run()}


@functools.cache
def of_this_run() -> str:
    """The uncommitted changes that this process runs with; of a submitted job, as at submission."""
    shipped = os.environ.get(PATCH_VARIABLE)
    if shipped is None:
        return changes(Path(__file__).resolve().parent)
    try:
        return Path(shipped).read_text(encoding="utf-8")
    except OSError as error:
        return f"# the changes at submission cannot be read ({reason(error)})\n"


def changes(path: Path) -> str:
    """`git diff HEAD` of the work tree that holds `path`, and the names of untracked files as comments."""
    diff = _git(path, "diff", "HEAD", "--no-color", "--no-ext-diff")
    if diff is None:
        return "# no git here, or no commit yet: what was changed cannot be said\n"
    names = (_git(path, "status", "--porcelain", "--untracked-files=all") or "").splitlines()
    untracked = "".join(f"# untracked: {name[3:]}\n" for name in names if name.startswith("??"))
    if len(diff) > LONGEST:
        return f"{untracked}# the changes take {len(diff)} characters, more than are kept\n"
    return untracked + diff


def _git(path: Path, *arguments: str) -> str | None:
    """Standard output; None if git is not there, fails or takes longer than 20 s."""
    environment = {**os.environ, "GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C"}
    command = ("git", "-C", str(path), *arguments)
    try:
        done = subprocess.run(command, env=environment, capture_output=True, timeout=20, check=True)
    except (OSError, ValueError, subprocess.SubprocessError):
        return None
    return done.stdout.decode("utf-8", errors="replace")
