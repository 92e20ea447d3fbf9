"""`predict` from the command line: bad input is one line and exit 2, oddities are said, many go on."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import nibabel
import numpy as np
import pytest

from acdis import cli

_SPEC = importlib.util.spec_from_file_location(
    "prediction_conftest", Path(__file__).parents[1] / "prediction" / "conftest.py"
)
_HELP = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(_HELP)
ball, base, cell, make_cell, patient = (
    getattr(_HELP, name) for name in ("ball", "base", "cell", "make_cell", "patient")
)
AFFINE = np.diag([-5.0, -5.0, 5.0, 1.0])


@pytest.fixture
def acdis(monkeypatch, capsys, base):
    """`acdis("predict", …)`: exit code, what was printed, what went to stderr."""

    def run(*words):
        monkeypatch.setenv("ACDIS_HOME", str(base))
        monkeypatch.setattr(sys, "argv", ["acdis", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out, err = capsys.readouterr()
        return int(ended.value.code or 0), out, err

    return run


def write(path, voxels, affine=AFFINE, slope=None):
    image = nibabel.Nifti1Image(voxels, affine)
    if slope:
        image.header.set_slope_inter(slope, 0)
    nibabel.save(image, path)
    return path


def flags(patient, *modalities):
    return [word for name in modalities for word in (f"--{name.lower()}", patient[name])]


def refused(result, *words):
    code, _, err = result
    assert code == 2, err
    assert err.startswith("error: ")
    assert err.count("\n") == 1, err
    for word in words:
        assert word in err, err


def test_one_patient(acdis, cell, patient, tmp_path):
    out = tmp_path / "made" / "seg.nii.gz"
    extras = ("--probabilities", "--uncertainty", "--picture")
    code, said, err = acdis("predict", cell.name, *flags(patient, "FLAIR", "T1"), "-o", out, *extras)
    assert code == 0, err
    assert "WT 80.0 (5th percentile 80.0), TC 67.5 (5th percentile 51.8), ET 40.0" in said
    assert f"{cell.name} would do better with T1ce: ET +30 points" in said
    assert "from FLAIR, T1; missing: T1ce, T2" in said
    assert "not for clinical use" in said
    names = {path.name for path in out.parent.iterdir()}
    assert names == {
        "seg.nii.gz", "seg.json", "seg.png", "seg_WT.nii.gz", "seg_TC.nii.gz", "seg_ET.nii.gz",
        "seg_entropy.nii.gz", "seg_disagreement_subsets.nii.gz",
    }  # fmt: skip
    assert (out.parent / "seg.png").read_bytes()[:4] == b"\x89PNG"


def test_nothing_given(acdis, cell, tmp_path, patient):
    refused(acdis("predict", cell.name, "-o", tmp_path / "s.nii.gz"), "no image given")
    words = (*flags(patient, "T1"), "--case", tmp_path)
    refused(acdis("predict", cell.name, *words, "-o", tmp_path / "s.nii.gz"), "several ways")


def test_the_same_file_twice_by_name_and_by_voxels(acdis, cell, patient, tmp_path):
    link = tmp_path / "link.nii.gz"
    link.symlink_to(patient["T1"])
    out = ("-o", tmp_path / "s.nii.gz")
    refused(acdis("predict", cell.name, "--t1", patient["T1"], "--t2", link, *out), "given as T1 and as T2")
    copy = tmp_path / "copy.nii.gz"
    copy.write_bytes(patient["T1"].read_bytes())
    refused(acdis("predict", cell.name, "--t1", patient["T1"], "--t2", copy, *out), "same voxels as T1")


def test_grids_that_differ(acdis, cell, patient, tmp_path):
    out = ("-o", tmp_path / "s.nii.gz")
    other = write(tmp_path / "o.nii.gz", ball((28, 34, 28), seed=9))
    first = ("--flair", patient["FLAIR"])
    refused(acdis("predict", cell.name, *first, "--t2", other, *out), "has shape", "--resample")
    moved = AFFINE.copy()
    moved[0, 3] = 4.0
    other = write(tmp_path / "m.nii.gz", ball(seed=9), moved)
    refused(acdis("predict", cell.name, *first, "--t2", other, *out), "another affine", "--resample")
    code, said, _ = acdis("predict", cell.name, *first, "--t2", other, *out, "--resample")
    assert code == 0
    assert "T2: lies on another grid than FLAIR and is resampled to it" in said


def test_resampling_finds_the_same_places(tmp_path):
    """A ramp over mm, on a grid that is shifted and coarser, is the same ramp on the first one's."""
    from acdis.data.scan import read

    shape, coarse = (24, 20, 18), np.diag([-2.5, -2.0, 2.0, 1.0])
    fine = np.diag([-1.0, -1.0, 1.0, 1.0])
    fine[:3, 3], coarse[:3, 3] = [20.0, 15.0, 3.0], [24.0, 18.0, 0.0]
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"))
    ramps = []
    for affine in (fine, coarse):
        mm = np.einsum("rc,cdhw->rdhw", affine[:3, :3], index) + affine[:3, 3].reshape(3, 1, 1, 1)
        ramps.append((1000 + 3 * mm[0] - 2 * mm[1] + 5 * mm[2]).astype(np.float32))
    noise = np.random.default_rng(0).uniform(1, 2, shape).astype(np.float32)
    given = {
        "T1": write(tmp_path / "a.nii", noise, fine),
        "T2": write(tmp_path / "b.nii", ramps[1], coarse),
    }
    inside = read(given, resample=True).images[1]  # these files' axes run as ours
    np.testing.assert_allclose(inside[1:-1, 1:-1, 1:-1], ramps[0][1:-1, 1:-1, 1:-1], rtol=1e-5)


def test_files_that_are_no_scan(acdis, cell, tmp_path):
    out = ("-o", tmp_path / "s.nii.gz")
    four = write(tmp_path / "4d.nii.gz", np.stack([ball(), ball()], axis=-1))
    refused(acdis("predict", cell.name, "--t1", four, *out), "4-D", "where 3-D is due")
    nan = ball().astype(np.float32)
    nan[15, 17, 14] = np.nan
    bad = write(tmp_path / "nan.nii.gz", nan)
    refused(acdis("predict", cell.name, "--t1", bad, *out), "NaN or inf in 1 voxels")
    refused(acdis("predict", cell.name, "--t1", tmp_path / "none.nii", *out), "does not exist")
    (tmp_path / "text.nii").write_text("no image at all" * 100)
    refused(acdis("predict", cell.name, "--t1", tmp_path / "text.nii", *out), "is not a NIfTI-1 file")
    zero = write(tmp_path / "zero.nii.gz", np.zeros((30, 34, 28), np.int16))
    refused(acdis("predict", cell.name, "--t1", zero, *out), "nothing is left to segment")


@pytest.mark.parametrize(
    ("place", "words"),
    [("seg.png", "ends in .nii.gz"), ("file/seg.nii.gz", "cannot be written"), ("folder.nii", "is a folder")],
)
def test_output_is_looked_at_before_the_images(acdis, cell, tmp_path, place, words):
    (tmp_path / "file").write_text("")
    (tmp_path / "folder.nii").mkdir()
    refused(acdis("predict", cell.name, "--t1", tmp_path / "none.nii", "-o", tmp_path / place), words)


def test_an_image_is_not_written_over(acdis, cell, patient):
    before = patient["T1"].read_bytes()
    refused(acdis("predict", cell.name, *flags(patient, "T1"), "-o", patient["T1"]), "is one of the images")
    assert patient["T1"].read_bytes() == before


def labels(path):
    return np.asarray(nibabel.load(path).dataobj)


def test_data_types_and_scaling_do_not_matter(acdis, cell, tmp_path):
    voxels = ball() // 4
    made = {
        "int16.nii.gz": write(tmp_path / "int16.nii.gz", voxels.astype(np.int16)),
        "uint8.nii": write(tmp_path / "uint8.nii", voxels.astype(np.uint8)),
        "float64.nii.gz": write(tmp_path / "float64.nii.gz", voxels.astype(np.float64)),
    }
    header = nibabel.Nifti1Header()
    header.set_data_dtype(np.int16)
    scaled = nibabel.Nifti1Image((voxels * 2).astype(np.float64), AFFINE, header)
    scaled.header.set_slope_inter(2.0, 0.0)
    nibabel.save(scaled, tmp_path / "scaled.nii.gz")
    made["scaled.nii.gz"] = tmp_path / "scaled.nii.gz"
    results = []
    for name, path in made.items():
        out = tmp_path / f"seg-{name}"
        code, _, err = acdis("predict", cell.name, "--t2", path, "-o", out)
        assert code == 0, err
        saved = nibabel.load(out)
        assert saved.get_data_dtype() == np.uint8
        assert saved.dataobj.slope == 1
        results.append(labels(out))
    assert results[0].any()
    for other in results[1:]:  # all normalise to the same, scaled ones up to rounding
        assert (other != results[0]).mean() < 1e-3


def oblique():
    turn = np.deg2rad(20)
    affine = np.eye(4)
    affine[:3, :3] = np.array(
        [[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1]]
    ) @ np.diag([-5.0, -5.0, 5.0])
    return affine


def head():
    """A volume without a background of 0: nothing was masked."""
    return np.random.default_rng(0).integers(100, 900, (30, 34, 28)).astype(np.int16)


def scanned_by_ct():
    return np.where(ball() > 0, ball() % 80, -1024).astype(np.int16)


@pytest.mark.parametrize(
    ("voxels", "affine", "words"),
    [
        (ball(), oblique(), "oblique by 20°"),
        (head(), AFFINE, "mask the brain first"),
        (scanned_by_ct(), AFFINE, "looks like a CT"),
        (ball(), AFFINE, "voxels of 5 × 5 × 5 mm; the model has learned from 1 mm"),
        ((ball() > 0).astype(np.int16) + (ball() > 500), AFFINE, "is it a mask or a segmentation?"),
        (ball((30, 34, 28), (9.0, 9.0, 9.0)), AFFINE, "less than a brain has"),
    ],
)
def test_oddities_are_said_and_segmented(acdis, cell, tmp_path, voxels, affine, words):
    path = write(tmp_path / "t1.nii.gz", voxels, affine)
    code, said, err = acdis("predict", cell.name, "--t1", path, "-o", tmp_path / "s.nii.gz")
    assert code == 0, err
    assert words in said
    assert any(words in note for note in json.loads((tmp_path / "s.json").read_text())["notes"])
    np.testing.assert_allclose(nibabel.load(tmp_path / "s.nii.gz").affine, affine, atol=1e-6)


def test_an_empty_modality_counts_as_missing(acdis, cell, patient, tmp_path):
    zero = write(tmp_path / "zero.nii.gz", np.zeros((30, 34, 28), np.int16))
    words = flags(patient, "FLAIR")
    code, said, _ = acdis("predict", cell.name, *words, "--t1ce", zero, "-o", tmp_path / "with.nii.gz")
    assert code == 0
    assert "warning: T1ce is empty: every voxel is 0; it counts as missing" in said
    acdis("predict", cell.name, *words, "-o", tmp_path / "without.nii.gz")
    np.testing.assert_array_equal(labels(tmp_path / "with.nii.gz"), labels(tmp_path / "without.nii.gz"))
    assert json.loads((tmp_path / "with.json").read_text())["used"] == ["FLAIR"]


def test_case_and_root(acdis, cell, tmp_path):
    root, out = tmp_path / "root", tmp_path / "out"
    for number, names in enumerate((("flair", "t2"), ("t1ce",), ("flair",)), 1):
        folder = root / f"P{number}"
        folder.mkdir(parents=True)
        for place, name in enumerate(names):
            write(folder / f"P{number}_{name}.nii.gz", ball(seed=10 * number + place))
    (root / "P3" / "P3_flair.nii.gz").write_bytes(b"broken")
    many = ("predict", cell.name, "--root", root, "-o", out, "--workers", 1)
    code, said, err = acdis(*many)
    assert code == 2
    assert "1 of 3 cases were not segmented" in err
    assert "P3_flair.nii.gz" in err
    assert "P1: WT" in said
    assert sorted(path.name for path in out.iterdir()) == ["P1.json", "P1.nii.gz", "P2.json", "P2.nii.gz"]
    assert json.loads((out / "P1.json").read_text())["used"] == ["FLAIR", "T2"]

    write(root / "P3" / "P3_flair.nii.gz", ball(seed=30))
    first = (out / "P1.nii.gz").stat().st_mtime_ns
    code, said, err = acdis(*many)
    assert code == 0, err
    assert "2 of 3 were done already" in said
    assert (out / "P1.nii.gz").stat().st_mtime_ns == first
    write(root / "P2" / "P2_t1ce.nii.gz", ball(seed=77))  # another scan: done anew
    _, said, _ = acdis(*many)
    assert "2 of 3 were done already" in said

    code, _, err = acdis("predict", cell.name, "--case", root / "P1", "-o", tmp_path / "one.nii.gz")
    assert code == 0, err
    np.testing.assert_array_equal(labels(tmp_path / "one.nii.gz"), labels(out / "P1.nii.gz"))
    refused(acdis("predict", cell.name, "--case", root, "-o", tmp_path / "x.nii.gz"), "holds 3 cases")


@pytest.mark.slow
def test_many_side_by_side(acdis, cell, tmp_path):
    """The same as one after the other; of the cases that a stop has left only those that lack are done."""
    root, alone, out = (tmp_path / name for name in ("root", "alone", "out"))
    for number in range(1, 5):
        (root / f"P{number}").mkdir(parents=True)
        write(root / f"P{number}" / f"P{number}_t2.nii.gz", ball(seed=number))
    broken = root / "P2" / "P2_t2.nii.gz"
    broken.write_bytes(b"broken")
    told = [acdis("predict", cell.name, "--root", root, "-o", alone, "--workers", 1)]
    told.append(acdis("predict", cell.name, "--root", root, "-o", out, "--workers", 2))
    assert "on 2 workers" in told[1][1]
    assert "on 2 workers" not in told[0][1]
    for code, said, err in told:
        assert code == 2
        assert "cases: 4 of 4" in said
        assert f"1 of 4 cases were not segmented, all others were:\n  P2: {broken}" in err
    names = sorted(f"P{number}{end}" for number in (1, 3, 4) for end in (".json", ".nii.gz"))
    assert sorted(path.name for path in out.iterdir()) == names
    for number in (1, 3, 4):
        np.testing.assert_array_equal(labels(out / f"P{number}.nii.gz"), labels(alone / f"P{number}.nii.gz"))
    write(broken, ball(seed=2))
    (out / "P4.json").unlink()  # the report is written last: a stop before it
    before = (out / "P1.nii.gz").stat().st_mtime_ns
    code, said, err = acdis("predict", cell.name, "--root", root, "-o", out, "--workers", 2)
    assert code == 0, err
    assert "2 of 4 were done already" in said
    assert "P4: WT" in said
    assert "P1: WT" not in said
    assert (out / "P1.nii.gz").stat().st_mtime_ns == before
    words = ("--t2", broken, "-o", tmp_path / "one.nii.gz", "--workers", 2)
    refused(acdis("predict", cell.name, *words), "--workers", "--root")


def test_neither_monai_nor_ray_nor_mlflow_is_imported(cell, base, patient, tmp_path, checkout):
    program = (
        "import sys; from acdis import cli\n"
        f"sys.argv = ['acdis', 'predict', {cell.name!r}, '--t1', {str(patient['T1'])!r}, "
        f"'-o', {str(tmp_path / 's.nii.gz')!r}]\n"
        "try: cli.main()\n"
        "except SystemExit as ended: assert not ended.code, ended.code\n"
        "heavy = ('monai', 'ray', 'mlflow', 'matplotlib', 'sqlalchemy', 'optuna')\n"
        "print('IMPORTED', [name for name in heavy if name in sys.modules])"
    )
    env = {**os.environ, "ACDIS_HOME": str(base), "PYTHONPATH": str(checkout / "platform")}
    result = subprocess.run(
        [sys.executable, "-c", program], env=env, capture_output=True, text=True, check=True
    )
    assert "IMPORTED []" in result.stdout, result.stdout
    assert (tmp_path / "s.nii.gz").exists()
