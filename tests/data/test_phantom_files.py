"""Phantoms on disk: headers as in a real case; kept when whole, drawn again when not, never half a case."""

from __future__ import annotations

import json
import os
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from acdis.data import cases, phantom
from acdis.errors import UserError
from acdis.vocabulary import MODALITIES

TINY, COARSE = (32, 40, 32), 5.0


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_files_hold_what_was_drawn(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    folders = phantom.write(
        tmp_path, 2, 7, TINY, COARSE, progress=lambda done, total: seen.append((done, total))
    )
    assert seen == [(1, 2), (2, 2)]
    assert [folder.name for folder in folders] == ["Phantom_00001", "Phantom_00002"]
    case = phantom.draw(7, 2, TINY, COARSE)
    for modality, image in zip(MODALITIES, case.images, strict=True):
        file = nib.load(tmp_path / "Phantom_00002" / f"Phantom_00002_{modality.lower()}.nii.gz")
        assert file.get_data_dtype() == np.int16
        np.testing.assert_array_equal(np.asanyarray(file.dataobj), image)
    seg = nib.load(tmp_path / "Phantom_00002" / "Phantom_00002_seg.nii.gz")
    np.testing.assert_array_equal(np.asanyarray(seg.dataobj), case.labels)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["Phantom_00001", "Phantom_00002"]


def test_phantoms_pass_the_check_of_cases(tmp_path: Path) -> None:
    phantom.write(tmp_path, 2, 7, TINY, COARSE)
    finding = cases.find(tmp_path)
    assert [case.name for case in finding.cases] == ["Phantom_00001", "Phantom_00002"]
    assert not finding.problems
    assert not [problem for report in cases.check(finding.cases, 1) for problem in report.problems]


@pytest.mark.real
def test_header_is_that_of_a_real_case(shared: Path, tmp_path: Path) -> None:
    real = shared / "data" / "brats2021" / "BraTS2021_00006"
    (drawn,) = phantom.write(tmp_path, 1, 0, TINY, COARSE)
    suffixes = {path.name.removeprefix(real.name) for path in real.iterdir()}
    assert {path.name.removeprefix(drawn.name) for path in drawn.glob("*.nii.gz")} == suffixes
    for suffix in suffixes:
        ours, theirs = nib.load(drawn / (drawn.name + suffix)), nib.load(real / (real.name + suffix))
        assert ours.get_data_dtype() == theirs.get_data_dtype()
        assert nib.aff2axcodes(ours.affine) == nib.aff2axcodes(theirs.affine) == ("L", "P", "S")
        for key in ("xyzt_units", "qform_code", "sform_code", "datatype", "magic"):
            assert ours.header[key] == theirs.header[key], key
        np.testing.assert_array_equal(phantom.affine(theirs.shape, 1.0), theirs.affine)
        assert ours.header.get_zooms() == pytest.approx((COARSE,) * 3)


def test_a_case_depends_on_seed_and_index_alone(tmp_path: Path) -> None:
    phantom.write(tmp_path / "three", 3, 1, TINY, COARSE)
    phantom.write(tmp_path / "two", 2, 1, TINY, COARSE)
    phantom.write(tmp_path / "other", 2, 2, TINY, COARSE)
    for name in ("Phantom_00001", "Phantom_00002"):
        three, two, other = (files_of(tmp_path / folder / name) for folder in ("three", "two", "other"))
        assert three == two
        assert all(two[file] != other[file] for file in two)


def test_a_whole_case_is_kept(tmp_path: Path) -> None:
    (folder,) = phantom.write(tmp_path, 1, 1, TINY, COARSE)
    stamp = folder.stat().st_ino, (folder / "phantom.json").stat().st_mtime_ns
    phantom.write(tmp_path, 1, 1, TINY, COARSE)
    assert (folder.stat().st_ino, (folder / "phantom.json").stat().st_mtime_ns) == stamp


@pytest.mark.parametrize("suffix", ["_t1.nii.gz", "_seg.nii.gz", "phantom.json"])
def test_a_case_that_lacks_a_file_is_drawn_again(tmp_path: Path, suffix: str) -> None:
    (folder,) = phantom.write(tmp_path, 1, 1, TINY, COARSE)
    whole = files_of(folder)
    next(folder.glob(f"*{suffix}")).unlink()
    phantom.write(tmp_path, 1, 1, TINY, COARSE)
    assert files_of(folder) == whole


def test_a_truncated_file_is_drawn_again(tmp_path: Path) -> None:
    (folder,) = phantom.write(tmp_path, 1, 1, TINY, COARSE)
    whole = files_of(folder)
    path = folder / "Phantom_00001_t2.nii.gz"
    path.write_bytes(path.read_bytes()[:-100])
    (folder / "phantom.json").write_text("{")
    phantom.write(tmp_path, 1, 1, TINY, COARSE)
    assert files_of(folder) == whole


@pytest.mark.parametrize("change", [{"seed": 2}, {"spacing": 4.0}, {"shape": (40, 40, 32)}])
def test_other_parameters_are_drawn_again(tmp_path: Path, change: dict) -> None:
    common = {"seed": 1, "shape": TINY, "spacing": COARSE}
    (folder,) = phantom.write(tmp_path, 1, **common)
    before = files_of(folder)
    phantom.write(tmp_path, 1, **(common | change))
    assert files_of(folder) != before
    record = json.loads((folder / "phantom.json").read_text())
    assert record["seed"] == change.get("seed", 1)
    assert [path.name for path in tmp_path.iterdir()] == ["Phantom_00001"]


def test_killed_while_drawing_leaves_no_half_case(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved: list[Path] = []
    save = nib.save

    def dies(image: nib.Nifti1Image, path: Path) -> None:
        if len(saved) == 2:
            raise KeyboardInterrupt
        saved.append(path)
        save(image, path)

    monkeypatch.setattr("nibabel.save", dies)
    with pytest.raises(KeyboardInterrupt):
        phantom.write(tmp_path, 1, 1, TINY, COARSE)
    assert list(tmp_path.iterdir()) == []


def test_leftovers_of_a_killed_process_go_when_old(tmp_path: Path) -> None:
    old, new = tmp_path / ".Phantom_00001.123", tmp_path / ".Phantom_00002.124"
    for leftover in (old, new):
        (leftover / "Phantom_00001").mkdir(parents=True)
    os.utime(old, (0, 0))
    phantom.write(tmp_path, 1, 1, TINY, COARSE)
    assert not old.exists()
    assert new.exists()


def test_somebody_elses_folder_is_left_alone(tmp_path: Path) -> None:
    folder = tmp_path / "Phantom_00001"
    folder.mkdir()
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match=r"notes\.txt"):
        phantom.write(tmp_path, 1, 1, TINY, COARSE)
    assert (folder / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"cases": 0}, "at least 1"),
        ({"seed": -1}, "negative"),
        ({"shape": (8, 40, 32)}, "at least 16"),
        ({"shape": (40, 32)}, "three sides"),
        ({"spacing": 0.0}, "above 0"),
        ({"spacing": float("nan")}, "above 0"),
        ({"spacing": 50.0}, "at most 20"),  # a brain of three voxels
    ],
)
def test_what_cannot_be_drawn_is_said_before_anything_is_written(
    tmp_path: Path, wrong: dict, said: str
) -> None:
    with pytest.raises(UserError, match=said):
        phantom.write(tmp_path / "out", **({"cases": 1, "seed": 0, "shape": TINY, "spacing": COARSE} | wrong))
    assert not (tmp_path / "out").exists()


def test_a_file_in_the_way_is_said(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        phantom.write(tmp_path / "out", 1, 0, TINY, COARSE)
