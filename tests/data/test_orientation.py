"""Cases of any orientation are the same case: brought to BraTS's axes, scored alike."""

import itertools

import nibabel
import numpy as np
import pytest

from acdis.config import Data, Evaluation
from acdis.data import cache, cases, orientation
from acdis.evaluation.metrics import score_case

SHAPE = (14, 12, 10)
LPS = np.array([[-1.0, 0, 0, 5], [0, -1.5, 0, 7], [0, 0, 2, -3], [0, 0, 0, 1]])
TURNS = [
    "".join(axis[side] for axis, side in zip(order, sides, strict=True))
    for order in itertools.permutations(("LR", "PA", "SI"))
    for sides in itertools.product((0, 1), repeat=3)
]


def turned(array, codes):
    """nibabel turns a file of ours; voxels keep their places in mm."""
    image = nibabel.Nifti1Image(array, LPS)
    target = nibabel.orientations.axcodes2ornt(tuple(codes))
    change = nibabel.orientations.ornt_transform(nibabel.io_orientation(LPS), target)
    return image.as_reoriented(change)


def write(folder, codes):
    draw = np.random.default_rng(0)
    for suffix in ("flair", "t1ce", "t1", "t2", "seg"):
        array = np.zeros(SHAPE, np.int16)
        array[2:-2, 3:-2, 2:-3] = draw.integers(1, 900, (10, 7, 5))
        if suffix == "seg":
            array = np.where(array > 600, 4, np.where(array > 300, 1, 0)).astype(np.int16)
        folder.mkdir(parents=True, exist_ok=True)
        nibabel.save(turned(array, codes), folder / f"{folder.name}_{suffix}.nii.gz")


@pytest.mark.parametrize("codes", [*TURNS[::5], "LPS", "RAS"])
def test_every_orientation_gives_the_same_prepared_case(tmp_path, codes):
    data = Data(min_size=10, crop=(8, 8, 8), spacing=1.5)
    entries = []
    for name in ("LPS", codes):
        write(tmp_path / name / "A", name)
        (found,) = cases.find(tmp_path / name).cases
        assert cases.check([found], 1)[0].orientation == name
        entries.append(cache.prepare([found], data, tmp_path / f"cache-{name}", 1)["A"])
    one, other = entries
    np.testing.assert_array_equal(one.images(), other.images())
    np.testing.assert_array_equal(one.native_labels(), other.native_labels())
    np.testing.assert_allclose(one.meta.affine, other.meta.affine)
    assert (one.voxels, one.meta.native_spacing) == (other.voxels, other.meta.native_spacing)
    rows = [
        score_case("A", [np.roll(truth, 1, 2)], truth, spacing, Evaluation(), [("T1",)])
        for truth, spacing in ((e.native_labels(), e.meta.native_spacing) for e in entries)
    ]
    assert rows[0] == rows[1]


def test_voxels_keep_their_places_in_mm():
    array = np.random.default_rng(0).normal(size=SHAPE)
    for codes in TURNS:
        image = turned(array, codes)
        back, affine = orientation.to_lps(np.asarray(image.dataobj), image.affine)
        np.testing.assert_array_equal(back, array)
        np.testing.assert_allclose(affine, LPS, atol=1e-9)


def test_cases_of_brats_are_not_touched():
    array = np.zeros(SHAPE)
    same, affine = orientation.to_lps(array, LPS)
    assert same is array
    assert affine is LPS


def test_an_oblique_grid_is_told(tmp_path):
    angle = np.deg2rad(20)
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    assert orientation.tilt(turn @ LPS) == pytest.approx(20)
    assert orientation.tilt(LPS) == 0
    assert orientation.axes(turn @ LPS) == "LPS"
