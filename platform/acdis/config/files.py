"""Experiment files: YAML that holds what differs from the defaults or from another file, and overrides."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from acdis.config.documents import Document, Key, Said, read_document, read_value
from acdis.config.problems import InvalidError, find_problems
from acdis.config.tree import Experiment
from acdis.errors import UserError


@dataclass(frozen=True)
class Draft:
    """An experiment before it is validated: plain values, and where each of them was said.

    Attributes:
        tree: plain values; do not change them in place.
        places: what was read, the last word first.
        source: the whole of it, in words.
    """

    tree: Mapping[str, Any]
    places: tuple[Document | Said, ...]
    source: str

    def parse(self) -> Experiment:
        """The validated experiment.

        Raises:
            UserError: an unknown key or a wrong value, with file and line, or the override.
        """
        try:
            return Experiment.model_validate(self.tree)
        except ValidationError as error:
            raise self.located(InvalidError(find_problems(error, Experiment))) from None

    def located(self, error: InvalidError) -> UserError:
        """The error with the place of each wrong key."""
        return UserError("; ".join(f"{self.where(key)}: {phrase}" for key, phrase in error.problems))

    def where(self, key: Key) -> str:
        """File and line, or the override, that had the last word on a key."""
        for length in range(len(key), 0, -1):  # what is missing is missing in what stands above it
            places = (place.where(key[:length]) for place in self.places)
            found = next((place for place in places if place), None)
            if found:
                return found
        return self.source

    def above(self, changes: Mapping[str, Any], places: Mapping[str, str], source: str) -> Draft:
        """This draft with `{dotted key: value}` set on top; `places` says where each of them stands."""
        tree = overlaid(self.tree, changes)
        said = Said({tuple(key.split(".")): place for key, place in places.items()})
        return Draft(tree, (said, *self.places), source)


def load(path: Path | None, overrides: Sequence[str] = ()) -> Experiment:
    """Read an experiment file (none: the defaults) and apply `key.path=value` overrides.

    A file may say `extends: other.yaml` and hold only what differs from that one. Relative paths in a file
    are relative to it, those in overrides to the working directory.

    Raises:
        UserError: no such file, not YAML, unknown key (with the nearest valid one), or a wrong value; with
            the line of the file that says it, or the override.
    """
    return draft(path, overrides).parse()


def draft(path: Path | None, overrides: Sequence[str] = ()) -> Draft:
    """What `load` reads, before it is validated.

    Raises:
        UserError: no such file, not YAML, or an override that is none.
    """
    tree, documents = _read_extended(path) if path else ({}, ())
    said: dict[Key, str] = {}
    for override in overrides:
        keys = _apply(tree, override)
        said.pop(keys, None)
        said[keys] = f"override '{override}'"
    anchor(tree, Path.cwd())
    source = str(path or "defaults") + (f" with {' '.join(overrides)}" if overrides else "")
    return Draft(tree, (Said(said), *documents), source)


def parse(tree: Mapping[str, Any], source: str) -> Experiment:
    """Validate a tree of plain values; `source` names it in the error."""
    return Draft(tree, (), source).parse()


def dump(experiment: Experiment) -> str:
    """The whole tree as YAML, defaults written out."""
    # ASCII with escapes: PyYAML writes U+0085 as it is and then reads it back as a space.
    return yaml.safe_dump(experiment.model_dump(mode="json"), sort_keys=False)


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """`{"data.crop": "[80, 80, 80]", ...}`: how MLflow's params want a tree."""
    flat: dict[str, str] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value if isinstance(value, str) else json.dumps(value)
    return flat


def _read_extended(path: Path, seen: tuple[Path, ...] = ()) -> tuple[dict[str, Any], tuple[Document, ...]]:
    """A file over the file that its `extends` names, and both; relative paths are relative to their file."""
    if path.resolve() in seen:
        raise UserError(f"{path}: extends itself, by way of {', '.join(str(each) for each in seen)}")
    document = read_document(path)
    tree = copy.deepcopy(document.tree)
    anchor(tree, path.parent)
    parent = tree.pop("extends", None)
    if parent is None:
        return tree, (document,)
    if not isinstance(parent, str):
        raise UserError(f"{document.where(('extends',))}: extends: give the path of one experiment file")
    below, documents = _read_extended(path.parent / parent, (*seen, path.resolve()))
    return merge(below, tree), (document, *documents)


def merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """One tree over another, mapping by mapping; neither is changed."""
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        merged[key] = merge(old, value) if isinstance(old, dict) and isinstance(value, Mapping) else value
    return merged


def overlaid(tree: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """A tree with `{dotted key: value}` set; the tree given is not changed."""
    merged = dict(tree)
    for path, value in changes.items():
        *parents, last = path.split(".")
        node = merged
        for key in parents:
            child = node.get(key)
            node[key] = dict(child) if isinstance(child, dict) else {}
            node = node[key]
        node[last] = value
    return merged


def anchor(tree: dict[str, Any], folder: Path) -> None:
    """Make the paths of a file absolute; those that begin with a variable or `~` are resolved when used."""
    data = tree.get("data")
    split = data.get("split") if isinstance(data, dict) else None
    for part, keys in ((data, ("root",)), (split, ("train", "validation", "test"))):
        for key in keys:
            value = part.get(key) if isinstance(part, dict) else None
            if isinstance(part, dict) and isinstance(value, str) and not value.startswith(("$", "~")):
                part[key] = str((folder / value).resolve())


def _apply(tree: dict[str, Any], override: str) -> Key:
    """Set one `key.path=value` in a tree of plain values; returns the key."""
    path, separator, text = override.partition("=")
    keys = [key.strip() for key in path.split(".")]
    if not separator or not all(keys):
        raise UserError(f"override {override!r}: write it as key.path=value")
    try:
        value = read_value(text)
    except UserError as error:
        raise UserError(f"override {override!r}: the value {error}") from None
    *parents, last = keys
    node = tree
    for key in parents:
        child = node.get(key)
        node[key] = child = child if isinstance(child, dict) else {}
        node = child
    node[last] = value
    return tuple(keys)
