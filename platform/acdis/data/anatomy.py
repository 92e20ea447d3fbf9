"""Where things lie in a phantom's head: folded cortex, nuclei, ventricles. Own geometry, no atlas.

All lengths are millimetres of an adult brain of 136 × 172 × 144 mm; axes are those of a BraTS file: x to the
patient's left, y to the back, z upwards, the origin in the middle of the brain. `Frame` maps voxels to these
coordinates and shrinks the brain where the volume is too small for it. Points are arrays [3, ...].

Random fields live on lattices in these coordinates, so the same case at another shape or spacing has the same
anatomy (noise apart).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Triple = tuple[int, int, int]
Point = tuple[float, float, float]

#: Half the box in which an adult brain lies, mm, and half of what is looked at (room for the deformation).
BRAIN = np.array((68.0, 86.0, 72.0), np.float32)
BOX = BRAIN + 10

_NUCLEI: tuple[tuple[Point, Point], ...] = (  # deep grey matter of the left side: centre, half axes
    ((25, -4, 2), (5.5, 15, 9)),  # putamen
    ((11, 12, 4), (8, 13, 8)),  # thalamus
    ((14, -20, 8), (5, 9, 9)),  # head of the caudate nucleus
)
_VENTRICLE: tuple[
    tuple[Point, float], ...
] = (  # lateral ventricle of the left side: points and radii of a tube
    ((13, -34, 4), 2.5),
    ((8, -20, 10), 4.0),
    ((8, 6, 17), 4.0),
    ((17, 28, 13), 5.5),
    ((24, 44, 4), 4.5),
    ((23, 58, 1), 2.0),
)
_TEMPORAL_HORN: tuple[tuple[Point, float], ...] = (
    ((24, 38, 6), 3.5),
    ((29, 18, -12), 2.5),
    ((32, -4, -20), 1.8),
)


@dataclass(frozen=True)
class Frame:
    """The part of a volume that the brain can lie in.

    `axes`: brain coordinates (mm) of its voxels along each axis; `where`: its place in the volume; `voxel`:
    side of a voxel in brain coordinates.
    """

    axes: tuple[Floats, Floats, Floats]
    where: tuple[slice, slice, slice]
    voxel: float


@dataclass(frozen=True)
class Anatomy:
    """One head without its lesion; arrays are flat over the `mask`'s voxels unless said otherwise.

    `mask`: bool on the frame; `points` [3, n]: brain coordinates; `csf`, `grey`, `vessel`: shares in [0, 1]
    of a voxel (white matter is the rest); `ventricle`: share of the CSF inside the brain.
    """

    mask: NDArray[np.bool_]
    points: Floats
    csf: Floats
    grey: Floats
    vessel: Floats
    ventricle: Floats


def frame(shape: Triple, spacing: float, size: float = 1.0) -> Frame:
    """Lay brain coordinates over a volume of `shape` voxels of `spacing` mm; `size` (≤ 1) is the head's own.

    The brain is shrunk to fill 92 % of the tightest axis; it is never drawn larger than 1.1 times an adult's.
    """
    extent = np.array(shape) * spacing
    scale = size * min(1.1, float((0.92 * extent / (2 * BRAIN)).min()))
    voxel = spacing / scale
    axes, where = [], []
    for side, half in zip(shape, BOX, strict=True):
        axis = ((np.arange(side) - (side - 1) / 2) * voxel).astype(np.float32)
        near = np.flatnonzero(np.abs(axis) <= half)
        where.append(slice(int(near[0]), int(near[-1]) + 1))
        axes.append(axis[where[-1]])
    return Frame((axes[0], axes[1], axes[2]), (where[0], where[1], where[2]), voxel)


def smooth_noise(random: np.random.Generator, step: float, axes: tuple[Floats, Floats, Floats]) -> Floats:
    """Band-limited noise of mean 0 and variance 1 on the grid of `axes`.

    Cubic B-splines over a lattice of normal draws `step` mm apart, periodic after 260 mm; the
    lattice does not depend on the grid.
    """
    count = int(np.ceil(260 / step))
    field = random.standard_normal((count, count, count), dtype=np.float32)
    for axis, coordinates in enumerate(axes):
        field = _spline(field, axis, coordinates / step + count / 2)
    return field / np.float32(
        (151 / 315) ** 1.5
    )  # mean sum of squares of the spline's four weights, three times


def _spline(field: Floats, axis: int, at: Floats) -> Floats:
    """Cubic B-spline along one periodic axis at the positions `at` (in lattice steps)."""
    low = np.floor(at)
    f = (at - low).astype(np.float32)
    weights = ((1 - f) ** 3, 3 * f**3 - 6 * f**2 + 4, -3 * f**3 + 3 * f**2 + 3 * f + 1, f**3)
    along = [1, 1, 1]
    along[axis] = -1
    taps = (
        np.take(field, (low.astype(int) + k - 1) % field.shape[axis], axis) * (weight / 6).reshape(along)
        for k, weight in enumerate(weights)
    )
    total = next(taps)
    for tap in taps:
        total += tap
    return total


def ellipsoid(points: Floats, centre: Point, half_axes: Point) -> Floats:
    """Signed distance (mm, first order, negative inside) to an ellipsoid."""
    column = (3,) + (1,) * (points.ndim - 1)
    inverse = (1 / np.array(half_axes, np.float32)).reshape(column)
    unit = (points - np.array(centre, np.float32).reshape(column)) * inverse
    rho = np.sqrt(np.square(unit).sum(0))
    return (rho - 1) * rho / np.maximum(np.sqrt(np.square(unit * inverse).sum(0)), 1e-6)


def tube(points: Floats, course: tuple[tuple[Point, float], ...], widen: float) -> Floats:
    """Signed distance (mm) to a tube through points with radii, the radii times `widen`."""
    distance = np.full(points.shape[1:], np.inf, np.float32)
    for (start, r0), (end, r1) in pairwise(course):
        a = np.array(start, np.float32)[:, None]
        along = np.array(end, np.float32)[:, None] - a
        share = np.clip(((points - a) * along).sum(0) / np.square(along).sum(), 0, 1)
        gap = np.sqrt(np.square(points - a - along * share).sum(0)) - widen * (r0 + (r1 - r0) * share)
        distance = np.minimum(distance, gap)
    return distance


def join(a: Floats, b: Floats, width: float) -> Floats:
    """Union of two signed distances with a seam rounded over `width` mm."""
    seam = np.maximum(width - np.abs(a - b), 0) / width
    return np.minimum(a, b) - seam * seam * (width / 4)


def share_inside(distance: Floats, voxel: float) -> Floats:
    """Share of a voxel inside a surface at signed `distance` (mm): partial volume, about one voxel wide."""
    return np.clip(0.5 - distance / np.float32(voxel), 0, 1)


def grow(random: np.random.Generator, space: Frame, push: Callable[[Floats], Floats]) -> Anatomy:
    """A head: smooth deformation of a schematic brain, cortex folded along level sets of band-limited noise.

    `push` tells how far (mm [3, n]) what is now at points [3, n] was pushed by a lesion; the skull holds the
    outer surface.
    """
    grid = np.stack(np.meshgrid(*space.axes, indexing="ij"))
    grid = grid + 3.5 * np.stack([smooth_noise(random, 48, space.axes) for _ in range(3)])
    cerebrum, hind = outer(grid)
    mask = join(cerebrum, hind, 6) < 0.5  # skull-stripping leaves a film of CSF
    points = grid[:, mask]
    depth, depth_hind = -cerebrum[mask], -hind[mask]
    home = np.stack(np.meshgrid(*space.axes, indexing="ij"))[:, mask]
    inner = points - push(home)
    pial, vessel = _pial(random, inner, depth, depth_hind, space)
    thickness = max(3.3, 0.8 * space.voxel)
    csf = share_inside(pial - 0.7, space.voxel)
    grey = share_inside(pial - 0.7 - thickness, space.voxel)
    mirrored = np.concatenate([np.abs(inner[:1]), inner[1:]])
    for centre, half_axes in _NUCLEI:
        grey = np.maximum(grey, 0.8 * share_inside(ellipsoid(mirrored, centre, half_axes), space.voxel))
    ventricle = share_inside(_ventricles(mirrored, float(random.uniform(0.9, 1.8))), space.voxel)
    csf = np.maximum(csf, ventricle)
    return Anatomy(mask, home, csf, np.maximum(grey - csf, 0), vessel * (1 - ventricle), ventricle)


def outer(points: Floats) -> tuple[Floats, Floats]:
    """Signed distances to the cerebrum (narrower in front, flat below, temporal lobes) and the hind brain."""
    x, y, z = points
    z = z - 8
    egg = np.stack([np.abs(x) / (1 + y / 700), y, np.where(z < 0, z * 1.6, z)])
    cerebrum = ellipsoid(egg, (0, 0, 0), (66, 85, 62))
    side = np.stack([np.abs(x), y, points[2]])
    cerebrum = join(cerebrum, ellipsoid(side, (38, -8, -24), (22, 38, 24)), 8)
    hind = join(
        ellipsoid(side, (20, 44, -38), (33, 30, 27)), ellipsoid(points, (0, 14, -40), (13, 14, 30)), 6
    )
    return cerebrum, hind


def _pial(
    random: np.random.Generator, points: Floats, depth: Floats, depth_hind: Floats, space: Frame
) -> tuple[Floats, Floats]:
    """Distance (mm, positive inside) to the nearest of surface, fissure and sulci; share of vessels."""
    x, y, z = points
    bridge = ellipsoid(np.stack([0 * x, y, z]), (0, 2, -4), (1e3, 42, 28))  # where the hemispheres are joined
    fissure = np.sqrt(x * x + np.square(np.maximum(-bridge, 0)) + np.square(np.maximum(-26 - z, 0)))
    hemisphere = np.minimum(depth, fissure)
    fold = _folds(random, points)
    floor = random.uniform(12, 17) + 3 * np.sin(y / 9)
    sulcus = fold + np.maximum(hemisphere - floor, 0) + np.maximum(-18 - z, 0)
    brain = np.minimum(np.minimum(depth, fissure - 0.5), sulcus)
    folia = np.abs((z + 0.3 * y + 2 * np.sin(y / 6)) % 7 - 3.5) + np.maximum(depth_hind - 9, 0) + 0.4
    hind = np.minimum(depth_hind, np.where((y > 24) & (depth_hind < 14), folia, depth_hind))
    sinus = np.maximum(np.abs(x) - 2.2, np.maximum(depth - 4, -z - 20))
    u, v, w = random.uniform(0, 2 * np.pi, 3)
    crossing = np.abs(np.sin(x / 7 + u) + np.sin(y / 8 + v) + np.sin(z / 6 + w)) * 6 - 1.5
    vein = np.maximum(np.maximum(fold - 1.0, crossing), hemisphere - 8)  # lies in the outer part of a sulcus
    vessel = share_inside(np.minimum(sinus, vein), space.voxel)
    return np.maximum(brain, hind), vessel


def _folds(random: np.random.Generator, points: Floats) -> Floats:
    """Distance (mm) to the nearest sulcus: zero set of noise that varies along the cortex above all."""
    line = np.arange(-75, 75.1, 2.5, dtype=np.float32)
    noise = smooth_noise(random, 9.5, (line, line, line))
    slope = np.sqrt(sum(np.square(part) for part in np.gradient(noise, 2.5)))
    distance = np.abs(noise) / (slope + 0.03)
    x, y, z = points
    centred = np.stack([x - np.copysign(28, x), y * 0.75, z - 8])
    radius = np.sqrt(np.square(centred).sum(0)) + 1e-3
    reading = 44 + 0.3 * radius
    at = centred * (reading / radius)
    from scipy.ndimage import map_coordinates

    sampled = map_coordinates(distance, (at + 75) / 2.5, order=1, mode="nearest")
    return np.asarray(sampled * radius / reading, np.float32)


def _ventricles(mirrored: Floats, widen: float) -> Floats:
    """Signed distance (mm) to the CSF inside the brain; `mirrored` points have x ≥ 0."""
    lateral = np.minimum(tube(mirrored, _VENTRICLE, widen), tube(mirrored, _TEMPORAL_HORN, widen))
    third = ellipsoid(mirrored, (0, 4, 0), (1.6 * widen, 14, 9))
    fourth = ellipsoid(mirrored, (0, 28, -38), (5, 5, 9))
    return np.minimum(np.minimum(lateral, third), fourth)
