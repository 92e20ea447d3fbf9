"""What is wrong with a configuration, in words for whoever wrote it."""

from __future__ import annotations

import difflib
from collections.abc import Iterator

from pydantic import BaseModel, ValidationError


def describe(error: ValidationError, model: type[BaseModel]) -> Iterator[str]:
    """One phrase per problem: the key, what is wrong, and for an unknown key the nearest valid one."""
    for problem in error.errors():
        key = ".".join(str(part) for part in problem["loc"])
        if problem["type"] == "extra_forbidden":
            yield f"unknown key '{key}'{_nearest(key, model)}"
        elif problem["type"] == "missing" and isinstance(problem["loc"][-1], int):
            whole = ".".join(str(part) for part in problem["loc"][:-1])
            yield f"{whole}: too few values (given: {problem['input']!r})"
        elif problem["type"] == "too_long":
            yield (
                f"{key}: too many values, {problem['ctx']['max_length']} at most "
                f"(given: {problem['input']!r})"
            )
        else:
            where = f"{key}: " if key else ""
            given = (
                f" (given: {problem['input']!r})" if key and not isinstance(problem["input"], dict) else ""
            )
            yield f"{where}{problem['msg'].removeprefix('Value error, ')}{given}"


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
        for candidate in (field.annotation, *getattr(field.annotation, "__args__", ())):
            if isinstance(candidate, type) and issubclass(candidate, BaseModel):
                yield from _keys(candidate, f"{prefix}{name}.")
