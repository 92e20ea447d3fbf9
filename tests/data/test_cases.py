"""Finding cases in every layout, and every way in which a case can be broken."""

import gzip
import re
import shutil

import nibabel
import numpy as np
import pytest

from acdis.data import cases, nifti
from acdis.errors import UserError

SHAPE = (12, 10, 8)
AFFINE = np.diag([-1.0, -1.0, 1.0, 1.0])
SUFFIXES = ("_flair", "_t1ce", "_t1", "_t2")
DASHED = ("-t2f", "-t1c", "-t1n", "-t2w")


def save(path, array, affine=AFFINE):
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(array, affine), path)
    return path


def image(seed, shape=SHAPE):
    array = np.zeros(shape, dtype=np.int16)
    array[2:-2, 2:-2, 2:-2] = np.random.default_rng(seed).integers(1, 900, [side - 4 for side in shape])
    return array


def labels(values=(0, 1, 2, 4), dtype=np.uint8):
    array = np.zeros(SHAPE, dtype=dtype)
    array[4, 4, 2 : 2 + len(values)] = values
    return array


def brats(folder, seed=0, suffixes=SUFFIXES, segmentation="_seg", values=(0, 1, 2, 4), end=".nii.gz"):
    """One good case; the modalities' voxels come from seeds 4·seed, 4·seed + 1, …"""
    for index, suffix in enumerate(suffixes):
        save(folder / f"{folder.name}{suffix}{end}", image(4 * seed + index))
    save(folder / f"{folder.name}{segmentation}{end}", labels(values))
    return folder


def only(root):
    finding = cases.find(root)
    assert finding.problems == []
    (case,) = finding.cases
    return case


def reasons(case):
    (report,) = cases.check([case], processes=1)
    return [(problem.path.name, problem.reason) for problem in report.problems]


def patch_header(path, **fields):
    raw = bytearray(gzip.decompress(path.read_bytes()))
    header = nibabel.Nifti1Header(bytes(raw[:348]), check=False)
    for key, value in fields.items():
        header[key] = value
    raw[:348] = header.binaryblock
    path.write_bytes(gzip.compress(bytes(raw)))


@pytest.mark.parametrize(
    ("where", "suffixes", "segmentation", "end", "layout"),
    [
        ("HGG/Brats18_2013_2_1", SUFFIXES, "_seg", ".nii.gz", "brats2018"),
        ("train/LGG/Brats18_TCIA09_1", SUFFIXES, "_seg", ".nii.gz", "brats2018"),
        ("BraTS20_Training_002", SUFFIXES, "_seg", ".nii", "brats2020"),
        ("BraTS2021_00006", SUFFIXES, "_seg", ".nii.gz", "brats2021"),
        ("Phantom_00001", SUFFIXES, "_seg", ".nii.gz", "brats2021"),
        ("BraTS-GLI-00000-000", DASHED, "-seg", ".nii.gz", "brats2023"),
    ],
)
def test_layouts_of_brats(tmp_path, where, suffixes, segmentation, end, layout):
    values = (0, 1, 2, 3) if layout == "brats2023" else (0, 1, 2, 4)
    folder = brats(tmp_path / where, 0, suffixes, segmentation, values, end)
    (folder / "._junk_flair.nii.gz").write_bytes(b"macOS writes these")
    case = only(tmp_path)
    assert (case.name, case.layout) == (folder.name, layout)
    volume = cases.read(case)
    assert volume.images.dtype == np.float32
    assert volume.labels.dtype == np.uint8
    for index in range(4):
        np.testing.assert_array_equal(volume.images[index], image(index))
    assert volume.labels[4, 4, 2:6].tolist() == [0, 1, 2, 3]
    assert volume.spacing == (1.0, 1.0, 1.0)
    np.testing.assert_array_equal(volume.affine, AFFINE)


def msd(root, name="BRATS_001", channels=4, values=(0, 1, 2, 3)):
    stack = np.stack([image(index) for index in range(channels)], axis=-1)
    save(root / "imagesTr" / f"{name}.nii.gz", stack)
    save(root / "labelsTr" / f"{name}.nii.gz", labels(values))


def test_msd_channels_and_labels(tmp_path):
    msd(tmp_path / "Task01_BrainTumour")
    save(tmp_path / "Task01_BrainTumour" / "imagesTs" / "BRATS_485.nii.gz", np.zeros((*SHAPE, 4), np.int16))
    case = only(tmp_path)
    volume = cases.read(case)
    for modality, channel in enumerate(
        (0, 2, 1, 3)
    ):  # file: FLAIR, T1w, T1gd, T2w; here: FLAIR, T1ce, T1, T2
        np.testing.assert_array_equal(volume.images[modality], image(channel))
    assert volume.labels[4, 4, 2:6].tolist() == [0, 2, 1, 3]  # 1 oedema -> ED, 2 non-enhancing -> NCR/NET
    assert len(set(case.images)) == 1
    assert len(case.files) == 2


def test_the_one_odd_name_of_brats_2020(tmp_path):
    folder = brats(tmp_path / "BraTS20_Training_355", end=".nii")
    (folder / "BraTS20_Training_355_seg.nii").rename(folder / "W39_1998.09.19_Segm.nii")
    assert only(tmp_path).segmentation.name == "W39_1998.09.19_Segm.nii"


def test_names_alone_show_what_is_missing_or_double(tmp_path):
    brats(tmp_path / "HGG" / "Same")
    brats(tmp_path / "LGG" / "Same", 1)
    (brats(tmp_path / "Less", 2) / "Less_t1ce.nii.gz").unlink()
    (tmp_path / "Less" / "Less_seg.nii.gz").unlink()
    shutil.copy(brats(tmp_path / "More", 3) / "More_t1.nii.gz", tmp_path / "More" / "More_t1.nii")
    save(tmp_path / "Odd" / "brain.nii.gz", image(0))
    (tmp_path / "imagesTr").mkdir()
    save(tmp_path / "imagesTr" / "A.nii.gz", image(0))
    save(tmp_path / "labelsTr" / "B.nii.gz", image(0))
    brats(tmp_path / "Whole", 4)
    finding = cases.find(tmp_path)
    assert [case.name for case in finding.cases] == ["Same", "Whole"]
    found = {(problem.case, problem.path.name, problem.reason) for problem in finding.problems}
    first = f"duplicate case: Same is also in {tmp_path / 'HGG' / 'Same'}"
    left_out, read_as = map(str, finding.notes)
    assert left_out == "1 without a segmentation: left out, they can neither train nor be scored: A"
    assert read_as.startswith("2 named as no known data set (Same, Whole)")
    assert found == {
        ("Same", "Same", first),
        ("Less", "Less_t1ce.nii.gz", "T1ce is missing"),
        ("Less", "Less_seg.nii.gz", "segmentation is missing"),
        ("More", "More_t1.nii.gz", "several files for T1: More_t1.nii, More_t1.nii.gz"),
        ("Odd", "Odd", "holds NIfTI files, but none is named as a known data set names them: brain.nii.gz"),
        ("B", "B.nii.gz", "the image with all modalities is missing"),
    }


def test_find_follows_links_and_survives_loops(tmp_path):
    brats(tmp_path / "elsewhere" / "A")
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "A").symlink_to(tmp_path / "elsewhere" / "A")
    (tmp_path / "root" / "loop").symlink_to(tmp_path / "root")
    assert only(tmp_path / "root").name == "A"


@pytest.mark.parametrize("what", ["absent", "empty"])
def test_nothing_to_find_is_the_users_error(tmp_path, what):
    root = tmp_path / what
    if what == "empty":
        root.mkdir()
    with pytest.raises(UserError, match=str(root)):
        cases.find(root)


def truncate(path):
    path.write_bytes(path.read_bytes()[:-40])


def cut_trailer(path):
    path.write_bytes(path.read_bytes()[:-3])


def damage_checksum(path):
    raw = bytearray(path.read_bytes())
    raw[-6] ^= 0xFF
    path.write_bytes(raw)


def cut_voxels(path):
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes())[:-100]))


def put(value, at=(3, 3, 3)):
    def change(path):
        array = np.asarray(nibabel.load(path).dataobj).astype(np.float32)
        array[at] = value
        save(path, array)

    return change


def with_array(array, affine=AFFINE):
    return lambda path: save(path, array, affine)


constant = np.zeros(SHAPE, np.int16)
constant[2:-2, 2:-2, 2:-2] = 7
shifted = AFFINE.copy()
shifted[0, 3] = 0.5


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda path: path.unlink(), "does not exist"),
        (lambda path: path.write_bytes(b""), r"is empty \(0 bytes\)"),
        (truncate, "is truncated"),
        (cut_trailer, "is truncated"),
        (damage_checksum, "damaged.*incorrect data check"),
        (cut_voxels, "is truncated: 2172 of 2272 bytes"),
        (lambda path: path.write_bytes(gzip.decompress(path.read_bytes())), "not a gzip file"),
        (lambda path: path.write_bytes(gzip.compress(b"abc")), "truncated: 3 bytes"),
        (lambda path: path.write_bytes(gzip.compress(bytes(range(256)) * 4)), "is not a NIfTI"),
        (with_array(image(9, (12, 10, 9))), r"shape \(12, 10, 9\), FLAIR has \(12, 10, 8\)"),
        (with_array(image(9), shifted), "another affine than FLAIR.*up to 0.5 mm"),
        (
            with_array(image(9), np.diag([1.0, -1.0, 1.0, 1.0])),
            r"another affine.*axes run RPS, those of FLAIR LPS: reorient",
        ),
        (
            with_array(image(9).transpose(2, 1, 0), AFFINE[:, [2, 1, 0, 3]]),
            r"shape \(8, 10, 12\), .*axes run SPL, those of FLAIR LPS",
        ),
        (with_array(np.stack([image(9)] * 2, -1)), r"is 4-D \(12, 10, 8, 2\) where 3-D is due"),
        (with_array(image(9)[..., 0]), "is 2-D .* where 3-D is due"),
        (put(np.nan), "NaN or inf in 1 voxels"),
        (put(-np.inf, at=(3, 3)), "NaN or inf in 8 voxels"),
        (lambda path: save(path, image(9).astype(np.float64) * 1e300), "NaN or inf"),
        (with_array(np.zeros(SHAPE, np.int16)), "is empty: every voxel is 0"),
        (with_array(constant), "is constant: every voxel of the brain is 7"),
        (lambda path: patch_header(path, dim=[3, 32000, 32000, 32000, 1, 1, 1, 1]), "1 to 1024"),
        (
            lambda path: patch_header(path, dim=[3, 1024, 1024, 1024, 1, 1, 1, 1], datatype=2, bitpix=8),
            "at most 33,554,432 voxels",
        ),
        (lambda path: patch_header(path, dim=[3, 12, 10, -8, 1, 1, 1, 1]), "1 to 1024"),
        (lambda path: patch_header(path, dim=[3, 1000, 1000, 30, 1, 1, 1, 1]), "is truncated"),
        (lambda path: patch_header(path, srow_x=[np.nan, 0, 0, 0]), "NaN or inf in its affine"),
        (lambda path: patch_header(path, srow_x=[0, 0, 0, 0]), "voxels of 0 × 1 × 1 mm"),
        (lambda path: patch_header(path, srow_x=[0, 1, 0, 0], srow_y=[0, 1, 0, 0]), "affine|voxels of"),
        (lambda path: patch_header(path, qform_code=1, quatern_b=3), "wrong qform"),
        (lambda path: patch_header(path, qform_code=1, quatern_b=np.nan), "qform"),
        (lambda path: patch_header(path, vox_offset=np.nan), "voxel offset"),
        (lambda path: patch_header(path, datatype=128), "voxels; whole or floating"),
        (lambda path: patch_header(path, datatype=999), "data type"),
        (lambda path: patch_header(path, scl_slope=1, scl_inter=np.nan), "intensity scale"),
    ],
)
def test_every_broken_image_is_named_with_its_reason(tmp_path, damage, reason):
    case = only(brats(tmp_path / "A"))
    damage(case.images[2])
    found = reasons(case)
    assert [name for name, _ in found] == ["A_t1.nii.gz"]
    assert re.search(reason, found[0][1]), found
    with pytest.raises(UserError, match=r"A_t1\.nii\.gz: .*"):
        cases.read(case)


@pytest.mark.parametrize(
    ("array", "reason"),
    [
        (labels((0, 1, 3)), "unknown label 3; brats2021 has 0, 1, 2, 4"),
        (labels((0, 1.5), np.float32), "unknown label 1.5"),
        (labels((0, -1, 300), np.int16), "unknown label -1, 300"),
        (labels((0, 1, np.nan), np.float32), "segmentation holds NaN or inf in 1 voxels"),
        (labels()[:-1], "segmentation has shape"),
    ],
)
def test_broken_segmentations(tmp_path, array, reason):
    case = only(brats(tmp_path / "A"))
    save(case.segmentation, array)
    ((name, found),) = reasons(case)
    assert name == "A_seg.nii.gz"
    assert reason in found


def test_a_segmentation_without_a_lesion_is_fine(tmp_path):
    case = only(brats(tmp_path / "A", values=()))
    assert reasons(case) == []


@pytest.mark.parametrize("kind", ["3-D", "channels", "labels"])
def test_broken_msd(tmp_path, kind):
    msd(tmp_path, channels=3 if kind == "channels" else 4, values=(0, 4) if kind == "labels" else (0, 1))
    if kind == "3-D":
        save(tmp_path / "imagesTr" / "BRATS_001.nii.gz", image(0))
    wanted = {
        "3-D": "is 3-D (12, 10, 8) where 4-D is due",
        "channels": "has 3 channels where 4 are due",
        "labels": "segmentation has unknown label 4; msd has 0, 1, 2, 3 (4 is ET in brats2018, brats2020",
    }
    ((name, reason),) = reasons(only(tmp_path))
    assert name == "BRATS_001.nii.gz"
    assert reason.startswith(wanted[kind])


def test_all_problems_of_all_cases_come_in_one_go(tmp_path):
    for index, name in enumerate("ABCD"):
        brats(tmp_path / name, seed=index)
    found = cases.find(tmp_path).cases
    truncate(found[0].images[0])
    put(np.inf)(found[0].images[1])
    save(found[0].segmentation, labels((0, 7)))
    save(found[2].images[3], np.zeros(SHAPE, np.int16))
    calls = []
    reports = cases.check(found, processes=3, progress=lambda done, of: calls.append((done, of)))
    assert [report.case.name for report in reports] == list("ABCD")
    assert [len(report.problems) for report in reports] == [3, 0, 1, 0]
    assert calls == [(1, 4), (2, 4), (3, 4), (4, 4)]
    good = reports[1]
    assert (good.shape, good.spacing, good.labels) == (SHAPE, (1.0, 1.0, 1.0), (0.0, 1.0, 2.0, 4.0))


def test_the_same_images_under_two_names_are_duplicates_in_any_format(tmp_path):
    brats(tmp_path / "A", seed=0)
    brats(tmp_path / "B", seed=1)
    brats(tmp_path / "C", seed=0, values=(0, 1), end=".nii")  # other segmentation, other compression
    reports = cases.check(cases.find(tmp_path).cases, processes=2)
    assert [[problem.reason for problem in report.problems] for report in reports] == [
        [],
        [],
        ["duplicate case: the same images as A"],
    ]


def test_headers_may_round_and_scale(tmp_path):
    case = only(brats(tmp_path / "A"))
    near = AFFINE.copy()
    near[:3, 3] += 1e-3
    save(case.images[1], image(1), near)
    patch_header(case.images[3], scl_slope=0.5, scl_inter=2)
    volume = cases.read(case)
    np.testing.assert_allclose(volume.images[3], image(3) * 0.5)  # the background is 2, and taken away


@pytest.mark.parametrize("byte_order", ["<", ">"])
def test_arrays_equal_nibabels(tmp_path, byte_order):
    array = np.random.default_rng(0).normal(size=(7, 6, 5)).astype(f"{byte_order}f8")
    affine = np.array([[0, -2, 0, 5], [1.5, 0, 0, -7], [0, 0, 3, 1], [0, 0, 0, 1.0]])
    header = nibabel.Nifti1Header(endianness=byte_order)
    nibabel.save(nibabel.Nifti1Image(array, affine, header), tmp_path / "a.nii.gz")
    # Two gzip members, as parallel compressors write them.
    raw = gzip.decompress((tmp_path / "a.nii.gz").read_bytes())
    (tmp_path / "a.nii.gz").write_bytes(gzip.compress(raw[:1000]) + gzip.compress(raw[1000:]))
    voxels, found, apart = nifti.load(tmp_path / "a.nii.gz", dimensions=3)
    expected = nibabel.load(tmp_path / "a.nii.gz")
    np.testing.assert_array_equal(voxels, np.asarray(expected.dataobj))
    np.testing.assert_allclose(found, expected.affine)
    assert apart == 0
    assert nifti.voxel_sizes(found) == pytest.approx((1.5, 2.0, 3.0))


@pytest.mark.real
def test_real_cases(shared):
    finding = cases.find(shared / "data" / "brats2021")
    assert finding.problems == []
    assert len(finding.cases) == 7
    (report,) = cases.check(finding.cases[:1], processes=1)
    assert report.problems == ()
    assert (report.shape, report.spacing) == ((240, 240, 155), (1.0, 1.0, 1.0))
    assert report.labels == (0, 1, 2, 4)
    volume = cases.read(finding.cases[0])
    folder = finding.cases[0].segmentation.parent
    flair = np.asarray(nibabel.load(folder / f"{folder.name}_flair.nii.gz").dataobj)
    np.testing.assert_array_equal(volume.images[0], flair)
    np.testing.assert_array_equal((volume.images != 0).any(0), volume.images.sum(0) > 0)  # RFNet's brain mask
    assert (volume.labels == 3).sum() / 1000 == pytest.approx(26, abs=0.5)  # ml of ET, as its provenance says
