"""Windows and their mean, against plain loops with a full pass per subset and against MONAI."""

import itertools
import math
from typing import Literal

import numpy as np
import pytest
import torch
from torch import nn

from acdis.evaluation.sliding import predict, windows
from acdis.vocabulary import MODALITIES, SUBSETS

WINDOW, STRIDE = (6, 8, 6), (3, 4, 5)
SHAPE = (13, 17, 11)  # no multiple of the strides: the last windows are moved to the edge


VOXEL = 100  # bytes


class Toy(nn.Module):
    """A tiny method: features per modality, missing ones dropped in `decode_subsets`; counts its calls."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.features = nn.Conv3d(4, 8, 3, padding=1, groups=4)
        self.head = nn.Conv3d(8, 4, 3, padding=1)
        self.drop = nn.Dropout(0.5)
        self.encoded: list[tuple[int, ...]] = []
        self.decoded: list[int] = []
        self.dtypes: set[torch.dtype] = set()

    outputs, merged = "classes", "probabilities"

    def bytes_per_voxel(self, subsets: int) -> int:
        return VOXEL * subsets

    def encode(self, images: torch.Tensor, origin: torch.Tensor | None = None) -> torch.Tensor:
        assert origin is not None
        assert origin.shape == (len(images), 3)
        self.encoded += [tuple(place) for place in origin.tolist()]
        return self.features(images).relu()

    def decode_subsets(self, features: torch.Tensor, subsets: torch.Tensor) -> torch.Tensor:
        self.decoded.append(len(subsets))
        logits = torch.stack([self.decode(features, subset) for subset in subsets])
        self.dtypes.add(logits.dtype)
        return logits

    def decode(self, features: torch.Tensor, subset: torch.Tensor) -> torch.Tensor:
        kept = subset.repeat_interleave(2)[None, :, None, None, None]
        return 3 * self.drop(self.head(features.where(kept, 0.0)))


class Position(nn.Module):
    """Logits that are the window's origin: shows where each window was said to lie."""

    outputs, merged = "classes", "probabilities"

    def bytes_per_voxel(self, subsets: int) -> int:
        return VOXEL * subsets

    def encode(self, images: torch.Tensor, origin: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return images, origin

    def decode_subsets(
        self, features: tuple[torch.Tensor, torch.Tensor], subsets: torch.Tensor
    ) -> torch.Tensor:
        images, origin = features
        logits = torch.zeros(len(subsets), len(images), 4, *images.shape[2:])
        return logits + 0.1 * nn.functional.pad(origin, (0, 1))[:, :, None, None, None]


def volume(shape: tuple[int, ...] = SHAPE) -> torch.Tensor:
    return torch.randn(4, *shape, generator=torch.Generator().manual_seed(1))


def plain_starts(size: int, window: int, stride: int) -> list[int]:
    """RFNet's arithmetic: ceil((size - window) / stride) windows from 0, then one flush with the edge."""
    steps = math.ceil((size - window) / stride)
    return [step * stride for step in range(steps)] + [size - window]


def one_full_pass(method: Toy, images: torch.Tensor, subset: tuple[str, ...]) -> np.ndarray:
    """Plain loops: one subset, every window encoded anew from images without what is missing."""
    given = torch.tensor([modality in subset for modality in MODALITIES])
    sums, counts = np.zeros((4, *images.shape[1:])), np.zeros(images.shape[1:])
    axes = [plain_starts(*axis) for axis in zip(images.shape[1:], WINDOW, STRIDE, strict=True)]
    for d, h, w in itertools.product(*axes):
        place = (slice(d, d + WINDOW[0]), slice(h, h + WINDOW[1]), slice(w, w + WINDOW[2]))
        logits = method.decode(method.features(images[(slice(None), *place)][None]).relu(), given)
        exponent = np.exp(logits[0].numpy().astype(np.float64))
        sums[(slice(None), *place)] += exponent / exponent.sum(axis=0)
        counts[place] += 1
    return sums / counts


@pytest.mark.parametrize(
    ("size", "window", "stride", "expected"),
    [
        (80, 80, 40, [0]),
        (81, 80, 40, [0, 1]),
        (120, 80, 40, [0, 40]),
        (155, 80, 40, [0, 40, 75]),
        (160, 80, 40, [0, 40, 80]),
        (5, 2, 2, [0, 2, 3]),
        (3, 1, 1, [0, 1, 2]),
    ],
)
def test_starts_along_an_axis(size: int, window: int, stride: int, expected: list[int]) -> None:
    assert windows((size, 4, 4), (window, 4, 4), (stride, 4, 4)) == [(start, 0, 0) for start in expected]


@pytest.mark.parametrize("shape", [(128, 128, 128), (137, 173, 141), (240, 240, 155), (80, 121, 160)])
def test_windows_are_those_of_rfnet_and_of_monai_and_cover_everything(shape: tuple[int, int, int]) -> None:
    from monai.data.utils import dense_patch_slices

    found = windows(shape, (80,) * 3, (40,) * 3)
    monai = dense_patch_slices(shape, (80,) * 3, (40,) * 3)
    assert len(found) == len(set(found))
    assert set(found) == {tuple(axis.start for axis in place) for place in monai}
    assert found == list(itertools.product(*(plain_starts(side, 80, 40) for side in shape)))
    for axis, side in enumerate(shape):
        covered = np.zeros(side, dtype=bool)
        for start in found:
            covered[start[axis] : start[axis] + 80] = True
        assert covered.all()
        assert max(start[axis] for start in found) == side - 80


@pytest.mark.parametrize(
    ("shape", "window", "stride"),
    [((79, 80, 80), (80,) * 3, (40,) * 3), ((9,) * 3, (4,) * 3, (5, 4, 4)), ((9,) * 3, (4,) * 3, (0, 4, 4))],
)
def test_windows_that_would_leave_voxels_out_are_refused(
    shape: tuple[int, ...], window: tuple[int, ...], stride: tuple[int, ...]
) -> None:
    with pytest.raises(ValueError, match="stride"):
        windows(shape, window, stride)


def test_two_axes_are_refused() -> None:
    with pytest.raises(ValueError, match="three axes"):
        windows((9, 9), (4, 4), (2, 2))


def test_one_pass_for_all_subsets_equals_fifteen_full_passes() -> None:
    method, images = Toy().eval(), volume()
    found = predict(method, images, WINDOW, STRIDE)
    assert found.shape == (15, 4, *SHAPE)
    assert found.dtype == torch.float32
    with torch.no_grad():
        plain = np.stack([one_full_pass(method, images, subset) for subset in SUBSETS])
    np.testing.assert_allclose(found.numpy(), plain, atol=2e-6)
    assert np.abs(np.diff(plain, axis=0)).max() > 0.1  # the subsets do differ


@pytest.mark.parametrize(
    ("maps", "calls"),
    [
        (0, [1] * 15),  # nothing fits: one subset of one window at a time all the same
        (4, [4, 4, 4, 3]),
        (15, [15]),
        (29, [15]),
    ],
)
def test_memory_decides_how_many_subsets_are_decoded_at_a_time(maps: int, calls: list[int]) -> None:
    method, images = Toy(), volume()
    whole = predict(method, images, WINDOW, STRIDE)
    method.encoded.clear()
    method.decoded.clear()
    bounded = predict(method, images, WINDOW, STRIDE, memory=maps * math.prod(WINDOW) * VOXEL)
    assert method.encoded == windows(SHAPE, WINDOW, STRIDE)
    assert method.decoded == calls * len(method.encoded)
    torch.testing.assert_close(bounded, whole, rtol=0, atol=1e-6)


def test_windows_are_encoded_together_where_memory_allows() -> None:
    method, images = Toy(), volume()
    told: list[tuple[int, int]] = []
    memory = 44 * math.prod(WINDOW) * VOXEL
    two = predict(method, images, WINDOW, STRIDE, memory=memory, progress=lambda *at: told.append(at))
    places = windows(SHAPE, WINDOW, STRIDE)
    assert method.encoded == places
    assert method.decoded == [15] * math.ceil(len(places) / 2)
    assert told == [(min(done, len(places)), len(places)) for done in range(2, len(places) + 2, 2)]
    one = predict(method, images, WINDOW, STRIDE, memory=memory // 2)
    torch.testing.assert_close(two, one, rtol=0, atol=1e-6)


@pytest.mark.parametrize("weights", ["constant", "gaussian"])
@pytest.mark.parametrize("subset", [0, 7, 14])
def test_mean_of_softmax_is_that_of_monai(subset: int, weights: Literal["constant", "gaussian"]) -> None:
    from monai.inferers import sliding_window_inference

    method, images = Toy().eval(), volume((13, 17, 12))
    given = torch.tensor([modality in SUBSETS[subset] for modality in MODALITIES])
    found = predict(method, images, (6, 8, 6), (3, 4, 3), subsets=given[None], weights=weights)
    with torch.no_grad():
        monai = sliding_window_inference(
            images[None],
            (6, 8, 6),
            sw_batch_size=3,
            predictor=lambda crop: method.decode(method.features(crop).relu(), given).softmax(dim=1),
            overlap=0.5,
            mode=weights,
        )
    torch.testing.assert_close(found, monai, rtol=0, atol=1e-6)


def test_no_line_shows_where_a_window_ends_with_gaussian_weights() -> None:
    """Each window says another class; of the row of three windows the largest step between two neighbours."""
    steps = {}
    for weights in ("constant", "gaussian"):
        found = predict(
            Position(),
            torch.zeros(4, 16, 16, 32),
            (16, 16, 16),
            (16, 16, 8),
            weights=weights,  # type: ignore
        )
        row = found[0, 2, 8, 8]  # the class whose logit is 0.1 × the window's first voxel along this axis
        steps[weights] = float(row.diff().abs().max())
        assert float(row[0]) == pytest.approx(0.25)  # one window alone, whatever its weight
    assert steps["constant"] > 2 * steps["gaussian"] > 0


def test_probabilities_sum_to_one_everywhere() -> None:
    sums = predict(Toy(), volume(), WINDOW, STRIDE).sum(dim=1)
    torch.testing.assert_close(sums, torch.ones(15, *SHAPE), rtol=0, atol=1e-5)


def test_a_small_volume_is_padded_at_the_far_end_and_cropped_back() -> None:
    method, images = Toy(), volume((4, 17, 5))
    padded = torch.zeros(4, 6, 17, 6)
    padded[:, :4, :, :5] = images
    found = predict(method, images, WINDOW, STRIDE)
    assert found.shape == (15, 4, 4, 17, 5)
    torch.testing.assert_close(found, predict(method, padded, WINDOW, STRIDE)[:, :, :4, :, :5])
    assert {start[0] for start in method.encoded} == {0}


def test_origin_is_the_place_of_the_window() -> None:
    found = predict(Position(), volume((9, 6, 7)), (6, 6, 6), (5, 5, 5), subsets=torch.ones(1, 4).bool())
    origins = {(d, h, w): torch.tensor([d, h, w, 0.0]) for d in (0, 3) for h in (0,) for w in (0, 1)}
    corner = (0.1 * origins[0, 0, 0]).softmax(0)
    far = (0.1 * origins[3, 0, 1]).softmax(0)
    torch.testing.assert_close(found[0, :, 0, 0, 0], corner)
    torch.testing.assert_close(found[0, :, -1, -1, -1], far)
    middle = torch.stack([(0.1 * origin).softmax(0) for origin in origins.values()]).mean(0)
    torch.testing.assert_close(found[0, :, 4, 3, 3], middle)


@pytest.mark.parametrize("training", [True, False])
def test_modes_are_put_back_and_dropout_is_off(training: bool) -> None:
    method = Toy().train(training)
    method.head.eval()  # a frozen part stays as it was
    first, second = (predict(method, volume(), WINDOW, STRIDE) for _ in range(2))
    assert torch.equal(first, second)
    assert not first.requires_grad
    assert (method.training, method.drop.training, method.head.training) == (training, training, False)


def test_modes_are_put_back_after_an_error() -> None:
    method = Toy()
    method.decode = None  # type: ignore[assignment, method-assign]
    with pytest.raises(TypeError):
        predict(method, volume(), WINDOW, STRIDE)
    assert method.training
    assert torch.is_grad_enabled()


def test_autocast_computes_in_bf16_and_averages_in_fp32() -> None:
    method, images = Toy(), volume()
    whole = predict(method, images, WINDOW, STRIDE)
    assert method.dtypes == {torch.float32}
    method.dtypes.clear()
    mixed = predict(method, images, WINDOW, STRIDE, autocast=torch.bfloat16)
    assert method.dtypes == {torch.bfloat16}
    assert mixed.dtype == torch.float32
    assert 0 < (mixed - whole).abs().max() < 0.05


def test_progress_counts_the_windows() -> None:
    seen: list[tuple[int, int]] = []
    predict(Toy(), volume(), WINDOW, STRIDE, memory=0, progress=lambda *at: seen.append(at))
    total = len(windows(SHAPE, WINDOW, STRIDE))
    assert seen == [(done, total) for done in range(1, total + 1)]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": torch.zeros(3, *SHAPE)}, "images"),
        ({"images": torch.zeros(1, 4, *SHAPE)}, "images"),
        ({"subsets": torch.zeros(2, 4, dtype=torch.bool)}, "modality"),
        ({"subsets": torch.zeros(0, 4, dtype=torch.bool)}, "at least one subset"),
        ({"subsets": torch.ones(2, 4)}, "bool"),
        ({"subsets": torch.ones(4, dtype=torch.bool)}, "bool"),
        ({"images": torch.full((4, *SHAPE), math.nan)}, "not finite"),
    ],
)
def test_wrong_arguments_are_refused(change: dict, message: str) -> None:
    arguments = {"images": volume(), "window": WINDOW, "stride": STRIDE} | change
    with pytest.raises(ValueError, match=message):
        predict(Toy(), **arguments)


def test_logits_of_another_shape_are_refused() -> None:
    method = Toy()
    method.head = nn.Conv3d(8, 3, 3, padding=1)
    with pytest.raises(ValueError, match="logits"):
        predict(method, volume(), WINDOW, STRIDE)


class Regions(Position):
    """Three region maps: the window's first voxel along the last axis as logits 0, 1, -1 times it."""

    outputs = "regions"

    def __init__(self, merged: str) -> None:
        super().__init__()
        self.merged = merged

    def decode_subsets(self, features, subsets):
        images, origin = features
        logits = origin[:, 2, None].float() * torch.tensor([0.0, 1.0, -1.0])
        maps = logits[..., None, None, None].expand(-1, -1, *images.shape[2:])
        return maps.expand(len(subsets), *maps.shape)


@pytest.mark.parametrize("merged", ["probabilities", "logits"])
def test_regions_are_merged_as_they_are(merged: str) -> None:
    """Windows of 4 at 0 and 2 in a row of 6; where they meet, the mean of sigmoids or that of logits."""
    found = predict(Regions(merged), torch.zeros(4, 4, 4, 6), (4, 4, 4), (4, 4, 2))
    assert found.shape == (15, 3, 4, 4, 6)

    def sigmoid(x: float) -> float:
        return 1 / (1 + math.exp(-x))

    middle = sigmoid(1.0) if merged == "logits" else (sigmoid(0.0) + sigmoid(2.0)) / 2
    row = [0.5, 0.5, middle, middle, sigmoid(2.0), sigmoid(2.0)]
    assert found[3, 1, 2, 2].tolist() == pytest.approx(row)
    assert found[3, 2, 2, 2].tolist() == pytest.approx([1 - p for p in row])
    assert found[3, 0].unique().tolist() == [0.5]
