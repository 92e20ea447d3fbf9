"""`data check`, `data prepare`, `data phantom` as a user types them."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import nibabel
import pytest


def _acdis(home: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "acdis", *words],
        env={"ACDIS_HOME": str(home), "COLUMNS": "120"},
        cwd=home,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("home")
    words = ["--cases", "3", "--seed", "5", "--shape", "24", "24", "24", "--spacing", "6"]
    done = _acdis(home, "data", "phantom", "cases", *words)
    assert done.returncode == 0, done.stderr
    assert "3 of 3" in done.stdout
    assert "say nothing about patients" in done.stdout
    return home / "cases"


def test_whole_cases_pass(drawn: Path, tmp_path: Path) -> None:
    done = _acdis(tmp_path, "data", "check", str(drawn))
    assert done.returncode == 0, done.stderr
    assert "24×24×24" in done.stdout
    assert "3 scans of 3 patients with all their files, 0 with problems" in done.stdout
    assert "LPS" in done.stdout


def test_problems_are_counted_and_the_exit_code_is_2(drawn: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(drawn, tmp_path / "cases"))
    (root / "Phantom_00001" / "Phantom_00001_t1.nii.gz").unlink()
    (root / "Phantom_00002" / "Phantom_00002_t2.nii.gz").write_bytes(b"nothing")
    done = _acdis(tmp_path, "data", "check", str(root))
    assert done.returncode == 2
    assert "T1 is missing" in done.stdout
    assert "Phantom_00002_t2.nii.gz" in done.stdout
    assert done.stderr.startswith("error: ")
    assert "2 problems in 2 cases" in done.stderr
    assert done.stderr.count("\n") == 1


def test_classes_that_no_case_holds_are_said(drawn: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(drawn, tmp_path / "cases"))
    assert "no case holds" not in _acdis(tmp_path, "data", "check", str(root)).stdout
    for path in root.glob("*/*_seg.nii.gz"):
        whole = nibabel.load(path)
        mask = (whole.get_fdata() > 0).astype("uint8")
        nibabel.save(nibabel.Nifti1Image(mask, whole.affine), path)
    done = _acdis(tmp_path, "data", "check", str(root))
    assert "no case holds ED or ET" in done.stdout


def test_an_image_as_segmentation_does_not_flood_the_table(drawn: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(drawn, tmp_path / "cases"))
    shutil.copy(
        root / "Phantom_00001" / "Phantom_00001_t1.nii.gz",
        root / "Phantom_00001" / "Phantom_00001_seg.nii.gz",
    )
    done = _acdis(tmp_path, "data", "check", str(root))
    assert done.returncode == 2
    assert "unknown label" in done.stdout
    assert any("…" in line for line in done.stdout.splitlines() if line.startswith("│"))


def test_prepare_builds_the_cache_once(drawn: Path, tmp_path: Path) -> None:
    words = [
        "data",
        "prepare",
        str(drawn),
        "data.min_size=16",
        "data.crop=[16, 16, 16]",
        "evaluation.window=[16, 16, 16]",
    ]
    first = _acdis(tmp_path, *words, "evaluation.stride=[16, 16, 16]")
    assert first.returncode == 0, first.stderr
    assert f"3 cases prepared in {tmp_path / 'cache'}" in first.stdout
    made = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("*.npy")}
    assert len(made) == 12
    again = _acdis(tmp_path, *words, "evaluation.stride=[16, 16, 16]")
    assert again.returncode == 0, again.stderr
    assert {path: path.stat().st_mtime_ns for path in made} == made


def test_prepare_refuses_bad_cases(drawn: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(drawn, tmp_path / "cases"))
    (root / "Phantom_00001" / "Phantom_00001_t1.nii.gz").unlink()
    done = _acdis(tmp_path, "data", "prepare", str(root))
    assert done.returncode == 2
    assert "T1 is missing" in done.stderr


@pytest.mark.real
@pytest.mark.slow
def test_the_real_cases_have_no_problems(shared: Path, tmp_path: Path) -> None:
    done = _acdis(tmp_path, "data", "check", str(shared / "data" / "brats2021"))
    assert done.returncode == 0, done.stderr
    assert "7 scans of 7 patients with all their files, 0 with problems" in done.stdout
    assert "240×240×155" in done.stdout


def test_check_tells_what_a_split_holds(drawn: Path, tmp_path: Path) -> None:
    """Three phantoms, all of which enhance but one."""
    words = ["data", "check", str(drawn), "data.split.counts=[1,1,1]", r"data.patients=(Phantom_0000\d)"]
    done = _acdis(tmp_path, *words)
    assert done.returncode == 0, done.stderr
    parts = [
        line.split(": ") for line in done.stdout.splitlines() if line.startswith(("train", "val", "test"))
    ]
    assert [name for name, _ in parts] == ["train", "validation", "test"]
    assert all(text.startswith("1 scans of 1 patients, ") for _, text in parts)
    truths = [nibabel.load(path).get_fdata() for path in drawn.glob("*/*_seg.nii.gz")]
    without = sum(not (truth == 4).any() for truth in truths)
    assert sum(int(text.split()[5]) for _, text in parts) == without


def test_published_lists_are_told_from_others(tmp_path: Path, shared: Path) -> None:
    source = shared / "data" / "splits"
    shutil.copy(source / "brats2020_val.txt", tmp_path)
    names = (source / "brats2020_val.txt").read_text().splitlines()
    (tmp_path / "brats2020_val.txt").write_text("\r\n".join(reversed(names)))
    done = _acdis(tmp_path, "data", "splits", str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert "brats2020_val.txt: BraTS 2020, validation, 50 cases: as published" in done.stdout
    (tmp_path / "mine.txt").write_text("\n".join(names[1:]))
    done = _acdis(tmp_path, "data", "splits", str(tmp_path))
    assert done.returncode == 2
    assert "1 of 2 files hold no published list: mine.txt" in done.stderr


def test_folds_are_written_as_lists(drawn: Path, tmp_path: Path) -> None:
    done = _acdis(tmp_path, "data", "splits", str(drawn), "--folds", "3", "--out", str(tmp_path / "folds"))
    assert done.returncode == 0, done.stderr
    assert "3 folds of 3 patients" in done.stdout
    tests = [(tmp_path / "folds" / f"fold{n}_test.txt").read_text().split() for n in range(3)]
    assert sorted(name for part in tests for name in part) == [f"Phantom_0000{n}" for n in (1, 2, 3)]
    train = (tmp_path / "folds" / "fold0_train.txt").read_text().split()
    assert sorted(train + tests[0]) == [f"Phantom_0000{n}" for n in (1, 2, 3)]


def test_folds_leave_nobody_out_in_silence(drawn: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(drawn, tmp_path / "cases"))
    (root / "Phantom_00001" / "Phantom_00001_seg.nii.gz").unlink()
    words = ["data", "splits", str(root), "--folds", "2", "--out", str(tmp_path / "folds")]
    done = _acdis(tmp_path, *words)
    assert done.returncode == 0, done.stderr
    assert (
        "1 without a segmentation: left out, they can neither train nor be scored: Phantom_00001"
        in done.stdout
    )
    (root / "Phantom_00002" / "Phantom_00002_t1.nii.gz").unlink()
    done = _acdis(tmp_path, *words)
    assert done.returncode == 2
    assert "1 of 2 cases lack files or are there twice; scans that truly lack a modality take part with " in (
        " ".join(done.stderr.split())
    )
    assert "Phantom_00002_t1.nii.gz: T1 is missing" in done.stderr


def test_folds_go_where_they_are_told_to(drawn: Path, tmp_path: Path) -> None:
    """Nothing is written unasked, and five folds never stand beside what is left of ten."""
    words = ["data", "splits", str(drawn), "--folds"]
    done = _acdis(tmp_path, *words, "3")
    assert (done.returncode, done.stderr) == (2, "error: --folds: give --out FOLDER, where their lists go\n")
    assert list(tmp_path.iterdir()) == []
    assert _acdis(tmp_path, *words, "3", "--out", "f").returncode == 0
    done = _acdis(tmp_path, *words, "2", "--out", "f")
    assert done.returncode == 2
    assert "f: holds lists of another draw (fold2_test.txt …); give a new folder to --out" in done.stderr
    done = _acdis(tmp_path, "data", "splits", "f", "--out", "g")
    assert "--out has an effect with --folds alone" in done.stderr


def test_what_lies_beside_lists_is_no_list(tmp_path: Path, shared: Path) -> None:
    done = _acdis(tmp_path, "data", "splits", str(shared / "data" / "splits"))
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("as published") == 15
    assert "PROVENANCE.txt: sentences and no names, left out" in done.stdout
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists" / "README.txt").write_text("These are no lists.\nNot at all.\n")
    done = _acdis(tmp_path, "data", "splits", "lists")
    assert (done.returncode, done.stderr) == (2, "error: lists: no split file (*.txt) there\n")


def test_the_table_says_whose_names_and_labels(drawn: Path, tmp_path: Path) -> None:
    part = "{{case}}/{{case}}_{}.nii.gz".format
    files = {"FLAIR": "flair", "T1ce": "t1ce", "T1": "t1", "T2": "t2", "segmentation": "seg"}
    words = [f"data.files.{name}='{part(end)}'" for name, end in files.items()]
    done = _acdis(tmp_path, "data", "check", str(drawn), *words, "data.scheme=brats2021")
    assert done.returncode == 0, done.stderr
    told = "".join(line.split("│")[2].strip() + " " for line in done.stdout.splitlines() if "│" in line)
    assert "data.files, labels as brats2021" in " ".join(told.split())
