"""Training transforms against NumPy, MONAI and hand-made cases."""

import numpy as np
import pytest

from acdis import config
from acdis.data.augment import (
    PLANES,
    augment,
    change_intensity,
    draw_intensity,
    flip,
    random_crop_start,
    rotate,
)

OFF = config.Augmentation(rotation=0, intensity_scale=0, intensity_shift=0, flip=0)


def only(**options) -> config.Augmentation:
    return config.Augmentation(**{**OFF.model_dump(), **options})


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


# --- crops


def test_uniform_crops_cover_every_place_equally():
    generator = np.random.default_rng(0)
    starts = [random_crop_start((7, 5, 4), (4, 4, 4), generator) for _ in range(4000)]
    places, counts = np.unique(starts, axis=0, return_counts=True)
    assert places.tolist() == [[d, h, 0] for d in range(4) for h in range(2)]
    expected = 4000 / 8
    assert ((counts - expected) ** 2 / expected).sum() < 24.3  # chi-square, 7 degrees, p = 0.001


@pytest.mark.parametrize(
    ("voxel", "start"),
    [
        ((10, 11, 12), (6, 7, 8)),
        ((0, 1, 19), (0, 0, 12)),
        ((19, 19, 19), (12, 12, 12)),
        ((4, 16, 15), (0, 12, 11)),
    ],
)
def test_lesion_crops_are_centred_and_clamped(voxel, start):
    lesion = np.array([voxel])
    assert random_crop_start((20, 20, 20), (8, 8, 8), np.random.default_rng(1), lesion, 1.0) == start


def test_lesion_share_is_the_share_of_centred_crops():
    generator, lesion = np.random.default_rng(3), np.array([[50, 50, 50]])
    starts = [random_crop_start((100,) * 3, (8,) * 3, generator, lesion, 0.6) for _ in range(2000)]
    share = np.mean([start == (46, 46, 46) for start in starts])
    assert abs(share - 0.6) < 4 * np.sqrt(0.6 * 0.4 / 2000)


def test_every_lesion_voxel_is_drawn():
    generator, lesion = np.random.default_rng(0), np.array([[8, 8, 8], [9, 10, 11], [12, 8, 9]])
    starts = {random_crop_start((20,) * 3, (8,) * 3, generator, lesion, 1.0) for _ in range(60)}
    assert starts == {(4, 4, 4), (5, 6, 7), (8, 4, 5)}


def test_without_lesion_voxels_crops_stay_uniform():
    generator = np.random.default_rng(0)
    nothing = np.empty((0, 3), dtype=np.int64)
    starts = {random_crop_start((9, 8, 8), (8, 8, 8), generator, nothing, 1.0) for _ in range(40)}
    assert starts == {(0, 0, 0), (1, 0, 0)}


def test_a_crop_larger_than_the_volume_is_refused():
    with pytest.raises(ValueError, match="does not fit"):
        random_crop_start((8, 8, 7), (8, 8, 8), np.random.default_rng(0))


# --- rotation


@pytest.mark.parametrize("plane", PLANES)
@pytest.mark.parametrize("quarters", [-1, 0, 1, 2, 3])
@pytest.mark.parametrize("side", [8, 9])
def test_quarter_turns_are_rot90(plane, quarters, side):
    array = noise(2, side, side, side)
    expected = np.rot90(array, quarters, axes=(plane[0] + 1, plane[1] + 1))
    np.testing.assert_allclose(rotate(array, 90 * quarters, plane), expected, atol=1e-5)
    labels = np.random.default_rng(1).integers(0, 4, (1, side, side, side), dtype=np.uint8)
    turned = rotate(labels, 90 * quarters, plane, nearest=True)
    np.testing.assert_array_equal(turned, np.rot90(labels, quarters, axes=(plane[0] + 1, plane[1] + 1)))
    assert turned.dtype == np.uint8


def test_linear_rotation_of_one_slice_against_a_plain_loop():
    image, degrees = noise(1, 1, 6, 7)[0, 0], 27
    angle, expected = np.deg2rad(degrees), np.full((6, 7), -1.0)
    padded = np.pad(image, 1, constant_values=-1.0)
    for i in range(6):
        for j in range(7):
            y, x = i - 2.5, j - 3.0
            from_i = np.cos(angle) * y + np.sin(angle) * x + 2.5
            from_j = -np.sin(angle) * y + np.cos(angle) * x + 3.0
            a, b = int(np.floor(from_i)), int(np.floor(from_j))
            if -1 <= a <= 5 and -1 <= b <= 6:
                u, v = from_i - a, from_j - b
                (p, q), (r, s) = padded[a + 1 : a + 3, b + 1 : b + 3]
                expected[i, j] = (1 - u) * ((1 - v) * p + v * q) + u * ((1 - v) * r + v * s)
    turned = rotate(image[None, None], degrees, (1, 2), fill=-1.0)[0, 0]
    np.testing.assert_allclose(turned, expected, atol=1e-5)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_rotation_is_monai_rotate(axis):
    from monai.transforms import Rotate

    array, degrees = noise(2, 12, 13, 14), 8
    angles = [0.0, 0.0, 0.0]
    # MONAI turns the content the other way than rot90, and about axis 1 from axis 2 to axis 0.
    angles[axis] = np.deg2rad(degrees) * (1 if axis == 1 else -1)
    plane = tuple(other for other in range(3) if other != axis)
    for nearest, mode in ((False, "bilinear"), (True, "nearest")):
        theirs = Rotate(angles, mode=mode, padding_mode="zeros")(array).numpy()
        np.testing.assert_allclose(rotate(array, degrees, plane, nearest=nearest), theirs, atol=1e-4)


@pytest.mark.parametrize("plane", PLANES)
def test_labels_and_images_stay_aligned(plane):
    side = np.arange(32) - 15.5
    d, h, w = np.meshgrid(side, side, side, indexing="ij")
    ball = ((d - 4) ** 2 + (h + 5) ** 2 + (w - 3) ** 2 <= 36).astype(np.float32)[None]
    image = rotate(ball, 37, plane)
    label = rotate(ball.astype(np.uint8), 37, plane, nearest=True)
    overlap = 2 * ((image > 0.5) & (label > 0)).sum() / ((image > 0.5).sum() + (label > 0).sum())
    assert overlap > 0.95  # one voxel apart would be about 0.88
    assert abs(label.sum() / ball.sum() - 1) < 0.03
    # The centre of the ball, turned by hand: it goes where rot90 would take it, by 37 degrees.
    centre = np.array([4.0, -5.0, 3.0])
    a, b, angle = *plane, np.deg2rad(37)
    turned = centre.copy()
    turned[a] = np.cos(angle) * centre[a] - np.sin(angle) * centre[b]
    turned[b] = np.sin(angle) * centre[a] + np.cos(angle) * centre[b]
    np.testing.assert_allclose(np.argwhere(label[0]).mean(axis=0) - 15.5, turned, atol=0.15)


@pytest.mark.parametrize(("fill", "corner"), [("background", 0.0), ("minus_one", -1.0)])
def test_what_comes_in_at_the_corners(fill, corner):
    images, labels = np.full((4, 40, 40, 40), 5, dtype=np.float32), np.full((40, 40, 40), 3, dtype=np.uint8)
    for seed in range(4):
        turned, classes, _ = augment(
            images, labels, only(rotation=180, rotation_fill=fill), np.random.default_rng(seed)
        )
        assert turned.min() == pytest.approx(corner, abs=1e-6)
        assert turned.max() == pytest.approx(5, abs=1e-5)
        assert set(np.unique(classes)) == {0, 3}


def test_images_by_the_nearest_voxel_turn_as_their_labels_do():
    """RFNet: no value is new, and images that hold the labels still hold them."""
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 4, (9, 10, 11)).astype(np.uint8)
    images = np.stack([labels, labels + 5, labels + 10, labels + 15]).astype(np.float32)
    new = set()
    for seed in range(10):
        options = only(rotation=40, rotation_images="nearest")
        turned, after, _ = augment(images, labels, options, np.random.default_rng(seed))
        np.testing.assert_array_equal(turned[0], after)
        assert set(np.unique(turned[1])) <= {0, 5, 6, 7, 8}
        linear, same, _ = augment(images, labels, only(rotation=40), np.random.default_rng(seed))
        np.testing.assert_array_equal(same, after)
        new |= set(np.unique(linear[1]))
    assert len(new) > 1000


def test_angles_are_whole_degrees_in_the_half_open_range(monkeypatch):
    drawn = []
    monkeypatch.setattr("acdis.data.augment.rotate", lambda array, *rest, **_: (drawn.append(rest), array)[1])
    generator, images, labels = np.random.default_rng(0), noise(4, 2, 2, 2), np.zeros((2, 2, 2), np.uint8)
    for _ in range(400):
        augment(images, labels, only(rotation=10), generator)
    assert drawn[0::2] == drawn[1::2]  # images and labels turn alike
    assert {degrees for degrees, _ in drawn} == set(range(-10, 10))
    assert {plane for _, plane in drawn} == set(PLANES)


# --- intensity


def test_intensity_is_scale_and_shift_per_modality_everywhere():
    images = noise(4, 5, 6, 7)
    images[:, :2] = 0  # background
    options = only(intensity_scale=0.1, intensity_shift=0.3)
    scale, shift = draw_intensity(images.shape, options, np.random.default_rng(8))
    changed, *_ = augment(images, np.zeros((5, 6, 7), np.uint8), options, np.random.default_rng(8))
    for m in range(4):
        np.testing.assert_allclose(changed[m], images[m] * scale[m, 0, 0, 0] + shift[m, 0, 0, 0], atol=1e-6)
        np.testing.assert_allclose(changed[m, :2], shift[m, 0, 0, 0], atol=1e-6)
    assert len(np.unique(scale)) == len(np.unique(shift)) == 4
    assert changed.dtype == np.float32


def test_intensity_draws_fill_their_ranges():
    options = only(intensity_scale=0.1, intensity_shift=0.2, intensity_per_slice=True)
    scale, shift = draw_intensity((4, 2000, 3, 3), options, np.random.default_rng(0))
    assert scale.shape == shift.shape == (4, 2000, 1, 1)
    for values, low, high in ((scale, 0.9, 1.1), (shift, -0.2, 0.2)):
        assert low <= values.min() < low + 1e-3
        assert high - 1e-3 < values.max() <= high
        assert values.mean() == pytest.approx((low + high) / 2, abs=0.01)


def test_per_slice_intensity_is_constant_within_a_slice():
    images = np.ones((4, 6, 3, 3), dtype=np.float32)
    options = only(intensity_scale=0.1, intensity_shift=0.1, intensity_per_slice=True)
    changed, *_ = augment(images, np.zeros((6, 3, 3), np.uint8), options, np.random.default_rng(0))
    assert np.ptp(changed, axis=(2, 3)).max() == 0
    assert len(np.unique(changed[:, :, 0, 0])) == 24


def test_change_intensity_by_hand():
    images = np.array([1.0, -2.0], dtype=np.float32).reshape(2, 1, 1, 1)
    scale, shift = np.array([1.1, 0.5]).reshape(2, 1, 1, 1), np.array([0.0, 3.0]).reshape(2, 1, 1, 1)
    np.testing.assert_allclose(change_intensity(images, scale, shift).ravel(), [1.1, 2.0], rtol=1e-6)


# --- flips and the whole


@pytest.mark.parametrize("axes", [[], [0], [1], [2], [0, 2], [0, 1, 2]])
def test_flip_is_monai_flip(axes):
    from monai.transforms import Flip

    array = noise(4, 3, 4, 5)
    np.testing.assert_array_equal(flip(array, axes), Flip(axes)(array).numpy() if axes else array)


def test_each_axis_is_flipped_with_its_own_probability():
    images, labels = np.zeros((4, 2, 2, 2), np.float32), np.zeros((2, 2, 2), np.uint8)
    images[:, 0, 0, 0], labels[0, 0, 0] = 1, 2
    generator, flipped = np.random.default_rng(0), []
    for _ in range(800):
        turned, classes, axes = augment(images, labels, only(flip=0.3), generator)
        place = np.argwhere(classes)
        assert np.array_equal(np.argwhere(turned[0]), place)
        assert np.array_equal(axes, place[0] > 0)
        flipped.append(place[0])
    assert np.abs(np.mean(flipped, axis=0) - 0.3).max() < 4 * np.sqrt(0.3 * 0.7 / 800)
    assert len(np.unique(flipped, axis=0)) == 8


def test_order_is_rotation_intensity_flips():
    images = noise(4, 10, 10, 10)
    labels = np.random.default_rng(1).integers(0, 4, (10, 10, 10), dtype=np.uint8)
    options = config.Augmentation(rotation_fill="minus_one", flip=1.0)
    turned, classes, _ = augment(images, labels, options, np.random.default_rng(5))
    generator = np.random.default_rng(5)
    plane, degrees = PLANES[generator.integers(3)], int(generator.integers(-10, 10))
    scale = generator.uniform(0.9, 1.1, (4, 1, 1, 1))
    shift = generator.uniform(-0.1, 0.1, (4, 1, 1, 1))
    expected = rotate(images, degrees, plane, fill=-1.0) * scale + shift
    np.testing.assert_allclose(turned, expected[:, ::-1, ::-1, ::-1], atol=1e-5)
    expected_labels = rotate(labels[None], degrees, plane, nearest=True)[0]
    np.testing.assert_array_equal(classes, expected_labels[::-1, ::-1, ::-1])


def test_same_seed_same_crop_and_arguments_untouched():
    images, labels = noise(4, 9, 8, 7), np.ones((9, 8, 7), np.uint8)
    before = images.copy(), labels.copy()
    first = augment(images, labels, config.Augmentation(), np.random.default_rng(11))
    again = augment(images, labels, config.Augmentation(), np.random.default_rng(11))
    other = augment(images, labels, config.Augmentation(), np.random.default_rng(12))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not np.array_equal(first[0], other[0])
    assert np.array_equal(images, before[0])
    assert np.array_equal(labels, before[1])
    assert first[0].shape == images.shape
    assert first[0].dtype == np.float32
    assert first[1].dtype == np.uint8


def test_switched_off_changes_nothing():
    images, labels = noise(4, 5, 5, 5), np.ones((5, 5, 5), np.uint8)
    generator = np.random.default_rng(0)
    turned, classes, _ = augment(images, labels, OFF, generator)
    assert np.array_equal(turned, images)
    assert np.array_equal(classes, labels)
    assert generator.bit_generator.state == np.random.default_rng(0).bit_generator.state
