"""Limits on data, and a cache that a disk or a hand has damaged without changing the size of a file."""

from __future__ import annotations

import os
from pathlib import Path

import nibabel
import numpy as np
import pytest

from acdis import config
from acdis.data import cache, cases, nifti, phantom
from acdis.data.prepared_case import Entry, check_values
from acdis.data.preprocess import preprocess
from acdis.data.resample import resampled_shape
from acdis.errors import UserError

DATA = config.Data(root="x", min_size=16, crop=(16, 16, 16))


def _case(folder: Path, affine: np.ndarray | None = None) -> Path:
    folder.mkdir(parents=True)
    for number, part in enumerate(("flair", "t1ce", "t1", "t2", "seg")):
        voxels = np.zeros((12, 10, 8), dtype=np.int16)
        box = voxels[2:-2, 2:-2, 2:-2]
        box[:] = np.random.default_rng(number).integers(1, 900, box.shape)
        if part == "seg":
            box[:], box[:4] = 0, 2
        nibabel.save(nibabel.Nifti1Image(voxels, np.eye(4)), folder / f"{folder.name}_{part}.nii")
    return folder


def _entry(tmp_path: Path) -> Entry:
    if not (tmp_path / "data").exists():
        _case(tmp_path / "data" / "A")
    return cache.prepare(cases.find(tmp_path / "data").cases, DATA, tmp_path / "cache", 1)["A"]


def _swap(path: Path, old: bytes, new: bytes) -> None:
    content = path.read_bytes()
    assert len(old) == len(new)
    assert content.count(old) >= 1
    path.write_bytes(content.replace(old, new, 1))


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("image.npy", b"'<f4'", b"'<i4'"),
        ("image.npy", b"(4, 16, 16, 16)", b"(16, 4, 16, 16)"),
        ("label.npy", b"(16, 16, 16)", b"(16, 16,  8)"),
        ("native_label.npy", b"'descr'", b"'descr\n"),
        ("lesion.npy", b"'<i4'", b"'<f4'"),
        ("case.json", b'"spacing"', b'"spacinG"'),
        ("case.json", b'"name": "A"', b'"name": "B"'),
    ],
)
def test_a_damaged_entry_of_the_right_size_is_made_again(
    tmp_path: Path, name: str, old: bytes, new: bytes
) -> None:
    entry = _entry(tmp_path)
    before = (entry.path / name).read_bytes()
    _swap(entry.path / name, old, new)
    assert _entry(tmp_path).path == entry.path
    assert (entry.path / name).read_bytes() == before


def test_lesion_voxels_outside_of_the_box_are_drawn_again(tmp_path: Path) -> None:
    entry = _entry(tmp_path)
    voxels = entry.lesion_voxels()
    assert len(voxels)
    np.save(entry.path / "lesion.npy", np.full_like(voxels, 16))
    assert np.array_equal(_entry(tmp_path).lesion_voxels(), voxels)


def test_values_that_cannot_be_are_not_learned() -> None:
    images, labels = np.zeros((4, 2, 2, 2), np.float32), np.zeros((2, 2, 2), np.uint8)
    check_values("A", images, labels)
    labels[1, 1, 1] = 129  # 1, and a flipped bit
    with pytest.raises(UserError, match=r"A: damaged in the cache \(label 129\); remove"):
        check_values("A", images, labels)
    images[3, 1, 1, 1] = np.nan
    with pytest.raises(UserError, match="NaN or inf"):
        check_values("A", images, np.zeros_like(labels))


def test_a_sparse_file_of_a_terabyte(tmp_path: Path) -> None:
    folder = _case(tmp_path / "A")
    with (folder / "A_t1.nii").open("r+b") as stream:
        stream.truncate(2**40)
    with pytest.raises(UserError, match=r"A_t1\.nii: holds 1,099,511,627,776 bytes"):
        cases.read(cases.find(tmp_path).cases[0])


def test_a_pipe_among_the_files(tmp_path: Path) -> None:
    """Opening it would wait for a writer for ever."""
    folder = _case(tmp_path / "A")
    (folder / "A_t2.nii").unlink()
    os.mkfifo(folder / "A_t2.nii")
    with pytest.raises(UserError, match=r"A_t2\.nii: cannot be read \(Not a regular file\)"):
        cases.read(cases.find(tmp_path).cases[0])


def test_volumes_have_an_end() -> None:
    assert resampled_shape((240, 240, 155), (1.0, 1.0, 1.0), (2.0, 2.0, 2.0)) == (120, 120, 78)
    for spacing in (0.5, 0.1, 1e-300):  # 480 × 480 × 310 voxels are 71 million
        with pytest.raises(UserError, match=r"data\.spacing .* choose a larger one"):
            resampled_shape((240, 240, 155), (1.0, 1.0, 1.0), (spacing, spacing, spacing))


def test_a_box_of_a_billion_voxels(tmp_path: Path) -> None:
    _case(tmp_path / "A")
    volume = cases.read(cases.find(tmp_path).cases[0])
    with pytest.raises(UserError, match=r"data\.min_size 1000 makes a box"):
        preprocess(volume, config.Data(root="x", min_size=1000))


def test_phantoms_of_a_billion_voxels() -> None:
    with pytest.raises(UserError, match="at most 16,777,216 voxels"):
        phantom.draw(0, 1, (1000, 1000, 1000), 1.0)
    assert nifti.MAX_VOXELS >= 240 * 240 * 155  # BraTS
