"""Experiment files: YAML that holds what differs from the defaults or from another file, and overrides."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from acdis.config.documents import Document, Key, KeyPlaces, read_value
from acdis.config.extends import anchored, chain, merge
from acdis.config.problems import InvalidError, find_problems
from acdis.config.tree import Experiment, MethodChoice
from acdis.errors import UserError


@dataclass(frozen=True)
class Draft:
    """An experiment before it is validated: plain values, and where each of them was said.

    Attributes:
        base: plain values of the files; do not change them in place.
        places: what was read, the last word first.
        source: the whole of it, in words.
        layers: `{dotted key: value}` on top of the files, each over those before: overrides, a row.
    """

    base: Mapping[str, Any]
    places: tuple[Document | KeyPlaces, ...]
    source: str
    layers: tuple[Mapping[str, Any], ...] = ()

    @property
    def tree(self) -> Mapping[str, Any]:
        """Plain values of files and layers together; do not change them in place."""
        return functools.reduce(overlaid, self.layers, self.base)

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
        own = method_of(self.tree)
        for length in range(len(key), 0, -1):  # what is missing is missing in what stands above it
            names = [key[:length]]
            if key[:2] == ("method", "options") and length > 2:  # it may come from those of its method
                names.insert(0, ("method", "options_for", own, *key[2:length]))
            places = (place.where(name) for place in self.places for name in names)
            position = next((place for place in places if place), None)
            if position:
                return position
        return self.source

    def above(self, changes: Mapping[str, Any], places: Mapping[str, str], source: str) -> Draft:
        """This draft with `{dotted key: value}` set on top; `places` says where each of them stands."""
        said = KeyPlaces({tuple(key.split(".")): place for key, place in places.items()})
        return Draft(self.base, (said, *self.places), source, (*self.layers, changes))

    def beneath(self, changes: Mapping[str, Any], place: str) -> Draft:
        """This draft with `{dotted key: value}` set over its files and under its layers."""
        said = KeyPlaces({tuple(key.split(".")): place for key in changes})
        documents = [origin for origin in self.places if isinstance(origin, Document)]
        above = [origin for origin in self.places if not isinstance(origin, Document)]
        base = overlaid(switched(self.base, method_of(self.tree)), changes)
        return Draft(base, (*above, said, *documents), self.source, self.layers)


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
    documents = chain(path) if path else ()
    tree: dict[str, Any] = {}
    for document in reversed(documents):
        above = anchored("", document.tree, document.path.parent)
        above.pop("extends", None)
        tree = merge(switched(tree, method_of(above, method_of(tree))), above)
    said: dict[Key, str] = {}
    layer: dict[str, Any] = {}
    for override in overrides:
        keys, value = _read_override(override)
        said.pop(keys, None)
        said[keys] = f"override '{override}'"
        layer.pop(".".join(keys), None)
        layer[".".join(keys)] = value
    source = str(path or "defaults") + (f" with {' '.join(overrides)}" if overrides else "")
    return Draft(tree, (KeyPlaces(said), *documents), source, (layer,) if layer else ())


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


def overlaid(tree: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """A tree with `{dotted key: value}` set; the tree given is not changed.

    Where they choose another method, the tree's options are that method's: see `switched`.
    """
    chosen = changes.get("method.name")
    merged = switched(tree, chosen) if isinstance(chosen, str) else dict(tree)
    for path, value in changes.items():
        *parents, last = path.split(".")
        node = merged
        for key in parents:
            child = node.get(key)
            node[key] = dict(child) if isinstance(child, dict) else {}
            node = node[key]
        node[last] = value
    return merged


def method_of(tree: Mapping[str, Any], default: str | None = None) -> str:
    """The method that a tree of plain values names, or the default."""
    method = tree.get("method")
    name = method.get("name") if isinstance(method, Mapping) else None
    usual: str = default or MethodChoice.model_fields["name"].default
    return name if isinstance(name, str) else usual


def switched(tree: Mapping[str, Any], name: str) -> dict[str, Any]:
    """A tree with another method: `method.options` are those that `method.options_for` has for it.

    The options of the method before are kept there in their turn. A tree of wrong types is left as it is.
    """
    method, before = tree.get("method", {}), method_of(tree)
    if name == before or not isinstance(method, Mapping):
        return dict(tree)
    others, own = method.get("options_for", {}), method.get("options", {})
    if not isinstance(others, Mapping):
        return dict(tree)
    kept = {key: value for key, value in others.items() if key != name}
    if own:
        kept[before] = own
    changed = {**method, "name": name, "options": others.get(name, {}), "options_for": kept}
    return {**tree, "method": changed}


def _read_override(override: str) -> tuple[tuple[str, ...], Any]:
    """Key and plain value of one `key.path=value`; a path in it is relative to the working directory."""
    path, separator, text = override.partition("=")
    keys = [key.strip() for key in path.split(".")]
    if not separator or not all(keys):
        raise UserError(f"override {override!r}: write it as key.path=value")
    try:
        value = read_value(text)
    except UserError as error:
        cure = f"; as text: {path}='\"{text}\"'" if text[:1] in "{[*&!%@`" and '"' not in text else ""
        raise UserError(f"override {override!r}: the value {error}{cure}") from None
    return tuple(keys), anchored(".".join(keys), value, Path.cwd())
