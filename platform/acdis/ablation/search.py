"""A search file, read and validated against the experiment that it changes; no Optuna and no data here."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from acdis import cells, config, methods
from acdis.ablation.expansion import decide
from acdis.ablation.search_file import SearchFile, Settings
from acdis.ablation.spec import check_name
from acdis.config import Draft, Experiment, InvalidError, Key
from acdis.errors import UserError

Values = Mapping[str, Any]  # {dotted key: value}

#: Keys that must not be searched, by how they begin, and why.
_FIXED = {
    "seed": "the best of several seeds is luck; compare settings, then run the best with several seeds",
    "data.root": "scores on other cases cannot be compared",
    "data.phantoms": "scores on other cases cannot be compared",
    "data.split": "scores on other cases cannot be compared",
    "evaluation": "it changes how the validation is scored, not what is learnt",
    "scaling": "it changes no weights",
    "tracking": "it changes no weights",
    "training.validate_every": "it changes no weights",
}
_OPTION = "method.options."


@dataclass(frozen=True)
class Search:
    """A validated search.

    Attributes:
        name: the file's, without its ending.
        draft: base, overrides and what is set for every trial.
        given: what the overrides say, as a tree.
    """

    name: str
    path: Path
    title: str
    base: Path
    draft: Draft
    given: Values
    settings: Settings

    @property
    def first(self) -> dict[str, Any]:
        """The first corner of the space."""
        return {key: domain.corners[0] for key, domain in self.settings.space.items()}

    def experiment(self, values: Values) -> Experiment:
        """A trial's experiment, resolved; options that its other values make idle are dropped.

        Raises:
            UserError: the values do not make a valid experiment.
        """
        return decide(methods.resolve(self._draft(values).parse(), ()))

    def _draft(self, values: Values) -> Draft:
        return methods.with_recipe(self.draft.above(values, {}, self.name))

    def meaning(self, fingerprint: str) -> str:
        """Equal for searches whose trials can be compared: one space and objective, on the same ground."""
        experiment = self.experiment(self.first)
        version = methods.version(experiment.method.name)
        space = {key: domain.model_dump(mode="json") for key, domain in self.settings.space.items()}
        ground = cells.identity(experiment, fingerprint, version)
        return cells.digest([ground, space, self.settings.objective])

    def experiment_file(self, values: Values, heading: str) -> str:
        """A trial's experiment as a file that `train` takes: all of it, since homes are moved."""
        tree = methods.resolve(self._draft(values).parse(), ()).model_dump(mode="json")
        return f"# {heading}\n" + yaml.safe_dump(tree, sort_keys=False)


def load(path: Path, experiment: Path | None = None, overrides: Sequence[str] = ()) -> Search:
    """Read and validate a search file.

    Args:
        experiment: in place of the file's `base`.
        overrides: `key.path=value`, on the base.

    Raises:
        UserError: with file and line: not YAML, an unknown key, a wrong type or range, a key that must not be
            searched or has no effect, a value that makes no valid experiment.
    """
    check_name(path)
    document = config.read_document(path, "a search file", "must hold the keys 'base:' and 'search:'")
    page = Draft(copy.deepcopy(document.tree), (document,), str(path))
    try:
        file = SearchFile.model_validate(page.tree)
    except ValidationError as error:
        raise page.located(InvalidError(config.find_problems(error, SearchFile))) from None
    base = experiment or _base(page, file, path)
    draft = config.draft(base, overrides)
    draft.parse()
    _check_keys(page, file, overrides)
    places = {key: page.where(("set", key)) for key in file.set}
    fixed = {key: config.anchored(key, value, path.parent) for key, value in file.set.items()}
    search = Search(
        name=path.stem,
        path=path,
        title=file.title or path.stem,
        base=base,
        draft=draft.above(fixed, places, str(path)),
        given=config.draft(None, overrides).tree,
        settings=file.search,
    )
    _check_values(page, search)
    return search


def _problem(page: Draft, key: Key, phrase: str) -> UserError:
    return page.located(InvalidError([(key, phrase)]))


def _base(page: Draft, file: SearchFile, path: Path) -> Path:
    if file.base is None:
        raise _problem(page, ("base",), "base: not given; name an experiment file, or give --experiment FILE")
    return config.beside(path.parent, file.base)


def _check_keys(page: Draft, file: SearchFile, overrides: Sequence[str]) -> None:
    given = {override.partition("=")[0].strip() for override in overrides}
    for key in file.search.space:
        where = ("search", "space", key)
        for start, reason in _FIXED.items():
            if key == start or key.startswith(f"{start}."):
                raise _problem(page, where, f"search.space: {key} cannot be searched: {reason}")
        if key in file.set:
            raise _problem(
                page, ("set", key), f"set: {key} has no effect, it is searched: remove one of both"
            )
        if key in given:
            raise UserError(f"override '{key}=…': has no effect, {page.where(where)} searches {key}")
    for key in file.set.keys() & given:
        raise UserError(f"override '{key}=…': has no effect, {page.where(('set', key))} sets {key}")


def _check_values(page: Draft, search: Search) -> None:
    """Every end and choice makes an experiment, and every searched option has an effect in some of them."""
    first = search.first
    seen: set[str] = set()
    for key, domain in search.settings.space.items():
        for corner in domain.corners:
            seen |= _options(page, search, {**first, key: corner}, key)
    for key in search.settings.space:
        if key.startswith(_OPTION) and key.removeprefix(_OPTION) not in seen:
            raise _problem(
                page, ("search", "space", key), f"search.space: {key} has no effect here: remove it"
            )
    _check_pruner(page, search)


def _options(page: Draft, search: Search, values: Values, key: str) -> set[str]:
    """Names of the options that have an effect with these values; errors name the key's line."""
    places = {name: page.where(("search", "space", name)) for name in values}
    changed = methods.with_recipe(search.draft.above(values, places, str(search.path)))
    try:
        return set(methods.resolve(changed.parse(), ()).method.options)
    except InvalidError as error:
        raise changed.located(error) from None
    except UserError as error:
        where = page.where(("search", "space", key))
        raise UserError(f"{where}: {key} = {json.dumps(values[key])}: {error}") from None


def _check_pruner(page: Draft, search: Search) -> None:
    training = search.experiment(search.first).training
    if search.settings.pruner.name != "none" and training.validate_every >= training.epochs:
        raise _problem(
            page,
            ("search", "pruner"),
            f"search.pruner: nothing to judge by before the last of {training.epochs} epochs; set "
            f"training.validate_every below that (it is {training.validate_every}), or pruner {{name: none}}",
        )
