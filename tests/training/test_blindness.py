"""Training and what chooses among its weights read training and validation cases only."""

import inspect
import json
from dataclasses import fields

import numpy as np
import pytest
import torch

from acdis.data.inputs import open_inputs
from acdis.training import checkpoint, loop
from acdis.training.group import Group


def quiet(what, done, of):
    """Nobody looks at the progress."""


@pytest.fixture
def experiment(small, phantoms):
    """Selection by the best of two validated epochs. Two phantoms train, one validates, three test."""
    settings = {
        "data.root": str(phantoms),
        "data.split": {"counts": [2, 1, 3], "seed": 4},
        "training.epochs": 2,
        "training.validate_every": 1,
        "training.selection": "best",
    }
    return small(settings, synthesis_start=1)


def trained(experiment, base):
    """All that a training leaves behind, from the data's folder on."""
    inputs = open_inputs(experiment.data, base, 1, quiet)
    folder = base / "run"
    folder.mkdir(exist_ok=True)
    for left in folder.iterdir():
        left.unlink()
    run = loop.train(
        experiment, loop.Cases(inputs.train, inputs.validation), folder, Group(), lambda event: None
    )
    history = [{**entry, "seconds": 0} for entry in run.history]
    return checkpoint.load(folder / loop.LAST)["method"], loop.final_state(run, folder), history, run.best


def poison(entry, seed):
    """Other labels, other images, other lesion voxels, in the file's grid and in the cache's."""
    generator = np.random.default_rng(seed)
    for name in ("label.npy", "native_label.npy", "lesion.npy", "image.npy"):
        array = np.load(entry.path / name)
        other = generator.integers(0, 4, array.shape).astype(array.dtype)
        np.save(entry.path / name, other)


def same(one, other):
    (weights, final, *rest), (others, other_final, *other_rest) = one, other
    pairs = [(weights, others), (final, other_final)]
    return rest == other_rest and all(
        a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a) for a, b in pairs
    )


def test_poisoned_test_cases_change_nothing(experiment, tmp_path):
    """Neither weights, nor history, nor which epoch is best; poisoned validation labels are noticed."""
    clean = trained(experiment, tmp_path)
    assert json.loads(json.dumps(clean[2:])) == list(clean[2:])
    inputs = open_inputs(experiment.data, tmp_path, 1, quiet)
    assert len(inputs.test) == 3
    for number, entry in enumerate(inputs.test):
        poison(entry, number)
    again = open_inputs(experiment.data, tmp_path, 1, quiet)
    assert again.test == inputs.test  # the poisoned arrays are those that would be read
    assert (np.load(again.test[0].path / "label.npy") == again.test[0].labels()).all()
    assert same(clean, trained(experiment, tmp_path))
    poison(inputs.validation[0], 9)
    noticed = trained(experiment, tmp_path)
    assert noticed[2] != clean[2]
    assert all(torch.equal(clean[0][name], noticed[0][name]) for name in clean[0])  # it chooses, no more


def test_training_cannot_be_given_test_cases():
    assert [field.name for field in fields(loop.Cases)] == ["train", "validation"]
    assert list(inspect.signature(loop.train).parameters) == [
        "experiment",
        "cases",
        "folder",
        "group",
        "emit",
    ]
