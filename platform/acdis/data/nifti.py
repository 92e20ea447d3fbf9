"""NIfTI files, read once, distrustfully: every way in which one can be broken has its own sentence."""

from __future__ import annotations

import math
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from acdis import files

#: Voxels per side, per volume and bytes of a whole file; beyond, a header is taken for damaged (BraTS:
#: 240×240×155, 9 million voxels). A case at these limits still takes less than 2 GB to read.
MAX_SIDE = 1024
MAX_VOXELS = 2**25
MAX_BYTES = 2**29
_HEADER = 348
_GZIP_MAGIC = b"\x1f\x8b"
_VOXEL_MM = (0.01, 100.0)


class Image(NamedTuple):
    """What a file holds.

    Attributes:
        voxels: in the file's own axes (i, j, k) and dtype, or float64 where the header scales; Fortran order.
        affine: 4×4 float64, voxel indices to mm.
        apart: mm between the corners' places by sform and by qform, at most; 0 where one of them is not set,
            NaN where neither is: which way the axes run is a guess then.
    """

    voxels: np.ndarray
    affine: np.ndarray
    apart: float


class UnreadableError(Exception):
    """A file cannot be used; the message is the reason, without the file's name."""


def load(path: Path, dimensions: int) -> Image:
    """Read a file.

    Args:
        path: a `.nii` or `.nii.gz` file, NIfTI-1.
        dimensions: 3 or 4, how many the file must have; last axes of length 1 beyond them are taken away.

    Raises:
        UnreadableError: with the reason.
    """
    try:
        raw = files.read(path, MAX_BYTES)
    except FileNotFoundError:
        raise UnreadableError("does not exist") from None
    except OSError as error:
        raise UnreadableError(f"cannot be read ({files.reason(error)})") from None
    except files.TooLargeError as error:
        raise UnreadableError(str(error)) from None
    if not raw:
        raise UnreadableError("is empty (0 bytes)")
    if raw[:2] != _GZIP_MAGIC and path.suffix.lower() == ".gz":
        raise UnreadableError("is not a gzip file although its name ends in .gz")
    header = _header(_content(raw, _HEADER))
    shape = _shape(header, dimensions)
    affine = _affine(header)
    return Image(_voxels(header, shape, raw), affine, _apart(header, shape))


def _apart(header: Any, shape: tuple[int, ...]) -> float:
    forms = header.get_sform(coded=True)[0], header.get_qform(coded=True)[0]
    if forms[0] is None and forms[1] is None:
        return math.nan
    return 0.0 if forms[0] is None or forms[1] is None else corner_shift(*forms, shape)


def voxel_sizes(affine: np.ndarray) -> tuple[float, float, float]:
    """mm per voxel along each array axis: the lengths of the affine's columns."""
    first, second, third = (float(length) for length in np.linalg.norm(affine[:3, :3], axis=0))
    return first, second, third


def _content(raw: bytes, length: int) -> bytes:
    """The first `length` bytes of a file that may be gzip; never inflates more, whatever a header claims."""
    return _inflate(raw, length) if raw[:2] == _GZIP_MAGIC else raw[:length]


def _inflate(raw: bytes, length: int) -> bytes:
    """Up to `length` bytes of one or several gzip members; the checksums of members that end are checked."""
    parts: list[bytes] = []
    try:
        while raw[:2] == _GZIP_MAGIC and length > 0:
            member = zlib.decompressobj(wbits=31)
            parts.append(member.decompress(raw, length))
            length -= len(parts[-1])
            # zlib looks at the end and its checksum only when asked for more than the data: for one byte.
            if not member.eof and not member.decompress(member.unconsumed_tail, 1) and not member.eof:
                raise UnreadableError("is truncated: its gzip data end early")
            raw = member.unused_data
    except zlib.error as error:
        raise UnreadableError(f"is damaged: its gzip data cannot be decompressed ({error})") from None
    return b"".join(parts)


def _header(head: bytes) -> Any:
    if len(head) < _HEADER:
        raise UnreadableError(f"is truncated: {len(head)} bytes, less than a NIfTI header")
    import nibabel

    try:
        header = nibabel.Nifti1Header(head, check=False)
    except Exception:  # nibabel raises its own and struct's errors on a header that makes no sense
        raise UnreadableError("is not a NIfTI file") from None
    if int(header["sizeof_hdr"]) != _HEADER or bytes(header["magic"].tobytes())[:3] != b"n+1":
        raise UnreadableError("is not a NIfTI-1 file with header and voxels in one")
    return header


def corner_shift(one: np.ndarray, other: np.ndarray, shape: tuple[int, ...]) -> float:
    """mm between the places that two affines give to the corners of one array, at most."""
    corners = np.array([(*corner, 1) for corner in np.ndindex(2, 2, 2)], dtype=np.float64)
    corners[:, :3] *= np.array(shape[:3]) - 1
    return float(np.linalg.norm((corners @ (one - other).T)[:, :3], axis=1).max())


def _shape(header: Any, dimensions: int) -> tuple[int, ...]:
    count = int(header["dim"][0])
    shape = tuple(int(side) for side in header["dim"][1 : 1 + max(count, 0)])
    while len(shape) > dimensions and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) != dimensions:
        raise UnreadableError(f"is {count}-D {shape} where {dimensions}-D is due")
    if min(shape) < 1 or max(shape) > MAX_SIDE:
        raise UnreadableError(f"has shape {shape} in its header; each side must be 1 to {MAX_SIDE} voxels")
    if np.prod(shape[:3], dtype=np.int64) > MAX_VOXELS:
        raise UnreadableError(f"has shape {shape} in its header; a volume has at most {MAX_VOXELS:,} voxels")
    return shape


def _voxels(header: Any, shape: tuple[int, ...], raw: bytes) -> np.ndarray:
    from nibabel.spatialimages import HeaderDataError

    dtype, offset = _dtype(header), _offset(header)
    count = int(np.prod(shape, dtype=np.int64))
    scaled = header["scl_slope"] != 0  # what is scaled becomes float64
    needed = offset + count * dtype.itemsize
    if max(needed, count * 8 if scaled else 0) > MAX_BYTES:
        raise UnreadableError(
            f"claims {needed / 2**30:.1f} GiB, shape {shape}; at most {MAX_BYTES / 2**30:.1f} GiB are read"
        )
    content = _content(raw, needed)
    if len(content) < needed:
        raise UnreadableError(f"is truncated: {len(content)} of {needed} bytes for shape {shape}")
    array = np.frombuffer(content, dtype, count=count, offset=offset).reshape(shape, order="F")
    try:
        slope, intercept = header.get_slope_inter()
    except HeaderDataError as error:
        raise UnreadableError(f"has a wrong intensity scale in its header ({error})") from None
    if slope is None or (slope, intercept) == (1, 0):
        return array
    return array * np.float64(slope) + np.float64(intercept or 0)


def _dtype(header: Any) -> np.dtype[Any]:
    from nibabel.spatialimages import HeaderDataError

    try:
        dtype = np.dtype(header.get_data_dtype())
    except (HeaderDataError, KeyError) as error:
        raise UnreadableError(f"has an unknown data type in its header ({error})") from None
    if dtype.kind not in "iuf" or dtype.itemsize == 0:
        raise UnreadableError(f"holds {dtype} voxels; whole or floating-point numbers are due")
    return dtype


def _offset(header: Any) -> int:
    offset = float(header["vox_offset"])
    if not _HEADER <= offset <= 2**24:  # also false for NaN
        raise UnreadableError(f"has a wrong voxel offset in its header ({offset})")
    return int(offset)


def _affine(header: Any) -> np.ndarray:
    """The sform, else the qform, else what the voxel size gives; a qform that is given must make sense."""
    from nibabel.spatialimages import HeaderDataError

    with np.errstate(all="ignore"):
        try:
            qform = header.get_qform(coded=True)[0]
            affine = np.asarray(header.get_best_affine(), dtype=np.float64)
        except (HeaderDataError, ValueError) as error:
            raise UnreadableError(f"has a wrong qform in its header ({error})") from None
    if qform is not None and _is_wrong(affine) and not _is_wrong(qform):
        raise UnreadableError(
            "has a wrong sform beside a sound qform in its header; set the sform to the qform"
        )
    if not np.isfinite(affine).all() or (qform is not None and not np.isfinite(qform).all()):
        raise UnreadableError("has NaN or inf in its affine (sform or qform)")
    low, high = _VOXEL_MM
    sizes = voxel_sizes(affine)
    if min(sizes) < low or max(sizes) > high:
        raise UnreadableError(f"has voxels of {_mm(sizes)} mm; {low} to {high:.0f} mm make sense")
    if abs(np.linalg.det(affine[:3, :3])) < 0.5 * np.prod(sizes):
        raise UnreadableError("has a sheared or singular affine")
    return affine


def _is_wrong(affine: np.ndarray) -> bool:
    """Whether an affine maps to nowhere, or to voxels that no scanner makes."""
    if not np.isfinite(affine).all():
        return True
    sizes = voxel_sizes(affine)
    low, high = _VOXEL_MM
    outside = min(sizes) < low or max(sizes) > high
    return outside or abs(np.linalg.det(affine[:3, :3])) < 0.5 * float(np.prod(sizes))


def _mm(sizes: tuple[float, ...]) -> str:
    return " × ".join(f"{size:g}" for size in sizes)
