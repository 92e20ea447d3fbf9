"""Names, options, and what is said about wrong ones; resolving them imports no torch."""

import subprocess
import sys

import pytest
import torch

from acdis import config, methods
from acdis.errors import UserError


def resolved(**options):
    experiment = config.Experiment(method=config.MethodChoice(name="acdis", options=options))
    return methods.resolve(experiment).method.options


def test_names_and_versions():
    assert "acdis" in methods.names()
    assert not {"base", "options"} & set(methods.names())
    assert all(methods.version(name) >= 1 for name in methods.names())
    with torch.device("meta"):  # some have 10^8 weights
        assert all(methods.build(name).version == methods.version(name) for name in methods.names())


def test_resolving_imports_no_torch():
    code = (
        "import sys; from acdis import config, methods\n"
        "for name in methods.names():\n"
        "    roles = methods.validate(name, {}).required_roles()\n"
        "    choice = config.MethodChoice(name=name, parents={role: 'a_row' for role in roles})\n"
        "    methods.resolve(config.Experiment(method=choice)); methods.version(name)\n"
        "assert not {'torch', 'monai', 'ray'} & set(sys.modules), 'heavy import'"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("name", methods.names())
def test_resolved_options_are_a_fixed_point(name):
    parents = dict.fromkeys(methods.validate(name, {}).required_roles(), "a_row")
    once = methods.resolve(config.Experiment(method=config.MethodChoice(name=name, parents=parents)))
    assert methods.resolve(once) == once
    assert config.parse(once.model_dump(mode="json"), "again") == once


@pytest.mark.parametrize("name", methods.names())
def test_every_option_has_a_reason(name):
    fields = methods.validate(name, {}).__class__.model_fields
    assert all(field.description for field in fields.values())


def test_defaults_are_the_method_of_the_paper():
    assert resolved() == {
        "base_width": 16,
        "levels": 4,
        "padding": "zeros",
        "norm": "instance",
        "afeb": "afeb",
        "afeb_attention": "all",
        "afeb_tokens": 10,
        "mfsb": "mfsb",
        "mfsb_kernel": 1,
        "aux_fusion": "tile",
        "consistency": ["var", "covar"],
        "consistency_levels": [1, 2, 3, 4],
        "synthesis": ["mse"],
        "synthesis_over": "missing",
        "synthesis_start": 20,
        "hold_fused_map": False,
        "window": 5,
        "stride": 5,
    }


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({}, {"consistency": ["covar", "var"], "stride": 5, "consistency_levels": [4, 3, 2, 1]}),
        ({"levels": 3}, {"levels": 3, "consistency_levels": [1, 2, 3]}),
        ({"synthesis": ["adver", "mse"]}, {"synthesis": ["mse", "adver"], "adversarial_weight": 0.001}),
        ({"window": 4}, {"window": 4, "stride": 4}),
    ],
)
def test_equal_choices_resolve_to_equal_options(one, other):
    assert resolved(**one) == resolved(**other)


WITHOUT_EFFECT = [
    ("adversarial_weight", 1e-3, {}),
    ("discriminator_learning_rate", 1e-4, {"synthesis": ["mse", "var"]}),
    ("mfsb_kernel", 1, {"mfsb": "conv"}),
    ("afeb_attention", "all", {"afeb": "conv"}),
    ("afeb_tokens", 10, {"afeb": "conv"}),
    ("consistency_levels", [1], {"consistency": []}),
    ("synthesis_over", "all", {"synthesis": []}),
    ("hold_fused_map", True, {"synthesis_start": 0}),
    ("window", 5, {"consistency": ["mse"]}),
    ("stride", 5, {"consistency": []}),
]


@pytest.mark.parametrize(("key", "value", "beside"), WITHOUT_EFFECT)
def test_an_option_without_effect_is_refused_and_not_written(key, value, beside):
    with pytest.raises(UserError, match=rf"^method\.options\.{key} has no effect .*: remove it$"):
        methods.build("acdis", **beside, **{key: value})
    assert key not in resolved(**beside)


def test_window_counts_where_only_the_synthesis_loss_reads_it():
    assert resolved(consistency=[], synthesis=["var"], window=3)["window"] == 3


WRONG = [
    ({"windo": 3}, r"unknown key 'method\.options\.windo'; did you mean 'window'\?"),
    ({"qqq": 3}, r"unknown key 'method\.options\.qqq'; valid are base_width, levels, "),
    ({"afeb": "transformer"}, r"method\.options\.afeb: .*'afeb' or 'conv'.*given: 'transformer'"),
    ({"consistency": ["var", "var"]}, r"method\.options\.consistency: 'var' is given twice"),
    ({"synthesis": ["mse", "adver", "mse"]}, r"method\.options\.synthesis: 'mse' is given twice"),
    ({"consistency": ["cov"]}, r"method\.options\.consistency\.0: .*'covar'.*given: 'cov'"),
    ({"synthesis": ["kl"]}, r"method\.options\.synthesis\.0: .*'adver'.*given: 'kl'"),
    ({"consistency": "var"}, r"method\.options\.consistency: .*given: 'var'"),
    ({"consistency_levels": [1, 5]}, r"method\.options: consistency_levels \[1, 5\]: there are 4 levels"),
    ({"consistency_levels": []}, r"method\.options: consistency_levels is empty"),
    ({"consistency_levels": [0]}, r"method\.options\.consistency_levels\.0: .*greater than 0"),
    ({"window": 1}, r"method\.options\.window: .*greater than or equal to 2"),
    ({"base_width": 0}, r"method\.options\.base_width: .*greater than 0"),
    ({"synthesis": ["adver"], "adversarial_weight": float("nan")}, r"method\.options\.adversarial_weight: "),
]


@pytest.mark.parametrize(("options", "message"), WRONG)
def test_wrong_options_are_one_clear_line(options, message):
    with pytest.raises(UserError, match=message) as caught:
        methods.build("acdis", **options)
    assert "\n" not in str(caught.value)


def test_unknown_method():
    with pytest.raises(UserError, match=r"method\.name: unknown method 'acdi'; did you mean 'acdis'\?"):
        methods.build("acdi")


@pytest.mark.parametrize(
    ("scaling", "words"),
    [
        ({"accumulation": 2}, r"scaling\.accumulation 2: method\.options\.norm 'batch' .* set it to 1"),
        ({"workers": 2, "min_workers": 1}, r"scaling\.min_workers 1: fewer workers .* leave it out"),
    ],
)
def test_batch_norm_refuses_pieces_of_a_batch(scaling, words):
    tree = {"scaling": scaling, "training": {"batch_size": 4}}
    methods.resolve(config.parse(tree, "test"))
    with pytest.raises(UserError, match=words):
        methods.resolve(config.parse(tree | {"method": {"options": {"norm": "batch"}}}, "test"))
