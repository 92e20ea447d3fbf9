"""Scores of one case, against hand-made cases, plain loops over voxels, and MONAI where it fits METHOD.md."""

import itertools
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from pyarrow.parquet import read_schema
from scipy import ndimage

from acdis.config import Evaluation
from acdis.errors import UserError
from acdis.evaluation.metrics import HD95_ONE_EMPTY, dice, empty_if_small, hd95, region_mask, score_case
from acdis.evaluation.records import read_parquet, write_parquet
from acdis.evaluation.scores import from_records, read_file
from acdis.vocabulary import REGIONS, SUBSETS, subset_name

SHAPE = (9, 10, 8)
SPACING = (1.0, 1.5, 3.0)


def blob(seed: int, share: float = 0.1, shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    return np.random.default_rng(seed).random(shape) < share


def plain_surface(mask: np.ndarray) -> list[tuple[int, ...]]:
    """Voxels with one of six neighbours outside the mask or the volume, voxel by voxel."""
    surface = []
    for voxel in zip(*np.nonzero(mask), strict=True):
        neighbours = [
            tuple(int(at) + (step if axis == moved else 0) for axis, at in enumerate(voxel))
            for moved, step in itertools.product(range(3), (-1, 1))
        ]
        inside = [
            all(0 <= at < side for at, side in zip(n, mask.shape, strict=True)) and mask[n]
            for n in neighbours
        ]
        if not all(inside):
            surface.append(tuple(int(at) for at in voxel))
    return surface


def plain_hd95(prediction: np.ndarray, truth: np.ndarray, spacing: tuple[float, ...]) -> float:
    """All pairs of surface voxels; percentile by linear interpolation between ordered values."""
    surfaces = [plain_surface(prediction), plain_surface(truth)]
    directed = []
    for these, those in (surfaces, surfaces[::-1]):
        nearest = sorted(
            min(math.dist(np.multiply(a, spacing), np.multiply(b, spacing)) for b in those) for a in these
        )
        place = 0.95 * (len(nearest) - 1)
        low = math.floor(place)
        high = min(low + 1, len(nearest) - 1)
        directed.append(nearest[low] + (place - low) * (nearest[high] - nearest[low]))
    return max(directed)


def test_regions_are_nested_as_the_field_has_them() -> None:
    labels = np.array([0, 1, 2, 3], dtype=np.uint8)
    assert region_mask(labels, "WT").tolist() == [False, True, True, True]
    assert region_mask(labels, "TC").tolist() == [False, True, False, True]
    assert region_mask(labels, "ET").tolist() == [False, False, False, True]


@pytest.mark.parametrize("seed", range(4))
def test_dice_by_plain_loops(seed: int) -> None:
    prediction, truth = blob(seed, 0.4), blob(seed + 10, 0.3)
    overlap = sum(int(p and t) for p, t in zip(prediction.flat, truth.flat, strict=True))
    expected = (2 * overlap + 1e-8) / (sum(map(int, prediction.flat)) + sum(map(int, truth.flat)) + 1e-8)
    assert dice(prediction, truth) == pytest.approx(expected, abs=1e-15)
    assert type(dice(prediction, truth)) is float


@pytest.mark.parametrize(
    ("prediction", "truth", "expected"),
    [
        ([0, 0, 0], [0, 0, 0], 1.0),
        ([1, 0, 0], [0, 0, 0], 1e-8),
        ([0, 0, 0], [1, 1, 0], 5e-9),
        ([1, 1, 0], [0, 1, 1], 0.5),
        ([1, 1, 1], [1, 1, 1], 1.0),
        ([1, 0, 0], [0, 0, 1], 5e-9),
    ],
)
def test_dice_by_hand(prediction: list[int], truth: list[int], expected: float) -> None:
    found = dice(np.array(prediction, dtype=bool), np.array(truth, dtype=bool))
    assert found == pytest.approx(expected, rel=1e-6)


def test_dice_is_that_of_monai_where_the_truth_is_not_empty() -> None:
    from monai.metrics import DiceMetric

    pairs = [(blob(seed, 0.3), blob(seed + 50, 0.2)) for seed in range(5)]
    stacks = [torch.from_numpy(np.stack(masks))[:, None].float() for masks in zip(*pairs, strict=True)]
    monai = DiceMetric(include_background=True, reduction="none")(*stacks)
    assert [dice(*pair) for pair in pairs] == pytest.approx(monai.flatten().tolist(), abs=1e-6)


def test_monai_leaves_out_the_case_without_truth_and_we_do_not() -> None:
    from monai.metrics import DiceMetric

    metric = DiceMetric(include_background=True, reduction="mean")
    filled, empty = torch.ones(1, 1, 2, 2, 2), torch.zeros(1, 1, 2, 2, 2)
    metric(filled, filled)
    metric(filled, empty)
    assert metric.aggregate().item() == 1.0
    ours = [dice(np.ones((2, 2, 2), bool), np.full((2, 2, 2), truth)) for truth in (True, False)]
    assert np.mean(ours) == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("seed", "shares"), [(0, (0.02, 0.03)), (1, (0.4, 0.1)), (2, (0.005, 0.9)), (3, (1.1, 0.01))]
)
@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), SPACING])
def test_hd95_by_plain_loops(seed: int, shares: tuple[float, float], spacing: tuple[float, ...]) -> None:
    prediction, truth = (blob(seed + at, share) for at, share in zip((0, 100), shares, strict=True))
    assert prediction.any()
    assert truth.any()
    assert hd95(prediction, truth, spacing) == pytest.approx(plain_hd95(prediction, truth, spacing), rel=1e-5)


def test_hd95_of_cubes_apart() -> None:
    prediction, truth = np.zeros((30, 30, 30), bool), np.zeros((30, 30, 30), bool)
    prediction[2:7, 5:10, 5:10] = True
    truth[12:17, 5:10, 5:10] = True
    assert hd95(prediction, truth, (1.0, 1.0, 1.0)) == pytest.approx(10.0)
    assert hd95(prediction, truth, (2.0, 1.0, 1.0)) == pytest.approx(20.0)
    assert hd95(truth, truth, SPACING) == 0.0


@pytest.mark.parametrize("percent", [2, 10])
def test_hd95_looks_both_ways(percent: int) -> None:
    """Far specks count only once they are more than a twentieth of a surface, whichever mask has them."""
    truth = np.zeros((100, 100, 3), bool)
    truth[:10, :10, 1] = True  # one slice thick: 100 surface voxels
    prediction = truth.copy()
    prediction[90, 90 : 90 + percent, 1] = True
    found = hd95(prediction, truth, (1.0, 1.0, 1.0))
    assert found == hd95(truth, prediction, (1.0, 1.0, 1.0))
    assert (found > 100) if percent == 10 else (found == 0)


@pytest.mark.parametrize("seed", range(3))
def test_cropping_first_changes_nothing_against_monai_on_the_whole_volume(seed: int) -> None:
    from monai.metrics import compute_hausdorff_distance

    prediction, truth = np.zeros((24, 30, 20), bool), np.zeros((24, 30, 20), bool)
    prediction[5:14, 12:22, :8] = blob(seed, 0.6, (9, 10, 8))  # touches the volume's edge
    truth[8:17, 20:30, 3:11] = blob(seed + 1, 0.6, (9, 10, 8))
    whole = [torch.from_numpy(mask)[None, None] for mask in (prediction, truth)]
    monai = compute_hausdorff_distance(*whole, include_background=True, percentile=95, spacing=list(SPACING))
    assert hd95(prediction, truth, SPACING) == pytest.approx(monai.item(), abs=1e-6)


def test_hd95_of_empty_masks() -> None:
    empty, filled = np.zeros(SHAPE, bool), blob(0)
    assert hd95(empty, empty, SPACING) == 0.0
    assert hd95(empty, filled, SPACING) == 373.13
    assert hd95(filled, empty, SPACING) == 373.13
    assert pytest.approx(math.hypot(240, 240, 155), abs=0.005) == HD95_ONE_EMPTY


@pytest.mark.parametrize(
    ("voxels", "voxel_volume", "kept"),
    [
        (499, 1.0, False),
        (500, 1.0, True),
        (62, 8.0, False),
        (63, 8.0, True),
        (500, 0.99999994**3, True),
        (0, 1.0, False),
    ],
)
def test_a_small_prediction_is_emptied(voxels: int, voxel_volume: float, kept: bool) -> None:
    mask = np.arange(1000).reshape(10, 10, 10) < voxels
    found = empty_if_small(mask, 500.0, voxel_volume)
    assert np.count_nonzero(found) == (voxels if kept else 0)
    assert np.count_nonzero(mask) == voxels


def hand_made() -> tuple[np.ndarray, np.ndarray]:
    """Truth of 8 voxels NCR, ED, ET; a prediction that is right but for one ET called ED."""
    truth = np.zeros((4, 4, 4), np.uint8)
    truth[0, 0] = [1, 2, 3, 3]
    truth[0, 1] = [2, 2, 3, 1]
    prediction = truth.copy()
    prediction[0, 0, 3] = 2
    return prediction, truth


@pytest.mark.parametrize("given", ["labels", "probabilities", "generator", "tensor"])
def test_a_hand_made_case(given: str) -> None:
    prediction, truth = hand_made()
    predictions = [prediction] * 14 + [truth]
    if given == "probabilities":
        predictions = np.stack([0.4 * np.eye(4)[p].transpose(3, 0, 1, 2) + 0.15 for p in predictions])
    if given == "tensor":
        predictions = torch.from_numpy(np.stack(predictions))
    source = iter(predictions) if given == "generator" else predictions
    records = score_case("case", source, truth, (2.0, 2.0, 2.0), Evaluation(et_minimum=17.0))
    keys = [(subset_name(subset), region) for subset in SUBSETS for region in REGIONS]
    assert [(row.subset, row.region) for row in records] == keys
    assert {(row.case, row.voxel_volume) for row in records} == {("case", 8.0)}
    first, last = records[:3], records[-3:]
    assert [row.dice for row in first] == pytest.approx([1.0, 2 * 4 / 9, 2 * 2 / 5])
    assert [row.predicted_voxels for row in first] == [8, 4, 2]
    assert [row.truth_voxels for row in first] == [8, 5, 3]
    assert [row.dice_et500 for row in first[:2]] == [None, None]
    assert first[2].dice_et500 == pytest.approx(0.0, abs=1e-8)  # 2 voxels of 8 mm³ are below 17 mm³
    assert [row.dice for row in last] == [1.0, 1.0, 1.0]
    assert last[2].dice_et500 == 1.0  # 24 mm³ stay
    assert [row.hd95 for row in last] == [0.0, 0.0, 0.0]


def test_false_positive_on_a_case_without_et_costs_in_dice_but_not_below_500_mm3() -> None:
    truth = np.zeros((10, 10, 10), np.uint8)
    prediction = truth.copy()
    prediction[:4] = 3
    et = score_case("case", [prediction] * 15, truth, (1.0, 1.0, 1.0), Evaluation())[2]
    assert (et.dice, et.dice_et500, et.hd95) == (pytest.approx(0, abs=1e-9), 1.0, 373.13)
    coarse = score_case("case", [prediction] * 15, truth, (2.0, 1.0, 1.0), Evaluation())[2]
    assert coarse.dice_et500 == pytest.approx(0, abs=1e-9)  # 800 mm³


def test_hd95_can_be_switched_off() -> None:
    prediction, truth = hand_made()
    records = score_case("case", [prediction] * 15, truth, (1.0, 1.0, 1.0), Evaluation(hd95=False))
    assert {row.hd95 for row in records} == {None}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"predictions": [np.zeros((4, 4, 4), np.uint8)] * 14}, "shorter"),
        ({"predictions": [np.zeros((4, 4, 4), np.uint8)] * 16}, "longer"),
        ({"predictions": [np.zeros((4, 4, 5), np.uint8)] * 15}, "voxels"),
        ({"predictions": [np.full((4, 4, 4), 4)] * 15}, "case p, FLAIR: labels 4 to 4"),
        ({"predictions": [np.full((4, 4, 4), -1)] * 15}, "labels -1"),
        ({"predictions": [np.zeros((4, 4, 4))] * 15}, "integers"),
        ({"predictions": [np.full((4, 4, 4, 4), np.nan)] * 15}, "not finite"),
        ({"truth": np.full((4, 4, 4), 4, np.uint8)}, "truth"),
        ({"spacing": (1.0, 1.0, 0.0)}, "spacing"),
        ({"spacing": (1.0, 1.0)}, "spacing"),
        ({"spacing": (1.0, math.nan, 1.0)}, "spacing"),
    ],
)
def test_what_cannot_be_scored_is_refused(change: dict, message: str) -> None:
    prediction, truth = hand_made()
    given = {"predictions": [prediction] * 15, "truth": truth, "spacing": (1.0, 1.0, 1.0)} | change
    with pytest.raises(ValueError, match=message):
        score_case("p", evaluation=Evaluation(), **given)


@pytest.mark.real
def test_a_real_truth_scored_against_itself_moved(shared: Path) -> None:
    """Moved by one voxel of 1 mm: HD95 is 1 mm, Dice by counting; scores of the unmoved one are perfect."""
    import nibabel

    folder = shared / "data" / "brats2021" / "BraTS2021_01478"
    image = nibabel.load(folder / f"{folder.name}_seg.nii.gz")
    truth = np.asarray(image.dataobj).astype(np.uint8)
    truth[truth == 4] = 3
    spacing = tuple(float(side) for side in image.header.get_zooms())
    subsets = SUBSETS[:2]
    rows = score_case("moved", [np.roll(truth, 1, axis=0), truth], truth, spacing, Evaluation(), subsets)
    for row in rows[3:]:
        assert (row.dice, row.hd95, row.predicted_voxels) == (1.0, 0.0, row.truth_voxels)
    for row, labels in zip(rows[:3], ([1, 2, 3], [1, 3], [3]), strict=True):
        mask = np.isin(truth, labels)
        assert row.dice == pytest.approx(2 * (mask[1:] & mask[:-1]).sum() / (2 * mask.sum()))
        assert row.hd95 == pytest.approx(1.0)


def directed(prediction: np.ndarray, truth: np.ndarray, spacing: tuple[float, ...]) -> list[np.ndarray]:
    """From each surface to the other, by scipy's distance transform of the whole volume."""
    cross = ndimage.generate_binary_structure(3, 1)
    surfaces = [mask & ~ndimage.binary_erosion(mask, cross) for mask in (prediction, truth)]
    fields = [ndimage.distance_transform_edt(~mask, sampling=spacing) for mask in surfaces]
    return [fields[1][surfaces[0]], fields[0][surfaces[1]]]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), SPACING])
def test_conventions_of_hd95_against_scipy(seed: int, spacing: tuple[float, ...]) -> None:
    prediction, truth = blob(seed, 0.3), blob(seed + 100, 0.02)
    both = directed(prediction, truth, spacing)
    larger = max(np.percentile(distances, 95) for distances in both)
    pooled = np.percentile(np.concatenate(both), 95)
    assert hd95(prediction, truth, spacing) == pytest.approx(larger, rel=1e-6)
    assert hd95(prediction, truth, spacing, "pooled") == pytest.approx(pooled, rel=1e-6)


def test_conventions_of_hd95_by_hand() -> None:
    """A line of 100 voxels against the first 50 of it and one 40 voxels to the side.

    From the prediction the distances are 0 (50 times) and 40; from the truth 0 (50 times), then 1, 2, … 50.
    """
    truth, prediction = (np.zeros((100, 42, 1), dtype=bool) for _ in range(2))
    truth[:, 0] = prediction[:50, 0] = prediction[0, 40] = True
    forth = [0.0] * 50 + [float(step) for step in range(1, 51)]
    back = [0.0] * 50 + [40.0]
    assert hd95(prediction, truth, (1, 1, 1)) == pytest.approx(np.percentile(forth, 95))
    pooled = hd95(prediction, truth, (1, 1, 1), "pooled")
    assert pooled == pytest.approx(np.percentile(forth + back, 95))
    assert pooled < np.percentile(forth, 95) - 2


def test_conventions_agree_on_empty_masks() -> None:
    empty, full = np.zeros(SHAPE, dtype=bool), blob(1)
    for pair, due in (((empty, empty), 0.0), ((full, empty), 373.13), ((empty, full), 373.13)):
        assert hd95(*pair, SPACING, "pooled") == hd95(*pair, SPACING) == due


def test_the_convention_goes_with_the_scores(tmp_path: Path) -> None:
    labels = np.zeros(SHAPE, dtype=np.int64)
    labels[2:5, 2:5, 2:5] = 3
    moved = np.roll(labels, 1, axis=0)
    for convention in ("max", "pooled"):
        settings = Evaluation(hd95_convention=convention)
        records = score_case("case", [moved] * 15, labels, SPACING, settings)
        assert {record.hd95 for record in records} == {hd95(moved == 3, labels == 3, SPACING, convention)}
        write_parquet(path := tmp_path / "records.parquet", records)
        assert read_parquet(path) == records
        assert ("hd95_convention" in read_schema(path).names) == (convention == "pooled")
        assert read_file(path).hd95_convention == from_records(records).hd95_convention == convention
    for wrong in (None, "other"):
        write_parquet(path, [replace(records[0], hd95_convention=wrong), *records[1:]])
        with pytest.raises(UserError, match="hd95_convention is no convention of all scores"):
            read_file(path)


def test_a_convention_of_what_is_not_computed_is_refused() -> None:
    with pytest.raises(ValueError, match="hd95_convention says how HD95 is computed, and hd95 is false"):
        Evaluation(hd95=False, hd95_convention="pooled")
    alone = Evaluation(hd95_convention="pooled").dice_alone()
    assert Evaluation.model_validate(alone.model_dump()) == alone
