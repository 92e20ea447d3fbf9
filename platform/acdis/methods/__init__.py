"""The registry of methods: every module or package here that has `Options`, `VERSION` and `model()`.

Adding a method is adding its file; nothing is edited here. No torch is imported before `build`: `plan` and
`status` resolve experiments without it, so a method imports torch inside `model()` or in a module of its own.
"""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from collections.abc import Mapping
from types import ModuleType
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ValidationError, create_model

from acdis import config
from acdis.errors import UserError
from acdis.methods.options import MethodOptions

if TYPE_CHECKING:
    from acdis.methods.base import Method

_SHARED = ("base", "options")


def names() -> tuple[str, ...]:
    """The registered methods, sorted."""
    found = (module.name for module in pkgutil.iter_modules(__path__))
    return tuple(sorted(name for name in found if name not in _SHARED and not name.startswith("_")))


def build(name: str, **options: Any) -> Method:
    """A freshly initialised method (from torch's global random state) with its options.

    Raises:
        UserError: no such method, an unknown option, a wrong value, or an option without effect.
    """
    module = _module(name)
    method: Method = module.model()(validate(name, options))
    return method


def resolve(experiment: config.Experiment) -> config.Experiment:
    """The experiment with the method's options validated and every option that has an effect written out.

    Equal configurations come out equal whatever was left to its default, so that the tree can be hashed.

    Raises:
        UserError: as `build`.
    """
    choice = experiment.method
    written = validate(choice.name, choice.options).written()
    return experiment.model_copy(update={"method": config.MethodChoice(name=choice.name, options=written)})


def version(name: str) -> int:
    """The method's version number: part of a cell's name, raised when its code changes the weights."""
    number: int = _module(name).VERSION
    return number


def validate(name: str, options: Mapping[str, Any]) -> MethodOptions:
    """The method's options as its typed model.

    Raises:
        UserError: as `build`, with the key as in an experiment file: `method.options.window`.
    """
    model: type[MethodOptions] = _module(name).Options
    # The wrapping makes pydantic report keys as they stand in an experiment file.
    inner = create_model("Method", __base__=config.Config, options=(model, ...))
    outer = create_model("Experiment", __base__=config.Config, method=(inner, ...))
    try:
        tree: Any = outer.model_validate({"method": {"options": dict(options)}})
    except ValidationError as error:
        raise UserError("; ".join(_problems(error, outer, model))) from None
    valid: MethodOptions = tree.method.options
    for key, reason in valid.without_effect().items():
        if key in valid.model_fields_set:
            raise UserError(f"method.options.{key} has no effect {reason}: remove it")
    return valid


def _problems(error: ValidationError, outer: type[BaseModel], model: type[MethodOptions]) -> list[str]:
    """As `config.describe`, but an unknown key that resembles no option gets the list of options."""
    phrases = []
    for problem, phrase in zip(error.errors(), config.describe(error, outer), strict=True):
        if problem["type"] == "extra_forbidden":
            key = str(problem["loc"][-1])
            phrase = f"unknown key 'method.options.{key}'; {_nearest(key, tuple(model.model_fields))}"
        phrases.append(phrase)
    return phrases


def _nearest(name: str, valid: tuple[str, ...]) -> str:
    close = difflib.get_close_matches(name, valid, n=1, cutoff=0.5)
    return f"did you mean '{close[0]}'?" if close else f"valid are {', '.join(valid)}"


def _module(name: str) -> ModuleType:
    if name not in names():
        raise UserError(f"method.name: unknown method {name!r}; {_nearest(name, names())}")
    return importlib.import_module(f"{__name__}.{name}")
