"""Whose scan a case is, and what a draw keeps alike."""

import nibabel
import numpy as np
import pytest

from acdis.config import Data, Phantoms, Split
from acdis.data import cases, inputs, phantom, strata
from acdis.data.patients import Patients, alike
from acdis.data.strata import Stratum
from acdis.errors import UserError


@pytest.mark.parametrize(
    ("case", "patient"),
    [
        ("BraTS-GLI-00001-001", "BraTS-GLI-00001"),
        ("BraTS-MET-00012-000", "BraTS-MET-00012"),
        ("UPENN-GBM-00001_21", "UPENN-GBM-00001"),
        ("UCSF-PDGM-0429_FU003d", "UCSF-PDGM-0429"),
        ("BraTS_GLI_00001_001", "BraTS-GLI-00001"),  # dashes are made underscores by converters
        ("BraTS2024-PED-00007-000", "BraTS2024-PED-00007"),
        ("BraTS2021_00001", "BraTS2021_00001"),
        ("BraTS20_Training_001", "BraTS20_Training_001"),
        ("Brats18_TCIA01_131_1", "Brats18_TCIA01_131_1"),
    ],
)
def test_known_names(case, patient):
    assert Patients(None).of(case) == patient


def test_a_pattern():
    assert Patients(r"(P\d+)_visit\d").of("P12_visit3") == "P12"
    with pytest.raises(UserError, match=r"data\.patients: .* does not fit A"):
        Patients(r"(P\d+)_visit\d").of("A")


@pytest.mark.parametrize(("given", "reason"), [("(P", "no regular expression"), (r"P\d+", "has no group")])
def test_patterns_that_say_nothing(given, reason):
    with pytest.raises(UserError, match=reason):
        Patients(given)


def test_a_table(tmp_path):
    (tmp_path / "p.csv").write_text("\ufeffcase, patient, age\r\nA_1, Anna, 60\r\nA_2, Anna, 61\r\n")
    patients = Patients(str(tmp_path / "p.csv"))
    assert [patients.of(case) for case in ("A_1", "A_2")] == ["Anna", "Anna"]
    with pytest.raises(UserError, match="no line for B"):
        patients.of("B")


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("p.csv", "Case; Patient\nA_1;Anna\nMu\u0308ller_1;M\n"),
        ("p.tsv", "patient\tCASE\nAnna\tHGG/A_1\nM\tM\u00fcller_1.nii.gz\n"),
        ("P.CSV", '"case","patient"\r\n"A_1","Anna"\r\n"M\u00fcller_1","M"\r\n'),
    ],
)
def test_tables_as_others_write_them(tmp_path, file, text):
    (tmp_path / file).write_text(text, encoding="utf-8")
    patients = Patients(str(tmp_path / file))
    assert [patients.of(case) for case in ("A_1", "M\u00fcller_1", "Mu\u0308ller_1")] == ["Anna", "M", "M"]


@pytest.mark.parametrize(
    ("names", "several"),
    [
        (("A_1", "A_2", "B_1"), ["A_1", "A_2"]),
        (("P7-visit1", "P7-visit2", "P8-visit1"), ["P7-visit1", "P7-visit2"]),
        (("P_001", "P_002", "P_003"), []),  # patients are numbered
        (tuple(f"{site}_{n:03}" for site in "AB" for n in range(20)), []),  # site by site
        (("A_1", "B_1", "C_1"), []),
    ],
)
def test_names_that_may_be_scans_of_one_patient(names, several):
    assert alike(names) == several


@pytest.mark.parametrize(
    ("text", "reason"),
    [("a,b\n1,2\n", "no columns"), ("case,patient\nA,\n", "line 2: case or patient is empty"),
     ("case,patient\nA,x\nA,y\n", "A has two patients")],
)  # fmt: skip
def test_tables_that_say_nothing(tmp_path, text, reason):
    (tmp_path / "p.csv").write_text(text)
    with pytest.raises(UserError, match=reason):
        Patients(str(tmp_path / "p.csv"))


def test_kinds_are_with_and_without_et_in_three_sizes():
    each = {f"C{n}": Stratum(n % 2 == 0, float(n)) for n in range(6)}
    assert strata.kinds(each) == {"C0": 1, "C1": 0, "C2": 3, "C3": 2, "C4": 5, "C5": 4}


def test_strata_of_phantoms_follow_from_seed_and_index():
    """Against the drawn truth: ET is there or not, and volumes are in the order of the sizes."""
    drawn = [phantom.draw(3, index, (32, 32, 32), 5.0).labels for index in range(1, 11)]
    told = [phantom.stratum(3, index) for index in range(1, 11)]
    assert [enhancing for enhancing, _ in told] == [bool((labels == 4).any()) for labels in drawn]
    volumes = [int((labels > 0).sum()) for labels in drawn]
    assert np.corrcoef(volumes, [size for _, size in told])[0, 1] > 0.99


def test_a_drawn_split_of_phantoms_has_its_share_without_et(tmp_path):
    """16 phantoms, 3 without ET: two of 9 that train, one of 6 that test."""
    data = Data(
        phantoms=Phantoms(cases=16, seed=1, shape=(20, 20, 20), spacing=8.0), split=Split(counts=(9, 1, 6)),
        min_size=16, crop=(16, 16, 16),
    )  # fmt: skip
    opened = inputs.open_inputs(data, tmp_path, 1, lambda *_: None)
    without = [
        sum(not (entry.native_labels() == 3).any() for entry in part) for part in (opened.train, opened.test)
    ]
    assert without == [2, 1]


def test_the_split_of_phantoms_needs_no_image(tmp_path, monkeypatch):
    """Before they are drawn, and after: no segmentation is read, and the split is the same."""
    data = Data(
        phantoms=Phantoms(cases=12, seed=4, shape=(20, 20, 20), spacing=8.0), split=Split(counts=(6, 2, 4)),
        min_size=16, crop=(16, 16, 16),
    )  # fmt: skip
    monkeypatch.setattr(strata, "read_labels", lambda case: pytest.fail(f"{case.name} is read"))
    monkeypatch.setattr(strata, "of_cases", lambda *_: pytest.fail("segmentations are read"))
    before = inputs._split_of_phantoms(data, data.phantoms)
    assert inputs.look_at_inputs(data, tmp_path, 1, lambda *_: None).counts == (6, 2, 4)
    assert list(tmp_path.iterdir()) == []
    opened = inputs.open_inputs(data, tmp_path, 1, lambda *_: None)
    after = [tuple(entry.name for entry in part) for part in (opened.train, opened.validation, opened.test)]
    assert after == [before.train, before.validation, before.test]


def test_strata_are_read_once_and_kept(tmp_path, monkeypatch):
    lps = np.diag([-1.0, -1.0, 2.0, 1.0])
    for name in ("flair", "t1ce", "t1", "t2", "seg"):
        array = np.zeros((8, 8, 8), np.uint8)
        array[2:4, 2:4, 2] = 4 if name == "seg" else 9
        (tmp_path / "A").mkdir(exist_ok=True)
        nibabel.save(nibabel.Nifti1Image(array, lps), tmp_path / "A" / f"A_{name}.nii.gz")
    found = cases.find(tmp_path).cases
    calls = []
    read = strata.read_labels
    monkeypatch.setattr(strata, "read_labels", lambda case: calls.append(case.name) or read(case))
    for _ in range(2):
        each = strata.of_cases(found, tmp_path / "cache", 1, lambda done, of: None)
        assert each == {"A": Stratum(True, 8.0)}
    assert calls == ["A"]
