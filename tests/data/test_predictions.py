"""Another tool's segmentations: found by subset and case, read on the case's own grid, distrusted."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest

from acdis.data import predictions, schemes
from acdis.data.case import Case
from acdis.errors import UserError
from acdis.vocabulary import SUBSETS, subset_name

LPS = np.diag([-1.0, -1.5, 2.0, 1.0])
TRUTH = np.random.default_rng(0).choice([0, 1, 2, 4], (6, 5, 4)).astype(np.uint8)
CLASSES = np.where(TRUTH == 4, 3, TRUTH)


@pytest.fixture
def case(tmp_path: Path) -> Case:
    segmentation = tmp_path / "A" / "A_seg.nii.gz"
    segmentation.parent.mkdir()
    nibabel.save(nibabel.Nifti1Image(TRUTH, LPS), segmentation)
    images = tuple(segmentation.with_name(f"A_{name}.nii.gz") for name in ("flair", "t1ce", "t1", "t2"))
    return Case("A", images, segmentation, "brats2021")


def saved(path: Path, voxels: np.ndarray, affine: np.ndarray = LPS, codes: str = "LPS") -> Path:
    image = nibabel.Nifti1Image(voxels, affine)
    target = nibabel.orientations.axcodes2ornt(tuple(codes))
    turn = nibabel.orientations.ornt_transform(nibabel.io_orientation(affine), target)
    nibabel.save(image.as_reoriented(turn), path)
    return path


@pytest.mark.parametrize("codes", ["LPS", "RAS", "SPL", "AIR"])
def test_voxels_keep_their_places_in_any_orientation(case: Case, tmp_path: Path, codes: str) -> None:
    path = saved(tmp_path / "A.nii.gz", TRUTH, codes=codes)
    np.testing.assert_array_equal(predictions.read(path, case, None), CLASSES)


def test_labels_mean_what_the_scheme_says(case: Case, tmp_path: Path) -> None:
    path = saved(tmp_path / "A.nii.gz", CLASSES)
    with pytest.raises(UserError, match=r"A\.nii\.gz: segmentation has unknown label 3; brats2021 has 0, 1"):
        predictions.read(path, case, None)
    np.testing.assert_array_equal(predictions.read(path, case, "brats2023"), CLASSES)
    other = replace(case, scheme=schemes.SCHEMES["brats2023"])
    np.testing.assert_array_equal(predictions.read(path, other, None), CLASSES)


@pytest.mark.parametrize(
    ("voxels", "affine", "said"),
    [
        (
            TRUTH[1:],
            LPS,
            r"the prediction has shape \(5, 5, 4\), the case's segmentation has \(6, 5, 4\); bring",
        ),
        (TRUTH, LPS * 2, r"the prediction has another affine .* lie up to .* mm apart; bring it back"),
        (TRUTH + 0.5, LPS, r"unknown label 0\.5, 1\.5, 2\.5, 4\.5"),
        (np.where(TRUTH, TRUTH, np.nan), LPS, r"segmentation holds NaN or inf in \d+ voxels"),
        (TRUTH - 1.0, LPS, r"unknown label -1, 3"),
    ],
)
def test_what_is_no_prediction_of_this_case(
    case: Case, tmp_path: Path, voxels: np.ndarray, affine: np.ndarray, said: str
) -> None:
    path = saved(tmp_path / "A.nii", voxels, affine)
    with pytest.raises(UserError, match=said) as error:
        predictions.read(path, case, None)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_an_empty_file(case: Case, tmp_path: Path) -> None:
    (tmp_path / "A.nii.gz").write_bytes(b"")
    with pytest.raises(UserError, match=r"A\.nii\.gz: is empty \(0 bytes\)"):
        predictions.read(tmp_path / "A.nii.gz", case, None)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for number, subset in enumerate(SUBSETS):
        words = [word.lower() if number % 2 else word for word in reversed(subset)]
        folder = tmp_path / "all" / ("_", "+", "-")[number % 3].join(words)
        folder.mkdir(parents=True)
        for name in ("A.nii.gz", "B_seg.nii.gz", "C-pred.nii", "notes.txt", "D.nii.gz"):
            (folder / name).write_bytes(b"x")
    return tmp_path / "all"


def test_subsets_and_cases_are_found_by_many_names(root: Path) -> None:
    places = predictions.folders(root)
    assert set(places) == set(SUBSETS)
    found = predictions.find(places, ["A", "B", "C"])
    for subset, files in found.items():
        assert {name: path.name for name, path in files.items()} == {
            "A": "A.nii.gz",
            "B": "B_seg.nii.gz",
            "C": "C-pred.nii",
        }
        assert all(path.parent == places[subset] for path in files.values())
    assert predictions.folders(root / "FLAIR", ("FLAIR",)) == {("FLAIR",): root / "FLAIR"}


def test_what_is_wrong_with_folders(root: Path) -> None:
    (root / "FLAIR_T3").mkdir()
    with pytest.raises(UserError, match=r"FLAIR_T3: names no subset; call it by its modalities"):
        predictions.folders(root)
    (root / "FLAIR_T3").rename(root / "T1_T1")
    with pytest.raises(UserError, match=r"T1_T1: names no subset"):
        predictions.folders(root)
    (root / "T1_T1").rename(root / "flair")
    with pytest.raises(UserError, match=r"flair: is the same subset as FLAIR; keep one"):
        predictions.folders(root)
    (root / "flair").rmdir()
    shutil.rmtree(root / "FLAIR")
    with pytest.raises(UserError, match=r"no folder FLAIR \(1 of 15 subsets are missing\).*--subset"):
        predictions.folders(root)
    with pytest.raises(UserError, match=r"nowhere: is no folder"):
        predictions.folders(root / "nowhere")


def test_what_is_wrong_with_files(root: Path) -> None:
    places = predictions.folders(root)
    with pytest.raises(UserError, match=r"no E\.nii\.gz, F\.nii\.gz \(2 of 3 cases to score are missing\)"):
        predictions.find(places, ["A", "E", "F"])
    (root / "FLAIR" / "A-seg.nii.gz").write_bytes(b"x")
    with pytest.raises(UserError, match=r"A\.nii\.gz: A is there twice, also as A-seg\.nii\.gz; keep one"):
        predictions.find(places, ["A"])


def test_a_word_for_a_subset() -> None:
    assert predictions.named_subset("t2+FLAIR") == ("FLAIR", "T2")
    with pytest.raises(UserError, match=r"--subset 'T3': write its modalities, such as FLAIR_T1ce"):
        predictions.named_subset("T3")


def test_the_name_follows_the_bytes(root: Path, tmp_path: Path) -> None:
    def named(scheme: str | None = None) -> str:
        return predictions.digest(predictions.folders(root), scheme, tmp_path / "cache")

    before = named()
    moved = shutil.copytree(root, tmp_path / "moved")
    assert predictions.digest(predictions.folders(moved), None, tmp_path / "cache") == before
    assert named("brats2023") != before
    (root / "FLAIR" / "notes.txt").write_text("other")
    assert named() == before
    (root / "FLAIR" / "A.nii.gz").write_bytes(b"other")
    assert named() != before


def test_subsets_are_the_vocabularys() -> None:
    assert all(predictions.named_subset(subset_name(subset)) == subset for subset in SUBSETS)
