"""NIfTI files: bytes, headers, and what a header may promise."""

from __future__ import annotations

import gzip
import struct

import nibabel
import numpy as np
import pytest
from hypothesis import strategies as st

from acdis.data import cases
from acdis.data.nifti import MAX_SIDE

SHAPE = (12, 10, 8)
PARTS = ("flair", "t1ce", "t1", "t2", "seg")
#: Field of the header: where it begins, how `struct` packs it, how many.
FIELDS = {
    "sizeof_hdr": (0, "i", 1),
    "dim": (40, "h", 8),
    "datatype": (70, "h", 1),
    "bitpix": (72, "h", 1),
    "pixdim": (76, "f", 8),
    "vox_offset": (108, "f", 1),
    "scl_slope": (112, "f", 1),
    "scl_inter": (116, "f", 1),
    "xyzt_units": (123, "b", 1),
    "qform_code": (252, "h", 1),
    "sform_code": (254, "h", 1),
    "quatern": (256, "f", 3),
    "qoffset": (268, "f", 3),
    "srow_x": (280, "f", 4),
    "srow_y": (296, "f", 4),
    "srow_z": (312, "f", 4),
    "magic": (344, "b", 4),
}
HEAD = 352


def _file(part, dtype=np.int16):
    voxels = np.zeros(SHAPE, dtype=dtype)
    if part == "seg":
        voxels[4, 4, 2:6] = (0, 1, 2, 4)
    else:
        voxels[2:-2, 2:-2, 2:-2] = np.random.default_rng(PARTS.index(part)).integers(1, 900, (8, 6, 4))
    image = nibabel.Nifti1Image(voxels, np.diag([-1.0, -1.0, 1.0, 1.0]))
    image.set_qform(image.affine, code=1)
    image.set_sform(image.affine, code=1)
    return image.to_bytes()


@pytest.fixture
def case(room):
    """`case(part, content, end)`: one good case, of which one file holds `content`."""
    folder = room.data / "Case_1"
    folder.mkdir()

    def made(part, content, end=".nii.gz"):
        for path in folder.iterdir():
            path.unlink()
        for each in PARTS:
            if each == part:
                (folder / f"Case_1_{each}{end}").write_bytes(content)
            else:
                (folder / f"Case_1_{each}.nii").write_bytes(_file(each))
        return f"Case_1_{part}{end}"

    return made


def _read(root):
    """What every command does with a case; what it returns must be fit to train on."""
    finding = cases.find(root)
    assert len(finding.cases) == 1, finding.problems
    volume = cases.read(finding.cases[0])
    assert volume.images.dtype == np.float32
    assert volume.images.shape == (4, *volume.labels.shape)
    assert np.isfinite(volume.images).all()
    assert np.isfinite(volume.affine).all()
    assert volume.labels.dtype == np.uint8
    assert volume.labels.max() <= 3
    assert max(volume.labels.shape) <= MAX_SIDE


def test_bytes_of_a_file(room, case, fuzz, mutations):
    """Any bytes of a plain file, header most of all."""
    files = st.sampled_from(PARTS).flatmap(
        lambda part: st.tuples(st.just(part), mutations.damaged(_file(part), head=HEAD))
    )

    def attempt(drawn):
        name = case(*drawn, end=".nii")
        room.tries("NIfTI, bytes", lambda: _read(room.data), [name, "Case_1"])

    fuzz(files, 120, attempt)


def test_bytes_of_a_gzip_file(room, case, fuzz, mutations):
    """The compressed bytes: the stream, its checksum, its length."""
    files = st.sampled_from(PARTS).flatmap(
        lambda part: st.tuples(st.just(part), mutations.damaged(gzip.compress(_file(part), mtime=0)))
    )

    def attempt(drawn):
        name = case(*drawn)
        room.tries("NIfTI, gzip", lambda: _read(room.data), [name, "Case_1"])

    fuzz(files, 80, attempt)


@st.composite
def _headers(draw):
    """1 to 3 fields of a header with other numbers in them, in either byte order."""
    part = draw(st.sampled_from(PARTS))
    content = bytearray(_file(part))
    order = draw(st.sampled_from("<<<<>"))
    for _ in range(draw(st.integers(1, 3))):
        start, kind, count = FIELDS[draw(st.sampled_from(sorted(FIELDS)))]
        at = draw(st.integers(0, count - 1))
        if kind == "f":
            number = draw(st.sampled_from([0.0, -1.0, 1e-30, 1e30, np.nan, np.inf]) | st.floats(width=32))
        else:
            most = 2 ** (8 * struct.calcsize(kind) - 1) - 1
            usual = [0, -1, 1, 4, 8, 16, 64, 128, 512, 1024, 2048]
            number = draw(
                st.sampled_from([each for each in usual if each <= most]) | st.integers(-most, most)
            )
        struct.pack_into(order + kind, content, start + at * struct.calcsize(kind), number)
    return part, bytes(content)


def test_fields_of_a_header(room, case, fuzz):
    def attempt(drawn):
        name = case(*drawn, end=".nii")
        room.tries("NIfTI, header", lambda: _read(room.data), [name, "Case_1"])

    fuzz(_headers(), 160, attempt)
