"""Segmentations that another tool has predicted: a folder for each subset, a NIfTI file for each case."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from acdis.data import nifti, orientation, schemes
from acdis.data.case import NIFTI, Case, stem
from acdis.data.cases import read_labels
from acdis.data.fingerprints import file_hash
from acdis.data.parts import Part, grid_problems
from acdis.errors import UserError
from acdis.vocabulary import MODALITIES, SUBSETS, Subset, subset_name

#: What stands for the seed in a folder's name.
SEED = "{seed}"
#: What tools write behind a case's name.
_ENDINGS = re.compile(r"[-_](seg|pred|prediction|segmentation)", re.IGNORECASE)
_BY_NAME = {name.lower(): name for name in MODALITIES}
_FEW = 3


def folders(root: Path, subset: Subset | None = None) -> dict[Subset, Path]:
    """The folder of each subset.

    Args:
        root: holds folders named by their modalities, `FLAIR_T1ce`, in any order, joined by `_`, `+` or `-`.
        subset: `root` itself holds the predictions from these modalities.

    Raises:
        UserError: `root` is no folder, a name in it is no subset's, or a subset is there twice or missing.
    """
    if not root.is_dir():
        raise UserError(f"{root}: is no folder; give the one that holds the predictions")
    if subset is not None:
        return {subset: root}
    by_subset: dict[Subset, Path] = {}
    for folder in sorted(path for path in root.iterdir() if path.is_dir() and path.name[0] != "."):
        meant = _meant(folder.name)
        if meant is None:
            raise UserError(f"{folder}: names no subset; call it by its modalities, such as FLAIR_T1ce")
        if meant in by_subset:
            raise UserError(f"{folder}: is the same subset as {by_subset[meant].name}; keep one of them")
        by_subset[meant] = folder
    missing = [subset_name(due) for due in SUBSETS if due not in by_subset]
    if missing:
        raise UserError(
            f"{root}: no folder {_named(missing)} ({len(missing)} of {len(SUBSETS)} subsets are missing); "
            "predictions from one subset alone are scored with --subset"
        )
    return by_subset


def _meant(name: str) -> Subset | None:
    words = [_BY_NAME.get(word) for word in re.split(r"[-_+ ]", name.lower())]
    if None in words or len(set(words)) != len(words):
        return None
    return tuple(modality for modality in MODALITIES if modality in words)


def named_subset(name: str) -> Subset:
    """The subset that a word names, such as `FLAIR_T1ce`.

    Raises:
        UserError: none.
    """
    meant = _meant(name)
    if meant is None:
        known = ", ".join(MODALITIES)
        raise UserError(f"--subset {name!r}: write its modalities, such as FLAIR_T1ce; known are {known}")
    return meant


def find(places: Mapping[Subset, Path], names: Collection[str]) -> dict[Subset, dict[str, Path]]:
    """Each case's file in each folder: `CASE.nii.gz`, `CASE.nii`, also with `-seg`, `_pred` and the like.

    Raises:
        UserError: a case has none, or two, in a folder.
    """
    return {subset: _files(folder, names) for subset, folder in places.items()}


def _files(folder: Path, names: Collection[str]) -> dict[str, Path]:
    by_case: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if not NIFTI.fullmatch(path.name):
            continue
        name = stem(path.name)
        case = name if name in names else _ENDINGS.sub("", name)
        if case not in names:
            continue
        if case in by_case:
            raise UserError(f"{path}: {case} is there twice, also as {by_case[case].name}; keep one of them")
        by_case[case] = path
    missing = [name for name in names if name not in by_case]
    if missing:
        raise UserError(
            f"{folder}: no {_named([f'{name}.nii.gz' for name in missing])} "
            f"({len(missing)} of {len(names)} cases to score are missing)"
        )
    return by_case


def _named(names: Sequence[str]) -> str:
    return ", ".join(names[:_FEW]) + (" …" if len(names) > _FEW else "")


def read(path: Path, case: Case, scheme: str | None) -> np.ndarray:
    """Predicted classes, uint8 [D, H, W], axes as `orientation.AXES`, on the grid of the case's own files.

    Args:
        scheme: what the file's labels mean, as `data.scheme` names it; none: as in the case's segmentation.

    Raises:
        UserError: it cannot be read, lies on another grid, or holds values that are no labels of the scheme.
    """
    meant = schemes.named(scheme) if scheme else case.scheme
    classes, affine = read_labels(replace(case, segmentation=path, scheme=meant))
    turned, own = orientation.to_lps(classes, affine)
    try:
        truth, due, _ = nifti.load(case.segmentation, dimensions=3)
    except nifti.UnreadableError as error:
        raise UserError(f"{case.segmentation}: {error}") from None
    aim, place = orientation.to_lps(truth, due)
    pair = [
        Part("the case's segmentation", case.segmentation, aim, place, 0.0),
        Part("the prediction", path, turned, own, 0.0),
    ]
    for part, reason in grid_problems(pair):
        raise UserError(f"{part.path}: {reason}; bring it back to the case's own grid")
    return np.ascontiguousarray(turned)


def of_seed(folder: str, seed: int) -> Path:
    """The folder that a row of a spec names, for one of its seeds."""
    return Path(folder.replace(SEED, str(seed))).expanduser()


def digest(places: Mapping[Subset, Path], scheme: str | None, cache: Path) -> str:
    """12 hex over all NIfTI files in the folders and what their labels mean; files are not read twice."""
    tree = {
        subset_name(subset): {
            path.name: file_hash(path, cache)
            for path in sorted(folder.iterdir())
            if NIFTI.fullmatch(path.name) and path.is_file()
        }
        for subset, folder in places.items()
    }
    canonical = json.dumps([tree, scheme], sort_keys=True)
    return hashlib.sha256(canonical.encode()).hexdigest()[:12]
