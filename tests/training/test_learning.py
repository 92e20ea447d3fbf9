"""A small model learns from phantoms what a radiologist knows: enhancing tumour is seen on T1ce."""

import pytest
import torch

from acdis import config, methods
from acdis.data import cache, cases, phantom
from acdis.evaluation.records import summarise
from acdis.evaluation.scoring import score
from acdis.training import loop
from acdis.training.group import Group
from acdis.vocabulary import SUBSETS, metric_name

#: 160 steps on crops of 16³ (5 cm), synthesis from the third of eight epochs on.
TREE = {
    "data": {"min_size": 16, "crop": [16, 16, 16], "lesion_crops": 0.7},
    "method": {"options": {"base_width": 8, "levels": 3, "afeb_tokens": 4, "synthesis_start": 2}},
    "training": {
        "epochs": 8,
        "iterations": 20,
        "batch_size": 2,
        "learning_rate": 1e-2,
        "precision": "fp32",
    },
    "evaluation": {"window": [16, 16, 16], "stride": [16, 16, 16], "hd95": False},
}


@pytest.fixture(scope="module")
def by_size(tmp_path_factory):
    """Ten phantoms of 48×56×48 voxels at 3.3 mm, by the volume of their enhancing tumour."""
    folder = tmp_path_factory.mktemp("learning")
    phantom.write(folder / "cases", 10, seed=7, shape=(48, 56, 48), spacing=3.3)
    data = config.parse(TREE, "test").data
    entries = cache.prepare(cases.find(folder / "cases").cases, data, folder / "cache", 1).values()
    return sorted(entries, key=lambda entry: int((entry.native_labels() == 3).sum()))


@pytest.mark.slow
def test_enhancing_tumour_is_found_where_t1ce_is_given(by_size, tmp_path):
    """ET Dice on two phantoms that were held out, each with an enhancing tumour; every subset with T1ce does
    better than every one without."""
    held_out = [by_size[-4], by_size[-2]]
    seen = [entry for entry in by_size if entry not in held_out]
    assert all((entry.native_labels() == 3).any() for entry in held_out)
    experiment = methods.resolve(config.parse(TREE, "test"))
    run = loop.train(experiment, loop.Cases(seen), tmp_path, Group(), lambda event: None)
    records = score(run.method, held_out, experiment.evaluation, torch.device("cpu"), None)
    summary = summarise(records)
    dice = {subset: summary[metric_name("dice", "ET", subset)] for subset in SUBSETS}
    given = [value for subset, value in dice.items() if "T1ce" in subset]
    missing = [value for subset, value in dice.items() if "T1ce" not in subset]
    print({"with T1ce": sum(given) / len(given), "without": sum(missing) / len(missing)})
    assert min(given) > max(missing)
    assert sum(given) / len(given) > sum(missing) / len(missing) + 0.1
