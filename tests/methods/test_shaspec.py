"""ShaSpec as a method: losses, who stands in for whom, padding and rates, by other means."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from reference import s

from acdis import methods
from acdis.config import Training
from acdis.errors import UserError
from acdis.losses import regions
from acdis.methods.base import Batch
from acdis.methods.shaspec import objective
from acdis.methods.shaspec.method import first_of
from acdis.methods.shaspec.network import Encoder
from acdis.vocabulary import MODALITIES, SUBSETS, subset_mask

MASKS = torch.tensor([subset_mask(subset) for subset in SUBSETS])


def small(**options):
    torch.manual_seed(0)
    return methods.build("shaspec", base_width=4, bottlenecks=[1, 1, 1, 1], **options).double()


def make_batch(rows, size=(32, 32, 32)):
    draw = torch.Generator().manual_seed(0)
    n = len(rows)
    return Batch(
        torch.randn(n, 4, *size, generator=draw, dtype=torch.float64),
        torch.randint(0, 4, (n, *size), generator=draw),
        torch.tensor(rows, dtype=torch.bool),
        keys=tuple(range(n)),
    )


# --- losses


def test_losses_of_maps():
    """E6: Dice with 1 below alone, and cross-entropy summed over the maps."""
    i = torch.arange(1, 25, dtype=torch.float64)
    logits, target = 2 * s(1, 24, 1, 3, 2, 2, 2), (torch.cos(i * i) > 0).double().view(1, 3, 2, 2, 2)
    assert float(objective.dice(logits.sigmoid(), target)) == pytest.approx(0.484577, abs=1e-6)
    assert float(3 * regions.region_cross_entropy(logits, target)) == pytest.approx(2.298658, abs=1e-6)


def test_a_region_that_is_not_there_has_a_loss_of_one():
    nothing = torch.zeros(1, 3, 2, 2, 2)
    assert float(objective.dice(nothing, nothing)) == 1


def test_differences_go_round():
    """Four features of four values s(1..16)."""
    features = s(1, 16, 4, 1, 4, 1, 1, 1)
    assert float(objective.shared_differences(list(features))) == pytest.approx(4.308342, abs=1e-6)


def test_domains():
    """Logits 4 x 4 s(1..16); then the first and the third alone."""
    logits = list(s(1, 16, 4, 1, 4))
    counted = torch.ones(1, 4, dtype=torch.bool)
    assert float(objective.domain_cross_entropy(logits, counted)) == pytest.approx(1.509915, abs=1e-6)
    z = s(1, 16, 4, 4).numpy()
    each = np.log(np.exp(z).sum(1)) - z.diagonal()
    counted[0, [1, 3]] = False
    found = float(objective.domain_cross_entropy(logits, counted))
    assert found == pytest.approx((each[0] + each[2]) / 2, rel=1e-9)


# --- who stands in


def test_the_first_that_is_there_stands_in_at_test():
    order = ("FLAIR", "T1", "T1ce", "T2")
    for subset, number in zip(SUBSETS, first_of(MASKS).tolist(), strict=True):
        assert MODALITIES[number] == next(name for name in order if name in subset)


def test_a_random_one_stands_in_in_training():
    method = small()
    rows = [(1, 0, 1, 1), (0, 1, 0, 0)]
    batch = make_batch(rows * 600, (1, 1, 1))
    drawn = method._drawn(batch).view(600, 2)
    assert torch.equal(drawn, method._drawn(batch).view(600, 2))
    assert (drawn[:, 1] == 1).all()
    shares = np.bincount(drawn[:, 0], minlength=4) / 600
    assert shares[1] == 0
    # a third each: 600 draws stray by 0.019 (one standard deviation)
    np.testing.assert_allclose(shares[[0, 2, 3]], 1 / 3, atol=0.08)
    half = replace(batch, images=batch.images[2:], available=batch.available[2:], keys=batch.keys[2:])
    assert torch.equal(method._drawn(half), drawn.flatten()[2:])


def test_features_of_what_is_missing_are_the_stand_ins_shared_ones():
    method = small()
    composed, shared = ([torch.full((2, 2, 1, 1, 1), x + m) for m in range(4)] for x in (10.0, 20.0))
    available = torch.tensor([[True, False, True, False], [False, True, False, False]])
    fused = method._fused(composed, shared, available, torch.tensor([2, 1]))
    assert fused[0].flatten().tolist() == [10, 10, 22, 22, 12, 12, 22, 22]
    assert fused[1].flatten().tolist() == [21, 21, 11, 11, 21, 21, 21, 21]


@pytest.mark.parametrize("options", [{}, {"stem": "full"}])
def test_training_and_inference_are_one_network(options):
    """With one modality there is no choice: the step's Dice is that of inference's map."""
    method = small(**options)
    batch = make_batch([(0, 0, 1, 0)])
    with torch.no_grad():
        logits = method.decode(method.encode(batch.images), batch.available)
        expected = objective.dice(logits.sigmoid(), regions.region_target(batch.labels).double())
        found = method(batch, 0)["main"]["seg/dice"]
    assert found.item() == pytest.approx(expected.item(), rel=1e-9)


@torch.no_grad()
def test_an_image_of_zeros_stands_for_a_missing_one():
    """In the skips; its own encoder has no part in the result."""
    method, batch = small(), make_batch([(1, 0, 0, 1)])
    expected = method.decode(method.encode(batch.images), batch.available)
    emptied = batch.images * batch.available[:, :, None, None, None]
    torch.testing.assert_close(method.decode(method.encode(emptied), batch.available), expected)
    for weight in method.specific[1].parameters():
        weight.add_(1)
    torch.testing.assert_close(method.decode(method.encode(batch.images), batch.available), expected)


# --- sides


@pytest.mark.parametrize(
    ("stem", "size", "grown"), [("strided", (32, 40, 33), (32, 64, 64)), ("full", (33, 32, 32), (48, 32, 32))]
)
@torch.no_grad()
def test_sides_are_padded_and_cut(stem, size, grown):
    method, batch = small(stem=stem), make_batch([(1, 1, 0, 1)], size)
    found = method.decode(method.encode(batch.images), batch.available)
    assert found.shape == (1, 3, *size)
    ends = [end for side, more in zip(size[::-1], grown[::-1], strict=True) for end in (0, more - side)]
    larger = method.decode(method.encode(F.pad(batch.images, ends)), batch.available)
    torch.testing.assert_close(found, larger[..., : size[0], : size[1], : size[2]])


def test_the_full_stem_has_the_published_grids():
    """At 80³: 80, 40, 20, 10, and 5 at the bottom."""
    with torch.device("meta"):
        method = methods.validate("shaspec", {"stem": "full"})
        encoded = Encoder(method.base_width, method.stride)(torch.empty(1, 1, 80, 80, 80))
    assert [skip.shape[2] for skip in encoded.skips] == [80, 40, 20, 10]
    assert encoded.feature.shape == (1, 256, 5, 5, 5)


# --- the recipe


def test_warm_up_sees_everything_and_has_a_rate_of_its_own():
    method = small(warm_up=800, optimiser="sgd", subsets="by_count")
    assert method.sample_subsets(torch.Generator(), 50, 799).all()
    later = method.sample_subsets(np.random.default_rng(0), 9600, 800)
    for row, share in (((1, 1, 1, 1), 1 / 4), ((0, 1, 1, 0), 1 / 24), ((0, 0, 0, 1), 1 / 16)):
        assert (later == torch.tensor(row)).all(1).double().mean().item() == pytest.approx(share, abs=0.016)
    recipe = Training(epochs=1800, learning_rate=0.01)
    rates = [method.settings_at(epochs, recipe)["main"]["lr"] for epochs in (0.0, 400.5, 799.99, 800.0)]
    assert rates[:2] == pytest.approx([0.01, 0.01 * (1 - 400.5 / 800) ** 0.9])
    assert rates[2] < 1e-6
    assert rates[3] == pytest.approx(0.00589, abs=1e-5)


def test_what_a_case_lacks_is_what_it_hides():
    """No term sees more than the subset: the same terms, with NaN in the place of what is not there."""
    method, batch = small(), make_batch(((1, 0, 1, 0), (0, 1, 1, 1)))
    images = batch.images.masked_fill(~batch.available[:, :, None, None, None], torch.nan)
    holed = replace(batch, images=images, present=batch.available)
    with torch.no_grad():
        one, other = method(batch, 0)["main"], method(holed, 0)["main"]
    assert all(torch.equal(one[name], other[name]) for name in one)
    with pytest.raises(UserError, match=r"data\.missing: shaspec .*warm_up 3 .*set it to 0"):
        methods.load(None, ["method.name=shaspec", "method.options.warm_up=3", "data.missing={T2: 0.5}"])
