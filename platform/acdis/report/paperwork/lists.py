"""The checklists, as files: which items there are, in words of ours, and which facts answer them."""

from __future__ import annotations

import functools
from pathlib import Path

from pydantic import Field

from acdis import config
from acdis.config import Config
from acdis.errors import UserError

HERE = Path(__file__).parent / "lists"


class Item(Config):
    """One item.

    Attributes:
        at: its number or place in the original.
        words: what it is about, not in the original's words.
        known: names of the facts that answer it.
        ask: what no record can know of it, to be written by the authors.
    """

    at: str = Field(min_length=1)
    words: str = Field(min_length=1)
    known: tuple[str, ...] = ()
    ask: str = ""


class Group(Config):
    """Items under a heading."""

    name: str
    items: tuple[Item, ...] = Field(min_length=1)


class Checklist(Config):
    """A list, which edition of it, and where the original is."""

    title: str
    edition: str
    original: str
    cite: tuple[str, ...] = ()
    groups: tuple[Group, ...] = Field(min_length=1)


@functools.cache
def names() -> tuple[str, ...]:
    """What `--checklist` takes."""
    return tuple(sorted(path.stem for path in HERE.glob("*.yaml")))


def check(name: str) -> None:
    """Raises: UserError: there is no list of this name."""
    if name not in names():
        raise UserError(
            f"--checklist: {name!r} is none of {', '.join(names())}{config.nearest(name.lower(), names())}"
        )


def load(name: str) -> Checklist:
    """A list.

    Raises:
        UserError: there is none of this name.
    """
    check(name)
    return Checklist.model_validate(config.read_yaml(HERE / f"{name}.yaml"))
