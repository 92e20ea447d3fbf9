"""Which options go with which method, recipes, and that every shipped experiment serves every method."""

from pathlib import Path

import pytest

from acdis import config, methods
from acdis.ablation import spec
from acdis.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
#: Those with the recipe of one method are for that one.
RFNET = ROOT / "experiments" / "rfnet2020.yaml"
EXPERIMENTS = sorted({*(ROOT / "experiments").glob("*.yaml")} - {RFNET})

BASE = """\
method:
  name: acdis
  options: {base_width: 8}
  options_for: {rfnet: {base_width: 12, fusion_start: 3}}
training: {epochs: 10, learning_rate: 0.5}
data: {min_size: 48, crop: [40, 40, 40]}
evaluation: {window: [40, 40, 40], stride: [20, 20, 20]}
"""


@pytest.fixture
def base(tmp_path):
    file = tmp_path / "base.yaml"
    file.write_text(BASE)
    return file


def chosen(name):
    """Overrides that choose the method; with a row for each parent that it must have."""
    roles = methods.validate(name, {}).required_roles()
    return [f"method.name={name}", *(f"method.parents.{role}=a_row" for role in roles)]


@pytest.mark.parametrize("name", methods.names())
@pytest.mark.parametrize("experiment", EXPERIMENTS, ids=lambda path: path.stem)
def test_every_experiment_serves_every_method(experiment, name):
    """Or says which crop would; and that one does."""
    said, found = chosen(name), None
    for _ in range(3):
        try:
            found = methods.load(experiment, said)
        except UserError as refusal:
            works = ("data.crop=", "evaluation.window=", "evaluation.stride=")
            said += [word for word in str(refusal).split() if word.startswith(works)]
    assert found is not None, said
    assert found.method.name == name
    assert methods.resolve(found) == found


def test_a_table_of_methods(base):
    """A row that chooses a method gets that method's options, with its own on top."""
    file = base.with_name("table.yaml")
    rows = "{acdis: {label: a}, rfnet: {label: r, set: {method.name: rfnet, method.options.levels: 3}}}"
    file.write_text(f"base: base.yaml\nbaseline: rfnet\nrows: {rows}\n")
    table = spec.load(file)
    draft = config.draft(table.base, table.overrides)
    ours, theirs = (spec.experiment_of(draft, row).method for row in table.rows)
    assert (ours.name, ours.options["base_width"]) == ("acdis", 8)
    assert (theirs.name, theirs.options["base_width"]) == ("rfnet", 12)
    assert (theirs.options["levels"], theirs.options["fusion_start"]) == (3, 3)
    assert ours.options_for == theirs.options_for == {}  # written out, they are no part of what is trained


@pytest.mark.parametrize("order", [1, -1])
def test_overrides_are_of_the_method_that_they_choose(base, order):
    found = methods.load(base, ["method.name=rfnet", "method.options.fusion_start=4"][::order])
    assert (found.method.options["base_width"], found.method.options["fusion_start"]) == (12, 4)


def test_a_file_that_extends_another_may_choose_a_method(base):
    file = base.with_name("above.yaml")
    file.write_text("extends: base.yaml\nmethod: {name: rfnet, options: {levels: 2}}\n")
    found = methods.load(file).method.options
    assert (found["base_width"], found["levels"]) == (12, 2)
    again = methods.load(file, ["method.name=acdis"]).method
    assert (again.name, again.options["base_width"]) == ("acdis", 8)


@pytest.mark.parametrize(
    ("line", "overrides", "words"),
    [
        (
            "  options_for: {rfnet: {widths: 12}}",
            [],
            r"line 4: unknown key 'method\.options_for\.rfnet\.widths'",
        ),
        (
            "  options_for: {rfnett: {}}",
            [],
            r"line 4: method\.name: unknown method 'rfnett'; did you mean 'rfnet'",
        ),
        ("  options_for: {rfnet: {fusion_start: 90}}", ["method.name=rfnet"], r"line 4: .*fusion_start: 90"),
    ],
)
def test_wrong_options_are_found_where_they_stand(base, line, overrides, words):
    base.write_text("\n".join([*BASE.splitlines()[:3], line, *BASE.splitlines()[4:]]))
    with pytest.raises(UserError, match=words):
        methods.load(base, overrides)


def test_a_crop_that_cannot_be_halved_is_refused_with_one_that_can(base):
    words = r"data\.crop \[41, 40, 40\]: uhemis needs .* of 8, 16 at least; data\.crop=\[40,40,40\] works"
    with pytest.raises(UserError, match=words):
        methods.load(base, ["method.name=uhemis", "data.crop=[41, 40, 40]"])


def test_the_published_recipe_lies_over_the_file_and_under_what_is_said(base):
    said = ["method.name=uhemis", "recipe=published", "data.crop=[48, 48, 48]", "training.epochs=20"]
    found = methods.load(base, said)
    assert found.training.learning_rate == 1e-3  # the recipe's, not the file's
    assert found.training.epochs == 20  # what is said, not the recipe's
    assert found.data.crop == (48, 48, 48)
    assert found.method.options == {"subsets": "by_count", "quarter_every": 100}
    assert methods.resolve(found) == found  # written out, so that it is not laid over anything again
    assert methods.load(base, said[:1]).training.learning_rate == 0.5


def test_rfnet_with_the_recipe_of_its_code():
    """300 epochs of 150 steps at 2e-4, images rotated by the nearest voxel, the last slice left out."""
    found = methods.load(RFNET)
    assert (found.method.name, found.recipe, found.data.root) == ("rfnet", "common", "$BRATS2020")
    training, data = found.training, found.data
    assert (training.epochs, training.iterations, training.batch_size) == (300, 150, 2)
    assert (training.learning_rate, training.weight_decay, training.poly_power) == (2e-4, 1e-4, 0.9)
    assert (data.augmentation.rotation_images, data.last_slice, data.background) == (
        "nearest",
        False,
        "normalised",
    )
    assert (training.amsgrad, data.crop, data.lesion_crops) == (True, (80, 80, 80), 0)
    turned = data.augmentation
    assert (turned.rotation, turned.rotation_fill, turned.intensity_per_slice) == (10, "minus_one", True)
    assert (found.method.options["fusion_start"], found.method.options["padding"]) == (20, "reflect")
    assert (found.method.options["mono_weight"], found.method.options["region_weight"]) == (1, 1)


def test_what_has_no_published_recipe_says_so(base):
    with pytest.raises(UserError, match=r"'recipe=published'.*: recipe: acdis has no published recipe"):
        methods.load(base, ["recipe=published"])


@pytest.mark.parametrize(
    "name", [name for name in methods.names() if hasattr(methods._module(name), "RECIPE")]
)
def test_every_published_recipe_is_one(name):
    found = methods.load(None, [*chosen(name), "recipe=published"])
    for key, value in methods._module(name).RECIPE.items():
        node = found.model_dump(mode="json")
        for part in key.split("."):
            node = node[part]
        assert node == value, key
