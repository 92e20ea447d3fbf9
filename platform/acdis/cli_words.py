"""Words of the command line that several verbs share: specs and overrides, comma lists, a default command."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from typer.core import TyperGroup

from acdis.errors import UserError


class FirstUnlessNamed(TyperGroup):
    """A verb with commands of its own, of which the first is meant unless a word names another.

    `report SPEC…` is `report tables SPEC…`.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        named = bool(args) and args[0] in self.commands
        return super().parse_args(ctx, args if named else [next(iter(self.commands)), *args])


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
