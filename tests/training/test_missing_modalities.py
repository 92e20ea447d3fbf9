"""A training on cases that lack modalities, from files on disk to weights."""

import shutil

import nibabel as nib
import numpy as np
import pytest
import torch

from acdis.data.cases import find
from acdis.data.inputs import open_inputs
from acdis.training import loop
from acdis.training.group import Group
from acdis.vocabulary import MODALITIES

SPLIT = {"data.split.counts": [4, 1, 0]}
MISSING = {"data.missing": {"T1ce": 0.5, "T2": 0.25, "FLAIR": 0.25}}


def opened(experiment, root, base):
    data = experiment.data.model_copy(update={"root": str(root)})
    return open_inputs(data, base, 1, lambda *_: None)


@pytest.fixture(scope="module")
def spoiled(phantoms, tmp_path_factory, small):
    """The folder of phantoms again, with noise in every modality that the training cases are to lack."""
    experiment = small({**SPLIT, **MISSING})
    inputs = opened(experiment, phantoms, tmp_path_factory.mktemp("base"))
    copy = tmp_path_factory.mktemp("copy") / "cases"
    shutil.copytree(phantoms, copy)
    kept = {entry.name: entry.modalities for entry in inputs.train}
    files = [
        path
        for case in find(copy).cases
        for name, path in case.given.items()
        if name not in kept.get(case.name, MODALITIES)
    ]
    assert len(files) == 4  # 2 + 1 + 1
    for path in files:
        image = nib.load(path)
        noise = np.random.default_rng(0).normal(500, 100, image.shape).astype(np.float32)
        nib.save(nib.Nifti1Image(noise, image.affine), path)
    return copy


def test_voxels_of_what_a_case_lacks_change_no_weight(phantoms, spoiled, small, all_losses, train, tmp_path):
    """Noise everywhere, outside the brain too: crops, losses and weights are the same, bit for bit."""
    experiment = small({**SPLIT, **MISSING, "training.epochs": 3}, **all_losses)
    runs, prints = [], []
    for number, root in enumerate((phantoms, spoiled)):
        inputs = opened(experiment, root, tmp_path / f"base{number}")
        cases = loop.Cases(inputs.train, inputs.validation)
        runs.append(train(experiment, tmp_path / f"run{number}", cases)[0])
        prints.append(inputs.fingerprint)
    assert prints[0] == prints[1]
    one, other = (run.method.state_dict() for run in runs)
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert [entry["terms"] for entry in runs[0].history] == [entry["terms"] for entry in runs[1].history]


def test_a_training_with_holes_is_another_than_without(phantoms, small, train, tmp_path):
    runs = []
    for number, given in enumerate((SPLIT, {**SPLIT, **MISSING})):
        experiment = small({**given, "training.epochs": 1})
        inputs = opened(experiment, phantoms, tmp_path / "base")
        runs.append(train(experiment, tmp_path / f"run{number}", loop.Cases(inputs.train))[0])
    one, other = (run.method.state_dict() for run in runs)
    assert not all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("accumulation", [1, 2])
def test_ranks_and_pieces_give_the_step_of_one_batch(
    phantoms, small, all_losses, child, finish, tmp_path, accumulation
):
    """Whatever each of them holds: of four cases two have no T1ce, one no T1 and one no T2."""
    changes = {"data.split.counts": [4, 0, 0], "data.missing": {"T1ce": 0.5, "T1": 0.25, "T2": 0.25}}
    changes |= {"training.batch_size": 4, "data.crop": [12, 12, 12]}
    one = small(changes, **all_losses)
    spread = small({**changes, "scaling.workers": 2, "scaling.accumulation": accumulation}, **all_losses)
    cases = loop.Cases(opened(one, phantoms, tmp_path / "base").train)
    rest = {"cases": cases, "epoch": 3, "available": [(1, 0, 0, 0)] * 4, "dtype": torch.float64}
    terms, expected = child.gradients(Group(), one, **rest)
    results = finish(tmp_path / "ranks", [("gradients", {"experiment": spread, **rest})], world=2)
    for ((_, found),) in results:
        for name, gradient in expected.items():
            largest = 1.0 if gradient is None else float(gradient.abs().max())
            torch.testing.assert_close(found[name], gradient, rtol=0, atol=1e-10 * max(largest, 1e-6))
    means = {name: sum(told[name] for ((told, _),) in results) / 2 for name in terms}
    assert means == pytest.approx(terms, rel=1e-6)
