"""YAML files as plain values, and on which line each of their keys stands."""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from acdis import files
from acdis.errors import UserError

#: A key as pydantic names it: `("data", "crop", 0)`.
Key = tuple[str | int, ...]

#: Beyond these a file is no configuration but an attack on the memory, or a slip of the pen.
DEEPEST, MOST_VALUES, LONGEST_NUMBER = 40, 200_000, 100
_NO_TEXT = re.compile(r"[\0\ud800-\udfff]")
_TAG = "tag:yaml.org,2002:"
_NUMBERS = (f"{_TAG}int", f"{_TAG}float")
#: What JSON knows too: dates, sets and bytes could be compared with nothing.
_PLAIN = {"str", "int", "float", "bool", "null", "seq", "map", "merge"}
#: What PyYAML raises on text that is none; its constructors of dates and numbers let Python's own through.
_NOT_YAML = (yaml.YAMLError, RecursionError, LookupError, TypeError, ValueError, OverflowError)

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
class KeyPlaces:
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
    keys: set[Any] = set()
    for node_of_key, _ in node.value:
        if node_of_key.tag == "tag:yaml.org,2002:merge":  # `<<: *other`
            continue
        key = loader.construct_object(node_of_key, deep=True)
        if not isinstance(key, Hashable):
            raise _wrong("a list or mapping cannot be a key", node_of_key)
        if key in keys:
            raise _wrong(f"key {key!r} is given twice", node_of_key)
        keys.add(key)
    return loader.construct_mapping(node, deep=True)


def _wrong(problem: str, node: yaml.Node) -> yaml.YAMLError:
    return yaml.constructor.ConstructorError(None, None, problem, node.start_mark)


#: `2026-01-01` is text, as in JSON.
_UniqueKeys.yaml_implicit_resolvers = {
    start: [(tag, pattern) for tag, pattern in resolvers if tag != f"{_TAG}timestamp"]
    for start, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_UniqueKeys.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def read_yaml(path: Path) -> dict[str, Any]:
    """The plain values of a YAML file; see `read_document`."""
    return read_document(path).tree


def read_document(path: Path, what: str = "an experiment file", holds: str = EXPERIMENT_KEYS) -> Document:
    """A YAML file that holds a mapping, read safely; `what` and `holds` name in errors what it should be.

    Raises:
        UserError: the file cannot be read, is not YAML, or holds no mapping.
    """
    todo = f"give the path of {what}"
    content = files.given(path, files.TEXT, todo)
    try:
        tree, node = _parse(content.decode("utf-8"))
    except UnicodeDecodeError:
        raise UserError(f"{path}: is not UTF-8 text; {todo}") from None
    except _NOT_YAML as error:
        raise UserError(f"{path}{_line_of(error)}: is not valid YAML: {_reason(error)}") from None
    if tree is None:
        return Document(path, {}, None)
    if not isinstance(tree, dict):
        raise UserError(f"{path}: {holds}, found a {type(tree).__name__}")
    return Document(path, tree, node)


def read_value(text: str) -> Any:
    """The plain value of a piece of YAML, read as strictly as a file.

    Raises:
        UserError: it is not YAML, with the reason alone.
    """
    try:
        return _parse(text)[0]
    except _NOT_YAML as error:
        raise UserError(f"is not valid YAML: {_reason(error)}") from None


def _line_of(error: Exception) -> str:
    mark = getattr(error, "problem_mark", None)
    return f", line {mark.line + 1}" if mark else ""


def _reason(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return f"lists and mappings are nested more than {DEEPEST} deep"
    return " ".join(str(getattr(error, "problem", None) or error).split())[:200]


def _parse(text: str) -> tuple[Any, yaml.Node | None]:
    loader = _UniqueKeys(text)  # a SafeLoader
    try:
        node = loader.get_single_node()
        if node is None:
            return None, None
        _check_size(node)
        return loader.construct_document(node), node
    finally:
        loader.dispose()


def _check_size(root: yaml.Node) -> None:
    """Refuse what grows beyond measure when aliases (`*name`) are written out, is too deep, or no number."""
    known: dict[yaml.Node, tuple[int, int]] = {}  # values, levels
    open_ones: set[yaml.Node] = set()

    def measure(node: yaml.Node) -> tuple[int, int]:
        if node in known:
            return known[node]
        if node in open_ones:
            raise _wrong("an alias (*) leads back to what it is part of: it is recursive", node)
        if len(open_ones) > DEEPEST:
            raise RecursionError
        open_ones.add(node)
        parts = [measure(child) for child in _children(node)]
        open_ones.discard(node)
        values, levels = 1 + sum(part[0] for part in parts), 1 + max((part[1] for part in parts), default=0)
        if values > MOST_VALUES:
            raise _wrong(f"more than {MOST_VALUES:,} values once its aliases (*) are written out", node)
        if levels > DEEPEST:
            raise RecursionError
        known[node] = values, levels
        return known[node]

    measure(root)


def _children(node: yaml.Node) -> Iterator[yaml.Node]:
    if node.tag.removeprefix(_TAG) not in _PLAIN:
        raise _wrong(f"the tag {node.tag}, where plain text, numbers, lists and mappings are due", node)
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            yield key
            yield value
    elif isinstance(node, yaml.SequenceNode):
        yield from node.value
    elif node.tag in _NUMBERS and len(node.value) > LONGEST_NUMBER:
        raise _wrong(f"a number of {len(node.value)} characters", node)
    elif _NO_TEXT.search(node.value):
        raise _wrong("a NUL or half of a surrogate pair, which no text holds", node)
