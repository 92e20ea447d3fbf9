"""Which cases train, validate and test: lists of names in files, or a seeded draw by counts."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from acdis import config, files
from acdis.errors import UserError

#: BraTS 2020's public lists mark the grade before the name of the folder: HG_BraTS20_Training_002.
_PREFIXES = ("HG_", "LG_")
_DUE = "give a text file with one case name a line"


@dataclass(frozen=True)
class Lists:
    """Names of cases, each list sorted, disjoint."""

    train: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...]


def resolve(split: config.Split, names: Sequence[str], base: Path | None) -> Lists:
    """The three lists, in the names that the cases have on disk.

    Relative paths are looked for under `base` (the experiment file's folder), then under the current folder.

    Raises:
        UserError: no split given, a file that cannot be read, an unknown name, a name twice in a list or in
            two lists, an empty training list, or counts above the number of cases.
    """
    if split.counts is not None:
        return draw(names, split.counts, split.seed)
    if split.train is None:
        raise UserError("data.split: give files (train, validation, test) or counts")
    given = {"train": split.train, "validation": split.validation, "test": split.test}
    return from_files({part: _locate(file, base) for part, file in given.items() if file is not None}, names)


def draw(names: Sequence[str], counts: tuple[int, int, int], seed: int) -> Lists:
    """A random split: depends on the set of names, the counts and the seed alone.

    Raises:
        UserError: more cases wanted than there are.
    """
    if sum(counts) > len(names):
        raise UserError(f"data.split.counts {counts} ask for {sum(counts)} cases, there are {len(names)}")
    ordered = sorted(names)
    order = np.random.default_rng(seed).permutation(len(ordered))
    train, validation, test, _ = np.split(order, np.cumsum(counts))
    first, second, third = (
        tuple(sorted(ordered[index] for index in part)) for part in (train, validation, test)
    )
    return Lists(first, second, third)


def from_files(paths: Mapping[str, Path], names: Sequence[str]) -> Lists:
    """Read the lists under the keys train, validation and test; what is not given is empty.

    Raises:
        UserError: as `resolve`.
    """
    parts = {part: _mapped(read_list(path), path, names) for part, path in paths.items()}
    _disjoint(parts, paths)
    if not parts.get("train"):
        raise UserError(f"{paths.get('train', 'data.split.train')}: holds no case to train on")
    first, second, third = (tuple(sorted(parts.get(part, ()))) for part in ("train", "validation", "test"))
    return Lists(first, second, third)


def read_list(path: Path) -> list[str]:
    """Names in a text file, one a line; empty lines and what follows a `#` are left out.

    Raises:
        UserError: the file cannot be read or is not text.
    """
    try:
        text = files.read(path, files.TEXT).decode("utf-8-sig")
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({files.reason(error)}); {_DUE}") from None
    except files.TooLargeError as error:
        raise UserError(f"{path}: {error}; {_DUE}") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: is not UTF-8 text; {_DUE}") from None
    return [name for line in text.splitlines() if (name := line.partition("#")[0].strip())]


def _locate(file: str, base: Path | None) -> Path:
    path = os.path.expanduser(file)  # unlike pathlib's it leaves strangers' homes as they are
    places = [place / path for place in (base, Path.cwd()) if place is not None]
    found = next((place for place in places if os.path.isfile(place)), None)
    if found is None:
        raise UserError(
            f"{file}: no such split file; looked for {' and '.join(map(str, dict.fromkeys(places)))}"
        )
    return found


def _mapped(listed: Sequence[str], path: Path, names: Sequence[str]) -> tuple[str, ...]:
    """Names as on disk: the listed one itself, or the one that differs by the grade's prefix alone."""
    known = set(names)
    bare = {_bare(name): name for name in sorted(names)}
    found = [name if name in known else bare.get(_bare(name)) for name in listed]
    unknown = [name for name, match in zip(listed, found, strict=True) if match is None]
    if unknown:
        raise UserError(
            f"{path}: {len(unknown)} of {len(listed)} names match none of the {len(known)} cases: "
            f"{', '.join(unknown)}"
        )
    matched = [name for name in found if name is not None]
    twice = sorted(name for name, count in Counter(matched).items() if count > 1)
    if twice:
        raise UserError(f"{path}: listed more than once: {', '.join(twice)}")
    return tuple(matched)


def _bare(name: str) -> str:
    for prefix in _PREFIXES:
        if name.startswith(prefix):
            return name.removeprefix(prefix)
    return name


def _disjoint(parts: Mapping[str, tuple[str, ...]], paths: Mapping[str, Path]) -> None:
    ordered = list(parts)
    for index, one in enumerate(ordered):
        for other in ordered[index + 1 :]:
            shared = sorted(set(parts[one]) & set(parts[other]))
            if shared:
                both = ", ".join(shared)
                raise UserError(
                    f"{paths[other]}: also listed to {one} ({paths[one]}), remove from one: {both}"
                )
