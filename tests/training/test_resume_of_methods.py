"""Methods with optimisers, schedules, buffers or parents of their own: resuming gives the same bits."""

from pathlib import Path

import pytest
import torch
import yaml

from acdis import config, methods
from acdis.data import cache, cases
from acdis.training import checkpoint, loop
from acdis.training.events import EpochEnd
from acdis.training.group import Group

TINY = Path(__file__).resolve().parents[1] / "methods" / "tiny"
#: Method, its small variant, and the variant that is its parent, by role.
VARIANTS = [
    ("unet_mfi", "masked", {}),
    ("demoseg", "sgd", {}),
    ("imfuse", "dropped", {}),
    ("m3ae", "pretraining", {}),
    ("m3ae", "finetuning", {"pretraining": "pretraining"}),
    ("mmanet", "teacher", {}),
    ("mmanet", "student", {"teacher": "teacher"}),
    ("shaspec", "published", {}),
]


def experiment_of(name, label, parents):
    """The experiment, and its parent's options."""
    options = yaml.safe_load((TINY / f"{name}.yaml").read_text(encoding="utf-8"))[label]
    shared = {key: options[key] for key in ("base_width", "levels", "volume") if key in options}
    if parents:
        (parent,) = parents.values()
        shared = {"stage": parent} | shared
    tree = {
        "data": {"spacing": 5.0, "min_size": 32, "crop": [32, 32, 32]},
        "method": {"name": name, "options": options, "parents": dict.fromkeys(parents, f"{name}-parent")},
        "training": {"epochs": 3, "iterations": 1, "precision": "fp32", "learning_rate": 1e-3},
        "evaluation": {"window": [32, 32, 32], "stride": [32, 32, 32]},
    }
    return methods.resolve(config.parse(tree, "test")), shared


@pytest.fixture(scope="module")
def three(phantoms, tmp_path_factory):
    found = cases.find(phantoms).cases[:3]
    data = experiment_of("unet_mfi", "masked", {})[0].data
    return loop.Cases(list(cache.prepare(found, data, tmp_path_factory.mktemp("cache"), 1).values()))


def stop(event):
    if isinstance(event, EpochEnd) and event.epoch == 2:
        raise KeyboardInterrupt


@pytest.mark.slow
@pytest.mark.parametrize(("name", "label", "parents"), VARIANTS, ids=[f"{n}-{v}" for n, v, _ in VARIANTS])
def test_resuming_is_exact(name, label, parents, three, tmp_path):
    experiment, of_parent = experiment_of(name, label, parents)
    if parents:
        torch.manual_seed(7)
        (tmp_path / f"{name}-parent").mkdir()
        state = methods.build(name, **of_parent).kept_state()
        checkpoint.save(tmp_path / f"{name}-parent" / "weights.pt", state)
    whole = loop.train(experiment, three, tmp_path / "whole", Group(), lambda event: None)
    with pytest.raises(KeyboardInterrupt):
        loop.train(experiment, three, tmp_path / "parts", Group(), stop)
    parts = loop.train(experiment, three, tmp_path / "parts", Group(), lambda event: None)
    expected, found = whole.method.state_dict(), parts.method.state_dict()
    assert all(torch.equal(found[key], value) for key, value in expected.items())
    assert [each["terms"] for each in whole.history] == [each["terms"] for each in parts.history]
    for key, optimiser in whole.optimisers.items():
        assert str(optimiser.state_dict()) == str(parts.optimisers[key].state_dict())
    first = loop.new_method(experiment).state_dict()
    assert any(not torch.equal(first[key], value) for key, value in expected.items())
    if name == "mmanet" and label == "student":
        assert {"mad", "mar/wce", "mar/dice"} <= whole.history[2]["terms"].keys()
        assert whole.method.ranking.epoch.item() == 2
