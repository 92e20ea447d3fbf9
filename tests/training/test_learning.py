"""A small model learns from phantoms what a radiologist knows: which modality shows which part."""

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
    "data": {"min_size": 16, "crop": [16, 16, 16], "lesion_crops": 0.33},
    "method": {
        "options": {"base_width": 8, "levels": 3, "afeb_tokens": 4, "norm": "batch", "synthesis_start": 2}
    },
    "training": {
        "epochs": 8,
        "iterations": 20,
        "batch_size": 2,
        "learning_rate": 1e-2,
        "amsgrad": False,
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
def test_a_modality_is_missed_where_it_shows_the_tumour(by_size, tmp_path):
    """On two phantoms that were held out, each with an enhancing tumour: T1ce beside whatever else there is
    finds more of ET, WT by every subset with FLAIR or T2 is better than by T1ce, T1 or both."""
    held_out = [by_size[-4], by_size[-2]]
    seen = [entry for entry in by_size if entry not in held_out]
    assert all((entry.native_labels() == 3).any() for entry in held_out)
    experiment = methods.resolve(config.parse(TREE, "test"))
    run = loop.train(experiment, loop.Cases(seen), tmp_path, Group(), lambda event: None)
    records = score(run.method, held_out, experiment.evaluation, torch.device("cpu"), None)
    summary = summarise(records)
    dice = {frozenset(subset): summary[metric_name("dice", "ET", subset)] for subset in SUBSETS}
    gains = [dice[subset | {"T1ce"}] - value for subset, value in dice.items() if "T1ce" not in subset]
    print({"gains by T1ce": gains})
    assert len(gains) == 7
    assert min(gains) > 0
    assert sum(gains) / len(gains) > 0.1
    whole = {subset: summary[metric_name("dice", "WT", subset)] for subset in SUBSETS}
    shown = [value for subset, value in whole.items() if {"FLAIR", "T2"} & set(subset)]
    hidden = [value for subset, value in whole.items() if not {"FLAIR", "T2"} & set(subset)]
    print({"with FLAIR or T2": sum(shown) / len(shown), "without": sum(hidden) / len(hidden)})
    assert min(shown) > max(hidden)
