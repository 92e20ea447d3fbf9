"""Experiment files: YAML that holds what differs from the defaults or from another file, and overrides."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from acdis.config.problems import describe
from acdis.config.tree import Experiment
from acdis.errors import UserError


def load(path: Path | None, overrides: Sequence[str] = ()) -> Experiment:
    """Read an experiment file (none: the defaults) and apply `key.path=value` overrides.

    A file may say `extends: other.yaml` and hold only what differs from that one. Relative paths in a file
    are relative to it, those in overrides to the working directory.

    Raises:
        UserError: no such file, not YAML, unknown key (with the nearest valid one), or a wrong value.
    """
    tree = _read_extended(path) if path else {}
    for override in overrides:
        _apply(tree, override)
    _anchor(tree, Path.cwd())
    source = str(path or "defaults") + (f" with {' '.join(overrides)}" if overrides else "")
    return parse(tree, source)


def parse(tree: Mapping[str, Any], source: str) -> Experiment:
    """Validate a tree of plain values; `source` names it in the error."""
    try:
        return Experiment.model_validate(tree)
    except ValidationError as error:
        raise UserError(f"{source}: " + "; ".join(describe(error, Experiment))) from None


def dump(experiment: Experiment) -> str:
    """The whole tree as YAML, defaults written out."""
    return yaml.safe_dump(experiment.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """`{"data.crop": "[80, 80, 80]", ...}`: how MLflow's params want a tree."""
    flat: dict[str, str] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value if isinstance(value, str) else json.dumps(value)
    return flat


def _read_extended(path: Path, seen: tuple[Path, ...] = ()) -> dict[str, Any]:
    """A file over the file that its `extends` names; its relative paths are relative to it."""
    if path.resolve() in seen:
        raise UserError(f"{path}: extends itself, by way of {', '.join(str(each) for each in seen)}")
    tree = read_yaml(path)
    _anchor(tree, path.parent)
    parent = tree.pop("extends", None)
    if parent is None:
        return tree
    if not isinstance(parent, str):
        raise UserError(f"{path}: extends: give the path of one experiment file")
    return _merge(_read_extended(path.parent / parent, (*seen, path.resolve())), tree)


def _merge(below: dict[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        merged[key] = _merge(old, value) if isinstance(old, dict) and isinstance(value, Mapping) else value
    return merged


def _anchor(tree: dict[str, Any], folder: Path) -> None:
    """Make the paths of a file absolute; those that begin with a variable or `~` are resolved when used."""
    data = tree.get("data")
    split = data.get("split") if isinstance(data, dict) else None
    for part, keys in ((data, ("root",)), (split, ("train", "validation", "test"))):
        for key in keys:
            value = part.get(key) if isinstance(part, dict) else None
            if isinstance(part, dict) and isinstance(value, str) and not value.startswith(("$", "~")):
                part[key] = str((folder / value).resolve())


class _UniqueKeys(yaml.SafeLoader):
    """Safe YAML that refuses a key given twice instead of keeping the last."""


def _mapping(loader: _UniqueKeys, node: yaml.MappingNode) -> dict[Any, Any]:
    keys: list[Any] = []
    for node_of_key, _ in node.value:
        key = loader.construct_object(node_of_key, deep=True)
        if key in keys:
            raise yaml.constructor.ConstructorError(
                None, None, f"key {key!r} is given twice", node_of_key.start_mark
            )
        keys.append(key)
    return loader.construct_mapping(node, deep=True)


_UniqueKeys.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML file that holds a mapping, read safely.

    Raises:
        UserError: the file cannot be read, is not YAML, or holds no mapping.
    """
    try:
        tree = yaml.load(path.read_text(encoding="utf-8"), Loader=_UniqueKeys)  # a SafeLoader
    except OSError as error:
        raise UserError(
            f"{path}: cannot be read ({error.strerror}); give the path of an experiment file"
        ) from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: is not UTF-8 text; give the path of an experiment file") from None
    except (yaml.YAMLError, RecursionError, TypeError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        reason = " ".join(str(getattr(error, "problem", None) or error).split())[:200]
        raise UserError(f"{path}{line}: is not valid YAML: {reason}") from None
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise UserError(
            f"{path}: must hold keys such as 'data:' and 'training:', found a {type(tree).__name__}"
        )
    return tree


def _apply(tree: dict[str, Any], override: str) -> None:
    """Set one `key.path=value` in a tree of plain values."""
    path, separator, text = override.partition("=")
    keys = [key.strip() for key in path.split(".")]
    if not separator or not all(keys):
        raise UserError(f"override {override!r}: write it as key.path=value")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        raise UserError(f"override {override!r}: the value is not valid YAML") from None
    *parents, last = keys
    node = tree
    for key in parents:
        child = node.get(key)
        node[key] = child = child if isinstance(child, dict) else {}
        node = child
    node[last] = value
