"""Every row of Tables 2 and 3 trains on two ranks under DDP, and no two end with the same weights."""

from itertools import combinations

import pytest
import torch
import yaml

from acdis import config
from acdis.ablation import spec
from acdis.ablation.expansion import decide
from acdis.training import loop

TABLES = ("table2", "table3")


@pytest.fixture(scope="module")
def rows(small, tmp_path_factory, checkout):
    """{name: experiment} of the eleven different cells; synthesis starts in the second of two epochs."""
    tree = small({"data.crop": [12, 12, 12], "training.epochs": 2}, synthesis_start=1).model_dump(mode="json")
    tree["method"]["options"] = {"base_width": 4, "levels": 3, "synthesis_start": 1}
    file = tmp_path_factory.mktemp("rows") / "small.yaml"
    file.write_text(yaml.safe_dump(tree))
    found = {}
    for table in TABLES:
        for row in spec.load(checkout / "ablations" / f"{table}.yaml", file).rows:
            experiment = decide(spec.experiment_of(config.draft(file, ()), row))
            if experiment not in found.values():
                found[f"{table}/{row.id}"] = experiment
    return found


@pytest.fixture(scope="module")
def trained(rows, finish, three, tmp_path_factory):
    """{name: results of the two ranks}."""
    folder = tmp_path_factory.mktemp("ranks")
    tasks = [
        ("train", {"experiment": experiment, "cases": three, "folder": folder / name.replace("/", "-")})
        for name, experiment in rows.items()
    ]
    results = finish(folder, tasks, world=2)
    return dict(zip(rows, zip(*results, strict=True), strict=True))


def test_the_tables_have_eleven_different_cells(rows):
    """Six rows and six, one of which stands in both."""
    assert len(rows) == 11


def test_rows_begin_alike(rows):
    """Whatever two rows share by name and kind starts from the same values: seeds pair the rows."""
    built = {name: loop.new_method(experiment) for name, experiment in rows.items()}
    for (one, first), (other, second) in combinations(built.items(), 2):
        others = dict(second.named_modules())
        alike = [
            name
            for name, module in first.named_modules()
            if type(others.get(name)) is type(module)
            and [p.shape for p in module.parameters(recurse=False)]
            == [p.shape for p in others[name].parameters(recurse=False)]
        ]
        assert any(name.startswith("encoders.3") for name in alike)
        for name in alike:
            for key, value in first.get_submodule(name).named_parameters(recurse=False):
                assert torch.equal(value, second.get_submodule(name).get_parameter(key)), (one, other, name)


def test_ranks_end_with_equal_weights(trained):
    for name, (one, other) in trained.items():
        assert all(torch.equal(one["weights"][key], other["weights"][key]) for key in one["weights"]), name


def test_no_two_rows_end_with_equal_weights(trained):
    for one, other in combinations(trained, 2):
        first, second = (trained[name][0]["weights"] for name in (one, other))
        shared = [key for key in first if key in second and first[key].shape == second[key].shape]
        assert any(not torch.equal(first[key], second[key]) for key in shared), (one, other)


def test_every_loss_of_a_row_is_a_term_of_its_training(rows, trained):
    for name, experiment in rows.items():
        terms = trained[name][0]["history"][-1]["terms"]
        for kind in ("consistency", "synthesis"):
            for loss in experiment.method.options[kind]:
                assert any(loss in term for term in terms), (name, kind, loss, sorted(terms))
