"""Spec files that extend others: one tree of plain values, and the files that it comes from."""

from __future__ import annotations

import copy
import os
from pathlib import Path
from typing import Any

from acdis.config import Document, read_document
from acdis.errors import UserError

#: Keys whose values are paths, relative to the file that says them.
_PATHS = ("data.root", "data.split.train", "data.split.validation", "data.split.test")


def read_extended(path: Path, seen: tuple[Path, ...] = ()) -> tuple[dict[str, Any], tuple[Document, ...]]:
    """The tree of a file over the one that it extends, its paths made independent of it; and the files.

    Rows are taken over by a file that has none, the table's name never: it names the file.

    Raises:
        UserError: a file cannot be read, or extends itself.
    """
    if path.resolve() in seen:
        raise UserError(f"{path}: extends itself, by way of {', '.join(str(each) for each in seen)}")
    document = read_document(path, "a spec file", "must hold keys such as 'base:' and 'rows:'")
    tree = _anchored(copy.deepcopy(document.tree), path.parent)
    parent = tree.pop("extends", None)
    if parent is None:
        return tree, (document,)
    if not isinstance(parent, str):
        raise UserError(f"{document.where(('extends',))}: extends: give the path of one spec file")
    below, documents = read_extended(_beside(path.parent, parent), (*seen, path.resolve()))
    without = {"table", "rows", "grid"} if {"rows", "grid"} & tree.keys() else {"table"}
    merged = {key: value for key, value in below.items() if key not in without} | tree
    if isinstance(below.get("set"), dict) and isinstance(tree.get("set"), dict):
        merged["set"] = below["set"] | tree["set"]
    return merged, (document, *documents)


def _anchored(tree: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The tree with the paths in it relative to its own folder. Wrong types are left for validation."""
    if isinstance(tree.get("base"), str):
        tree["base"] = str(_beside(folder, tree["base"]))
    rows = tree.get("rows")
    for part in (tree, *(rows.values() if isinstance(rows, dict) else ())):
        if isinstance(part, dict) and isinstance(part.get("set"), dict):
            part["set"] = {key: _path(key, value, folder) for key, value in part["set"].items()}
        use = part.get("use") if isinstance(part, dict) else None
        if isinstance(use, str) and not use.startswith("#"):
            file, mark, row = use.partition("#")
            part["use"] = f"{_beside(folder, file)}{mark}{row}"
    return tree


def _beside(folder: Path, path: str) -> Path:
    return Path(os.path.normpath(folder / os.path.expanduser(path)))


def _path(key: str, value: Any, folder: Path) -> Any:
    relative = key in _PATHS and isinstance(value, str) and not value.startswith(("$", "~"))
    return str((folder / value).resolve()) if relative else value
