"""What no method can be trained with is refused when the configuration is read, with what would work."""

import re

import pytest

from acdis import methods
from acdis.errors import UserError

RULES = {name: methods.validate(name, {}, ()).crop_rule() for name in methods.names()}
WITH_RULES = {name: rule for name, rule in RULES.items() if rule != (1, 1)}


def chosen(name):
    """Overrides that choose the method, with a row for each parent that it must have."""
    roles = methods.validate(name, {}).required_roles()
    return [f"method.name={name}", *(f"method.parents.{role}=a_row" for role in roles)]


@pytest.mark.parametrize("name", methods.names())
def test_an_option_with_a_slip_names_the_right_one(name):
    """Of every method the longest of its options, without its middle letter."""
    option = max(type(methods.validate(name, {})).model_fields, key=len)
    slip = option[: len(option) // 2] + option[len(option) // 2 + 1 :]
    with pytest.raises(UserError, match=rf"method\.options\.{slip}'; did you mean '{option}'\?"):
        methods.load(None, [*chosen(name), f"method.options.{slip}=1"])


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("recipe=publishd", r"recipe: .* \(given: 'publishd'\); did you mean 'published'\?"),
        ("recipe=comon", r"recipe: .* \(given: 'comon'\); did you mean 'common'\?"),
        ("recipe=7", r"recipe: Input should be 'common' or 'published' \(given: 7\)$"),
    ],
)
def test_a_recipe_that_there_is_not(said, words):
    with pytest.raises(UserError, match=words):
        methods.load(None, [said])


@pytest.mark.parametrize("name", ["uhemis", "mmformer", "demoseg", "imfuse", "m3ae", "shaspec"])
def test_whose_levels_must_halve_the_crop_say_so(name):
    assert name in WITH_RULES


#: A side that is no multiple, and one by which the coarsest map would be a single voxel.
WRONG = [(name, max(rule[0] * 2, rule[1]) + 1) for name, rule in WITH_RULES.items() if rule[0] > 1]
WRONG += [(name, rule[1] - rule[0]) for name, rule in WITH_RULES.items() if rule[1] > rule[0]]


@pytest.mark.parametrize("part", ["data.crop", "evaluation.window"])
@pytest.mark.parametrize(("name", "side"), WRONG)
def test_a_crop_that_a_method_cannot_take(name, side, part):
    """Refused with sides that do work, one axis being enough."""
    step, least = WITH_RULES[name]
    whole = max(least, 2 * step)
    said = [*chosen(name), "evaluation.stride=[4, 4, 4]"]
    with pytest.raises(UserError) as refused:
        methods.load(None, [*said, f"{part}=[{side}, {whole}, {whole}]"])
    rule = f"{name} needs sides that are multiples of {step}, {least} at least"
    assert f"{part} [{side}, {whole}, {whole}]: {rule}" in str(refused.value)
    (works,) = re.findall(rf"({re.escape(part)}=\[[\d,]+\]) works", str(refused.value))
    assert methods.load(None, [*said, works]).method.name == name


WHOLE_ONLY = [name for name in methods.names() if methods.validate(name, {}).needs_whole_cases()]


@pytest.mark.parametrize("name", WHOLE_ONLY)
def test_what_needs_whole_cases_says_so_before_any_are_looked_for(name):
    with pytest.raises(UserError, match=rf"data\.missing: {name} cannot be trained with it: \w+"):
        methods.load(None, [*chosen(name), "data.missing={T1ce: 0.4}"])


def test_acdis_counts_no_image_that_is_not_there_in_statistics_of_the_batch():
    said = ["data.missing={T1ce: 0.4}", "method.options.norm=batch"]
    with pytest.raises(
        UserError, match=r"data\.missing: acdis .*norm 'batch' .* choose 'instance' or 'group'"
    ):
        methods.load(None, said)
    assert methods.load(None, said[:1]).data.missing.T1ce == 0.4
