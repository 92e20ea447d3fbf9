"""Lesion-wise scores: values by hand, plain loops over sets of voxels, and MONAI for distances."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from acdis.evaluation.lesionwise import RULES, Rule, instance_scores, lesion_scores
from acdis.evaluation.surfaces import surface_distances

Voxel = tuple[int, int, int]
ONE = (1.0, 1.0, 1.0)
UNEVEN = (0.5, 1.0, 3.0)
GLI = RULES["brats2023"]


def blocks(*boxes: tuple[Voxel, Voxel], size: Voxel = (30, 30, 30)) -> np.ndarray:
    """A mask of boxes, each (first corner, sides)."""
    mask = np.zeros(size, dtype=bool)
    for corner, sides in boxes:
        mask[tuple(slice(at, at + side) for at, side in zip(corner, sides, strict=True))] = True
    return mask


CUBE = ((2, 2, 2), (4, 4, 4))  # 64 voxels


def test_a_speck_far_away_halves_both_lesions_scores() -> None:
    """One lesion found whole (1, 0 mm), one false component (0, 374 mm): 1/2 and 187 mm."""
    truth, prediction = blocks(CUBE), blocks(CUBE, ((25, 25, 25), (1, 1, 1)))
    found = lesion_scores(prediction, truth, ONE, GLI)
    assert (found.dice, found.hd95) == (0.5, 187.0)
    assert (found.found, found.missed, found.false) == (1, 0, 1)


def test_a_missed_lesion_is_0_and_374_mm() -> None:
    """Two of 64 voxels 16 apart, one found: 1/2, 187 mm; nothing predicted: 0 and 374 mm."""
    truth = blocks(CUBE, ((22, 2, 2), (4, 4, 4)))
    found = lesion_scores(blocks(CUBE), truth, ONE, GLI)
    assert (found.dice, found.hd95, found.found, found.missed, found.false) == (0.5, 187.0, 1, 1, 0)
    none = lesion_scores(np.zeros_like(truth), truth, ONE, GLI)
    assert (none.dice, none.hd95, none.found, none.missed, none.false) == (0.0, 374.0, 0, 2, 0)


@pytest.mark.parametrize(("gap", "lesions"), [(6, 1), (7, 2)])
def test_lesions_join_where_their_dilations_touch(gap: int, lesions: int) -> None:
    """3 iterations from either side fill a gap of 6 voxels; at 7 the middle one stays free.

    The prediction has the first only, 64 of 128 voxels: joined that is Dice 2·64 / (64 + 128) = 2/3; apart
    1 and 0.
    """
    truth = blocks(CUBE, ((6 + gap, 2, 2), (4, 4, 4)))
    found = lesion_scores(blocks(CUBE), truth, ONE, GLI)
    assert found.found + found.missed == lesions
    assert found.dice == pytest.approx(2 / 3 if lesions == 1 else 1 / 2)


def test_one_iteration_fills_a_gap_of_two() -> None:
    """Rule of meningioma: a gap of 2 joins, of 3 does not."""
    for gap, lesions in ((2, 1), (3, 2)):
        truth = blocks(CUBE, ((6 + gap, 2, 2), (4, 4, 4)))
        assert lesion_scores(truth, truth, ONE, RULES["brats2023_men"]).found == lesions


def test_dilation_goes_over_edges_and_not_over_corners() -> None:
    """One iteration of 18 neighbours: from a voxel at (2, 2, 2) to (3, 3, 2) but not to (3, 3, 3).

    A predicted voxel there touches, and so it is the match, with Dice 0 at √2 mm; or it is false.
    """
    truth, rule = blocks(((2, 2, 2), (1, 1, 1))), Rule(1, 1)
    near = lesion_scores(blocks(((3, 3, 2), (1, 1, 1))), truth, ONE, rule)
    assert (near.dice, near.found, near.false) == (0.0, 1, 0)
    assert near.hd95 == pytest.approx(2**0.5)
    far = lesion_scores(blocks(((3, 3, 3), (1, 1, 1))), truth, ONE, rule)
    assert (far.found, far.missed, far.false, far.hd95) == (0, 1, 1, 374.0)


def test_parts_of_a_match_are_taken_together() -> None:
    """A lesion of 10×4×4 predicted as its first and its last 4 layers: 2·128 / (128 + 160)."""
    truth = blocks(((2, 2, 2), (10, 4, 4)))
    found = lesion_scores(blocks(CUBE, ((8, 2, 2), (4, 4, 4))), truth, ONE, GLI)
    assert found.dice == pytest.approx(256 / 288)
    assert (found.found, found.missed, found.false) == (1, 0, 0)


def test_a_component_over_two_lesions_is_in_both_matches() -> None:
    """A bar of 30 layers over two lesions of 4 layers, each 4×4: 2·64 / (480 + 64), twice; none is false."""
    truth = blocks(CUBE, ((20, 2, 2), (4, 4, 4)))
    found = lesion_scores(blocks(((0, 2, 2), (30, 4, 4))), truth, ONE, GLI)
    assert found.dice == pytest.approx(128 / 544)
    assert (found.found, found.missed, found.false) == (2, 0, 0)


@pytest.mark.parametrize(("layers", "counts"), [(49, 0), (50, 1)])
def test_lesions_below_50_voxels_are_left_out(layers: int, counts: int) -> None:
    """A bar of 49 voxels counts neither as found nor, predicted, as false; one of 50 does."""
    bar = blocks(((2, 2, 2), (layers, 1, 1)), size=(60, 8, 8))
    exact = lesion_scores(bar, bar, ONE, GLI)
    assert (exact.dice, exact.hd95, exact.found, exact.false) == (1.0, 0.0, counts, 0)
    missed = lesion_scores(np.zeros_like(bar), bar, ONE, GLI)
    assert (missed.dice, missed.missed) == (1.0 - counts, counts)


def test_metastases_count_from_two_voxels() -> None:
    """One voxel is left out, two count."""
    for voxels in (1, 2):
        truth = blocks(((2, 2, 2), (voxels, 1, 1)))
        assert lesion_scores(truth, truth, ONE, RULES["brats2023_met"]).found == voxels - 1


def test_empty_and_full_masks() -> None:
    """Nothing anywhere: 1, 0 mm. Only false: 0, 374 (373) mm. All tumour, found: 1, 0 mm."""
    nothing, everything = np.zeros((6, 6, 6), dtype=bool), np.ones((6, 6, 6), dtype=bool)
    empty = lesion_scores(nothing, nothing, ONE, GLI)
    assert (empty.dice, empty.hd95, empty.found) == (1.0, 0.0, 0)
    false = lesion_scores(everything, nothing, ONE, GLI)
    assert (false.dice, false.hd95, false.false) == (0.0, 374.0, 1)
    full = lesion_scores(everything, everything, UNEVEN, GLI)
    assert (full.dice, full.hd95, full.found) == (1.0, 0.0, 1)
    for pair, expected in (
        ((nothing, nothing), (1.0, 1.0, 0.0, 1.0)),
        ((everything, nothing), (0.0, 0.0, 373.0, 0.0)),
        ((nothing, everything), (0.0, 0.0, 373.0, 0.0)),
        ((everything, everything), (1.0, 1.0, 0.0, 1.0)),
    ):
        found = instance_scores(*pair, UNEVEN)
        assert (found.dice, found.nsd, found.hd95, found.f1) == expected


def test_spacing_counts_in_mm() -> None:
    """A bar of 50 voxels moved by one along the last axis, of 3 mm: every surface voxel is 3 mm off."""
    truth, moved = (blocks(((2, 2, at), (50, 1, 1)), size=(60, 8, 8)) for at in (2, 3))
    assert lesion_scores(moved, truth, UNEVEN, GLI).hd95 == 3.0


def test_instances_are_paired_one_to_one_without_dilation() -> None:
    """A bar of 8 layers over lesions of 4 and 2 layers goes to the larger: Dice 2·4 / (8 + 4) = 2/3.

    The other is missed: means over two of (2/3, 0), F1 2·1 / (2 + 1); two lesions one voxel apart stay two.
    HD95: the bar's layers 4 to 7 lie 1, 2, 3, 4 mm off, so the 95th percentile of (0, 0, 0, 0, 1, 2, 3, 4) is
    3 + 0.65 (place 6.65 of 0…7). NSD at 1 mm: 5 of 8 and 4 of 4.
    """
    truth = blocks(((2, 2, 2), (4, 1, 1)), ((7, 2, 2), (2, 1, 1)))
    found = instance_scores(blocks(((2, 2, 2), (8, 1, 1))), truth, ONE)
    assert found.dice == pytest.approx(1 / 3)
    assert found.f1 == pytest.approx(2 / 3)
    assert found.hd95 == pytest.approx((3.65 + 373) / 2)
    assert found.nsd == pytest.approx(9 / 12 / 2)


def test_instances_that_only_touch_are_no_pair() -> None:
    """Side by side, Dice 0: one missed and one false."""
    found = instance_scores(blocks(((2, 2, 2), (2, 2, 2))), blocks(((4, 2, 2), (2, 2, 2))), ONE)
    assert (found.dice, found.hd95, found.f1) == (0.0, 373.0, 0.0)


@pytest.mark.parametrize("seed", range(12))
def test_both_by_plain_loops(seed: int) -> None:
    prediction, truth = _drawn(seed), _drawn(seed + 100)
    rule = [Rule(1, 2), Rule(3, 6), Rule(2, 1)][seed % 3]
    found = lesion_scores(prediction, truth, UNEVEN, rule)
    values = (found.dice, found.hd95, found.found, found.missed, found.false)
    assert values == pytest.approx(_lesions_by_loops(prediction, truth, UNEVEN, rule))
    instances = instance_scores(prediction, truth, UNEVEN)
    shares = (instances.dice, instances.nsd, instances.hd95, instances.f1)
    assert shares == pytest.approx(_instances_by_loops(prediction, truth, UNEVEN))


@pytest.mark.parametrize("seed", range(4))
def test_distances_are_those_of_monai(seed: int) -> None:
    import torch
    from monai.metrics import compute_hausdorff_distance, compute_surface_dice

    pair = _drawn(seed), _drawn(seed + 100)
    batch = [torch.from_numpy(mask)[None, None] for mask in pair]
    found = surface_distances(*pair, UNEVEN)
    monai = compute_hausdorff_distance(*batch, include_background=True, percentile=95, spacing=list(UNEVEN))
    assert found.hd95() == pytest.approx(monai.item(), rel=1e-6)
    for tolerance in (1.0, 2.0):
        shares = compute_surface_dice(*batch, [tolerance], include_background=True, spacing=list(UNEVEN))
        assert found.nsd(tolerance) == pytest.approx(shares.item(), rel=1e-6)


def test_distances_need_two_surfaces() -> None:
    with pytest.raises(ValueError, match="both masks need a voxel"):
        surface_distances(blocks(CUBE), np.zeros((30, 30, 30), dtype=bool), ONE)


def _drawn(seed: int) -> np.ndarray:
    """Five boxes of sides 1 to 4 somewhere in 16×14×12 voxels."""
    draw = np.random.default_rng(seed)
    size = (16, 14, 12)
    boxes = [(tuple(draw.integers(0, size)), tuple(draw.integers(1, 5, 3))) for _ in range(5)]
    return blocks(*boxes, size=size)


def _neighbours(most: int) -> list[Voxel]:
    """Steps that change at most so many coordinates: 2 are 18 neighbours, 3 are 26."""
    steps = ((z, y, x) for z, y, x in product((-1, 0, 1), repeat=3))
    return [step for step in steps if 0 < sum(map(abs, step)) <= most]


def _moved(voxel: Voxel, step: Voxel) -> Voxel:
    return voxel[0] + step[0], voxel[1] + step[1], voxel[2] + step[2]


def _voxels(mask: np.ndarray) -> set[Voxel]:
    return {(int(z), int(y), int(x)) for z, y, x in np.argwhere(mask)}


def _parts(voxels: set[Voxel]) -> list[set[Voxel]]:
    """26-connected components, by flooding."""
    left, parts = set(voxels), []
    while left:
        edge = [min(left)]
        part = set(edge)
        while edge:
            here = edge.pop()
            new = {_moved(here, step) for step in _neighbours(3)} & left - part
            part |= new
            edge += new
        parts.append(part)
        left -= part
    return parts


def _grown(voxels: set[Voxel], shape: Voxel, iterations: int) -> set[Voxel]:
    for _ in range(iterations):
        reached = {_moved(voxel, step) for voxel in voxels for step in _neighbours(2)}
        inside = {
            each for each in reached if all(0 <= at < side for at, side in zip(each, shape, strict=True))
        }
        voxels = voxels | inside
    return voxels


def _far(
    first: set[Voxel], second: set[Voxel], spacing: tuple[float, ...]
) -> tuple[list[float], list[float]]:
    """Of each surface voxel to the nearest of the other surface."""
    faces = _neighbours(1)
    surfaces = [
        np.array([each for each in part if any(_moved(each, step) not in part for step in faces)]) * spacing
        for part in (first, second)
    ]
    table = np.linalg.norm(surfaces[0][:, None] - surfaces[1][None], axis=-1)
    return list(table.min(axis=1)), list(table.min(axis=0))


def _hd95(first: set[Voxel], second: set[Voxel], spacing: tuple[float, ...]) -> float:
    return max(float(np.quantile(side, 0.95)) for side in _far(first, second, spacing))


def _overlap(first: set[Voxel], second: set[Voxel]) -> float:
    return 2 * len(first & second) / (len(first) + len(second))


def _lesions_by_loops(
    prediction: np.ndarray, truth: np.ndarray, spacing: tuple[float, ...], rule: Rule
) -> tuple[float, ...]:
    """Every lesion is dilated anew by itself, as the rule's words have it."""
    parts, true = _parts(_voxels(prediction)), _voxels(truth)
    lesions = [part & true for part in _parts(_grown(true, truth.shape, rule.iterations))]
    scores, missed, used = [], 0, set()
    for lesion in lesions:
        dilated = _grown(lesion, truth.shape, rule.iterations)
        own = [place for place, part in enumerate(parts) if part & dilated]
        used.update(own)
        if len(lesion) < rule.smallest:
            continue
        if own:
            match = set().union(*(parts[place] for place in own))
            scores.append((_overlap(match, lesion), _hd95(match, lesion, spacing)))
        else:
            missed += 1
    false, found = len(parts) - len(used), len(scores)
    scores += [(0.0, 374.0)] * (missed + false)
    means = np.mean(scores, axis=0) if scores else (1.0, 0.0)
    return float(means[0]), float(means[1]), found, missed, false


def _instances_by_loops(
    prediction: np.ndarray, truth: np.ndarray, spacing: tuple[float, ...]
) -> tuple[float, ...]:
    parts, lesions = _parts(_voxels(prediction)), _parts(_voxels(truth))
    instances, scores = len(parts) + len(lesions), []
    while pairs := [
        (_overlap(part, lesion), place, other)
        for place, part in enumerate(parts)
        for other, lesion in enumerate(lesions)
        if _overlap(part, lesion) > 1e-6
    ]:
        best, place, other = max(pairs)
        part, lesion = parts.pop(place), lesions.pop(other)
        both = np.concatenate(_far(part, lesion, spacing))
        scores.append((best, float(np.mean(both <= 1.0)), _hd95(part, lesion, spacing)))
    pairs_found = len(scores)
    scores += [(0.0, 0.0, 373.0)] * (len(parts) + len(lesions))
    means = np.mean(scores, axis=0)
    return float(means[0]), float(means[1]), float(means[2]), 2 * pairs_found / instances
