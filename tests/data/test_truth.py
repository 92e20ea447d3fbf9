"""Segmentations that cannot be of the brain beside them: outside of it, or all of it."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest

from acdis.config import Data
from acdis.data import cache, cases
from acdis.data.cases import CaseReport
from acdis.errors import UserError

SHAPE = (20, 18, 16)
BRAIN = (slice(4, -4), slice(4, -4), slice(4, -4))
LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


def _written(root: Path, truth: np.ndarray, name: str = "A") -> Path:
    """A case whose brain is 12 × 10 × 8 voxels in the middle, with this segmentation."""
    draw = np.random.default_rng(len(name))
    (root / name).mkdir(parents=True)
    for part in ("flair", "t1ce", "t1", "t2"):
        image = np.zeros(SHAPE, np.int16)
        image[BRAIN] = draw.integers(1, 900, image[BRAIN].shape)
        nibabel.save(nibabel.Nifti1Image(image, LPS), root / name / f"{name}_{part}.nii.gz")
    nibabel.save(nibabel.Nifti1Image(truth, LPS), root / name / f"{name}_seg.nii.gz")
    return root


def _report(root: Path) -> CaseReport:
    (report,) = cases.check(cases.find(root).cases, 1)
    return report


def _labels(*blocks: tuple[slice, slice, slice]) -> np.ndarray:
    truth = np.zeros(SHAPE, np.uint8)
    for block in blocks:
        truth[block] = 1
    return truth


#: 96 voxels of the brain's 960, and as many above it.
INSIDE = (slice(4, 16), slice(4, 8), slice(4, 6))
ABOVE = (slice(4, 16), slice(4, 8), slice(14, 16))


@pytest.mark.parametrize(
    ("truth", "why"),
    [
        (_labels(ABOVE), "100 % of the segmented voxels lie outside of the brain"),
        (_labels(ABOVE, (slice(4, 16), slice(4, 7), slice(4, 6))), "57 % of the segmented voxels lie outs"),
        (_labels(BRAIN), "the segmentation fills 100 % of the brain: is it a mask of the brain?"),
        (_labels((slice(3, -3),) * 3), "the segmentation fills 100 % of the brain"),  # dilated: 42 % outside
        (_labels((slice(6, -4), slice(4, -4), slice(4, -4))), "the segmentation fills 83 % of the brain"),
    ],
)
def test_what_cannot_be_the_truth_is_a_problem_and_is_not_prepared(
    tmp_path: Path, truth: np.ndarray, why: str
) -> None:
    root = _written(tmp_path / "data", truth)
    (problem,) = _report(root).problems
    assert problem.reason.startswith(why)
    assert problem.path == root / "A" / "A_seg.nii.gz"
    data = Data(min_size=12, crop=(8, 8, 8))
    with pytest.raises(UserError, match=why.replace("?", "[?]")):
        cache.prepare(cases.find(root).cases, data, tmp_path / "cache", 1)


@pytest.mark.parametrize(
    ("truth", "notes"),
    [
        (_labels(INSIDE), []),
        (_labels(), ["segmentation: holds no lesion at all"]),
        (
            _labels(INSIDE, (slice(4, 16), slice(4, 7), slice(14, 15))),
            ["segmentation: 27 % of the segmented voxels lie outside of the brain"],
        ),
        (
            _labels((slice(10, -4), slice(4, -4), slice(4, -4))),
            ["segmentation: fills 50 % of the brain"],
        ),
    ],
)
def test_what_is_unlikely_is_said(tmp_path: Path, truth: np.ndarray, notes: list[str]) -> None:
    report = _report(_written(tmp_path, truth))
    assert report.problems == ()
    assert [note.text for note in report.notes] == notes


@pytest.mark.real
@pytest.mark.slow
def test_the_real_truths_lie_in_their_brains(shared: Path) -> None:
    """Not a voxel outside, 3 to 16 % of the brain: far from each threshold."""
    for case in cases.find(shared / "data" / "brats2021").cases:
        volume = cases.read(case)
        lesion, brain = volume.labels > 0, (volume.images != 0).any(axis=0)
        assert not (lesion & ~brain).any()
        assert 0.02 < lesion.sum() / brain.sum() < 0.2
