"""YAML files as plain values, and on which line each of their keys stands."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from acdis.errors import UserError

#: A key as pydantic names it: `("data", "crop", 0)`.
Key = tuple[str | int, ...]

EXPERIMENT_KEYS = "must hold keys such as 'data:' and 'training:'"


@dataclass(frozen=True)
class Document:
    """A YAML file that holds a mapping.

    Attributes:
        tree: its plain values.
        node: what YAML made of it before that; none for an empty file.
    """

    path: Path
    tree: dict[str, Any]
    node: yaml.Node | None

    def line(self, key: Key) -> int | None:
        """The line of a key, counted from 1; none where the file does not have it."""
        node, line = self.node, 1
        for part in key:
            if isinstance(node, yaml.MappingNode):
                pairs = [(name, value) for name, value in node.value if name.value == str(part)]
                if not pairs:
                    return None
                name, node = pairs[-1]
                line = name.start_mark.line + 1
            elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
                node = node.value[part]
                line = node.start_mark.line + 1
            elif isinstance(node, yaml.ScalarNode):  # what is asked for is part of it
                return line
            else:
                return None
        return line

    def where(self, key: Key) -> str | None:
        """`FILE, line N`; none where the file does not have the key."""
        line = self.line(key)
        return None if line is None else f"{self.path}, line {line}"


@dataclass(frozen=True)
class Said:
    """Keys that were set one by one, each with the words that name its place: overrides, or a row's."""

    places: Mapping[Key, str]

    def where(self, key: Key) -> str | None:
        """The place of the key, or of one that it is part of, or that is part of it."""
        for said, place in reversed(list(self.places.items())):
            shared = min(len(said), len(key))
            if shared and said[:shared] == key[:shared]:
                return place
        return None


class _UniqueKeys(yaml.SafeLoader):
    """Safe YAML that refuses a key given twice instead of keeping the last."""


def _mapping(loader: _UniqueKeys, node: yaml.MappingNode) -> dict[Any, Any]:
    keys: list[Any] = []
    for node_of_key, _ in node.value:
        if node_of_key.tag == "tag:yaml.org,2002:merge":  # `<<: *other`
            continue
        key = loader.construct_object(node_of_key, deep=True)
        if key in keys:
            raise yaml.constructor.ConstructorError(
                None, None, f"key {key!r} is given twice", node_of_key.start_mark
            )
        keys.append(key)
    return loader.construct_mapping(node, deep=True)


_UniqueKeys.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def read_yaml(path: Path) -> dict[str, Any]:
    """The plain values of a YAML file; see `read_document`."""
    return read_document(path).tree


def read_document(path: Path, what: str = "an experiment file", holds: str = EXPERIMENT_KEYS) -> Document:
    """A YAML file that holds a mapping, read safely; `what` and `holds` name in errors what it should be.

    Raises:
        UserError: the file cannot be read, is not YAML, or holds no mapping.
    """
    try:
        tree, node = _parse(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); give the path of {what}") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: is not UTF-8 text; give the path of {what}") from None
    except (yaml.YAMLError, RecursionError, TypeError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        reason = " ".join(str(getattr(error, "problem", None) or error).split())[:200]
        raise UserError(f"{path}{line}: is not valid YAML: {reason}") from None
    if tree is None:
        return Document(path, {}, None)
    if not isinstance(tree, dict):
        raise UserError(f"{path}: {holds}, found a {type(tree).__name__}")
    return Document(path, tree, node)


def _parse(text: str) -> tuple[Any, yaml.Node | None]:
    loader = _UniqueKeys(text)  # a SafeLoader
    try:
        node = loader.get_single_node()
        return (None if node is None else loader.construct_document(node)), node
    finally:
        loader.dispose()
