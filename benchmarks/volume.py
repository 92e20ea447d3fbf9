"""The case that benchmarks compute on: the first of a folder, or a phantom of BraTS' size."""

from __future__ import annotations

from pathlib import Path

from acdis.data import cases, phantom
from acdis.errors import UserError


def small_case(scratch: Path) -> cases.Case:
    """A phantom of 32³ voxels drawn below `scratch`."""
    phantom.write(scratch / "phantom", cases=1, seed=0, shape=(32, 32, 32), spacing=5.0)
    return cases.find(scratch / "phantom").cases[0]


def first_case(root: Path | None, scratch: Path) -> cases.Case:
    """The first case under `root`, or a phantom of 240×240×155 voxels drawn below `scratch`.

    Raises:
        UserError: no case there, or one file for all modalities.
    """
    if root is None:
        root = scratch / "phantom"
        phantom.write(root, cases=1, seed=0, shape=(240, 240, 155), spacing=1.0)
    all_cases = cases.find(root).cases
    if not all_cases:
        raise UserError(f"{root}: no BraTS case found; give a folder of cases, or nothing for a phantom")
    if all_cases[0].layout == "msd":
        raise UserError(f"{root}: this benchmark reads one file per modality; give a BraTS folder")
    return all_cases[0]
