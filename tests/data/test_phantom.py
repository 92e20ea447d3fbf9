"""Phantoms: what each modality shows of a lesion, measured by ranks; shapes, labels, variety."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from acdis.data import anatomy, phantom

TINY, COARSE = (32, 40, 32), 5.0
FLAIR, T1CE, T1, T2 = range(4)


@pytest.fixture(scope="module")
def tiny() -> list[phantom.Phantom]:
    return [phantom.draw(0, index, TINY, COARSE) for index in range(1, 21)]


@pytest.fixture(scope="module")
def demo() -> list[phantom.Phantom]:
    """As `make demo` draws them: 80 × 96 × 80 at 2 mm."""
    return [phantom.draw(0, index) for index in range(1, 10)]


def auc(values: np.ndarray, others: np.ndarray) -> float:
    """Probability that a value is above another, ties half, counted by binary search."""
    ordered = np.sort(others)
    below = np.searchsorted(ordered, values, side="left")
    ties = np.searchsorted(ordered, values, side="right") - below
    return float((below + ties / 2).mean() / others.size)


def mean_auc(cases: list[phantom.Phantom], modality: int, label: int, other: str | int) -> float:
    """Mean over the cases that have `label`; `other` is a label, or 'white' for healthy white matter."""
    scores = []
    for case in cases:
        image = case.images[modality]
        rest = (case.tissue == 3) & (case.labels == 0) if other == "white" else case.labels == other
        if (case.labels == label).any():
            scores.append(auc(image[case.labels == label], image[rest]))
    return float(np.mean(scores))


def median(case: phantom.Phantom, modality: int, tissue: int) -> float:
    return float(np.median(case.images[modality][(case.tissue == tissue) & (case.labels == 0)]))


# What the modalities show


def test_auc_counts_pairs() -> None:
    a, b = np.array([3, 1, 2]), np.array([0, 2, 2, 5])
    pairs = [(x > y) + (x == y) / 2 for x in a for y in b]
    assert auc(a, b) == pytest.approx(np.mean(pairs))


def test_enhancing_rim_is_seen_on_t1ce_alone(demo: list[phantom.Phantom]) -> None:
    assert mean_auc(demo, T1CE, 4, 1) > 0.95
    for modality in (FLAIR, T1, T2):
        assert mean_auc(demo, modality, 4, 1) == pytest.approx(0.5, abs=0.1)


def test_rim_outshines_white_matter_on_t1ce(demo: list[phantom.Phantom]) -> None:
    assert 0.85 < mean_auc(demo, T1CE, 4, "white") < 0.95  # mostly: no threshold alone finds all of a rim
    assert mean_auc(demo, T1, 4, "white") < 0.1


def test_oedema_is_bright_on_flair_and_t2_and_dark_on_t1(demo: list[phantom.Phantom]) -> None:
    for modality in (FLAIR, T2):
        assert mean_auc(demo, modality, 2, "white") > 0.9
    for modality in (T1CE, T1):
        assert mean_auc(demo, modality, 2, "white") < 0.2


def test_core_is_dark_on_t1_and_between_white_matter_and_oedema_on_flair(demo: list[phantom.Phantom]) -> None:
    for modality in (T1, T1CE):
        assert mean_auc(demo, modality, 1, "white") < 0.1
        assert mean_auc(demo, modality, 1, 2) < 0.3
    assert mean_auc(demo, FLAIR, 1, "white") > 0.9
    assert mean_auc(demo, FLAIR, 1, 2) < 0.3


def test_t1ce_tells_the_core_better_than_t2(demo: list[phantom.Phantom]) -> None:
    """Both parts of it against oedema; on T2 core and oedema overlap (version 2 of the drawing: 0.92)."""
    assert 0.6 < mean_auc(demo, T2, 1, 2) < 0.85
    assert 0.6 < mean_auc(demo, T2, 4, 2) < 0.85
    assert mean_auc(demo, T1CE, 1, 2) < 0.15
    assert mean_auc(demo, T1CE, 4, 2) > 0.95


def test_rim_outshines_veins_on_t1ce(demo: list[phantom.Phantom]) -> None:
    aucs = [
        auc(case.images[T1CE][case.labels == 4], case.images[T1CE][(case.tissue == 4) & (case.labels == 0)])
        for case in demo
        if (case.labels == 4).any()
    ]
    assert np.mean(aucs) > 0.7


def test_oedema_stands_out_most_where_radiologists_look(demo: list[phantom.Phantom]) -> None:
    """Contrast of medians to white matter, over its spread: FLAIR and T2 before T1 and T1ce."""
    for case in demo:
        white, oedema = (case.tissue == 3) & (case.labels == 0), case.labels == 2
        contrast = [
            abs(np.median(image[oedema]) - np.median(image[white])) / image[white].std()
            for image in case.images
        ]
        assert min(contrast[FLAIR], contrast[T2]) > max(contrast[T1CE], contrast[T1])


def test_tissues_have_the_textbook_order(demo: list[phantom.Phantom]) -> None:
    csf, grey, white = 1, 2, 3
    for case in demo:
        for modality in (T1, T1CE):
            assert median(case, modality, csf) < median(case, modality, grey) < median(case, modality, white)
        assert median(case, T2, white) < median(case, T2, grey) < median(case, T2, csf)
        assert median(case, FLAIR, csf) < median(case, FLAIR, white) < median(case, FLAIR, grey)
        for modality in range(4):  # the scanner's gain differs, the order does not
            assert case.images[modality].max() < 2**15 - 1


def test_gain_and_bias_vary(demo: list[phantom.Phantom]) -> None:
    """Scale differs by case and modality; inside one scan white matter is not flat from side to side."""
    levels = np.array([[median(case, modality, 3) for modality in range(4)] for case in demo])
    assert (levels.max(0) / levels.min(0) > 2).all()
    far = np.arange(80)[:, None, None] < 40
    steps = []
    for case in demo:
        white = (case.tissue == 3) & (case.labels == 0)
        for image in case.images:
            steps.append(abs(np.median(image[white & far]) / np.median(image[white & ~far]) - 1))
    assert 0.01 < np.mean(steps) < 0.2


def test_noise_is_rician() -> None:
    """Signal 0: a Rayleigh distribution, mean σ√(π/2); strong signal: mean √(s² + σ²), spread σ."""
    size = 200_000
    dark = phantom._digitise(np.random.default_rng(1), np.zeros(size, np.float32))
    bright = phantom._digitise(np.random.default_rng(1), np.full(size, 2, np.float32))
    draws = np.random.default_rng(1)
    sigma, gain = draws.uniform(0.02, 0.045), np.exp(draws.uniform(np.log(120), np.log(2000)))
    assert dark.mean() / gain == pytest.approx(sigma * np.sqrt(np.pi / 2), rel=0.02)
    assert bright.mean() / gain == pytest.approx(np.sqrt(4 + sigma**2), rel=0.01)
    assert bright.std() / gain == pytest.approx(sigma, rel=0.05)


# Shapes and labels


def test_lesions_are_nested(demo: list[phantom.Phantom]) -> None:
    """From outside to inside: oedema, rim, core; hardly any core looks out where there is a rim."""
    for case in demo:
        lesion = case.labels > 0
        depth = ndimage.distance_transform_edt(lesion)
        core = np.isin(case.labels, (1, 4))
        assert depth[core].mean() > depth[case.labels == 2].mean()
        assert ndimage.label(core, np.ones((3, 3, 3)))[1] <= 3
        if (case.labels == 4).any():
            within = ndimage.distance_transform_edt(core)
            assert within[case.labels == 1].mean() > within[case.labels == 4].mean()


def test_labels_and_background(tiny: list[phantom.Phantom]) -> None:
    for case in tiny:
        assert case.images.dtype == np.int16
        assert case.labels.dtype == np.uint8
        counts = np.bincount(case.labels.ravel(), minlength=5)
        assert counts[3] == 0
        assert counts.size == 5
        assert min(counts[1], counts[2]) >= 8
        assert counts[4] == 0 or counts[4] >= 8
        inside = case.images[0] > 0
        assert ((case.images > 0) == inside).all()  # one brain for all modalities, exactly 0 outside
        assert (case.images >= 0).all()
        assert (case.tissue > 0)[inside].all()
        assert not case.labels[~inside].any()


def test_head_is_one_piece_and_fills_the_volume(tiny: list[phantom.Phantom]) -> None:
    for case in tiny:
        inside = case.images[0] > 0
        assert ndimage.label(inside)[1] == 1
        assert np.array_equal(inside, ndimage.binary_fill_holes(inside))
        corners = np.argwhere(inside)
        sides = np.ptp(corners, axis=0) + 1
        assert (sides / TINY).max() > 0.8
        assert 0.18 < inside.mean() < 0.5


@pytest.mark.parametrize("shape", [(16, 16, 16), (48, 32, 40), (20, 64, 20)])
@pytest.mark.parametrize("spacing", [0.7, 6.0])
def test_any_shape_holds_a_whole_lesion(shape: tuple[int, int, int], spacing: float) -> None:
    for index in range(1, 6):
        counts = np.bincount(phantom.draw(3, index, shape, spacing).labels.ravel(), minlength=5)
        assert min(counts[1], counts[2]) >= 8
        assert counts[4] == 0 or counts[4] >= 8


def test_lesions_differ_in_place_size_and_share(tiny: list[phantom.Phantom]) -> None:
    volumes = np.array([(case.labels > 0).sum() for case in tiny]) * COARSE**3 / 1000  # ml
    assert volumes.min() < 15
    assert volumes.max() > 60
    core = np.array([np.isin(case.labels, (1, 4)).sum() / (case.labels > 0).sum() for case in tiny])
    assert core.min() < 0.35
    assert core.max() > 0.6
    rim = [(c.labels == 4).sum() / np.isin(c.labels, (1, 4)).sum() for c in tiny if (c.labels == 4).any()]
    assert min(rim) < 0.45
    assert max(rim) > 0.65
    centres = np.array([np.argwhere(case.labels > 0).mean(0) for case in tiny])
    assert (centres.std(0) > 2).all()
    assert {bool(x < TINY[0] / 2) for x in centres[:, 0]} == {True, False}


def test_one_case_in_five_has_no_et(tiny: list[phantom.Phantom]) -> None:
    without = [not (case.labels == 4).any() for case in tiny]
    assert [sum(without[start : start + 5]) for start in range(0, 20, 5)] == [1, 1, 1, 1]


def test_anatomy_does_not_depend_on_the_grid() -> None:
    """The same case at twice the spacing: brain and lesion lie in the same place (mm)."""
    fine, coarse = phantom.draw(2, 1, (80, 96, 80), 2.0), phantom.draw(2, 1, (40, 48, 40), 4.0)
    for pick in (lambda case: case.images[0] > 0, lambda case: case.labels > 0):
        a, b = pick(fine), pick(coarse)
        assert b.sum() * 8 == pytest.approx(a.sum(), rel=0.1)
        centre = (np.argwhere(a).mean(0) + 0.5) * 2 - (np.argwhere(b).mean(0) + 0.5) * 4
        assert np.abs(centre).max() < 2.0


def test_smooth_noise_has_unit_variance_and_its_step() -> None:
    line = np.arange(-100, 100, 2, dtype=np.float32)
    field = anatomy.smooth_noise(np.random.default_rng(0), 10, (line, line, line))
    assert field.mean() == pytest.approx(0, abs=0.05)
    assert field.std() == pytest.approx(1, abs=0.05)
    near, far = ((field[:-lag] * field[lag:]).mean() for lag in (1, 20))
    assert near > 0.9  # 2 mm
    assert abs(far) < 0.1  # 40 mm


def test_ellipsoid_is_a_distance() -> None:
    """A ball has an exact distance; on an ellipsoid's axes it is right to first order."""
    points = np.random.default_rng(0).uniform(-30, 30, (3, 100)).astype(np.float32)
    ball = anatomy.ellipsoid(points, (1, 2, 3), (10, 10, 10))
    expected = np.sqrt(((points - np.array([[1], [2], [3]])) ** 2).sum(0)) - 10
    np.testing.assert_allclose(ball, expected, atol=1e-3)
    tip = np.array([[21.0], [0], [0]], np.float32)
    assert anatomy.ellipsoid(tip, (0, 0, 0), (20, 5, 7))[0] == pytest.approx(1, abs=0.1)
