"""Which files a spec was read from: for the reviewer, who wants to see them as they were written."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from acdis import config


def files(first: Path) -> list[Path]:
    """The file itself, and every file that it names in `base`, `extends` and `use`, and they in turn."""
    reached: dict[Path, None] = {}
    waiting = [first]
    while waiting:
        path = waiting.pop(0).resolve()
        if path not in reached and path.is_file():
            reached[path] = None
            waiting += [path.parent / name for name in _named(config.read_yaml(path))]
    return list(reached)


def _named(tree: dict[str, Any]) -> Iterator[str]:
    if isinstance(tree.get("extends"), str):
        yield tree["extends"]
    if isinstance(tree.get("base"), str):
        yield tree["base"]
    rows = tree.get("rows")
    for row in rows.values() if isinstance(rows, dict) else ():
        use = row.get("use") if isinstance(row, dict) else None
        if isinstance(use, str) and use.partition("#")[0]:
            yield use.partition("#")[0]
