"""A phantom's lesion: nested oedema, tumour core and enhancing rim, in the brain coordinates of `anatomy`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from acdis.data.anatomy import BRAIN, Anatomy, Floats, Frame, outer, smooth_noise

#: Fewest voxels of each class that a lesion has, also on a coarse grid.
FEWEST = 8


@dataclass(frozen=True)
class Lesion:
    """What is drawn of a lesion before any voxel: sizes in mm, shares of voxels.

    `radius`: of the ball of the whole lesion's volume; `stretch`: half axes over the radius, product 1;
    `turn`: rotation 3 × 3; `core`: share of the lesion that is tumour core; `rim`: share of the core that
    enhances (0: none); `lean` [3]: the side, and how strongly, on which the rim is thicker.
    """

    centre: Floats
    radius: float
    stretch: Floats
    turn: Floats
    core: float
    rim: float
    lean: Floats

    @property
    def core_radius(self) -> float:
        """Radius (mm) of the ball of the core's volume."""
        return self.radius * float(self.core ** (1 / 3))

    def push(self, points: Floats) -> Floats:
        """Mass effect: how far what is now at `points` [3, n] was pushed outwards, mm; at most half."""
        away = points - self.centre[:, None]
        return 0.5 * away * np.exp(-np.square(away).sum(0) / (2 * (1.1 * self.core_radius) ** 2))


def sketch(random: np.random.Generator, enhancing: bool) -> Lesion:
    """A lesion of 10 to 30 mm radius, centred in the white matter of either hemisphere."""
    radius = float(random.uniform(10, 30))
    stretch = np.exp(random.uniform(-0.28, 0.28, 3))
    turn, _ = np.linalg.qr(random.standard_normal((3, 3)))
    lean = random.standard_normal(3)
    lean *= random.uniform(0, 0.4) / np.linalg.norm(lean)
    spots = random.uniform(-BRAIN, BRAIN, (512, 3)).astype(np.float32).T
    depth = -outer(spots)[0]
    fits = (depth > 6 + 0.45 * radius) & (np.abs(spots[0]) > 8 + 0.25 * radius) & (spots[2] > -16)
    return Lesion(
        centre=spots[:, np.flatnonzero(fits)[0]],
        radius=radius,
        stretch=(stretch / stretch.prod() ** (1 / 3)).astype(np.float32),
        turn=turn.astype(np.float32),
        core=float(random.uniform(0.2, 0.7)),
        rim=float(random.uniform(0.35, 0.8)) if enhancing else 0.0,
        lean=lean.astype(np.float32),
    )


@dataclass(frozen=True)
class Painted:
    """A lesion on the voxels of a head, flat: `labels` 0 none, 1 core, 2 oedema, 3 rim (enhancing).

    `oedema` and `core`: how much of a voxel's look is the lesion's, in [0, 1]. They are 1 on every voxel of
    the class and fade outside only, so that no border tells the rim from the core.
    """

    labels: NDArray[np.uint8]
    oedema: Floats
    core: Floats


def place(random: np.random.Generator, space: Frame, anatomy: Anatomy, lesion: Lesion) -> Painted:
    """Nest core in oedema and rim in core by ranks of noisy distances: the drawn shares are met exactly."""
    away = anatomy.points - lesion.centre[:, None]
    distance = np.sqrt(np.square((lesion.turn.T @ away) / lesion.stretch[:, None]).sum(0)) / lesion.radius
    coarse, fine = (smooth_noise(random, step, space.axes)[anatomy.mask] for step in (16, 7))
    inner = distance * np.exp(0.12 * coarse + 0.07 * fine)
    other_side = np.sign(lesion.centre[0]) * anatomy.points[0] < -2
    barred = (anatomy.ventricle > 0.4) | other_side  # the falx holds a lesion on its side
    whole = max(4 / 3 * np.pi * (lesion.radius / space.voxel) ** 3, 4 * FEWEST)
    cores = int(np.clip(lesion.core * whole, 2 * FEWEST, whole - FEWEST))
    core, edge = _lowest(np.where(barred, np.inf, inner), cores)
    spread = inner * np.exp(0.16 * coarse) * (1 + 0.5 * anatomy.grey) + 0.05 * fine  # follows white matter
    open_to = barred | core | (anatomy.csf > 0.5)
    oedema, reach = _lowest(np.where(open_to, np.inf, spread), int(whole) - cores)
    labels = np.where(core, 1, np.where(oedema, 2, 0)).astype(np.uint8)
    if lesion.rim:
        side = (lesion.lean @ away) / lesion.core_radius
        outward = np.where(core, inner / edge + 0.07 * fine + side, -np.inf)
        labels[_lowest(-outward, int(np.clip(lesion.rim * cores, FEWEST, cores - FEWEST)))[0]] = 3
    fade = lesion.radius / space.voxel
    return Painted(
        labels,
        np.where(oedema, 1, np.clip(1 - (spread - reach) * fade / 1.5, 0, 1) * ~open_to).astype(np.float32),
        np.where(core, 1, np.clip(1 - (inner - edge) * fade, 0, 1) * ~barred).astype(np.float32),
    )


def _lowest(values: Floats, count: int) -> tuple[NDArray[np.bool_], float]:
    """Mask of the `count` lowest finite values, and the highest of these."""
    order = np.argpartition(values, count)[:count]
    mask = np.zeros(values.shape, bool)
    mask[order] = np.isfinite(values[order])
    return mask, float(values[mask].max())
