"""What a score is held against: the whole brain as tumour, and a threshold rule fitted on the training cases.

A network whose Dice lies below the whole brain's has learned nothing; below the rule, less than some
thresholds on two images. Pure functions of arrays; METHOD.md, "Floors", says each step.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from acdis.evaluation.metrics import Mask, dice, region_mask
from acdis.vocabulary import MODALITIES, SUBSETS, Subset

#: Grids of the thresholds, in units of the z-score: WT's image above t, T1ce above u, T1 below w.
WT_GRID = tuple(round(0.1 * step, 1) for step in range(4, 31))
ET_GRID = tuple(round(0.1 * step, 1) for step in range(6, 41))
TC_GRID = tuple(round(0.1 * step, 1) for step in range(-20, 6))
#: mm: from here on voxels are too coarse to smooth and open, and one voxel is margin enough.
COARSE = 4.0


@dataclass(frozen=True)
class Scan:
    """A case as the network sees it.

    Attributes:
        images: float [4, D, H, W], z-scored within the brain.
        brain: bool [D, H, W].
        labels: 0 to 3, [D, H, W].
        spacing: mm per voxel along D, H, W.
        modalities: those that the case has; the images of others are 0.
    """

    images: np.ndarray
    brain: Mask
    labels: np.ndarray
    spacing: tuple[float, float, float]
    modalities: Subset = MODALITIES

    def of(self, modality: str) -> np.ndarray:
        """One modality [D, H, W]."""
        return self.images[MODALITIES.index(modality)]

    @property
    def coarse(self) -> bool:
        """Whether its voxels are of `COARSE` mm or more; of unequal sides the geometric mean counts."""
        return float(np.prod(self.spacing)) ** (1 / 3) >= COARSE * (1 - 1e-6)


@dataclass(frozen=True)
class Given:
    """What of a subset the rule looks at: the image that shows WT (none: the brain stands), T1ce, T1."""

    whole: str | None
    t1ce: bool
    t1: bool


@dataclass(frozen=True)
class Thresholds:
    """Of WT's image, T1ce and T1; none where there is nothing to fit."""

    t: float | None
    u: float | None
    w: float | None


#: The fitted rule.
Rule = dict[Given, Thresholds]
#: WT, TC and ET of one case from one subset.
Regions = tuple[Mask, Mask, Mask]


def given(subset: Subset) -> Given:
    """FLAIR shows WT; without it T2; without both nothing does."""
    whole = next((modality for modality in ("FLAIR", "T2") if modality in subset), None)
    return Given(whole, "T1ce" in subset, "T1" in subset)


def whole_brain(scan: Scan) -> Regions:
    """Every brain voxel in every region, whatever the subset."""
    return scan.brain, scan.brain, scan.brain


def fit(scans: Sequence[Scan], subsets: Sequence[Subset] = SUBSETS) -> Rule:
    """Thresholds by mean Dice over the training cases; of equal ones the lower.

    First t by WT, then u by ET within that WT, then w by TC with both: each on the cases that have all the
    images which it is fitted with, and none where no case does.
    """
    rule: Rule = {}
    wholes: dict[str | None, tuple[float | None, list[Mask]]] = {}
    for wanted in dict.fromkeys(map(given, subsets)):
        if wanted.whole not in wholes:
            wholes[wanted.whole] = _fit_whole(scans, wanted.whole)
        t, masks = wholes[wanted.whole]
        u = w = None
        shown = {wanted.whole} - {None} | ({"T1ce"} if wanted.t1ce else set())
        there, known = _having(shown, scans, masks)
        if wanted.t1ce and there:
            u = _best(ET_GRID, there, "ET", _enhancing_masks(there, wanted, known))
        there, known = _having(shown | {"T1"}, scans, masks)
        if wanted.t1 and there:
            w = _best(TC_GRID, there, "TC", _core_masks(there, wanted, known, u))
        rule[wanted] = Thresholds(t, u, w)
    return rule


def _having(
    modalities: Collection[str | None], scans: Sequence[Scan], masks: Sequence[Mask]
) -> tuple[list[Scan], list[Mask]]:
    """The scans that have these modalities, with their masks."""
    pairs = zip(scans, masks, strict=True)
    chosen = [(scan, mask) for scan, mask in pairs if set(modalities) <= set(scan.modalities)]
    return [scan for scan, _ in chosen], [mask for _, mask in chosen]


def regions(scan: Scan, rule: Rule, subset: Subset) -> Regions:
    """WT, TC and ET that the fitted rule finds from a subset; WT and TC include ET."""
    wanted = given(subset)
    thresholds = rule[wanted]
    whole = whole_tumour(scan, wanted.whole, thresholds.t)
    enhancing = enhancing_tumour(scan, wanted, whole, thresholds.u)
    core = tumour_core(scan, wanted, whole, enhancing, thresholds)
    return whole | enhancing, core, enhancing


def whole_tumour(scan: Scan, modality: str | None, t: float | None) -> Mask:
    """Largest 6-connected component of the smoothed image above t, opened; without an image the brain."""
    if modality is None or t is None:
        return scan.brain
    return _tumour_above(_smoothed(scan, modality), t, scan.coarse)


def enhancing_tumour(scan: Scan, wanted: Given, whole: Mask, u: float | None) -> Mask:
    """T1ce above u near WT; where nothing shows WT, the largest component of it; without T1ce nothing."""
    if not wanted.t1ce or u is None:
        return np.zeros_like(scan.brain)
    bright = (scan.of("T1ce") > u) & _around(scan, wanted, whole)
    return bright if wanted.whole else largest_component(bright)


def tumour_core(scan: Scan, wanted: Given, whole: Mask, enhancing: Mask, thresholds: Thresholds) -> Mask:
    """T1ce above u or T1 below w in the closed WT, with ET; with neither WT itself."""
    if not (wanted.t1ce or wanted.t1):
        return whole
    core = np.zeros_like(scan.brain)
    if thresholds.u is not None:
        core |= scan.of("T1ce") > thresholds.u
    if thresholds.w is not None:
        core |= scan.of("T1") < thresholds.w
    return (core & _closed(whole)) | enhancing


def largest_component(mask: Mask) -> Mask:
    """The 6-connected component with the most voxels; of equal ones the first in memory."""
    components, count = ndimage.label(mask)
    if count < 2:
        return mask
    sizes = np.bincount(components.ravel())
    return np.asarray(components == 1 + int(sizes[1:].argmax()))


def _smoothed(scan: Scan, modality: str) -> np.ndarray:
    image = np.asarray(scan.of(modality), dtype=np.float32)
    return image if scan.coarse else ndimage.gaussian_filter(image, 1.0)


def _tumour_above(smoothed: np.ndarray, t: float, coarse: bool) -> Mask:
    bright = smoothed > t
    return largest_component(bright if coarse else ndimage.binary_opening(bright))


def _around(scan: Scan, wanted: Given, whole: Mask) -> Mask:
    """Where ET may lie: WT and two voxels around it, one where they are coarse."""
    if wanted.whole is None:
        return whole
    return np.asarray(ndimage.binary_dilation(whole, iterations=1 if scan.coarse else 2))


def _closed(whole: Mask) -> Mask:
    """scipy takes what lies beyond the volume for background, and would erode WT there."""
    return np.asarray(ndimage.binary_closing(whole) | whole)


#: Of the case with this place in the list, the mask that a threshold makes.
Masks = Callable[[int], Callable[[float], Mask]]


def _fit_whole(scans: Sequence[Scan], modality: str | None) -> tuple[float | None, list[Mask]]:
    """t, and WT of every case with it."""
    if modality is None:
        return None, [scan.brain for scan in scans]

    there = [scan for scan in scans if modality in scan.modalities]
    if not there:
        return None, [scan.brain for scan in scans]

    def masks(place: int) -> Callable[[float], Mask]:
        smoothed = _smoothed(there[place], modality)
        return lambda t: _tumour_above(smoothed, t, there[place].coarse)

    t = _best(WT_GRID, there, "WT", masks)
    return t, [whole_tumour(scan, modality, t) for scan in scans]


def _enhancing_masks(scans: Sequence[Scan], wanted: Given, wholes: Sequence[Mask]) -> Masks:
    def masks(place: int) -> Callable[[float], Mask]:
        scan, where = scans[place], _around(scans[place], wanted, wholes[place])
        t1ce = np.asarray(scan.of("T1ce"))
        if wanted.whole is None:
            return lambda u: largest_component((t1ce > u) & where)
        return lambda u: (t1ce > u) & where

    return masks


def _core_masks(scans: Sequence[Scan], wanted: Given, wholes: Sequence[Mask], u: float | None) -> Masks:
    def masks(place: int) -> Callable[[float], Mask]:
        scan, whole = scans[place], wholes[place]
        closed, t1 = _closed(whole), np.asarray(scan.of("T1"))
        enhancing = enhancing_tumour(scan, wanted, whole, u)
        without = enhancing if u is None else enhancing | (closed & (scan.of("T1ce") > u))
        return lambda w: without | (closed & (t1 < w))

    return masks


def _best(grid: Iterable[float], scans: Sequence[Scan], region: str, masks: Masks) -> float:
    """The threshold of the highest mean Dice; `max` keeps the first of equal ones, which is the lower."""
    grid = tuple(grid)
    total = np.zeros(len(grid))
    for place, scan in enumerate(scans):
        truth, mask_at = region_mask(scan.labels, region), masks(place)
        total += [dice(mask_at(threshold), truth) for threshold in grid]
    return grid[int(total.argmax())]
