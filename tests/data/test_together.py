"""Images that do not go together are said: misplaced ones, and FLAIR and T2 swapped."""

from pathlib import Path

import nibabel
import numpy as np
import pytest

from acdis.data import phantom
from acdis.data.scan import read
from acdis.data.together import registration, swapped
from acdis.vocabulary import MODALITIES

REAL = Path(__file__).parents[3] / "shared" / "data" / "brats2021"


def cubes(shift):
    one, other = (np.zeros((60, 40, 40), np.float32) for _ in range(2))
    one[5:25, 10:30, 10:30] = 1
    other[5 + shift : 25 + shift, 10:30, 10:30] = 7
    return {"T1": one, "T2": other}


@pytest.mark.parametrize(
    ("shift", "spacing", "words"),
    [
        (1, (2.0, 1.0, 1.0), None),  # 19 of 20 layers in common, 2 mm
        (4, (2.0, 1.0, 1.0), "Dice of 0.80, their centres are 8 mm apart"),  # 16 of 20 layers
        (2, (6.0, 1.0, 1.0), "Dice of 0.90, their centres are 12 mm apart"),  # far in mm alone
        (30, (1.0, 1.0, 1.0), "Dice of 0.00, their centres are 30 mm apart"),
    ],
)
def test_misplaced_cubes(shift, spacing, words):
    found = list(registration(cubes(shift), spacing))
    assert len(found) == (words is not None)
    assert all(words in line and line.startswith("T1 and T2: ") for line in found)


@pytest.fixture
def patient(tmp_path):
    """A phantom's four files."""
    paths = {}
    for name, image in zip(MODALITIES, phantom.draw(11, 2, (48, 58, 48), 3.3).images, strict=True):
        paths[name] = tmp_path / f"{name}.nii.gz"
        nibabel.save(nibabel.Nifti1Image(image, phantom.affine(image.shape, 3.3)), paths[name])
    return paths


def test_a_phantom_is_taken_as_it_is_and_a_shifted_image_is_said(patient, tmp_path):
    assert read(patient).notes == ()
    source = nibabel.load(patient["T1ce"])
    shifted = np.roll(np.asarray(source.dataobj), 5, axis=0)
    nibabel.save(nibabel.Nifti1Image(shifted, source.affine), tmp_path / "moved.nii.gz")
    notes = read({**patient, "T1ce": tmp_path / "moved.nii.gz"}).notes
    assert [note.partition(":")[0] for note in notes] == [
        f"{one} and {other}" for one, other in (("FLAIR", "T1ce"), ("T1ce", "T1"), ("T1ce", "T2"))
    ]
    assert all("16 mm apart" in note or "17 mm apart" in note for note in notes)  # 5 × 3.3 mm


def test_swapped_flair_and_t2_are_said(patient):
    (note,) = read({**patient, "FLAIR": patient["T2"], "T2": patient["FLAIR"]}).notes
    assert note.startswith("FLAIR and T2 look swapped")
    other = {**patient, "T1": patient["T1ce"], "T1ce": patient["T1"]}
    assert read(other).notes == ()  # cannot be told: docs/predict.md


def test_unrelated_noise_is_no_swap():
    random = np.random.default_rng(0)
    assert not list(swapped({name: random.uniform(1, 2, (20, 20, 20)) for name in ("FLAIR", "T2")}))
    assert not list(swapped({name: np.ones((9, 9, 9)) for name in ("FLAIR", "T2")}))


@pytest.mark.real
@pytest.mark.skipif(not REAL.is_dir(), reason=f"no real cases at {REAL}")
def test_a_real_case_is_taken_as_it_is():
    folder = sorted(REAL.glob("BraTS*"))[0]
    given = {name: folder / f"{folder.name}_{name.lower()}.nii.gz" for name in MODALITIES}
    assert read(given).notes == ()
    turned = {**given, "FLAIR": given["T2"], "T2": given["FLAIR"]}
    assert [note[:20] for note in read(turned).notes] == ["FLAIR and T2 look sw"]
