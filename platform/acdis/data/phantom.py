"""Phantoms: drawn BraTS-like cases, for those who have no data yet. What they are and lack: docs/phantoms.md.

A case depends on (seed, index, shape, spacing) alone, never on how many cases are asked for.
"""

from __future__ import annotations

import math
import secrets
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from acdis import files
from acdis.data import anatomy, lesion
from acdis.data.anatomy import Anatomy, Floats, Triple
from acdis.data.lesion import Painted
from acdis.errors import UserError
from acdis.vocabulary import MODALITIES

if TYPE_CHECKING:  # finding phantoms that are drawn already takes neither nibabel nor scipy
    import nibabel as nib

#: Part of what a case is kept by: to be raised with every change to the drawing.
VERSION = 3

#: One case in so many has no enhancing tumour.
WITHOUT_ET = 5

_SMALLEST = 16  # voxels a side: below this a brain with a lesion of three classes cannot be drawn
_COARSEST = 20.0  # mm: a brain of some seven voxels; beyond it has no room for a lesion of three classes
_LARGEST = 2**24  # voxels: drawing takes some fifty bytes for each
_LEFTOVER = 3600.0  # seconds after which a temporary folder has no owner any more
_BRATS_LABELS = np.array((0, 1, 2, 4), np.uint8)

#: Brightness over that of white matter on T1, in the order of radiology's textbooks. Oedema: bright on FLAIR
#: and T2. Core: dark on T1, between white matter and oedema on FLAIR, hardly brighter than oedema on T2. The
#: rim is as the core, but for T1ce, where it outshines most veins.
_LOOK: dict[str, dict[str, float]] = {
    "FLAIR": {"csf": 0.28, "grey": 0.86, "white": 0.72, "vessel": 0.40, "oedema": 1.30, "core": 1.02},
    "T1ce": {"csf": 0.36, "grey": 0.76, "white": 0.98, "vessel": 1.35, "oedema": 0.74, "core": 0.55},
    "T1": {"csf": 0.34, "grey": 0.74, "white": 1.00, "vessel": 0.55, "oedema": 0.75, "core": 0.56},
    "T2": {"csf": 1.95, "grey": 0.88, "white": 0.62, "vessel": 0.45, "oedema": 1.30, "core": 1.36},
}


@dataclass(frozen=True)
class Phantom:
    """One drawn case, as it goes to the files.

    `images`: int16 [4, D, H, W] in the order of `MODALITIES`, 0 outside the brain, above 0 inside; `labels`:
    uint8 [D, H, W] of 0, 1 (core), 2 (oedema), 4 (enhancing); `tissue`: uint8 [D, H, W], 0 outside, then what
    most of the voxel was before the lesion came: 1 CSF, 2 grey matter, 3 white matter, 4 vessel.
    """

    images: NDArray[np.int16]
    labels: NDArray[np.uint8]
    tissue: NDArray[np.uint8]


def draw(seed: int, index: int, shape: Triple = (80, 96, 80), spacing: float = 2.0) -> Phantom:
    """Draw case `index` (from 1) of `seed` on `shape` voxels of `spacing` mm.

    The brain has an adult's size and is shrunk, lesion and all, where the volume is too small for it.

    Raises:
        UserError: a shape, spacing, seed or index that cannot be drawn.
    """
    _check(1, seed, shape, spacing)
    streams = [np.random.default_rng([seed, index, stage]) for stage in range(4)]
    sketch = lesion.sketch(streams[0], enhancing=_enhances(seed, index))
    space = anatomy.frame(shape, spacing, size=float(streams[0].uniform(0.93, 1.0)))
    head = anatomy.grow(streams[1], space, sketch.push)
    painted = lesion.place(streams[2], space, head, sketch)
    inside = np.zeros(shape, bool)
    inside[space.where] = head.mask
    images = np.zeros((len(MODALITIES), *shape), np.int16)
    images[:, inside] = _scan(streams[3], space, head, painted)
    return Phantom(images, _spread(_BRATS_LABELS[painted.labels], inside), _spread(_tissue(head), inside))


def stratum(seed: int, index: int) -> tuple[bool, float]:
    """Whether case `index` of `seed` has ET, and what its lesion's volume follows, mm³; draws nothing."""
    sketch = lesion.sketch(np.random.default_rng([seed, index, 0]), _enhances(seed, index))
    return _enhances(seed, index), sketch.radius**3


def _enhances(seed: int, index: int) -> bool:
    """Whether a case has ET: all but one, at random, of every five consecutive cases."""
    block, place = divmod(index - 1, WITHOUT_ET)
    return place != int(np.random.default_rng([seed, block, 99]).integers(WITHOUT_ET))


def _spread(flat: NDArray[np.uint8], inside: NDArray[np.bool_]) -> NDArray[np.uint8]:
    volume = np.zeros(inside.shape, np.uint8)
    volume[inside] = flat
    return volume


def _tissue(head: Anatomy) -> NDArray[np.uint8]:
    """Which tissue has the largest share of each voxel."""
    rest = 1 - head.vessel
    shares = (head.csf * rest, head.grey * rest, (1 - head.csf - head.grey) * rest, head.vessel)
    return (np.argmax(np.stack(shares), axis=0) + 1).astype(np.uint8)


def _scan(
    random: np.random.Generator, space: anatomy.Frame, head: Anatomy, painted: Painted
) -> NDArray[np.int16]:
    """The four modalities [4, n] on the head's voxels: tissue contrast, bias field, gain and Rician noise."""
    patchy = np.clip(0.85 + 0.12 * anatomy.smooth_noise(random, 12, space.axes)[head.mask], 0.5, 1)
    enhancement = _enhancement(painted, head.mask)
    brightness = float(random.uniform(1.15, 1.6))  # of the rim on T1ce
    images = np.empty((len(MODALITIES), head.csf.size), np.int16)
    for image, modality in zip(images, MODALITIES, strict=True):
        look = {part: value * random.uniform(0.94, 1.06) for part, value in _LOOK[modality].items()}
        signal = _contrast(look, head, painted, patchy)
        if modality == "T1ce":
            signal += enhancement * (brightness - look["core"])
        texture = anatomy.smooth_noise(random, 4, space.axes)[head.mask]
        signal *= 1 + (random.uniform(0.02, 0.05) + 0.07 * painted.core) * texture  # tumours are uneven
        signal *= np.exp(random.uniform(0.03, 0.08) * anatomy.smooth_noise(random, 85, space.axes)[head.mask])
        image[:] = _digitise(random, signal)
    return images


def _contrast(look: dict[str, float], head: Anatomy, painted: Painted, patchy: Floats) -> Floats:
    """Noise-free signal [n] of one modality: shares of tissue, under oedema, under core."""
    signal = look["white"] + head.csf * (look["csf"] - look["white"])
    signal += head.grey * (look["grey"] - look["white"])
    signal += head.vessel * (look["vessel"] - signal)
    signal += painted.oedema * patchy * (look["oedema"] - signal)
    signal += painted.core * (look["core"] - signal)
    return signal.astype(np.float32)


def _enhancement(painted: Painted, mask: NDArray[np.bool_]) -> Floats:
    """Share of contrast agent [n]: the rim, its inner border a little blurred."""
    from scipy.ndimage import gaussian_filter

    rim = np.zeros(mask.shape, np.float32)
    rim[mask] = painted.labels == 3
    blurred = gaussian_filter(rim, 0.7)[mask]
    return np.where(painted.core == 1, 0.6 * rim[mask] + 0.4 * blurred, 0).astype(np.float32)


def _digitise(random: np.random.Generator, signal: Floats) -> NDArray[np.int16]:
    """Magnitude of a signal with complex Gaussian noise (Rician), times a gain, as whole numbers ≥ 1."""
    noise = random.uniform(0.02, 0.045)
    gain = math.exp(random.uniform(math.log(120), math.log(2000)))
    real, imaginary = noise * random.standard_normal((2, signal.size), dtype=np.float32)
    magnitude = np.hypot(signal + real, imaginary)
    return np.clip(np.rint(gain * magnitude), 1, np.iinfo(np.int16).max).astype(np.int16)


def write(
    out: Path,
    cases: int,
    seed: int,
    shape: Triple = (80, 96, 80),
    spacing: float = 2.0,
    progress: Callable[[int, int], None] | None = None,
) -> list[Path]:
    """Write `cases` phantoms under `out` in the layout of BraTS 2021; returns their folders.

    A case appears whole or not at all. One that is there already, whole and drawn with the same parameters,
    is kept; phantoms beyond `cases` from an earlier call are left alone. `progress(done, total)` is called
    after each case.

    Raises:
        UserError: parameters that cannot be drawn, or a folder that cannot be written or holds other files.
    """
    _check(cases, seed, shape, spacing)
    _sweep(out)
    folders = []
    for index, name in enumerate(names(cases), 1):
        folder = out / name
        recipe = _recipe(seed, index, shape, spacing)
        try:
            if not _whole(folder, recipe):
                _write_case(folder, recipe)
        except OSError as error:
            raise UserError(
                f"{folder}: cannot be written ({files.reason(error)}); choose another folder"
            ) from None
        folders.append(folder)
        if progress is not None:
            progress(index, cases)
    return folders


def names(cases: int) -> list[str]:
    """What `write` calls so many phantoms, in its order."""
    return [f"Phantom_{index:05d}" for index in range(1, cases + 1)]


def are_written(out: Path, cases: int, seed: int, shape: Triple, spacing: float) -> bool:
    """Whether `write` would find all of them whole; draws nothing. Raises UserError as it does."""
    _check(cases, seed, shape, spacing)
    return all(
        _whole(out / name, _recipe(seed, index, shape, spacing)) for index, name in enumerate(names(cases), 1)
    )


def _sweep(out: Path) -> None:
    """Remove what processes that were killed while drawing left behind: too old to be anybody's work."""
    for leftover in out.glob(".Phantom_?????.*"):
        try:
            if time.time() - leftover.stat().st_mtime > _LEFTOVER:
                shutil.rmtree(leftover, ignore_errors=True)
        except FileNotFoundError:
            continue  # its owner has just finished


def _check(cases: int, seed: int, shape: Triple, spacing: float) -> None:
    if cases < 1:
        raise UserError(f"phantoms: {cases} cases asked for; ask for at least 1")
    if seed < 0:
        raise UserError(f"phantoms: seed {seed} is negative; give 0 or more")
    if len(shape) != 3 or min(shape) < _SMALLEST:
        raise UserError(f"phantoms: shape {tuple(shape)}: give three sides of at least {_SMALLEST} voxels")
    if math.prod(shape) > _LARGEST:
        raise UserError(f"phantoms: shape {tuple(shape)}: give at most {_LARGEST:,} voxels")
    if not 0 < spacing <= _COARSEST:  # also false for NaN
        raise UserError(f"phantoms: spacing {spacing} mm; give a number above 0, at most {_COARSEST:g}")


def _recipe(seed: int, index: int, shape: Triple, spacing: float) -> dict[str, Any]:
    """What a case follows from, as it stands in its phantom.json."""
    return {
        "phantom": VERSION,
        "seed": seed,
        "index": index,
        "shape": list(shape),
        "spacing": float(spacing),
    }


def _files(folder: Path) -> list[Path]:
    suffixes = [*(modality.lower() for modality in MODALITIES), "seg"]
    return [folder / f"{folder.name}_{suffix}.nii.gz" for suffix in suffixes]


def _whole(folder: Path, recipe: dict[str, Any]) -> bool:
    """Whether a case is there, drawn by this recipe, with every file at the size that it was written with."""
    try:
        record = files.read_json(folder / "phantom.json")
        return bool(record == recipe | {"bytes": _sizes(folder)})
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return False


def _sizes(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_size for path in _files(folder)}


def _write_case(folder: Path, recipe: dict[str, Any]) -> None:
    """Draw into a folder of our own, then move it into place."""
    temporary = folder.with_name(f".{folder.name}.{secrets.token_hex(8)}")
    import nibabel as nib

    fresh = temporary / folder.name
    fresh.mkdir(parents=True)
    try:
        case = draw(recipe["seed"], recipe["index"], tuple(recipe["shape"]), recipe["spacing"])
        for path, volume in zip(_files(fresh), [*case.images, case.labels], strict=True):
            nib.save(_nifti(volume, recipe["spacing"]), path)
        record = recipe | {"bytes": _sizes(fresh)}
        files.write_json(fresh / "phantom.json", record)
        _replace(fresh, folder, recipe)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _nifti(volume: NDArray[Any], spacing: float) -> nib.Nifti1Image:
    """With the header's codes as in BraTS files: both transforms "scanner", units mm."""
    import nibabel as nib

    image = nib.Nifti1Image(volume, affine(volume.shape, spacing))
    image.set_qform(image.affine, code=1)
    image.set_sform(image.affine, code=1)
    image.header.set_xyzt_units("mm")
    return image


def _replace(fresh: Path, folder: Path, recipe: dict[str, Any]) -> None:
    """Move a finished case into place; what lay there goes, if it is a phantom's."""
    if folder.exists():
        ours = {path.name for path in (*_files(folder), folder / "phantom.json")}
        foreign = sorted(path.name for path in folder.iterdir() if path.name not in ours)
        if foreign:
            raise UserError(f"{folder}: holds '{foreign[0]}', which is no phantom's; choose another folder")
        folder.rename(fresh.with_name("old"))
    try:
        files.publish(fresh, folder)
    except OSError:
        if not _whole(folder, recipe):  # else another process drew the same case meanwhile
            raise


def affine(shape: tuple[int, ...], spacing: float) -> NDArray[np.float64]:
    """Voxels to mm as in BraTS files: axes to the left, to the back, upwards; the last row is at y = 0."""
    matrix = np.diag([-spacing, -spacing, spacing, 1.0])
    matrix[1, 3] = (shape[1] - 1) * spacing
    return matrix
