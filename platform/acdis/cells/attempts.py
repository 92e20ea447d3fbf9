"""What the workers of a training say about it: each in a file of its own, which nobody else writes.

    <cell>/attempts/000003-5f2a91c0-0.json      of the third attempt, by rank 0

Ray may begin anew while a machine that was cut off trains on, so two attempts can be alive. The one with the
higher number counts, and of two that took the same number at once the one with the higher mark: what a
file's name says, so no clock and no lock between hosts decides. A driver takes over what an attempt has said
into `state.json`, with its number (`taken`); then its files are removed, and what it says later is not heard.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from acdis.cells import schemas

FOLDER = "attempts"
_NAME = re.compile(r"(\d{6,40})-([0-9a-f]{8})-(\d{1,6})\.json")


class Attempt:
    """One worker's file. All ranks of an attempt have one number and mark."""

    def __init__(self, folder: Path, number: int, mark: str, rank: int = 0) -> None:
        self.folder, self.number, self.mark = folder, number, mark
        self.path = folder / FOLDER / f"{number:06}-{mark}-{rank}.json"
        self._said: dict[str, Any] = {}

    def update(self, **changes: Any) -> None:
        """Say something; a key that becomes None takes away what the driver has said of it."""
        said = self._said | changes | {"attempt": self.mark, "updated": time.time()}
        said["beat"] = said.get("beat", 0) + 1
        schemas.write(self.path, schemas.State, said)
        self._said = said

    def successor(self) -> str | None:
        """The mark of a later attempt, or who has taken this one over; none while it counts."""
        latest = max(_files(self.folder), default=None)
        taken = schemas.read(self.folder / "state.json", schemas.State).get("taken", 0)
        if latest is not None and latest[:2] > (self.number, self.mark):
            return latest[1]
        return "of the driver" if taken >= self.number else None


def fresh(folder: Path) -> tuple[int, str]:
    """Number and mark of an attempt that begins now at the cell in `folder`."""
    taken = schemas.read(folder / "state.json", schemas.State).get("taken", 0)
    return max([taken, *(number for number, *_ in _files(folder))]) + 1, secrets.token_hex(4)


def told(folder: Path) -> tuple[int, dict[str, Any]]:
    """The number of the attempt that counts and what its ranks say; (0, {}) where there is none.

    Read it before `state.json`: a driver writes that before it removes what it has taken over.
    """
    every = sorted(_files(folder))
    said = {}
    for number, mark, _, path in every:
        if (number, mark) == every[-1][:2]:
            with contextlib.suppress(schemas.DamagedError):  # a power cut: what the driver says is left
                said[path.name] = schemas.read(path, schemas.State)
    return latest(said)


def latest(said: Mapping[str, Mapping[str, Any]]) -> tuple[int, dict[str, Any]]:
    """As `told`, of what files say, by their names or paths."""
    every = sorted(
        (int(match[1]), match[2], int(match[3]), name)
        for name in said
        if (match := _NAME.fullmatch(name.rpartition("/")[2]))
    )
    merged: dict[str, Any] = {}
    for number, mark, _, name in every:
        if (number, mark) == every[-1][:2]:
            merged |= said[name]
    merged.pop("beat", None)
    return (every[-1][0] if merged else 0), merged


def over(state: Mapping[str, Any], attempt: tuple[int, Mapping[str, Any]]) -> dict[str, Any]:
    """What the driver says, and over that what it has not taken over yet."""
    number, said = attempt
    merged = {**state, **said} if number > state.get("taken", 0) else dict(state)
    return {key: value for key, value in merged.items() if value is not None}


def highest(folder: Path) -> int:
    """The highest number that an attempt has had; 0 where none is left."""
    return max((number for number, *_ in _files(folder)), default=0)


def remove(folder: Path, taken: int) -> None:
    """Remove what was taken over."""
    for number, _, _, path in _files(folder):
        if number <= taken:
            path.unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # not empty, or not there
        os.rmdir(folder / FOLDER)


def _files(folder: Path) -> Iterator[tuple[int, str, int, Path]]:
    """Number, mark, rank and path."""
    try:
        names = os.listdir(folder / FOLDER)
    except OSError:
        return
    for name in names:
        if match := _NAME.fullmatch(name):
            yield int(match[1]), match[2], int(match[3]), folder / FOLDER / name
