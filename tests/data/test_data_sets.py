"""Which data set a case is of, what its labels mean, and what is never taken for something else."""

import gzip
import json
import shutil

import nibabel
import numpy as np
import pytest

from acdis.config import Data, FilePatterns
from acdis.data import cases, schemes
from acdis.data.problems import Note, Problem, gathered
from acdis.errors import UserError
from acdis.prediction.predict import label_values

SHAPE = (12, 10, 8)
LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
OLD = ("_flair", "_t1ce", "_t1", "_t2")
NEW = ("-t2f", "-t1c", "-t1n", "-t2w")


def save(path, array, affine=LPS):
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(array, affine), path)


def image(seed):
    array = np.zeros(SHAPE, np.int16)
    array[2:-2, 2:-2, 2:-2] = np.random.default_rng(seed).integers(1, 900, [side - 4 for side in SHAPE])
    return array


def truth(values, dtype=np.uint8):
    array = np.zeros(SHAPE, dtype)
    array[4, 4, 2 : 2 + len(values)] = values
    return array


def case(folder, suffixes=OLD, values=(1, 2, 4), seed=0, segmentation=None, dtype=np.uint8):
    for index, suffix in enumerate(suffixes):
        save(folder / f"{folder.name}{suffix}.nii.gz", image(4 * seed + index))
    end = segmentation or ("-seg" if suffixes[0][0] == "-" else "_seg")
    save(folder / f"{folder.name}{end}.nii.gz", truth(values, dtype))
    return folder


def only(root, **data):
    finding = cases.find(root, Data(**data))
    assert finding.problems == []
    (found,) = finding.cases
    return found


def read_values(found, count):
    return cases.read(found).labels[4, 4, 2 : 2 + count].tolist()


def report(found):
    return cases.check([found], 1)[0]


@pytest.mark.parametrize(
    ("name", "suffixes", "segmentation", "layout", "values", "classes", "patient"),
    [
        ("Brats18_CBICA_1", OLD, "_seg", "brats2018", (1, 2, 4), [1, 2, 3], "Brats18_CBICA_1"),
        ("BraTS20_Training_001", OLD, "_seg", "brats2020", (1, 2, 4), [1, 2, 3], "BraTS20_Training_001"),
        ("BraTS2021_00001", OLD, "_seg", "brats2021", (1, 2, 4), [1, 2, 3], "BraTS2021_00001"),
        ("BraTS-GLI-00001-001", NEW, "-seg", "brats2023", (1, 2, 3), [1, 2, 3], "BraTS-GLI-00001"),
        ("BraTS-GLI-00001-100", NEW, "-seg", "brats2024", (1, 2, 3, 4), [1, 2, 3, 0], "BraTS-GLI-00001"),
        ("BraTS-MET-00001-000", NEW, "-seg", "brats_met", (1, 2, 3, 4), [1, 2, 3, 0], "BraTS-MET-00001"),
        ("BraTS-SSA-00002-000", NEW, "-seg", "brats_ssa", (1, 2, 3), [1, 2, 3], "BraTS-SSA-00002"),
        ("BraTS-MEN-00004-000", NEW, "-seg", "brats_men", (1, 2, 3), [1, 2, 3], "BraTS-MEN-00004"),
        ("UCSF-PDGM-0004", ("_FLAIR", "_T1c", "_T1", "_T2"), "_tumor_segmentation", "ucsf_pdgm", (1, 2, 4),
         [1, 2, 3], "UCSF-PDGM-0004"),
    ],
)  # fmt: skip
def test_built_in_data_sets(tmp_path, name, suffixes, segmentation, layout, values, classes, patient):
    case(tmp_path / name, suffixes, values, segmentation=segmentation)
    found = only(tmp_path)
    assert (found.layout, found.patient) == (layout, patient)
    assert read_values(found, len(values)) == classes


def test_a_cavity_is_no_tumour_and_is_counted(tmp_path):
    case(tmp_path / "BraTS-GLI-02405-100", NEW, (1, 2, 3, 4))
    (note,) = report(only(tmp_path)).notes
    assert "1 voxels of resection cavity (label 4) belong to none of WT, TC and ET" in note.text


def test_the_set_decides_not_the_case(tmp_path):
    """A first scan without a cavity, in a set of scans after treatment, has that set's scheme."""
    case(tmp_path / "BraTS-GLI-00005-000", NEW, (1, 2, 3))
    case(tmp_path / "BraTS-GLI-00005-100", NEW, (1, 2, 3, 4), seed=1)
    assert {found.scheme.name for found in cases.find(tmp_path).cases} == {"brats2024"}


@pytest.mark.parametrize(
    ("name", "why"), [("BraTS-PED-00001-000", "2023 and 2024"), ("BraTS-XYZ-1-0", "unknown")]
)
def test_a_name_that_does_not_tell_is_refused(tmp_path, name, why):
    case(tmp_path / name, NEW, (1, 2))
    with pytest.raises(UserError, match=rf"{name} mean is not certain \({why}.*data\.scheme .*brats_ped2024"):
        cases.find(tmp_path)


def test_paediatric_labels_by_their_scheme(tmp_path):
    case(tmp_path / "BraTS-PED-00001-000", NEW, (1, 2, 3, 4))
    assert read_values(only(tmp_path, scheme="brats_ped2024"), 4) == [3, 1, 1, 2]
    with pytest.raises(UserError, match="unknown scheme 'brats_ped'; valid are brats2018"):
        cases.find(tmp_path, Data(scheme="brats_ped"))


def test_labels_by_hand(tmp_path):
    case(tmp_path / "A", values=(1, 3, 7))
    assert read_values(only(tmp_path, labels={1: "ET", 3: "ED", 7: "background"}), 3) == [3, 2, 0]
    with pytest.raises(ValueError, match="less than 65536"):
        Data(labels={10**12: "ET"})


def test_a_label_below_0_is_what_it_is_said_to_be(tmp_path):
    """As an index -1 is the last class, ET."""
    case(tmp_path / "A", values=(-1, 1, 2, 3), dtype=np.int16)
    found = only(tmp_path, labels={-1: "background", 1: "NCR", 2: "ED", 3: "ET"})
    assert read_values(found, 4) == [0, 1, 2, 3]
    assert label_values(found.scheme).tolist() == [0, 1, 2, 3]
    signed = label_values(schemes.from_labels({-3: "ED", 1: "NCR", 4: "ET", 9: "background"}))
    assert (signed.tolist(), signed.dtype) == ([0, 1, -3, 4], np.int16)
    assert label_values(schemes.from_labels({1: "NCR", 2: "ED", 40_000: "ET"}))[3] == 40_000


def test_a_scheme_that_other_data_sets_would_have_too_is_said(tmp_path):
    case(tmp_path / "BraTS-GLI-00001-000", NEW, (1, 2, 3))
    case(tmp_path / "BraTS-PED-00001-000", NEW, (1, 2, 3), seed=1)
    with pytest.raises(UserError, match="a root of its own, since that would hold for 1 others too"):
        cases.find(tmp_path)
    (note,) = cases.find(tmp_path, Data(scheme="brats_ped2024")).notes
    assert str(note).startswith(
        "1 of brats2023 (BraTS-GLI-00001-000): labels are read as brats_ped2024 says, not as the data set's"
    )
    shutil.rmtree(tmp_path / "BraTS-GLI-00001-000")
    assert cases.find(tmp_path, Data(scheme="brats_ped2024")).notes == []


def test_upenns_segmentations_lie_in_a_folder_of_their_own(tmp_path):
    name = "UPENN-GBM-00001_11"
    for index, suffix in enumerate(("_FLAIR", "_T1GD", "_T1", "_T2")):
        save(tmp_path / "images_structural" / name / f"{name}{suffix}.nii.gz", image(index))
    save(tmp_path / "images_segm" / f"{name}_segm.nii.gz", truth((1, 2, 4)))
    save(tmp_path / "automated_segm" / f"{name}_automated_approx_segm.nii.gz", truth((4, 4, 4)))
    finding = cases.find(tmp_path)
    (found,) = finding.cases
    assert (found.layout, found.patient, found.segmentation.parent.name) == (
        "upenn_gbm", "UPENN-GBM-00001", "images_segm",
    )  # fmt: skip
    assert read_values(found, 3) == [1, 2, 3]


def test_upenns_other_folders_are_left_out_with_one_line(tmp_path):
    """As TCIA ships it: few scans have a segmentation by hand, and other images lie in other folders."""
    root = tmp_path / "NIfTI-files"
    for number, name in enumerate(("UPENN-GBM-00001_11", "UPENN-GBM-00002_11", "UPENN-GBM-00002_21")):
        for index, suffix in enumerate(("_FLAIR", "_T1GD", "_T1", "_T2")):
            save(root / "images_structural" / name / f"{name}{suffix}.nii.gz", image(4 * number + index))
            save(root / "images_structural_unstripped" / name / f"{name}{suffix}_unstripped.nii.gz", image(0))
        save(root / "images_DTI" / name / f"{name}_DTI_FA.nii.gz", image(1))
        save(root / "automated_segm" / f"{name}_automated_approx_segm.nii.gz", truth((4, 4, 4)))
    save(root / "images_segm" / "UPENN-GBM-00001_11_segm.nii.gz", truth((1, 2, 4)))
    finding = cases.find(tmp_path)
    assert ([found.name for found in finding.cases], finding.problems) == (["UPENN-GBM-00001_11"], [])
    without, others = sorted(map(str, finding.notes), key=len)
    assert without.startswith("2 without a segmentation: left out")
    assert others.startswith(
        "18 files in NIfTI-files/automated_segm, NIfTI-files/images_DTI, NIfTI-files/images_structural_unstr"
    )


def test_predictions_and_masks_in_folders_of_their_own_are_no_cases(tmp_path):
    case(tmp_path / "cases" / "BraTS2021_00001")
    save(tmp_path / "predicted" / "BraTS2021_00001_seg.nii.gz", truth((1, 1, 1)))
    save(tmp_path / "masks" / "BraTS2021_00001_brainmask.nii.gz", truth((1, 1, 1)))
    assert only(tmp_path).segmentation.parent.name == "BraTS2021_00001"
    (note,) = cases.find(tmp_path).notes
    assert str(note).startswith("2 files in masks, predicted: left out: they are of cases that are found")


def test_a_segmentation_apart_from_a_case_that_has_none_is_no_truth_and_not_left_out(tmp_path):
    case(tmp_path / "A" / "BraTS2021_00001")
    (case(tmp_path / "B" / "BraTS2021_00002", seed=1) / "BraTS2021_00002_seg.nii.gz").unlink()
    save(tmp_path / "labels" / "BraTS2021_00002_seg.nii.gz", truth((1, 2, 4)))
    save(tmp_path / "labels" / "stranger.nii.gz", truth((1, 2, 4)))
    finding = cases.find(tmp_path)
    assert [found.name for found in finding.cases] == ["BraTS2021_00001"]
    assert {problem.case for problem in finding.problems} == {"BraTS2021_00002"}
    assert not any("files in" in str(note) for note in finding.notes)


def nnunet(root, channels, labels, values):
    for number in range(len(channels)):
        save(root / "imagesTr" / f"BraTS_00001_{number:04d}.nii.gz", image(number))
    save(root / "labelsTr" / "BraTS_00001.nii.gz", truth(values))
    names = {str(number): name for number, name in enumerate(channels)}
    (root / "dataset.json").write_text(json.dumps({"channel_names": names, "labels": labels}))


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        ({"background": 0, "NCR": 1, "ED": 2, "ET": 3}, [1, 2, 3]),
        ({"background": 0, "edema": 1, "non-enhancing tumor": 2, "enhancing tumour": 3}, [2, 1, 3]),
        (
            {"background": 0, "whole tumor": [1, 2, 3], "tumor core": [2, 3], "enhancing tumor": [3]},
            [2, 1, 3],
        ),
        ({"0": "background", "1": "edema", "2": "NCR", "3": "enhancing"}, [2, 1, 3]),  # nnU-Net 1
    ],
)
def test_nnunet_raw(tmp_path, labels, classes):
    nnunet(tmp_path, ("T1", "T1-Gd", "T2", "Flair"), labels, (1, 2, 3))
    found = only(tmp_path)
    volume = cases.read(found)
    for modality, channel in enumerate((3, 1, 0, 2)):
        np.testing.assert_array_equal(volume.images[modality], image(channel))
    assert (found.layout, read_values(found, 3)) == ("nnunet", classes)


@pytest.mark.parametrize(
    "labels",
    [
        {"background": 0, "NETC": 1, "SNFH": 2, "ET": 3, "RC": 4},
        {
            "background": 0,
            "whole tumor": [1, 2, 3],
            "tumor core": [1, 3],
            "enhancing tumor": 3,
            "resection cavity": [4],
        },
    ],
)
def test_a_cavity_of_nnunets_is_no_tumour_and_is_counted(tmp_path, labels):
    nnunet(tmp_path, ("T1", "T1ce", "T2", "FLAIR"), labels, (1, 2, 3, 4))
    found = only(tmp_path)
    assert read_values(found, 4) == [1, 2, 3, 0]
    assert "1 voxels of resection cavity (label 4)" in report(found).notes[0].text


def test_a_stranger_among_nnunets_channels_is_named_alone(tmp_path):
    nnunet(tmp_path, ("T1", "T1ce", "T2", "FLAIR"), {"NCR": 1, "ED": 2, "ET": 3}, (1, 2, 3))
    save(tmp_path / "imagesTr" / "mean.nii.gz", image(9))
    finding = cases.find(tmp_path)
    assert [found.layout for found in finding.cases] == ["nnunet"]
    (problem,) = finding.problems
    assert str(problem) == (
        f"{tmp_path}/imagesTr/mean.nii.gz: is not named <case>_0000 as the others are; take it away"
    )


@pytest.mark.parametrize(
    ("channels", "labels", "reason"),
    [
        (("T1", "PD", "T2", "FLAIR"), {"ET": 3}, r"channel 1, 'PD', is no known modality"),
        (("T1", "T1", "T2", "FLAIR"), {"ET": 3}, "channels 0 and 1 are both T1"),
        (("T1", "T2", "FLAIR"), {"ET": 3}, "has no channel for T1ce"),
        (("T1", "T1ce", "T2", "FLAIR"), {"lesion": 1}, "label 'lesion': 1 is no known class"),
        (("T1", "T1ce", "T2", "FLAIR"), {}, "has no labels"),
        (("T1", "T1ce", "T2", "FLAIR"), {"ED": 1, "ET": 1}, "label 1 is named twice"),
        (("T1", "T1ce", "T2", "FLAIR"), {"ED": 2, "Edema": 1, "edema": 3}, "label 'edema' is there twice"),
        (("T1", "T1ce", "T2", "FLAIR"), {"ED": 10**12}, "label 'ed': 1000000000000 is no known class"),
        (("T1", "T1ce", "T2", "FLAIR"), {"background": 1, "NCR": 0, "ET": 3}, "label 0 is the background"),
        (
            ("T1", "T1ce", "T2", "FLAIR"),
            {"whole tumor": [0, 1, 2, 3], "tumor core": [1, 3], "enhancing tumor": [3]},
            "label 0 is the background",
        ),
    ],
)
def test_nnunet_that_means_nothing_here(tmp_path, channels, labels, reason):
    nnunet(tmp_path, channels, labels, (1,))
    with pytest.raises(UserError, match=rf"dataset\.json: {reason}"):
        cases.find(tmp_path)


@pytest.mark.parametrize("name", ["PED-00001-000", "BraTS_PED_00001", "BraTS2024-PEDs-00001-000"])
def test_children_under_other_names_are_refused_too(tmp_path, name):
    for index, suffix in enumerate(("t2f", "t1c", "t1n", "t2w")):
        save(tmp_path / name / f"{name}-{suffix}.nii.gz", image(index))
    save(tmp_path / name / f"{name}-seg.nii.gz", truth((1, 2, 3)))
    with pytest.raises(UserError, match=f"labels of {name} mean is not certain"):
        cases.find(tmp_path)


def test_names_of_ones_own_with_dashes_are_refused_until_the_scheme_is_named(tmp_path):
    """Glioma, metastases, children: all end so, and label otherwise; 1, 2 and 3 stand in each."""
    case(tmp_path / "P001", NEW, (1, 2, 3))
    with pytest.raises(
        UserError, match=r"labels of P001 mean is not certain \(files are named as in BraTS 2023"
    ):
        cases.find(tmp_path)
    found = only(tmp_path, scheme="brats_ped2024")
    assert (found.data_set, read_values(found, 3)) == ("other names, labels as brats_ped2024", [3, 1, 1])


def test_names_of_ones_own_are_read_as_2021_and_that_is_said(tmp_path):
    for number, name in enumerate(("P1", "BraTS2021_00001", "Phantom_00001")):
        case(tmp_path / name, seed=number)
    (note,) = cases.find(tmp_path).notes
    assert str(note).startswith("1 named as no known data set (P1): labels are taken for 1 NCR, 2 ED, 4 ET")
    assert cases.find(tmp_path, Data(scheme="brats2021")).notes == []


def test_names_that_may_be_scans_of_one_patient_are_said_until_somebody_says_whose(tmp_path):
    for number, name in enumerate(("A_1", "A_2", "B_1", "BraTS-GLI-00001-000", "BraTS-GLI-00001-001")):
        dashed = name.startswith("BraTS")
        case(tmp_path / name, NEW if dashed else OLD, (1, 2), seed=number)
    told = [str(note) for note in cases.find(tmp_path).notes]
    assert told[-1].startswith(
        "2 that only a last number tells from others (A_1, A_2): each counts as a patient"
    )
    assert len(cases.find(tmp_path, Data(patients=r"(.+)[-_]\d+")).notes) == len(told) - 1


def test_labels_that_are_given_hold_for_nnunet_too(tmp_path):
    nnunet(tmp_path, ("T1", "T1ce", "T2", "FLAIR"), {"background": 0, "cyst": 1, "x": 2, "y": 3}, (1, 2, 3))
    assert read_values(only(tmp_path, labels={1: "ET", 2: "NCR", 3: "ED"}), 3) == [3, 1, 2]
    assert read_values(only(tmp_path, scheme="brats2023"), 3) == [1, 2, 3]


def msd_case(root, description):
    save(root / "imagesTr" / "BRATS_001.nii.gz", np.stack([image(n) for n in range(4)], axis=-1))
    save(root / "labelsTr" / "BRATS_001.nii.gz", truth((1, 2, 3)))
    (root / "dataset.json").write_text(json.dumps(description))


def test_msd_as_its_own_description_has_it(tmp_path):
    channels = {"0": "FLAIR", "1": "T1w", "2": "t1gd", "3": "T2w"}
    labels = {"0": "background", "1": "edema", "2": "non-enhancing tumor", "3": "enhancing tumour"}
    msd_case(tmp_path, {"modality": channels, "labels": labels})
    assert read_values(only(tmp_path), 3) == [2, 1, 3]


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"modality": {"0": "T1w", "1": "FLAIR", "2": "t1gd", "3": "T2w"}}, "other channels"),
        (
            {"labels": {"0": "background", "1": "necrosis", "2": "edema", "3": "enhancing tumour"}},
            "other labels",
        ),
        ({"labels": {"background": 0, "NCR": 1, "ED": 2, "ET": 3}}, "other labels"),
    ],
)
def test_a_description_other_than_msds_is_not_passed_over(tmp_path, changed, reason):
    msd_case(tmp_path, changed)
    with pytest.raises(UserError, match=rf"dataset\.json: tells {reason} than MSD Task01 has"):
        cases.find(tmp_path)


def test_the_background_stays_background():
    with pytest.raises(UserError, match=r"data\.labels: 0 is the background"):
        schemes.from_labels({0: "ET", 1: "NCR"})


def test_other_names_by_patterns(tmp_path):
    files = {"FLAIR": "mri/{case}/{case}_FLAIR*.nii.gz", "T1ce": "mri/{case}/{case}_Gd.nii.gz",
             "T1": "mri/{case}/{case}_T1.nii.gz", "T2": "mri/{case}/{case}_T2.nii.gz",
             "segmentation": "truth/{case}.nii.gz"}  # fmt: skip
    for index, name in enumerate(("FLAIR_reg", "Gd", "T1", "T2")):
        save(tmp_path / "mri" / "P1" / f"P1_{name}.nii.gz", image(index))
    save(tmp_path / "truth" / "P1.nii.gz", truth((1, 2, 3)))
    found = only(tmp_path, files=FilePatterns(**files), scheme="brats2023")
    assert (found.name, read_values(found, 3)) == ("P1", [1, 2, 3])
    assert found.data_set == "data.files, labels as brats2023"
    with pytest.raises(ValueError, match="files of other names need labels or a scheme"):
        Data(files=FilePatterns(**files))
    (tmp_path / "mri" / "P1" / "P1_Gd.nii.gz").unlink()
    (problem,) = cases.find(tmp_path, Data(files=FilePatterns(**files), scheme="brats2023")).problems
    assert str(problem) == f"{tmp_path}/mri/P1/P1_Gd.nii.gz: T1ce is missing"
    with pytest.raises(UserError, match=r"data\.files\.T2: 'T2\.nii' has no \{case\}"):
        cases.find(tmp_path, Data(files=FilePatterns(**files | {"T2": "T2.nii"}), scheme="brats2023"))


@pytest.mark.parametrize(
    "stranger",
    [
        "A_pred_seg.nii.gz",
        "brain_segmentation.nii.gz",
        "W39_1998.09.19_Segm.nii.gz",
        "A_GlistrBoost_ManuallyCorrected.nii.gz",
        "A_groundtruth-truth.nii.gz",
    ],
)
def test_nothing_but_the_segmentation_becomes_truth(tmp_path, stranger):
    folder = case(tmp_path / "A")
    (folder / "A_seg.nii.gz").rename(folder / stranger)
    (problem,) = cases.find(tmp_path).problems
    assert problem.reason == (
        f"segmentation is missing; {stranger} is not taken for it: rename it, or say so in data.files"
    )


def test_a_prediction_beside_the_truth_is_no_case(tmp_path):
    folder = case(tmp_path / "A")
    shutil.copy(folder / "A_seg.nii.gz", folder / "A_pred_seg.nii.gz")
    assert only(tmp_path).segmentation.name == "A_seg.nii.gz"


def test_the_one_exception_is_said(tmp_path):
    folder = case(tmp_path / "BraTS20_Training_355")
    (folder / "BraTS20_Training_355_seg.nii.gz").rename(folder / "W39_1998.09.19_Segm.nii.gz")
    finding = cases.find(tmp_path)
    assert [found.segmentation.name for found in finding.cases] == ["W39_1998.09.19_Segm.nii.gz"]
    assert "as BraTS 2020 ships it" in str(finding.notes[0])


@pytest.mark.parametrize("stranger", ["W39_1998.09.19_Segm_pred", "brain_segm", "W40_Segm"])
def test_the_one_exception_is_of_one_name(tmp_path, stranger):
    folder = case(tmp_path / "BraTS20_Training_355")
    (folder / "BraTS20_Training_355_seg.nii.gz").rename(folder / f"{stranger}.nii.gz")
    finding = cases.find(tmp_path)
    assert finding.cases == []
    assert "segmentation is missing" in finding.problems[0].reason


def test_strangers_are_named_for_what_they_look_like(tmp_path):
    folder = case(tmp_path / "A")
    (folder / "A_t1ce.nii.gz").rename(folder / "A_t1Gd.nii.gz")
    (problem,) = cases.find(tmp_path).problems
    assert (
        problem.reason
        == "T1ce is missing; A_t1Gd.nii.gz is not taken for it: rename it, or say so in data.files"
    )
    shutil.rmtree(folder)
    for name in ("FLAIR", "T1_pre", "T1_post", "T2"):
        save(tmp_path / "P" / f"{name}.nii.gz", image(0))
    (problem,) = cases.find(tmp_path).problems
    assert "T1_post.nii.gz looks like T1ce" in problem.reason
    assert problem.reason.endswith("say so in data.files")


def test_scans_without_truth_beside_others_are_one_line(tmp_path):
    case(tmp_path / "train" / "A")
    for name in "BCDE":
        (case(tmp_path / "validation" / name, seed=ord(name)) / f"{name}_seg.nii.gz").unlink()
    finding = cases.find(tmp_path, Data(scheme="brats2021"))
    assert [found.name for found in finding.cases] == ["A"]
    assert finding.problems == []
    (note,) = finding.notes
    assert str(note) == "4 without a segmentation: left out, they can neither train nor be scored: B, C, D …"


@pytest.mark.parametrize("factor", [0.9999, 1 - 2**-22, 1.004])
def test_labels_a_rounding_error_off_are_rounded_and_counted(tmp_path, factor):
    folder = case(tmp_path / "A")
    save(folder / "A_seg.nii.gz", truth((1, 2, 2), np.float64) * factor)
    found = only(tmp_path)
    assert read_values(found, 3) == [1, 2, 2]
    assert "3 voxels lie up to" in report(found).notes[0].text


def test_labels_that_are_further_off_are_shown_in_full(tmp_path):
    folder = case(tmp_path / "A")
    save(folder / "A_seg.nii.gz", truth((1, 2, 3.98), np.float32))
    ((problem),) = report(only(tmp_path)).problems
    assert problem.reason.endswith(
        "unknown label 3.98; brats2021 has 0, 1, 2, 4 "
        "(3.98 is no whole number: averaged when it was resampled, or scaled?)"
    )
    save(folder / "A_seg.nii.gz", truth((1, 2, 255)))
    ((problem),) = report(only(tmp_path)).problems
    assert "(of no data set that is known: if it is meant, write data.labels)" in problem.reason


def test_a_label_of_another_scheme_says_whose(tmp_path):
    case(tmp_path / "A", values=(1, 2, 3))
    ((problem),) = report(only(tmp_path)).problems
    assert "3 is ET in brats2023" in problem.reason
    assert "data.scheme" in problem.reason


def test_a_background_that_is_not_0_is_taken_away(tmp_path):
    folder = case(tmp_path / "A")
    plain = cases.read(only(tmp_path))
    flair = image(0).astype(np.float32)
    save(folder / "A_flair.nii.gz", (flair - flair.mean()) / flair.std())
    found = only(tmp_path)
    assert "FLAIR: the background is -" in report(found).notes[0].text
    volume = cases.read(found)
    np.testing.assert_array_equal((volume.images != 0).any(0), (plain.images != 0).any(0))
    np.testing.assert_allclose(volume.images[0] * flair.std(), plain.images[0], atol=1e-3)


def test_masks_that_are_no_brains_are_named(tmp_path):
    folder = case(tmp_path / "A")
    full = np.random.default_rng(0).integers(1, 900, SHAPE).astype(np.int16)
    save(folder / "A_t1.nii.gz", full)
    assert "100 % of the volume are not background" in report(only(tmp_path)).notes[0].text
    full[0] = full[:, 0] = full[:, :, 0] = full[-1] = full[:, -1] = full[:, :, -1] = 0
    for axis in range(3):
        for end in (0, -1):
            np.moveaxis(full, axis, 0)[end][5, 4] = 7
    save(folder / "A_t1.nii.gz", full)
    assert "touches all six faces" in report(only(tmp_path)).notes[0].text
    for suffix in (*OLD, "_seg"):
        path = folder / f"A{suffix}.nii.gz"
        array = np.asarray(nibabel.load(path).dataobj)
        save(path, array, np.diag([-30.0, -30.0, 30.0, 1.0]))  # 27 ml a voxel: a head with its skull
    (note,) = report(only(tmp_path)).notes
    assert "ml are not background, more than a brain has" in note.text


def test_two_modalities_that_are_one(tmp_path):
    folder = case(tmp_path / "A")
    shutil.copy(folder / "A_t1.nii.gz", folder / "A_t1ce.nii.gz")
    (problem,) = report(only(tmp_path)).problems
    assert problem.reason == "T1 holds the same voxels as T1ce: one of the two is a copy"


def test_a_last_axis_of_length_1_is_none(tmp_path):
    folder = case(tmp_path / "A")
    save(folder / "A_t2.nii.gz", image(3)[..., None])
    save(folder / "A_seg.nii.gz", truth((1, 2, 4))[..., None])
    np.testing.assert_array_equal(cases.read(only(tmp_path)).images[3], image(3))


def test_two_transforms_that_disagree_are_said(tmp_path):
    folder = case(tmp_path / "A")
    for suffix in (*OLD, "_seg"):
        path = folder / f"A{suffix}.nii.gz"
        loaded = nibabel.load(path)
        loaded.set_sform(LPS, 1)
        moved = LPS.copy()
        moved[0, 3] = 12
        loaded.set_qform(moved, 1)
        nibabel.save(loaded, path)
    texts = [note.text for note in report(only(tmp_path)).notes]
    assert "FLAIR: sform and qform lie up to 12 mm apart; the sform is taken" in texts


def test_a_grid_that_says_nothing_of_its_axes_is_said(tmp_path):
    folder = case(tmp_path / "A")
    for suffix in (*OLD, "_seg"):
        path = folder / f"A{suffix}.nii.gz"
        loaded = nibabel.load(path)
        loaded.set_sform(None, 0)
        loaded.set_qform(None, 0)
        nibabel.save(loaded, path)
    texts = [note.text for note in report(only(tmp_path)).notes]
    assert any(text.startswith("FLAIR: neither sform nor qform is set") for text in texts), texts


def test_a_wrong_sform_beside_a_sound_qform(tmp_path):
    folder = case(tmp_path / "A")
    path = folder / "A_flair.nii.gz"
    loaded = nibabel.load(path)
    loaded.set_qform(LPS, 1)
    nibabel.save(loaded, path)
    raw = bytearray(gzip.decompress(path.read_bytes()))
    header = nibabel.Nifti1Header(bytes(raw[:348]), check=False)
    header["sform_code"], header["srow_x"] = 1, 0
    path.write_bytes(gzip.compress(header.binaryblock + bytes(raw[348:])))
    assert any("wrong sform beside a sound qform" in each.reason for each in report(only(tmp_path)).problems)


def test_many_faults_of_one_kind_are_one_line(tmp_path):
    problems = [Problem(f"C{n}", tmp_path / f"C{n}_t1.nii.gz", "T1 is missing") for n in range(3000)]
    problems.append(Problem("X", tmp_path / "x", "is empty (0 bytes)"))
    lines = gathered(problems)
    assert len(lines) == 2
    assert lines[0].startswith("3,000 cases, such as ")
    assert lines[0].count("T1 is missing") == 3
    names = ["Anna", "Bert", "Cleo", "Dora"]
    copied = [Problem(f"copy of {n}", tmp_path, f"the same images as {n}", n) for n in names]
    strangers = [
        Problem(str(k), tmp_path, f"none known: {n}-t1Gd.nii.gz, {n}.nii") for k, n in enumerate(names)
    ]
    assert [line[:7] for line in gathered([*copied, *strangers])] == ["4 cases", "4 cases"]
    assert gathered([Note("A", "1 voxels"), Note("B", "27 voxels")]) == ["A: 1 voxels", "B: 27 voxels"]
