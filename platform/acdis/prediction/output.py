"""Writes volumes in the grid of the file that they were predicted from, each whole or not at all."""

from __future__ import annotations

import gzip
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from acdis import files
from acdis.errors import UserError

_ENDS = (".nii.gz", ".nii")


def check(path: Path, inputs: Iterable[Path]) -> None:
    """Whether a segmentation can be written to `path`, before anything is computed.

    Raises:
        UserError: no NIfTI name, one of the inputs, a folder, or a place that cannot be written to.
    """
    stem(path)
    if any(path.resolve() == source.resolve() for source in inputs):
        raise UserError(f"{path}: is one of the images; give another -o")
    if path.is_dir():
        raise UserError(f"{path}: is a folder; give -o a file's name")
    try_folder(path.parent)


def try_folder(folder: Path) -> None:
    """Make the folder, and write a file in it that vanishes.

    Raises:
        UserError: one of the two cannot be done.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise files.UnwritableError(folder, error) from None


def stem(path: Path) -> str:
    """The name without its ending.

    Raises:
        UserError: it ends in neither .nii nor .nii.gz.
    """
    for end in _ENDS:
        if path.name.endswith(end) and path.name != end:
            return path.name.removesuffix(end)
    raise UserError(f"{path}: give -o a name that ends in .nii.gz or .nii")


def beside(path: Path, suffix: str) -> Path:
    """`seg.nii.gz` and `_ET.nii.gz` to `seg_ET.nii.gz` in the same folder."""
    return path.with_name(stem(path) + suffix)


def write(path: Path, voxels: np.ndarray, like: Path, description: str) -> None:
    """Write [D, H, W] in the file's axes, with affine, codes and units of the file `like`.

    Raises:
        UnwritableError: it cannot be written.
    """
    import nibabel

    source = nibabel.load(like)
    header = source.header.copy()
    header.set_data_dtype(voxels.dtype)
    header["descrip"] = description.encode()[:79]
    for field in ("cal_min", "cal_max", "scl_inter", "intent_code"):
        header[field] = 0
    header["scl_slope"] = 1
    image: Any = nibabel.Nifti1Image(voxels, source.affine, header)
    content = image.to_bytes()
    if path.name.endswith(".gz"):
        content = gzip.compress(content, compresslevel=6, mtime=0)
    files.sweep_beside(path)
    files.write_bytes(path, content)
