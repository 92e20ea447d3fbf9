"""`data check`, `data prepare`, `data phantom` as a user types them."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

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
    assert "3 cases with all their files, 0 with problems" in done.stdout


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
    assert "7 cases with all their files, 0 with problems" in done.stdout
    assert "240×240×155" in done.stdout
