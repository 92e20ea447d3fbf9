"""Small files of a cell that a power cut or full disk left empty or torn."""

from __future__ import annotations

import os
import re
from pathlib import Path

from acdis import files
from acdis.cells import schemas
from acdis.errors import UserError

#: What each file ends with when it is whole; a brace at the beginning of a line is the last one.
_ENDS = {
    "state.json": b"\n}",
    "roles.json": b"\n}",
    "lineage.json": b"\n}",
    "history.json": b"\n}",
    "config.yaml": b"\n",
}
ASIDE = ".damaged"
#: What a configuration of every version has, and its last key; other keys came later.
_ALWAYS, _LAST = ("seed", "data", "method", "training", "evaluation", "scaling", "tracking"), "experiment"


def find(folder: Path, whole: bool = False) -> dict[str, str]:
    """What is wrong with a cell's small files, by their names: a line each, with what to do.

    Args:
        whole: read those too that may be large, which takes longer than to see how they end.
    """
    problems = {name: problem for name in _ENDS if (problem := _torn(folder / name))}
    kinds: dict[str, type[schemas.Note]] = {"state.json": schemas.State, "roles.json": schemas.Roles}
    if whole:
        kinds |= {"lineage.json": schemas.Lineage, "history.json": schemas.Note}
    for name, kind in kinds.items():
        try:
            schemas.read(folder / name, kind)
        except schemas.DamagedError as error:
            problems.setdefault(name, str(error))
    if "config.yaml" not in problems and (folder / "config.yaml").is_file():
        try:  # half of it may end with a whole line
            check_configuration(folder / "config.yaml")
        except schemas.DamagedError as error:
            problems["config.yaml"] = str(error)
        except UserError:
            pass  # who needs it says that it cannot be read
    return problems


def move_aside(folder: Path) -> list[str]:
    """Rename what is damaged, so that it can be written again; returns what was wrong."""
    problems = find(folder, whole=True)
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
    inside = re.findall(r"^  (\w+):", text[text.rfind(f"\n{_ALWAYS[-1]}:") :], re.MULTILINE)
    lacking = [key for key in _ALWAYS if key not in there] or [_LAST] * (_LAST not in inside)
    if lacking:
        raise schemas.damaged(str(path), f"{lacking[0]!r} is not in it")


def _torn(path: Path) -> str | None:
    end = _ENDS[path.name]
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:  # not there, or told by who reads it
        return None
    try:
        size = os.fstat(descriptor).st_size
        last = os.pread(descriptor, len(end), max(0, size - len(end))) if size else b""
    except OSError:
        return None
    finally:
        os.close(descriptor)
    if last == end:
        return None
    if last[-1:] != end[-1:]:
        return str(schemas.damaged(str(path), "it ends in the middle" if size else "it is empty"))
    try:  # an inner brace may be the last that is left
        schemas.read_mapping(path)
    except schemas.DamagedError as error:
        return str(error)
    return None
