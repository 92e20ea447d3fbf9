"""What is wrong or worth knowing about cases, and how much of it is said: one line for faults of one kind."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from acdis.errors import shown

_EXAMPLES = 3
_NUMBERS = re.compile(r"\d[\d.,]*")


@dataclass(frozen=True)
class Problem:
    """Why a case cannot be used."""

    case: str
    path: Path
    reason: str

    def __str__(self) -> str:
        return shown(f"{self.path}: {self.reason}")


@dataclass(frozen=True)
class Note:
    """What was taken for what, in a case that can be used."""

    case: str
    text: str

    def __str__(self) -> str:
        return shown(f"{self.case}: {self.text}")


def gathered(items: Iterable[Problem | Note]) -> list[str]:
    """A line per problem or note; those of one kind that more than three cases share are one line.

    Of one kind is what reads alike but for numbers and the case's name.
    """
    kinds: dict[str, list[Problem | Note]] = {}
    for item in items:
        kinds.setdefault(_kind(item), []).append(item)
    lines: list[str] = []
    for alike in kinds.values():
        if len(alike) <= _EXAMPLES:
            lines += [str(item) for item in alike]
            continue
        examples = "; ".join(str(item) for item in alike[:_EXAMPLES])
        cases = len({item.case for item in alike})
        lines.append(f"{cases:,} cases, such as {examples}")
    return lines


def _kind(item: Problem | Note) -> str:
    text = item.reason if isinstance(item, Problem) else item.text
    return type(item).__name__ + _NUMBERS.sub("#", text.replace(item.case, "CASE"))
