"""Crop box, normalisation, resampling and the way back, against plain NumPy and geometry."""

import itertools
import json

import nibabel
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from acdis.config import Data, parse
from acdis.data import cases, phantom, preprocess, resample
from acdis.data.cases import Volume
from acdis.data.fingerprints import fingerprint
from acdis.data.preprocess import Box, Meta
from acdis.errors import UserError


def volume(shape=(20, 18, 16), brain=((4, 15), (2, 9), (0, 16)), spacing=(1.0, 1.0, 1.0), seed=0):
    """Random positive intensities in a cuboid, a lesion of all labels in its midst."""
    generator = np.random.default_rng(seed)
    inside = tuple(slice(*side) for side in brain)
    images = np.zeros((4, *shape), np.float32)
    images[(slice(None), *inside)] = generator.integers(1, 999, [4, *(stop - start for start, stop in brain)])
    labels = np.zeros(shape, np.uint8)
    labels[inside] = generator.integers(0, 4, labels[inside].shape)
    return Volume(images, labels, np.diag([*spacing, 1.0]), spacing)


def restored(array, meta):
    """[..., D, H, W] on the box to the whole working grid, zeros beyond: voxel by voxel along each axis."""
    for axis, (first, length) in enumerate(zip(meta.box.start, meta.full_shape, strict=True), -3):
        side = array.shape[axis]
        places = [place - first for place in range(length)]
        taken = np.take(array, [place if 0 <= place < side else 0 for place in places], axis=axis)
        inside = np.array([0 <= place < side for place in places])
        array = taken * inside.reshape([-1 if each == axis else 1 for each in (-3, -2, -1)]).astype(
            array.dtype
        )
    return array


def data(**options):
    return Data(**{"min_size": 8, "crop": (8, 8, 8), **options})


def test_box_holds_the_brain_grows_and_stays_inside():
    prepared = preprocess.preprocess(volume(), data(min_size=12))
    # axis 0: 4..15 is 11 wide, one more; axis 1: 2..9 is 7 wide, 5 more (2 below); axis 2 is 16 wide already
    assert prepared.meta.box == Box((4, 0, 0), (16, 12, 16))
    assert prepared.images.shape == (4, 12, 12, 16)
    np.testing.assert_array_equal(prepared.labels, volume().labels[4:16, 0:12, 0:16])


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 40), st.data())
def test_box_on_one_axis(length, draw):
    first = draw.draw(st.integers(0, length - 1))
    last = draw.draw(st.integers(first, length - 1))
    min_size = draw.draw(st.integers(1, 60))
    brain = np.zeros((length, 1, 1), bool)
    brain[[first, last]] = True
    box = preprocess.brain_box(brain, (min_size,) * 3)
    start, stop = box.start[0], box.stop[0]
    assert stop - start == max(last + 1 - first, min_size)
    assert start <= first
    assert stop > last
    if min_size <= length:
        assert start >= 0
        assert stop <= length
    else:
        assert abs((start + stop) - length) <= 1  # padded alike on both sides


@pytest.mark.parametrize("background", ["zero", "normalised"])
def test_z_score_over_the_brain(background):
    case = volume()
    prepared = preprocess.preprocess(case, data(min_size=24, crop=(8, 8, 8), background=background))
    assert prepared.images.shape == (4, 24, 24, 24)
    assert prepared.images.dtype == np.float32
    box = prepared.meta.box
    assert box.start == (-2, -3, -4)
    raw = np.zeros((4, 24, 24, 24))
    raw[:, 2:22, 3:21, 4:20] = case.images  # padded with the file's background
    brain = raw.sum(0) > 0
    for modality in range(4):
        mean, std = raw[modality][brain].mean(), raw[modality][brain].std()
        expected = (raw[modality] - mean) / std
        if background == "zero":
            expected[~brain] = 0
        np.testing.assert_allclose(prepared.images[modality], expected, atol=1e-5)


def test_brain_of_images_that_are_normalised_already():
    case = volume()
    brain = case.images[0] > 0
    images = np.where(brain, (case.images - 500) / 300, 0).astype(np.float32)
    prepared = preprocess.preprocess(Volume(images, case.labels, case.affine, case.spacing), data())
    inside = prepared.images[:, preprocess.crop(brain, prepared.meta.box)]
    np.testing.assert_allclose(inside.mean(1), 0, atol=1e-4)
    np.testing.assert_allclose(inside.std(1), 1, atol=1e-4)


@pytest.mark.parametrize("min_size", [8, 24])
def test_restore_undoes_crop(min_size):
    case = volume()
    prepared = preprocess.preprocess(case, data(min_size=min_size))
    np.testing.assert_array_equal(restored(prepared.labels, prepared.meta), case.labels)
    assert restored(prepared.images, prepared.meta).shape == case.images.shape


@pytest.mark.parametrize("min_size", [8, 24])
def test_to_native_without_resampling_only_puts_back(min_size):
    case = volume()
    meta = preprocess.preprocess(case, data(min_size=min_size)).meta
    probabilities = torch.rand(4, *meta.box.shape).softmax(0)
    native = preprocess.to_native(probabilities, meta)
    assert native.shape == (4, *case.labels.shape)
    expected = restored(probabilities.numpy(), meta)
    outside = restored(np.ones(meta.box.shape), meta) == 0
    expected[0][outside] = 1
    np.testing.assert_array_equal(native.numpy(), expected)
    np.testing.assert_allclose(native.sum(0), 1, atol=1e-6)
    np.testing.assert_array_equal(preprocess.labels_to_native(probabilities, meta), native.argmax(0))


def test_meta_survives_json():
    meta = preprocess.preprocess(volume(), data(spacing=2.0)).meta
    assert Meta.from_dict(json.loads(json.dumps(meta.as_dict()))) == meta


def linear_by_hand(row, before, after, count):
    """One axis, one voxel at a time, in mm."""
    out = []
    for index in range(count):
        place = min(max((index + 0.5) * after / before - 0.5, 0), len(row) - 1)
        below = int(place)
        above = min(below + 1, len(row) - 1)
        out.append(row[below] + (place - below) * (row[above] - row[below]))
    return out


@pytest.mark.parametrize(
    ("before", "after", "count"), [(1, 2, 78), (1, 1.5, 104), (2, 1, 310), (1.2, 0.7, 266)]
)
def test_linear_resampling_of_a_row(before, after, count):
    row = np.random.default_rng(0).normal(size=155)
    native, new = (1.0, before, 1.0), (1.0, after, 1.0)
    shape = resample.resampled_shape((2, 155, 3), native, new)
    assert shape == (2, count, 3)
    image = torch.from_numpy(np.broadcast_to(row[None, None, :, None], (1, 2, 155, 3)).copy())
    out = resample.linear(image, native, new, shape)
    expected = linear_by_hand(row, before, after, count)
    for first, last in itertools.product(range(2), range(3)):
        np.testing.assert_allclose(out[0, first, :, last], expected, atol=1e-5)


def test_twice_the_spacing_is_the_mean_of_eight():
    array = torch.rand(1, 8, 6, 4, dtype=torch.float64)
    out = resample.linear(array, (1.0,) * 3, (2.0,) * 3, (4, 3, 2))
    np.testing.assert_allclose(out, torch.nn.functional.avg_pool3d(array, 2))


@pytest.mark.parametrize("ratio", [2.0, 1.5, 0.8])
def test_linear_resampling_matches_torch_where_torch_can(ratio):
    array = torch.rand(2, 12, 18, 24, dtype=torch.float64)
    shape = resample.resampled_shape((12, 18, 24), (1.0,) * 3, (ratio,) * 3)
    out = resample.linear(array, (1.0,) * 3, (ratio,) * 3, shape)
    if all(side * ratio == own for side, own in zip(shape, array.shape[1:], strict=True)):
        expected = torch.nn.functional.interpolate(
            array[None], size=shape, mode="trilinear", align_corners=False
        )
        np.testing.assert_allclose(out, expected[0], atol=1e-12)
    else:
        factor = 1 / ratio
        expected = torch.nn.functional.interpolate(
            array[None],
            scale_factor=factor,
            mode="trilinear",
            align_corners=False,
            recompute_scale_factor=False,
        )[0]
        inner = tuple(slice(0, min(a, b)) for a, b in zip(shape, expected.shape[1:], strict=True))
        np.testing.assert_allclose(out[(..., *inner)], expected[(..., *inner)], atol=1e-12)


def smooth(shape, spacing):
    """A function of mm, on a grid: [*shape]."""
    places = [(np.arange(side) + 0.5) * size for side, size in zip(shape, spacing, strict=True)]
    x, y, z = np.meshgrid(*places, indexing="ij")
    return 2 + np.sin(x / 9) * np.cos(y / 11) + 0.5 * np.sin(z / 13 + 1)


@pytest.mark.parametrize(
    ("native", "spacing"), [((1.0, 1.0, 1.0), 2.0), ((1.0, 1.2, 3.0), 1.5), ((2.0, 2.0, 2.0), 1.0)]
)
def test_round_trip_of_a_smooth_function(native, spacing):
    """Physical places are kept: resampled values are the function's at the new centres, and come back."""
    shape = (45, 40, 31)
    image = smooth(shape, native).astype(np.float32)
    working = (spacing,) * 3
    full = resample.resampled_shape(shape, native, working)
    resampled = resample.linear(torch.from_numpy(image)[None], native, working, full)
    middle = (slice(2, -2),) * 3
    truth = smooth(full, working)
    assert np.abs(resampled[0].numpy() - truth)[middle].max() < 0.03
    # Only a box of it goes back; 1 where the background must be.
    box = Box((3, 4, 2), (full[0] - 4, full[1], full[2] - 1))
    meta = Meta(box, full, working, shape, native, ())
    channels = resampled[0][tuple(map(slice, box.start, box.stop))].expand(2, -1, -1, -1)
    back = preprocess.to_native(channels, meta).numpy()
    centres = [(np.arange(side) + 0.5) * size for side, size in zip(shape, native, strict=True)]
    within = [
        (row > start * spacing - 1e-9) & (row < stop * spacing - 1e-9)
        for row, start, stop in zip(centres, box.start, box.stop, strict=True)
    ]
    inside = within[0][:, None, None] & within[1][None, :, None] & within[2][None, None, :]
    assert (back[0][~inside] == 1).all()
    assert (back[1][~inside] == 0).all()
    deep = [
        (row > (start + 2) * spacing) & (row < (stop - 2) * spacing)
        for row, start, stop in zip(centres, box.start, box.stop, strict=True)
    ]
    deep_inside = deep[0][:, None, None] & deep[1][None, :, None] & deep[2][None, None, :]
    assert deep_inside.sum() > 1000
    assert np.abs(back[1] - image)[deep_inside].max() < 0.05


def ball(shape, spacing, centre, radius):
    places = [
        (np.arange(side) + 0.5) * size - c for side, size, c in zip(shape, spacing, centre, strict=True)
    ]
    x, y, z = np.meshgrid(*places, indexing="ij")
    return np.sqrt(x**2 + y**2 + z**2) <= radius


@pytest.mark.parametrize("spacing", [2.0, 1.5, 0.7])
@pytest.mark.parametrize("centre", [(30, 30, 30), (29.3, 31.1, 30.6)])
def test_a_ball_of_labels_keeps_volume_and_place(spacing, centre):
    native = (1.0, 1.0, 1.0)
    labels = ball((60, 60, 60), native, centre, 15).astype(np.uint8) * 2
    labels[ball((60, 60, 60), native, centre, 8)] = 3
    full = resample.resampled_shape((60, 60, 60), native, (spacing,) * 3)
    resampled = resample.labels(labels, native, (spacing,) * 3, full)
    for classes in ((2, 3), (3,)):
        before, after = np.isin(labels, classes), np.isin(resampled, classes)
        assert after.sum() * spacing**3 == pytest.approx(before.sum(), rel=0.05)
        place = (np.argwhere(after).mean(0) + 0.5) * spacing  # nearest would be half a native voxel off
        np.testing.assert_allclose(place, np.argwhere(before).mean(0) + 0.5, atol=0.15)
    meta = Meta(Box((0, 0, 0), full), full, (spacing,) * 3, (60, 60, 60), native, ())
    one_hot = torch.nn.functional.one_hot(torch.from_numpy(resampled).long(), 4).movedim(-1, 0).float()
    back = preprocess.labels_to_native(one_hot, meta).numpy()
    for classes, least in (((2, 3), 0.95), ((3,), 0.92)):
        before, after = np.isin(labels, classes), np.isin(back, classes)
        assert 2 * (before & after).sum() / (before.sum() + after.sum()) > least


def test_a_thin_rim_is_not_lost():
    """A shell of ET one voxel thick around NCR, in ED: it fills few voxels of 2 mm to the half."""
    shape, native = (40, 40, 40), (1.0, 1.0, 1.0)
    labels = ball(shape, native, (20, 20, 20), 14).astype(np.uint8) * 2
    labels[ball(shape, native, (20, 20, 20), 9)] = 3
    labels[ball(shape, native, (20, 20, 20), 8)] = 1
    resampled = resample.labels(labels, native, (2.0,) * 3, (20, 20, 20))
    assert (resampled == 3).sum() * 8 > 0.6 * (labels == 3).sum()


def test_preprocess_at_another_spacing():
    case = volume(shape=(40, 36, 32), brain=((8, 30), (4, 20), (2, 30)), spacing=(1.0, 1.0, 1.0))
    prepared = preprocess.preprocess(case, data(spacing=2.0))
    meta = prepared.meta
    assert (meta.full_shape, meta.spacing) == ((20, 18, 16), (2.0, 2.0, 2.0))
    assert (meta.native_shape, meta.native_spacing) == ((40, 36, 32), (1.0, 1.0, 1.0))
    assert meta.box == Box((4, 2, 1), (15, 10, 15))
    means = case.images.reshape(4, 20, 2, 18, 2, 16, 2).mean((2, 4, 6), dtype=np.float64)[:, 4:15, 2:10, 1:15]
    expected = (means - means.mean((1, 2, 3), keepdims=True)) / means.std((1, 2, 3), keepdims=True)
    np.testing.assert_allclose(prepared.images, expected, atol=1e-4)


def test_the_files_own_spacing_resamples_nothing():
    case = volume(spacing=(1.0, 1.0003, 0.9998))
    same, own = (preprocess.preprocess(case, data(spacing=spacing)) for spacing in (1.0, None))
    np.testing.assert_array_equal(same.images, own.images)
    assert same.meta == own.meta


@pytest.mark.parametrize(
    ("spacing", "reason"), [(0.01, "2000×1800×1600 voxels"), (100.0, "no brain is left")]
)
def test_senseless_spacings_are_the_users_error(spacing, reason):
    with pytest.raises(UserError, match=reason):
        preprocess.preprocess(volume(), data(spacing=spacing))


def test_bf16_probabilities_come_back_in_float32():
    meta = preprocess.preprocess(volume(), data(spacing=2.0)).meta
    native = preprocess.to_native(torch.rand(4, *meta.box.shape).softmax(0).bfloat16(), meta)
    assert native.dtype == torch.float32


@pytest.mark.real
def test_real_case_goes_to_2_mm_and_back(shared):
    folder = shared / "data" / "brats2021" / "BraTS2021_00006"
    case = cases.read(cases.find(folder).cases[0])
    prepared = preprocess.preprocess(case, data(spacing=2.0, min_size=64, crop=(48, 48, 48)))
    one_hot = torch.nn.functional.one_hot(torch.from_numpy(prepared.labels).long(), 4).movedim(-1, 0).float()
    back = preprocess.labels_to_native(one_hot, prepared.meta).numpy()
    truth = np.asarray(nibabel.load(folder / "BraTS2021_00006_seg.nii.gz").dataobj)
    for values, ours, least in (((1, 2, 4), (1, 2, 3), 0.96), ((1, 4), (1, 3), 0.95), ((4,), (3,), 0.9)):
        one, other = np.isin(truth, values), np.isin(back, ours)
        assert 2 * (one & other).sum() / (one.sum() + other.sum()) > least


def test_least_sizes_axis_by_axis():
    prepared = preprocess.preprocess(volume(), data(min_size=(12, 8, 24), crop=(8, 8, 8)))
    # as above on axes 0 and 1 (7 wide and one more: at the far end); axis 2 is padded by 4 on both sides
    assert prepared.meta.box == Box((4, 2, -4), (16, 10, 20))
    with pytest.raises(UserError, match=r"crop \(8, 16, 8\) is larger than min_size \(12, 8, 24\)"):
        parse({"data": {"min_size": [12, 8, 24], "crop": [8, 16, 8]}}, "test")


def test_without_the_last_slice():
    """RFNet's box: 4..14, 2..8 and 0..15 instead of 4..15, 2..9 and 0..16."""
    prepared = preprocess.preprocess(volume(), data(min_size=6, crop=(6, 6, 6), last_slice=False))
    assert prepared.meta.box == Box((4, 2, 0), (14, 8, 15))
    case = volume(brain=((4, 5), (2, 9), (0, 16)))  # one slice: it grows from there
    box = preprocess.preprocess(case, data(min_size=6, crop=(6, 6, 6), last_slice=False)).meta.box
    assert box.shape == (6, 6, 15)


@pytest.mark.parametrize(
    ("kind", "given"), [("clip", None), ("clip", (5, 90)), ("minmax", None), ("minmax", (0, 100))]
)
@pytest.mark.parametrize("background", ["zero", "normalised"])
def test_normalisations_by_sorting(kind, given, background):
    """Percentiles by linear interpolation between the sorted voxels of the brain."""
    case = volume()
    options = {"normalisation": kind, "percentiles": given, "background": background}
    prepared = preprocess.preprocess(case, data(min_size=24, crop=(8, 8, 8), **options))
    raw = np.zeros((4, 24, 24, 24))
    raw[:, 2:22, 3:21, 4:20] = case.images
    brain = raw.sum(0) > 0
    assert prepared.images.dtype == np.float32  # what the cache holds
    low, high = given or {"clip": (0.2, 99.8), "minmax": (1, 99)}[kind]
    for modality in range(4):
        ordered = np.sort(raw[modality][brain])
        ends = []
        for percentile in (low, high):
            place = percentile / 100 * (len(ordered) - 1)
            below = int(place)
            above = min(below + 1, len(ordered) - 1)
            ends.append(ordered[below] + (place - below) * (ordered[above] - ordered[below]))
        cut = np.minimum(np.maximum(raw[modality], ends[0]), ends[1])
        if kind == "clip":
            expected = (cut - cut[brain].mean()) / cut[brain].std()
        else:
            expected = (cut - ends[0]) / (ends[1] - ends[0])
            assert prepared.images[modality].min() == 0
            assert prepared.images[modality].max() == 1
        if background == "zero":
            expected[~brain] = 0
        np.testing.assert_allclose(prepared.images[modality], expected, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"percentiles": [1, 99]}, "no effect with normalisation 'zscore'"),
        ({"normalisation": "clip", "percentiles": [99, 1]}, "give the lower one first"),
        (
            {"normalisation": "clip", "percentiles": [1, 101]},
            r"data\.percentiles\.1: .*less than or equal to 100",
        ),
        ({"min_size": [128, 128]}, r"data\.min_size: too few values"),
        ({"min_size": [128, 128, 2000]}, r"data\.min_size\.2: .*less than or equal to 1024"),
    ],
)
def test_wrong_data_options(options, words):
    with pytest.raises(UserError, match=words):
        parse({"data": options}, "test")


@pytest.mark.parametrize(
    "options",
    [{"last_slice": False}, {"normalisation": "clip"}, {"normalisation": "minmax"}, {"min_size": (8, 8, 9)}],
)
def test_what_changes_the_arrays_changes_the_fingerprint(options, tmp_path):
    case = phantom_case(tmp_path)
    before = fingerprint(case, data(), tmp_path / "cache")
    assert fingerprint(case, data(**options), tmp_path / "cache") != before
    assert (
        fingerprint(case, data(normalisation="zscore", last_slice=True, min_size=(8, 8, 8)), tmp_path)
        == before
    )


def phantom_case(folder):
    phantom.write(folder / "cases", 1, seed=0, shape=(24, 24, 24), spacing=8.0)
    (case,) = cases.find(folder / "cases").cases
    return case
