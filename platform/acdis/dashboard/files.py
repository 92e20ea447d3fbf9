"""Files that are read once, and again only when they have changed."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

#: Of a file: when it was written (ns) and its size. All our files are replaced as a whole.
Stamp = tuple[int, int]


def stamp(path: str) -> Stamp | None:
    """None where there is no such file."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):  # ValueError: a NUL in the name
        return None
    return status.st_mtime_ns, status.st_size


class Files:
    """What was read from files, by path and reader."""

    def __init__(self) -> None:
        self._kept: dict[tuple[str, Any], tuple[Stamp, Any]] = {}

    def read(self, path: Path | str, parse: Callable[[Path], Any], default: Any) -> Any:
        """What `parse` makes of the file; `default` where there is none, or it is half written or damaged."""
        where = str(path)
        now = stamp(where)
        if now is None:
            return default
        kept = self._kept.get((where, parse))
        if kept is not None and kept[0] == now:
            return kept[1]
        try:
            value = parse(Path(where))
        except (OSError, ValueError):  # gone meanwhile, or not what it should be
            return default
        self._kept[where, parse] = (now, value)
        return value

    def knows(self, path: Path | str, parse: Callable[[Path], Any]) -> bool:
        """Whether `read` would not have to open it."""
        kept = self._kept.get((str(path), parse))
        return kept is not None and kept[0] == stamp(str(path))
