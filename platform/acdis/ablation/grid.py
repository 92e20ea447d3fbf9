"""The full product of factors, less what rules exclude: generated rows of a spec."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import Field

from acdis.config import Config, InvalidError

#: A grid beyond this is a slip of the pen: nobody trains as many cells.
MOST = 100_000


class Rule(Config):
    """Combinations that are left out, and why."""

    reason: str = Field(min_length=1, description="shown with the number of combinations that it excludes")
    when: dict[str, Any] = Field(
        min_length=1, description="all of: {factor: value} or {factor: {not: value}}"
    )


class GridFile(Config):
    """A grid as it stands in a spec file."""

    factors: dict[str, Any] = Field(description="{dotted key: values, or {subsets_of: values}}")
    exclude: tuple[Rule, ...] = ()


@dataclass(frozen=True)
class Combination:
    """One point of the grid."""

    id: str
    label: str
    changes: Mapping[str, Any]


@dataclass(frozen=True)
class Combinations:
    """What is left of the product, and how many each rule has excluded (the first that applies counts)."""

    kept: tuple[Combination, ...]
    excluded: Mapping[str, int]


def combine(grid: GridFile) -> Combinations:
    """The product of the factors' values, in the order in which they stand.

    Raises:
        InvalidError: no factor, one without values or with one twice, a rule on what is no factor or that
            excludes nothing, nothing left, or a product of more than `MOST`.
    """
    if not grid.factors:
        raise _invalid(("factors",), "grid.factors: empty, so there is nothing to combine")
    given = {name: _given(name, values) for name, values in grid.factors.items()}
    size = math.prod(2 ** len(values) if subsets else len(values) for values, subsets in given.values())
    if size > MOST:
        raise _invalid(("factors",), f"grid.factors: {size:,} combinations, {MOST:,} at most")
    factors = {name: _subsets(values) if subsets else values for name, (values, subsets) in given.items()}
    _check_rules(grid.exclude, factors)
    kept: list[Combination] = []
    excluded = dict.fromkeys((rule.reason for rule in grid.exclude), 0)
    applied: set[int] = set()
    for values in itertools.product(*factors.values()):
        changes = dict(zip(factors, values, strict=True))
        matching = [place for place, rule in enumerate(grid.exclude) if _applies(rule, changes)]
        applied |= set(matching)
        if matching:
            excluded[grid.exclude[matching[0]].reason] += 1
        else:
            kept.append(Combination("-".join(map(_word, values)), _label(changes), changes))
    _check_outcome(grid, kept, applied)
    return Combinations(tuple(kept), excluded)


def matches(changes: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    """Whether a combination has all of the wanted values; the order of a list does not count."""
    return all(name in changes and _form(changes[name]) == _form(value) for name, value in wanted.items())


def _given(name: str, given: Any) -> tuple[list[Any], bool]:
    """What a factor lists, and whether its subsets are meant."""
    key = ("factors", name)
    subsets = isinstance(given, Mapping) and set(given) == {"subsets_of"}
    values = given["subsets_of"] if subsets else given
    if not isinstance(values, list):
        form = f"give a list of values or {{subsets_of: [values]}} (given: {values!r})"
        raise _invalid(key, f"grid.factors.{name}: {form}")
    if not values:
        raise _invalid(key, f"grid.factors.{name}: empty, so the grid would be")
    seen: set[Any] = set()
    for value in values:
        if _form(value) in seen:
            raise _invalid(key, f"grid.factors.{name}: {value!r} is listed twice")
        seen.add(_form(value))
    return values, subsets


def _subsets(values: Sequence[Any]) -> list[list[Any]]:
    """The empty one first, then by size."""
    sizes = range(len(values) + 1)
    return [list(chosen) for size in sizes for chosen in itertools.combinations(values, size)]


def _check_rules(rules: Sequence[Rule], factors: Mapping[str, Any]) -> None:
    for place, rule in enumerate(rules):
        for name in rule.when:
            if name not in factors:
                phrase = f"grid.exclude: {name!r} is no factor; there are {', '.join(factors)}"
                raise _invalid(("exclude", place, "when", name), phrase)


def _check_outcome(grid: GridFile, kept: Sequence[Combination], applied: set[int]) -> None:
    for place, rule in enumerate(grid.exclude):
        if place not in applied:
            phrase = f"grid.exclude: the rule {rule.reason!r} excludes nothing; mend or remove it"
            raise _invalid(("exclude", place), phrase)
    if not kept:
        raise _invalid((), "grid: the rules exclude every combination, so it is empty")
    name, number = Counter(combination.id for combination in kept).most_common(1)[0]
    if number > 1:
        raise _invalid(("factors",), f"grid.factors: {number} combinations would all be called {name!r}")


def _applies(rule: Rule, changes: Mapping[str, Any]) -> bool:
    return all(_holds(changes[name], condition) for name, condition in rule.when.items())


def _holds(value: Any, condition: Any) -> bool:
    if isinstance(condition, Mapping) and set(condition) == {"not"}:
        return _form(value) != _form(condition["not"])
    return _form(value) == _form(condition)


def _form(value: Any) -> Any:
    """What is compared: 1 and 1.0 are the same, 1 and true are not; the order of a list does not count."""
    if isinstance(value, list):
        return "list", frozenset(Counter(map(_form, value)).items())
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return "number" if number else type(value).__name__, value if isinstance(value, Hashable) else str(value)


def _word(value: Any) -> str:
    if isinstance(value, list):
        return "+".join(_word(item) for item in value) or "none"
    text = str(value).lower() if isinstance(value, bool | None) else str(value)
    return "".join(character if character.isalnum() or character in "._+-" else "_" for character in text)


def _label(changes: Mapping[str, Any]) -> str:
    """By the last parts of the keys, or the whole keys where these are not enough."""
    short = [name.rpartition(".")[2] for name in changes]
    names = short if len(set(short)) == len(short) else list(changes)
    return ", ".join(f"{name} {_word(value)}" for name, value in zip(names, changes.values(), strict=True))


def _invalid(key: tuple[str | int, ...], phrase: str) -> InvalidError:
    return InvalidError([(("grid", *key), phrase)])
