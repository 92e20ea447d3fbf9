"""Small files of a cell that a power cut or full disk left empty or torn: found without reading them."""

from __future__ import annotations

import os
import re
from pathlib import Path

from acdis import files
from acdis.ablation import notes
from acdis.errors import UserError

#: What each file ends with when it is whole.
_ENDS = {
    "state.json": b"}",
    "roles.json": b"}",
    "lineage.json": b"}",
    "history.json": b"}",
    "config.yaml": b"\n",
}
ASIDE = ".damaged"
#: What a configuration of every version has; other keys came later.
_ALWAYS = ("seed", "data", "method", "training", "evaluation", "scaling", "tracking")


def find(folder: Path) -> dict[str, str]:
    """What is wrong with a cell's small files, by their names: a line each, with what to do."""
    found = {name: problem for name in _ENDS if (problem := _torn(folder / name))}
    for name, kind in (("state.json", notes.State), ("roles.json", notes.Roles)):
        try:
            notes.read(folder / name, kind)
        except notes.DamagedError as error:
            found.setdefault(name, str(error))
    return found


def move_aside(folder: Path) -> list[str]:
    """Rename what is damaged, so that it can be written again; returns what was wrong."""
    problems = find(folder)
    for name in problems:
        if (folder / name).is_file():
            os.replace(folder / name, folder / f"{name}{ASIDE}")
    return list(problems.values())


def check_configuration(path: Path) -> None:
    """Raise DamagedError for half a configuration, whose missing keys would be read as their defaults.

    Raises:
        UserError: it cannot be read.
    """
    try:
        text = files.read(path, files.TEXT).decode("utf-8", "replace")
    except (OSError, files.TooLargeError) as error:
        raise UserError(f"{path}: cannot be read ({files.reason(error)})") from None
    there = set(re.findall(r"^(\w+):", text, re.MULTILINE))
    lacking = [key for key in _ALWAYS if key not in there]
    if lacking:
        raise notes.damaged(str(path), f"{lacking[0]!r} is not in it")


def _torn(path: Path) -> str | None:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:  # not there, or told by who reads it
        return None
    try:
        size = os.fstat(descriptor).st_size
        last = os.pread(descriptor, 1, size - 1) if size else b""
    except OSError:
        return None
    finally:
        os.close(descriptor)
    if last == _ENDS[path.name]:
        return None
    return str(notes.damaged(str(path), "it ends in the middle" if size else "it is empty"))
