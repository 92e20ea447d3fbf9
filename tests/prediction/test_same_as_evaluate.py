"""`predict` from some files is what `evaluate` scores with the box of these modalities: `box: given`."""

import nibabel
import numpy as np
import pytest
import torch

from acdis import cells, config
from acdis.data import cache, cases
from acdis.data.scan import read
from acdis.evaluation.records import summarise
from acdis.evaluation.scoring import label_maps, score
from acdis.prediction.model import open_model
from acdis.prediction.predict import predict
from acdis.vocabulary import MODALITIES, SUBSETS

CPU = torch.device("cpu")


def entry_of(root, data, folder):
    (found,) = cases.find(root).cases
    return cache.prepare([found], data, folder / "cache", 1)[found.name]


@pytest.mark.slow
@pytest.mark.real
@pytest.mark.parametrize(("spacing", "subsets"), [(3.0, SUBSETS[::6]), (None, SUBSETS[7:8])])
def test_a_real_case_has_the_same_labels(tmp_path, make_cell, shared, spacing, subsets):
    """Of all subsets `test_the_box_of_what_is_given` asks it."""
    side = 64 if spacing else 96
    changes = {
        "data.spacing": spacing, "data.min_size": side,
        "evaluation.window": [side] * 3, "evaluation.stride": [side] * 3,
        "method.options": {"base_width": 2, "levels": 2, "afeb_tokens": 4, "synthesis_start": 2},
    }  # fmt: skip
    model = open_model(make_cell(tmp_path, changes=changes), "cpu")
    data = model.experiment.data
    entry = entry_of(shared / "data" / "brats2021" / "BraTS2021_01476", data, tmp_path)
    evaluation = model.experiment.evaluation.model_copy(update={"box": "given"})
    files = dict(zip(MODALITIES, entry.source.images, strict=True))
    maps = label_maps(model.method, entry, evaluation, CPU, None, subsets, data)
    for subset, labels in zip(subsets, maps, strict=True):
        found = predict([model], read({name: files[name] for name in subset}))
        assert len(np.unique(labels)) > 1
        np.testing.assert_array_equal(found.classes, labels, err_msg=str(subset))


@pytest.fixture
def cut(tmp_path):
    """A case whose T1 ends 40 mm further down than the others."""
    folder = tmp_path / "cases" / "C1"
    folder.mkdir(parents=True)
    draw = np.random.default_rng(0)
    voxels = np.zeros((30, 32, 34), np.int16)
    voxels[3:27, 3:29, 4:31] = 1
    for name in ("flair", "t1ce", "t1", "t2", "seg"):
        image = voxels * draw.integers(100, 900, voxels.shape).astype(np.int16)
        if name == "t1":
            image[:, :, 23:] = 0
        if name == "seg":
            image = (image > 600).astype(np.int16)
        nibabel.save(nibabel.Nifti1Image(image, np.diag([-5.0, -5, 5, 1])), folder / f"C1_{name}.nii.gz")
    return folder


def test_the_box_of_what_is_given(tmp_path, make_cell, cut):
    """Where masks differ so do the labels of the two conventions, and `predict` is with the given one."""
    model = open_model(
        make_cell(tmp_path, changes={"data.min_size": 16, "evaluation.window": [16] * 3}), "cpu"
    )
    data, evaluation = model.experiment.data, model.experiment.evaluation
    entry = entry_of(cut, data, tmp_path)
    given = evaluation.model_copy(update={"box": "given"})
    ways = [list(label_maps(model.method, entry, e, CPU, None, SUBSETS, data)) for e in (evaluation, given)]
    files = dict(zip(MODALITIES, entry.source.images, strict=True))
    for subset, by_all, by_given in zip(SUBSETS, *ways, strict=True):
        found = predict([model], read({name: files[name] for name in subset}))
        np.testing.assert_array_equal(found.classes, by_given)
        if subset == ("T1",):
            assert (by_all[:, :, :23] != by_given[:, :, :23]).any()
            assert not by_given[:, :, 23:].any()  # beyond the box of T1 there is nothing
            assert by_all[:, :, 23:].any()
        else:
            np.testing.assert_array_equal(by_all, by_given)
    records = score(model.method, [entry], given, CPU, None, data=data)
    assert len(summarise(records)) > 45


def test_the_box_is_part_of_an_evaluations_name_and_not_of_the_cells():
    tree = {"evaluation": {"box": "given"}}
    plain, given = config.parse({}, "t"), config.parse(tree, "t")
    assert cells.cell_name(plain, "d", 1) == cells.cell_name(given, "d", 1)
    assert cells.evaluation_name(plain, "c") != cells.evaluation_name(given, "c")
    before = {"window", "stride", "hd95", "et_minimum"}  # the settings that there were when it was named
    settings = plain.evaluation.model_dump(mode="json", include=before)
    assert cells.evaluation_name(plain, "c") == cells.digest({"evaluation": settings, "cases": "c"})
