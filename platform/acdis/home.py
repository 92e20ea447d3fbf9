"""Where outputs go: `ACDIS_HOME`, and the folders in it."""

from __future__ import annotations

import os
from pathlib import Path

from acdis.errors import UserError
from acdis.files import reason

#: Ray unpacks an uploaded working directory below a folder of this name, and deletes it after the job.
UPLOAD = "runtime_resources"


def home() -> Path:
    """The folder of `place`, made if it is not there.

    Raises:
        UserError: as `place`, or it cannot be made or written to.
    """
    return _usable(place())


def to_read() -> Path:
    """As `home`, for what only looks: a folder that is there may be one that cannot be written to.

    Raises:
        UserError: as `home`, or it cannot be read.
    """
    path = place()
    return path if path.is_dir() and os.access(path, os.R_OK | os.X_OK) else home()


def place() -> Path:
    """The absolute path of the folder that keeps stores, checkpoints, caches and reports.

    `ACDIS_HOME` where it is set, else `runs/` in the checkout; of an installed package, `runs/` in the
    working directory.

    Raises:
        UserError: inside Ray's upload folder without `ACDIS_HOME`: what is written there vanishes.
    """
    given = os.environ.get("ACDIS_HOME")
    if given:
        path = Path(given).expanduser()
        if not path.is_absolute():
            raise UserError(
                f"ACDIS_HOME: {given!r} is not an absolute path; set it to one that every node sees"
            )
        return path
    if UPLOAD in Path.cwd().parts or UPLOAD in Path(__file__).parts:
        raise UserError(
            "ACDIS_HOME: not set, and this job runs in Ray's upload folder, which vanishes; submit with "
            '--runtime-env-json \'{"env_vars": {"ACDIS_HOME": "/absolute/path"}}\''
        )
    return (checkout() or Path.cwd()) / "runs"


def _usable(path: Path) -> Path:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"ACDIS_HOME: {path} cannot be created ({reason(error)}); set it to another folder"
        ) from None
    if not os.access(path, os.W_OK | os.X_OK):
        raise UserError(f"ACDIS_HOME: {path} cannot be written to; set it to another folder")
    return path


def checkout() -> Path | None:
    """Root of the checkout that this code stands in; none for an installed package."""
    root = Path(__file__).resolve().parents[2]
    return (
        root if (root / "experiments" / "main.py").is_file() and (root / "pyproject.toml").is_file() else None
    )


def shipped() -> Path:
    """Where `ablations/` and `experiments/` stand: the checkout, or the installed package's own copies."""
    return checkout() or Path(__file__).resolve().parent / "shipped"


def cells(base: Path) -> Path:
    """One folder per trained cell."""
    return base / "cells"


def cache(base: Path) -> Path:
    """Preprocessed cases."""
    return base / "cache"


def expand(path: str, key: str, base: Path | None = None) -> Path:
    """A path from the user's input: `~`, `$VARIABLE` resolved, relative to `base` or the working directory.

    Raises:
        UserError: a variable in it is not set.
    """
    if "\0" in path:
        raise UserError(f"{key}: {path!r} is no path; give one without NUL")
    expanded = os.path.expandvars(os.path.expanduser(path))
    if "$" in expanded:
        raise UserError(f"{key}: the environment variable in {path!r} is not set; set it or give a path")
    return ((base or Path.cwd()) / expanded).resolve()
