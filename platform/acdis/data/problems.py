"""What is wrong or worth knowing about cases, and how much of it is said: one line for faults of one kind."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

from acdis.errors import shown
from acdis.vocabulary import MODALITIES

_EXAMPLES = 3
_NUMBERS = re.compile(r"\d[\d.,]*")
_WORDS = re.compile(r"[^\s:;,]+")
_FILES = re.compile(r"[^\s;,]+\.nii(\.gz)?\b", re.IGNORECASE)


@dataclass(frozen=True)
class Problem:
    """Why a case cannot be used; `other` is what else than the case the reason names, case by case."""

    case: str
    path: Path
    reason: str
    other: str = ""

    def __str__(self) -> str:
        return shown(f"{self.path}: {self.reason}")


@dataclass(frozen=True)
class Note:
    """What was taken for what, in a case that can be used."""

    case: str
    text: str

    def __str__(self) -> str:
        return shown(f"{self.case}: {self.text}")


def way_out(problems: Iterable[Problem]) -> str:
    """What to do where an image is missing because it was never taken; "" where none is."""
    lacking = tuple(f"{modality} is missing" for modality in MODALITIES)
    if not any(problem.reason.startswith(lacking) for problem in problems):
        return ""
    return "; scans that truly lack a modality take part with data.incomplete=true"


def gathered(items: Iterable[Problem | Note]) -> list[str]:
    """A line per problem or note; those of one kind that more than three cases share are one line.

    Of one kind is what reads alike but for numbers, files and the names of cases.
    """
    return _by_kind((item.case, str(item), _kind(item)) for item in items)


def gathered_lines(lines: Iterable[tuple[str, str]], names: Collection[str]) -> list[str]:
    """As `gathered`, of pairs of a case and what is said of it, where any of `names` may be spoken of.

    What is said twice is said once.
    """

    def without_names(line: str) -> str:
        return _WORDS.sub(lambda word: "CASE" if word[0].rpartition("/")[2] in names else word[0], line)

    once = {line: case for case, line in lines}
    return _by_kind((case, line, _masked(without_names(line), case)) for line, case in once.items())


def _by_kind(said: Iterable[tuple[str, str, str]]) -> list[str]:
    """Case, line and kind of each, to lines."""
    kinds: dict[str, list[tuple[str, str]]] = {}
    for case, line, kind in said:
        kinds.setdefault(kind, []).append((case, line))
    lines: list[str] = []
    for alike in kinds.values():
        if len(alike) <= _EXAMPLES:
            lines += [line for _, line in alike]
            continue
        examples = "; ".join(line for _, line in alike[:_EXAMPLES])
        cases = len({case for case, _ in alike})
        lines.append(f"{cases:,} cases, such as {examples}")
    return lines


def _kind(item: Problem | Note) -> str:
    text = item.reason if isinstance(item, Problem) else item.text
    if isinstance(item, Problem) and item.other:
        text = text.replace(item.other, "OTHER")
    return type(item).__name__ + _masked(text, item.case)


def _masked(text: str, case: str) -> str:
    """Without what differs from case to case."""
    return _NUMBERS.sub("#", re.sub(rf"\b{re.escape(case)}\b", "CASE", _FILES.sub("FILE", text)))
