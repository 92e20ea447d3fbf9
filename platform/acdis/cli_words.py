"""Words of the command line that several verbs share: specs and overrides, comma lists."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from acdis.errors import UserError


def split_words(words: Sequence[str]) -> tuple[list[Path], list[str]]:
    """Spec files, and overrides: the words with `=` in them."""
    return [Path(word) for word in words if "=" not in word], [word for word in words if "=" in word]


def names(text: str | None, option: str) -> list[str] | None:
    """`a,b` → `["a", "b"]`; none stays none.

    Raises:
        UserError: a name is empty or stands there twice.
    """
    if text is None:
        return None
    found = [word.strip() for word in text.split(",")]
    if not all(found) or len(set(found)) < len(found):
        raise UserError(f"{option}: {text!r}: give different names with commas between them, as in a,b")
    return found


def numbers(text: str | None, option: str) -> list[int] | None:
    """`0,1,2` → `[0, 1, 2]`; none stays none.

    Raises:
        UserError: not whole numbers from 0, or one stands there twice.
    """
    words = names(text, option)
    if words is None:
        return None
    if not all(word.isdecimal() for word in words):
        raise UserError(f"{option}: {text!r}: give whole numbers with commas between them, as in 0,1,2")
    return [int(word) for word in words]
