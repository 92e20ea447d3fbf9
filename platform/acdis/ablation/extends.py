"""Spec files that extend others: one tree of plain values, and the files that it comes from."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

from acdis.config import Document, anchored, beside, chain


def read_extended(path: Path) -> tuple[dict[str, Any], tuple[Document, ...]]:
    """The tree of a file over the one that it extends, its paths made independent of it; and the files.

    Rows are taken over by a file that has none, the table's name never: it names the file.

    Raises:
        UserError: a file cannot be read, or extends itself.
    """
    documents = chain(path, "a spec file", "must hold keys such as 'base:' and 'rows:'")
    merged: dict[str, Any] = {}
    for document in reversed(documents):
        tree = _anchored(copy.deepcopy(document.tree), document.path.parent)
        tree.pop("extends", None)
        of_rows = {"rows", "grid", "compare"} if {"rows", "grid"} & tree.keys() else set()
        without = {"table", *of_rows}
        below = {key: value for key, value in merged.items() if key not in without}
        if isinstance(merged.get("set"), dict) and isinstance(tree.get("set"), dict):
            tree["set"] = merged["set"] | tree["set"]
        merged = below | tree
    return merged, documents


def _anchored(tree: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The tree with the paths in it relative to its own folder. Wrong types are left for validation."""
    if isinstance(tree.get("base"), str):
        tree["base"] = str(beside(folder, tree["base"]))
    rows = tree.get("rows")
    for part in (tree, *(rows.values() if isinstance(rows, dict) else ())):
        if isinstance(part, dict) and isinstance(part.get("set"), dict):
            part["set"] = {key: anchored(key, value, folder) for key, value in part["set"].items()}
        use = part.get("use") if isinstance(part, dict) else None
        if isinstance(use, str) and not use.startswith("#"):
            file, mark, row = use.partition("#")
            part["use"] = f"{beside(folder, file)}{mark}{row}"
    return tree
