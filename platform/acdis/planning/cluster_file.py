"""What a cluster file says a cluster may become: its node types, each as often as it allows. No ray here."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from acdis.config.documents import Document, read_document
from acdis.errors import UserError
from acdis.planning.resources import DRIVER, KINDS, Resources


def of_file(path: Path) -> Resources:
    """The nodes of a `ray up` file, the head and every worker that it may start.

    Raises:
        UserError: it is no such file; or it names hosts, of which it cannot say what they have.
    """
    document = read_document(path, "a cluster file, such as cluster.yaml", "must hold a cluster for `ray up`")
    types = _types(document)
    if hosts_of(document) is not None:
        raise UserError(
            f"{path}: names hosts, not what they have; `plan` without --cluster asks a cluster that runs"
        )
    head = document.tree.get("head_node_type")
    if head not in types:
        raise _problem(document, "head_node_type", f"no node type {head!r}; valid are {', '.join(types)}")
    at_most = _count(document, document.tree, "max_workers", 2)
    workers = [name for name in types for _ in range(_most(document, types[name])) if name != head]
    shown = ", ".join(f"{workers[:at_most].count(name)} {name}" for name in dict.fromkeys(workers[:at_most]))
    nodes = [_resources(document, name, types[name]) for name in (head, *workers[:at_most])]
    return Resources(tuple(nodes), f"{path} (head and up to {shown or 'no worker'})", False)


def hosts_of(document: Document) -> int | None:
    """How many hosts the file names, the head among them; none where it starts machines of its own."""
    provider = document.tree.get("provider")
    if not isinstance(provider, Mapping) or provider.get("type") != "local":
        return None
    hosts = provider.get("worker_ips")
    return 1 + len(hosts) if isinstance(hosts, list) else 1


def _types(document: Document) -> dict[str, Any]:
    if not isinstance(document.tree.get("provider"), Mapping):
        raise UserError(f"{document.path}: has no 'provider'; give a cluster file, such as cluster.yaml")
    types = document.tree.get("available_node_types", {})
    if not isinstance(types, Mapping) or not all(
        isinstance(node_type, Mapping) for node_type in types.values()
    ):
        raise _problem(document, "available_node_types", "must hold a mapping for each node type")
    return dict(types)


def _most(document: Document, kind: Mapping[str, Any]) -> int:
    return _count(document, kind, "max_workers", _count(document, document.tree, "max_workers", 2))


def _count(document: Document, tree: Mapping[str, Any], key: str, default: int) -> int:
    value = tree.get(key, default)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise _problem(document, key, f"must be a number of nodes (given: {value!r})")
    return value


def _resources(document: Document, name: str, kind: Mapping[str, Any]) -> dict[str, float]:
    given = kind.get("resources")
    if not isinstance(given, Mapping) or "CPU" not in given:
        raise _problem(
            document,
            "available_node_types",
            f"{name}: says no 'resources' with CPU and GPU, so nothing can be reckoned",
        )
    values = {key: given.get(key, 0) for key in (*KINDS, DRIVER)}
    for key, value in values.items():
        if not isinstance(value, int | float) or isinstance(value, bool) or value < 0:
            raise _problem(
                document, "available_node_types", f"{name}: {key} must be a number (given: {value!r})"
            )
    return {key: float(value) for key, value in values.items()}


def _problem(document: Document, key: str, text: str) -> UserError:
    return UserError(f"{document.where((key,)) or document.path}: {key}: {text}")
