"""An untrained cell with made-up scores, and scans of a brain-like ball."""

import itertools

import nibabel
import numpy as np
import pytest
import torch

from acdis import cells, config, methods
from acdis.evaluation.records import Record, write_parquet
from acdis.training import checkpoint
from acdis.training.run import new_method
from acdis.vocabulary import REGIONS, SUBSETS, subset_name

TREE = {
    "data": {"min_size": 24, "crop": [16, 16, 16]},
    "method": {"options": {"base_width": 4, "levels": 3, "afeb_tokens": 4, "synthesis_start": 2}},
    "training": {"epochs": 4, "precision": "fp32"},
    "evaluation": {"window": [24, 24, 24], "stride": [16, 16, 16], "hd95": False},
}


def write_scores(path, cases=8):
    """ET is 30 points higher wherever T1ce is given; TC spreads from 0.5 to 0.85 over the cases."""
    records = [
        Record(
            f"case{number}",
            subset_name(subset),
            region,
            dice := {"WT": 0.8, "TC": 0.5 + 0.05 * number, "ET": 0.7 if "T1ce" in subset else 0.4}[region],
            dice if region == "ET" else None,
            None,
            10,
            10,
            1.0,
        )
        for number, subset, region in itertools.product(range(cases), SUBSETS, REGIONS)
    ]
    write_parquet(path, records)


@pytest.fixture(scope="session")
def make_cell():
    """`make_cell(base, seed=0, changes={}, names=("BraTS2021_1",))`: an untrained cell in the home `base`."""

    def make(base, seed=0, changes=None, names=("BraTS2021_00001",)):
        tree = {**TREE, "seed": seed}
        for key, value in (changes or {}).items():
            part, _, name = key.partition(".")
            tree[part] = {**tree.get(part, {}), name: value}
        experiment = methods.resolve(config.parse(tree, "test"))
        name = cells.cell_name(experiment, f"data{seed}", methods.version(experiment.method.name))
        splits = {"train": list(names), "validation": [], "test": []}
        cell = cells.create(base, name, experiment, {"tags": {}, "splits": splits})
        method = new_method(experiment)
        with torch.no_grad():  # heads of an untrained network say one class everywhere
            for parameter in method.parameters():
                parameter.add_(0.02 * torch.randn(parameter.shape, generator=torch.manual_seed(seed)))
        checkpoint.save(cell.weights, method.inference_state())
        write_scores(cell.evaluations / "0123456789ab" / "records.parquet")
        cell.update(status="done", evaluation="0123456789ab")
        return cell

    return make


@pytest.fixture(scope="session")
def base(tmp_path_factory):
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="session")
def cell(base, make_cell):
    return make_cell(base)


def ball(shape=(30, 34, 28), spacing=(5.0, 5.0, 5.0), seed=0):
    """A ball of noise above 0 in a background of 0, as large as a brain: int16."""
    centre = [(side - 1) / 2 for side in shape]
    place = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"))
    squared = sum(((place[a] - centre[a]) * spacing[a] / 62) ** 2 for a in range(3))
    voxels = np.random.default_rng(seed).integers(100, 900, shape)
    return np.where(squared < 1, voxels, 0).astype(np.int16)


@pytest.fixture
def patient(tmp_path):
    """Four modalities of one patient, by name."""
    affine = np.diag([-5.0, -5.0, 5.0, 1.0])
    files = {}
    for seed, modality in enumerate(("FLAIR", "T1ce", "T1", "T2")):
        files[modality] = tmp_path / f"P1_{modality.lower()}.nii.gz"
        nibabel.save(nibabel.Nifti1Image(ball(seed=seed), affine), files[modality])
    return files
