"""What is wrong with a configuration, in words for whoever wrote it."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterator, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError

from acdis.config.documents import Key
from acdis.errors import UserError

#: Problems that are told, and characters of a wrong value that are shown.
MOST, LONGEST = 12, 200


class InvalidError(UserError):
    """Keys with wrong values. `problems` holds each key and what is wrong, for whoever knows its line."""

    def __init__(self, problems: Sequence[tuple[Key, str]]) -> None:
        super().__init__("; ".join(phrase for _, phrase in problems))
        self.problems = tuple(problems)


def describe(error: ValidationError, model: type[BaseModel]) -> Iterator[str]:
    """One phrase per problem: the key, what is wrong, and for an unknown key the nearest valid one."""
    return (phrase for _, phrase in find_problems(error, model))


def find_problems(error: ValidationError, model: type[BaseModel]) -> list[tuple[Key, str]]:
    """The key of each problem, and the phrase that says what is wrong with it; of the first `MOST` of them.

    Looking for the nearest of a hundred valid keys takes 10 ms, and nobody reads a thousand lines.
    """
    errors: list[Any] = [{**problem, "loc": _key(problem["loc"])} for problem in error.errors()]
    problems: list[tuple[Key, str]] = [(problem["loc"], _phrase(problem, model)) for problem in errors[:MOST]]
    if len(errors) > MOST:
        key, phrase = problems[-1]
        problems[-1] = (key, f"{phrase} (and {len(errors) - MOST:,} more)")
    return problems


def _key(place: Key) -> Key:
    """As in a file: what chooses between ways of writing a value stands in angle brackets, and is no key."""
    return tuple(part for part in place if not str(part).startswith("<"))


def _phrase(problem: Any, model: type[BaseModel]) -> str:
    key = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        return f"unknown key '{key}'{_nearest(key, model)}"
    if problem["type"] == "missing" and isinstance(problem["loc"][-1], int):
        whole = ".".join(str(part) for part in problem["loc"][:-1])
        return f"{whole}: too few values (given: {_short(problem['input'])})"
    if problem["type"] == "too_long":
        most = problem["ctx"]["max_length"]
        return f"{key}: too many values, {most} at most (given: {_short(problem['input'])})"
    where = f"{key}: " if key else ""
    given = f" (given: {_short(problem['input'])})" if key and not isinstance(problem["input"], dict) else ""
    hint = _nearest_value(problem) if problem["type"] == "literal_error" else ""
    return f"{where}{problem['msg'].removeprefix('Value error, ')}{given}{hint}"


def _nearest_value(problem: Any) -> str:
    """Of the words that a key takes, which all stand in the message, the one that is like the given."""
    words = re.findall(r"'([^']*)'", problem["ctx"]["expected"])
    close = difflib.get_close_matches(str(problem["input"])[:LONGEST], words, n=1, cutoff=0.5)
    return f"; did you mean '{close[0]}'?" if close else ""


def _short(value: Any) -> str:
    """A value as Python writes it, cut: somebody may have put a whole file there."""
    try:
        text = repr(value)
    except ValueError:  # a whole number of thousands of digits
        return "a number that is too long to write"
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"


def nearest(name: str, valid: Collection[str]) -> str:
    """`; did you mean 'x'?`, or the names that there are."""
    close = difflib.get_close_matches(name, valid, n=1, cutoff=0.5)
    few = ", ".join(list(valid)[:12]) + (" …" if len(valid) > 12 else "")
    return f"; did you mean '{close[0]}'?" if close else f"; valid are {few}"


def _nearest(key: str, model: type[BaseModel]) -> str:
    """As `nearest`, but a key of this name at another place of the tree comes first."""
    names = list(_keys(model))
    last = difflib.get_close_matches(
        key.rpartition(".")[2], [name.rpartition(".")[2] for name in names], n=1, cutoff=0.75
    )
    same_leaf = [name for name in names if last and name.rpartition(".")[2] == last[0]]
    return f"; did you mean '{same_leaf[0]}'?" if same_leaf else nearest(key, names)


def _keys(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, field in model.model_fields.items():
        name = field.alias or name
        yield prefix + name
        for below in _models(field.annotation):
            yield from _keys(below, f"{prefix}{name}.")


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    """The models in an annotation, also those in `dict[str, Model] | None`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in getattr(annotation, "__args__", ()):
        yield from _models(part)
