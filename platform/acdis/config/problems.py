"""What is wrong with a configuration, in words for whoever wrote it."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
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
    errors = error.errors()
    found = [(problem["loc"], _phrase(problem, model)) for problem in errors[:MOST]]
    if len(errors) > MOST:
        key, phrase = found[-1]
        found[-1] = (key, f"{phrase} (and {len(errors) - MOST:,} more)")
    return found


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
    return f"{where}{problem['msg'].removeprefix('Value error, ')}{given}"


def _short(value: Any) -> str:
    """A value as Python writes it, cut: somebody may have put a whole file there."""
    try:
        text = repr(value)
    except ValueError:  # a whole number of thousands of digits
        return "a number that is too long to write"
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"


def _nearest(key: str, model: type[BaseModel]) -> str:
    names = list(_keys(model))
    close = difflib.get_close_matches(key, names, n=1, cutoff=0.5)
    last = difflib.get_close_matches(
        key.rpartition(".")[2], [name.rpartition(".")[2] for name in names], n=1, cutoff=0.75
    )
    same_leaf = [name for name in names if last and name.rpartition(".")[2] == last[0]]
    nearest = next(iter(same_leaf or close), None)
    return f"; did you mean '{nearest}'?" if nearest else f"; valid are {', '.join(names[:12])} …"


def _keys(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, field in model.model_fields.items():
        yield prefix + name
        for below in _models(field.annotation):
            yield from _keys(below, f"{prefix}{name}.")


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    """The models in an annotation, also those in `dict[str, Model] | None`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in getattr(annotation, "__args__", ()):
        yield from _models(part)
