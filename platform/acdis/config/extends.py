"""Files that extend others: the chain of them, and paths that are relative to the file that says them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from acdis.config.documents import EXPERIMENT_KEYS, Document, read_document
from acdis.errors import UserError

#: Keys of an experiment whose values are paths.
PATHS = ("data.root", "data.split.train", "data.split.validation", "data.split.test")
_PATIENTS = "data.patients"


def chain(path: Path, what: str = "an experiment file", holds: str = EXPERIMENT_KEYS) -> tuple[Document, ...]:
    """A file, the one that its `extends` names, and so on to the last; `what` and `holds` as `read_document`.

    Raises:
        UserError: a file cannot be read, extends itself, or says something else than one path.
    """
    documents: list[Document] = []
    while True:
        seen = [document.path for document in documents]
        if path.resolve() in [earlier.resolve() for earlier in seen]:
            raise UserError(f"{path}: extends itself, by way of {', '.join(map(str, seen))}")
        document = read_document(path, what, holds)
        documents.append(document)
        parent = document.tree.get("extends")
        if parent is None:
            return tuple(documents)
        if not isinstance(parent, str):
            raise UserError(f"{document.where(('extends',))}: extends: give the path of {what}")
        path = beside(path.parent, parent)


def beside(folder: Path, path: str) -> Path:
    """A path that a file in `folder` says, `~` and `..` resolved."""
    return Path(os.path.normpath(folder / os.path.expanduser(path)))


def anchored(key: str, value: Any, folder: Path) -> Any:
    """The value of a dotted key, or the tree below it, its paths made absolute from `folder`.

    Those that begin with a variable or `~` are resolved when used. Wrong types are left for validation.
    """
    if isinstance(value, Mapping):
        return {
            name: anchored(f"{key}.{name}" if key else str(name), below, folder)
            for name, below in value.items()
        }
    is_path = key in PATHS or (key == _PATIENTS and is_table(value))
    if is_path and isinstance(value, str) and not value.startswith(("$", "~")):
        return str((folder / value).resolve())
    return value


def is_table(patients: Any) -> bool:
    """Whether `data.patients` is the path of a table, and no regular expression."""
    return isinstance(patients, str) and patients.lower().endswith((".csv", ".tsv"))


def merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """One tree over another, mapping by mapping; neither is changed."""
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        merged[key] = merge(old, value) if isinstance(old, dict) and isinstance(value, Mapping) else value
    return merged
