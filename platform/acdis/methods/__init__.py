"""The registry of methods: every folder here, a package that has `Options`, `VERSION` and `model()`.

Adding a method is adding its folder; nothing is edited here. No torch is imported before `build`: `plan` and
`status` resolve experiments without it, so a method imports torch inside `model()` or in its other modules.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ValidationError, create_model

from acdis import config
from acdis.errors import UserError
from acdis.methods.options import MethodOptions

if TYPE_CHECKING:
    from acdis.methods.base import Method


@functools.cache
def names() -> tuple[str, ...]:
    """The registered methods, sorted."""
    return tuple(sorted(module.name for module in pkgutil.iter_modules(__path__) if module.ispkg))


def build(name: str, **options: Any) -> Method:
    """A freshly initialised method with its options.

    One number is drawn from torch's global generator; it and a module's qualified name decide the module's
    first values.

    Raises:
        UserError: no such method, an unknown option, a wrong value, or an option without effect.
    """
    import torch

    from acdis.methods.base import initialise_by_name

    validate(name, options)
    seed = int(torch.randint(2**63 - 1, (), device="cpu"))
    method = bare(name, **options)
    initialise_by_name(method, seed)
    return method


def bare(name: str, **options: Any) -> Method:
    """The method for weights that are loaded next: its first values mean nothing, and take no time.

    Raises:
        UserError: as `build`.
    """
    import torch

    module, valid = _module(name), validate(name, options)
    before = torch.get_rng_state()
    method: Method = module.model()(valid)
    torch.set_rng_state(before)  # what torch's own constructors have drawn
    return method


def load(path: Path | None, overrides: Sequence[str] = ()) -> config.Experiment:
    """`config.draft`, then `parse`, with file and line in the errors of both.

    Raises:
        UserError: as these two.
    """
    draft = with_recipe(config.draft(path, overrides))
    try:
        return resolve(draft.parse())
    except config.InvalidError as error:
        raise draft.located(error) from None


def with_recipe(draft: config.Draft) -> config.Draft:
    """A draft in which the method's published recipe has its place, if `recipe: published` asks for it.

    What it sets is then written out like any other value, so that `recipe` itself is 'common' again.

    Raises:
        UserError: the method has no published recipe.
    """
    if draft.tree.get("recipe") != "published":
        return draft
    name = config.method_of(draft.tree)
    settings = getattr(_module(name), "RECIPE", None)
    if settings is None:
        phrase = f"recipe: {name} has no published recipe beside the common one; leave it out"
        raise draft.located(config.InvalidError([(("recipe",), phrase)]))
    settled = draft.beneath(settings, f"the published recipe of {name}")
    return replace(settled, layers=(*settled.layers, {"recipe": "common"}))


def resolve(experiment: config.Experiment, given: Collection[str] | None = None) -> config.Experiment:
    """The experiment with the method's options validated and every option that has an effect written out.

    Equal configurations come out equal whatever was left to its default, so that the tree can be hashed.

    Args:
        given: options that must have an effect; none: every option of the experiment.

    Raises:
        UserError: as `build`; or training is too short for the method's options.
    """
    if experiment.recipe != "common":
        raise ValueError("the recipe is to be put in its place first, by `with_recipe`")
    choice = experiment.method
    for name, others in choice.options_for.items():
        _check_others(name, others)
    options = validate(choice.name, choice.options, given)
    for key, reason in options.too_short(experiment.training.epochs).items():
        raise config.InvalidError([(("method", "options", key), f"method.options.{key}: {reason}")])
    _check_sides(experiment, options.crop_rule())
    _check_pieces(experiment.scaling, options.whole_batch())
    _check_missing(experiment, options.needs_whole_cases())
    _check_parents(choice, options.roles(), options.required_roles())
    method = config.MethodChoice(name=choice.name, options=options.written(), parents=choice.parents)
    return experiment.model_copy(update={"method": method})


def _check_others(name: str, options: Mapping[str, Any]) -> None:
    """Options that wait for their method are right already; effects are looked at when it is chosen."""
    try:
        validate(name, options, ())
    except config.InvalidError as error:
        phrases = [
            (
                ("method", "options_for", name, *key[2:]),
                phrase.replace("method.options.", f"method.options_for.{name}."),
            )
            for key, phrase in error.problems
        ]
        raise config.InvalidError(phrases) from None


def _check_parents(choice: config.MethodChoice, roles: Collection[str], required: Collection[str]) -> None:
    for role in choice.parents:
        if role not in roles:
            there = f"it takes {', '.join(roles)}" if roles else "it takes none"
            phrase = f"method.parents.{role}: {choice.name} has no parent in this role; {there}"
            raise config.InvalidError([(("method", "parents", role), phrase)])
    lacking = [role for role in required if role not in choice.parents]
    if lacking:
        phrase = f"method.parents.{lacking[0]}: not given; name a row of the spec, or a trained cell"
        raise config.InvalidError([(("method", "parents"), phrase)])


def check_parents(choice: config.MethodChoice) -> None:
    """Parents that are cells by now are of methods that this one can take.

    Raises:
        UserError: one is not.
    """
    options = validate(choice.name, choice.options, ())
    for role, cell in choice.parents.items():
        allowed, method = options.parent_methods(role), cell.rpartition("-")[0]
        if allowed and method in names() and method not in allowed:
            takes = f"{choice.name} takes {' or '.join(allowed)}"
            raise UserError(f"method.parents.{role}: {cell} is a cell of {method}; {takes}")


def _check_sides(experiment: config.Experiment, rule: tuple[int, int]) -> None:
    """Crops and windows that the method's levels can halve; the error names one that works."""
    step, least = rule
    for part, field in (("data", "crop"), ("evaluation", "window")):
        sides = getattr(getattr(experiment, part), field)
        works = [max(least, side // step * step) for side in sides]
        if list(sides) != works:
            key = f"{part}.{field}"
            needs = f"{experiment.method.name} needs sides that are multiples of {step}, {least} at least"
            cure = f"{key}={_word(works)}"
            strides = [min(pair) for pair in zip(experiment.evaluation.stride, works, strict=True)]
            if field == "window" and strides != list(experiment.evaluation.stride):  # it may not be larger
                cure += f" with evaluation.stride={_word(strides)}"
            raise config.InvalidError([((part, field), f"{key} {list(sides)}: {needs}; {cure} works")])


def _word(sides: list[int]) -> str:
    """As the command line takes them: without spaces."""
    return str(sides).replace(" ", "")


def _check_pieces(scaling: config.Scaling, option: str | None) -> None:
    """Statistics over the batch cannot be had piece by piece."""
    if option is None:
        return
    why = f"{option} takes its statistics over the whole batch at once"
    if scaling.accumulation > 1:
        phrase = f"scaling.accumulation {scaling.accumulation}: {why}; set it to 1"
        raise config.InvalidError([(("scaling", "accumulation"), phrase)])
    if scaling.least < scaling.workers:
        phrase = (
            f"scaling.min_workers {scaling.least}: fewer workers would take the batch in pieces, and {why}; "
            "leave it out"
        )
        raise config.InvalidError([(("scaling", "min_workers"), phrase)])


def _check_missing(experiment: config.Experiment, reason: str | None) -> None:
    """Cases that lack modalities, for a method that can learn from such."""
    if reason is None:
        return
    for key, asked in (
        ("missing", experiment.data.missing is not None),
        ("incomplete", experiment.data.incomplete),
    ):
        if asked:
            phrase = f"data.{key}: {experiment.method.name} cannot be trained with it: {reason}"
            raise config.InvalidError([(("data", key), phrase)])


def parts(experiment: config.Experiment) -> dict[str, dict[str, Any]]:
    """{role: options that differ} of the cells that a row with this experiment is made of; empty: of one."""
    return validate(experiment.method.name, experiment.method.options).parts()


def put_together(experiment: config.Experiment) -> bool:
    """Whether its weights are those of its parents, part by part, so that there is nothing to train."""
    made_of = parts(experiment)
    return bool(made_of) and made_of.keys() <= experiment.method.parents.keys()


def version(name: str) -> int:
    """The method's version number: part of a cell's name, raised when its code changes the weights."""
    number: int = _module(name).VERSION
    return number


def validate(name: str, options: Mapping[str, Any], given: Collection[str] | None = None) -> MethodOptions:
    """The method's options as its typed model; `given` as in `resolve`.

    Raises:
        InvalidError: as `build`, with the key as in an experiment file: `method.options.window`.
    """
    model: type[MethodOptions] = _module(name).Options
    outer = _as_experiment(model)
    try:
        tree: Any = outer.model_validate({"method": {"options": dict(options)}})
    except ValidationError as error:
        raise config.InvalidError(_problems(error, outer, model)) from None
    valid: MethodOptions = tree.method.options
    for key, reason in valid.without_effect().items():
        if key in valid.model_fields_set and (given is None or key in given):
            phrase = f"method.options.{key} has no effect {reason}: remove it"
            raise config.InvalidError([(("method", "options", key), phrase)])
    return valid


@functools.cache
def _as_experiment(model: type[MethodOptions]) -> type[BaseModel]:
    """A model with the options where an experiment file has them, so that pydantic names keys as there."""
    inner = create_model("Method", __base__=config.Config, options=(model, ...))
    return create_model("Experiment", __base__=config.Config, method=(inner, ...))


def _problems(
    error: ValidationError, outer: type[BaseModel], model: type[MethodOptions]
) -> list[tuple[config.Key, str]]:
    """As `config.find_problems`, but an unknown key that resembles no option gets the list of options."""
    problems = []
    for problem, (key, phrase) in zip(error.errors(), config.find_problems(error, outer), strict=False):
        if problem["type"] == "extra_forbidden":
            option = str(key[-1])
            phrase = (
                f"unknown key 'method.options.{option}'{config.nearest(option, tuple(model.model_fields))}"
            )
        problems.append((key, phrase))
    return problems


def _module(name: str) -> ModuleType:
    if name not in names():
        phrase = f"method.name: unknown method {name!r}{config.nearest(name, names())}"
        raise config.InvalidError([(("method", "name"), phrase)])
    return importlib.import_module(f"{__name__}.{name}")
