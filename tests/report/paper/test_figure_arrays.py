"""What figures show comes from the method's own functions, and from nothing that it must not see."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from acdis.config import Experiment
from acdis.data.prepared_case import Entry
from acdis.errors import UserError
from acdis.evaluation.examples import SHOWN
from acdis.evaluation.scoring import score
from acdis.methods.base import Method
from acdis.report.paper import figure_arrays
from acdis.report.paper.figure_arrays import Crop
from acdis.training.run import new_method
from acdis.vocabulary import MODALITIES, REGIONS, subset_name

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def crop(entry: Entry, experiment: Callable[..., Experiment]) -> Crop:
    return figure_arrays.crop_of(entry, experiment())


@pytest.fixture
def method(experiment: Callable[..., Experiment]) -> Method:
    built = new_method(experiment()).eval()
    built.synthesising.fill_(True)  # type: ignore[operator,union-attr]
    return built


def _changed(crop: Crop, modality: int) -> Crop:
    images = crop.images.clone()
    images[modality] = torch.randn(images.shape[1:], generator=torch.Generator().manual_seed(1))
    return replace(crop, images=images)


def test_the_crop_is_the_windows_voxels(entry: Entry, crop: Crop) -> None:
    d, h, w = crop.place.start
    here = (slice(d, d + 16), slice(h, h + 16), slice(w, w + 16))
    np.testing.assert_array_equal(crop.images, entry.images()[(slice(None), *here)])
    np.testing.assert_array_equal(crop.labels, entry.labels()[here])
    tumour = crop.labels > 0
    assert tumour[..., crop.at].sum() == tumour.sum((0, 1)).max() > 0


def test_a_case_smaller_than_a_window_is_padded(entry: Entry, experiment: Callable[..., Experiment]) -> None:
    given = experiment()
    evaluation = given.evaluation.model_copy(update={"window": (32, 32, 32), "stride": (32, 32, 32)})
    crop = figure_arrays.crop_of(entry, given.model_copy(update={"evaluation": evaluation}))
    assert crop.images.shape == (4, 32, 32, 32)
    assert crop.labels.sum() == entry.labels().sum()
    assert not crop.images[:, -1].any()


def test_the_slice_in_the_file(entry: Entry, crop: Crop) -> None:
    """The phantom's spacing is kept, so the file's slice holds the same voxels."""
    index = figure_arrays.file_slice(entry, crop)
    shown = entry.native_labels()[..., index]
    whole = np.asarray(crop.labels[..., crop.at])
    assert (shown > 0).sum() >= (whole > 0).sum() > 0
    assert figure_arrays.native_slice(entry) == int(
        (np.asarray(entry.native_labels()) > 0).sum((0, 1)).argmax()
    )


def test_a_slice_of_the_file_is_found_again(entry: Entry, experiment: Callable[..., Experiment]) -> None:
    """Whatever slice holds brain: the crop shows its voxels; others are refused with those that do."""
    images = np.asarray(entry.images())
    deepest = entry.labels().shape[2]
    first = entry.meta.box.start[2]
    for index in (first, first + deepest // 2, first + deepest - 1):
        voxel = figure_arrays.prepared_slice(entry, index)
        assert voxel == index - first  # the phantom's spacing is kept
        crop = figure_arrays.crop_of(entry, experiment(), voxel)
        d, h, _ = crop.place.start
        shown = crop.images[..., crop.at]
        np.testing.assert_array_equal(shown, images[:, d : d + 16, h : h + 16, voxel])
        assert figure_arrays.file_slice(entry, crop) == index
    for index in (first - 1, first + deepest, 24):
        with pytest.raises(
            UserError, match=rf"--slice {index}: .* slices {first} to {first + deepest - 1} of"
        ):
            figure_arrays.prepared_slice(entry, index)


def test_a_slice_of_the_box_without_brain_is_refused(entry: Entry, tmp_path: Path) -> None:
    """`data.min_size` may make the box larger than the brain."""
    shutil.copytree(entry.path, tmp_path / "copy")
    images = np.array(entry.images())
    images[..., -3:] = 0
    np.save(tmp_path / "copy" / "image.npy", images)
    wider = replace(entry, path=tmp_path / "copy")
    first, deepest = entry.meta.box.start[2], images.shape[3]
    assert figure_arrays.prepared_slice(wider, first + deepest - 4) == deepest - 4
    with pytest.raises(UserError, match=rf"slices {first} to {first + deepest - 4} of its file"):
        figure_arrays.prepared_slice(wider, first + deepest - 3)


def test_a_slice_of_a_file_with_finer_slices(entry: Entry) -> None:
    """Voxels of 6 mm from slices of 2 mm: three slices to a voxel."""
    box = entry.meta.box
    depth = entry.meta.native_shape[2]
    meta = replace(entry.meta, native_spacing=(2.0, 2.0, 2.0), native_shape=(72, 72, 3 * depth))
    fine = replace(entry, meta=meta)
    for voxel in (0, entry.labels().shape[2] - 1):
        for part in range(3):
            index = 3 * (box.start[2] + voxel) + part
            assert figure_arrays.prepared_slice(fine, index) == voxel


def test_windows_are_of_sigmoid_features(method: Method, crop: Crop) -> None:
    features = figure_arrays.finest(method, crop, CPU)
    found = figure_arrays.windows(features, crop, 5)
    with torch.no_grad():
        maps = method.encode(crop.images[None]).maps[0]
    block = (slice(5, 10), slice(5, 10), slice(crop.at // 5 * 5, crop.at // 5 * 5 + 5))
    for m, other in ((0, 0), (1, 3)):
        one, second = (maps[k][0].sigmoid().numpy()[(slice(None), *block)].reshape(4, -1) for k in (m, other))
        due = np.mean([abs(np.cov(a, b)[0, 1]) for a, b in zip(one, second, strict=True)])
        assert found.covariance[m, other, 7, 7] == pytest.approx(due, rel=1e-4)
        assert found.covariance[other, m, 7, 7] == found.covariance[m, other, 7, 7]
    np.testing.assert_array_equal(found.variance[2], found.covariance[2, 2])


def test_edge_and_rest_part_the_windows_of_the_brain(method: Method, crop: Crop) -> None:
    """A feature that varies only in windows with tumour and other voxels has all its variance at the edge."""
    wave = torch.arange(16.0).expand(16, 16, 16)
    tumour, quiet = torch.from_numpy(crop.labels > 0), torch.zeros(1, 16, 16, 16)
    mixed = torch.zeros(16, 16, 16, dtype=torch.bool)
    for d in range(0, 16, 5):
        for h in range(0, 16, 5):
            for w in range(0, 16, 5):
                block = (slice(d, d + 5), slice(h, h + 5), slice(w, w + 5))
                mixed[block] = bool(tumour[block].any() and not tumour[block].all())
    found = figure_arrays.windows([torch.where(mixed, wave, 0)[None], quiet, quiet, quiet], crop, 5)
    assert found.edge[0] > 0
    assert found.rest[0] == 0


def test_a_feature_of_flair_reads_flair_alone(method: Method, crop: Crop) -> None:
    features = figure_arrays.finest(method, crop, CPU)
    before = figure_arrays.feature(features, crop, "FLAIR", 5)
    brain = crop.brain[..., crop.at]
    assert before.picture[brain].mean() == pytest.approx(0, abs=1e-5)
    assert before.picture[brain].std() == pytest.approx(1, rel=1e-4)
    for m, name in enumerate(MODALITIES):
        other = figure_arrays.finest(method, _changed(crop, m), CPU)
        changed = not np.array_equal(figure_arrays.feature(other, crop, "FLAIR", 5).picture, before.picture)
        assert changed == (name == "FLAIR")


@pytest.mark.parametrize("m", range(4))
def test_what_is_synthesised_is_made_of_the_others_alone(method: Method, crop: Crop, m: int) -> None:
    before, after = (figure_arrays.synthesis(method, each, CPU) for each in (crop, _changed(crop, m)))
    assert before is not None
    assert after is not None
    same = [np.array_equal(before.made[k], after.made[k]) for k in range(4)]
    assert same == [k == m for k in range(4)]
    assert not np.array_equal(before.true[m], after.true[m])


def test_synthesis_is_mfsbs_and_is_compared_over_the_brain(method: Method, crop: Crop) -> None:
    found = figure_arrays.synthesis(method, crop, CPU)
    assert found is not None
    with torch.no_grad():
        maps = [f[0] for f in method.encode(crop.images[None]).maps[0]]
        given = torch.cat([maps[0], maps[1], maps[2], torch.zeros_like(maps[3])])
        made = method.synthesisers[3][0](given[None])[0]  # type: ignore[index,union-attr]
    brain = crop.brain
    true, ours, mean = (f.numpy()[:, brain].ravel() for f in (maps[3], made, torch.stack(maps[:3]).mean(0)))
    np.testing.assert_allclose(found.made[3], made.mean(0)[..., crop.at], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found.true[3], maps[3].mean(0)[..., crop.at], rtol=1e-5, atol=1e-6)
    assert found.mse[3] == pytest.approx(((true - ours) ** 2).mean(), rel=1e-4)
    assert found.r[3] == pytest.approx(np.corrcoef(true, ours)[0, 1], abs=1e-5)
    assert found.r_given[3] == pytest.approx(np.corrcoef(true, mean)[0, 1], abs=1e-5)


def test_before_mfsb_takes_part_nothing_is_synthesised(
    crop: Crop, experiment: Callable[..., Experiment]
) -> None:
    assert figure_arrays.synthesis(new_method(experiment()).eval(), crop, CPU) is None
    rfnet = new_method(experiment("rfnet")).eval()
    assert figure_arrays.synthesis(rfnet, crop, CPU) is None
    assert len(figure_arrays.finest(rfnet, crop, CPU)) == 4  # its encoders give a map per modality


def test_segmentations_have_the_scores_of_the_evaluation(
    method: Method, entry: Entry, experiment: Callable[..., Experiment]
) -> None:
    at = figure_arrays.native_slice(entry)
    found = figure_arrays.segmentations(method, entry, experiment(), CPU, at, SHOWN)
    records = score(method, [entry], experiment().evaluation, CPU, None)
    due = {(record.subset, record.region): record.dice for record in records}
    for row, subset in enumerate(SHOWN):
        for column, region in enumerate(REGIONS):
            assert found.dice[row, column] == due[subset_name(subset), region]
    assert found.labels.shape == (len(SHOWN), *entry.native_labels().shape[:2])
