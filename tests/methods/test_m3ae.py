"""M3AE's two stages: the learnt image's place, masks, losses and what is handed on, by other means."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from reference import s

from acdis import config, methods
from acdis.config import Training
from acdis.errors import UserError
from acdis.losses import regions
from acdis.methods.base import Batch
from acdis.methods.m3ae.learnt import LearntImage, cut_out
from acdis.methods.m3ae.method import disagreement
from acdis.methods.subsets import by_count

VOLUME = (20, 18, 24)


def small(stage="finetuning", seed=0, **options):
    torch.manual_seed(seed)
    return methods.build("m3ae", stage=stage, base_width=8, volume=VOLUME, **options)


def make_batch(side=16, **changes):
    draw = torch.Generator().manual_seed(0)
    batch = Batch(
        torch.randn(2, 4, side, side, side, generator=draw),
        torch.randint(0, 4, (2, side, side, side), generator=draw),
        torch.tensor([[True, False, True, False], [False, True, False, False]]),
        origin=torch.zeros(2, 3, dtype=torch.long),
        flips=torch.zeros(2, 3, dtype=torch.bool),
        keys=(3, 8),
    )
    return replace(batch, **changes)


# --- the learnt image


def test_crops_of_the_image_against_slices():
    """Inside, across edges, and turned round as NumPy turns them."""
    volume = torch.randn(2, *VOLUME)
    padded = np.pad(volume.numpy(), [(0, 0)] + [(8, 16)] * 3)
    origins = [(0, 0, 0), (5, 3, 9), (-4, 12, 15), (17, -7, 0)]
    flips = [(0, 0, 0), (1, 0, 0), (0, 1, 1), (1, 1, 1)]
    found = cut_out(volume, torch.tensor(origins), torch.tensor(flips, dtype=torch.bool), (6, 8, 7))
    for b, (origin, turned) in enumerate(zip(origins, flips, strict=True)):
        place = tuple(slice(at + 8, at + 8 + side) for at, side in zip(origin, (6, 8, 7), strict=True))
        expected = padded[(slice(None), *place)]
        for axis, turn in enumerate(turned, 1):
            expected = np.flip(expected, axis) if turn else expected
        np.testing.assert_array_equal(found[b].numpy(), expected)


def test_inference_fills_holes_at_the_windows_place():
    """A window at the corner of the case's box; not, as in the public code, at the window's place in it."""
    method = small()
    with torch.no_grad():
        method.image.voxels.normal_()
    origin = torch.tensor([[3, 1, 8]])
    features = method.encode(torch.zeros(1, 4, 16, 16, 16), origin=origin)
    assert torch.equal(features.filler[0], method.image.voxels[0, :, 3:19, 1:17, 8:24])
    images = torch.where(torch.tensor([1, 0, 0, 1])[None, :, None, None, None] > 0, 7.0, features.filler)
    with torch.no_grad():
        expected = method.net(images).full
        found = method.decode(
            replace_images(features, torch.full_like(images, 7.0)), torch.tensor([[True, False, False, True]])
        )
    torch.testing.assert_close(found, expected)


def replace_images(features, images):
    return features._replace(images=images)


def test_training_turns_the_image_with_the_crop():
    """A crop that was turned round and its hole's filling give the turned result's loss: none is shifted."""
    method = small("pretraining")
    method.net.forward = lambda x, deep_maps=True: type("Maps", (), {"full": x})()  # hands on what it sees
    image = method.image.voxels.detach()[:, :, :16, :16, :16]
    turned = torch.tensor([[True, False, True]] * 2)
    batch = make_batch(images=image.expand(2, -1, -1, -1, -1).flip(2, 4), flips=turned)
    assert method(batch, 0)["main"]["reconstruction"].item() == 0  # holes hold just what was there
    assert method(replace(batch, flips=~turned), 0)["main"]["reconstruction"].item() > 0.1


def test_unevenness_of_the_image():
    image = LearntImage(4, (2, 2, 2), learns=True).double()
    with torch.no_grad():
        image.voxels.copy_(s(1, 32, 1, 4, 2, 2, 2))
    torch.testing.assert_close(image.unevenness().item(), 3.858688, rtol=1e-6, atol=0)


# --- pre-training


@pytest.mark.parametrize("row", [(1, 1, 1, 1), (1, 0, 1, 1), (0, 1, 0, 1), (0, 0, 1, 0)])
def test_cubes_that_are_seen(row):
    """An eighth of all cubes, 62 of 500 at 80³, all of survivors; whole cubes of 16³."""
    method = small("pretraining", kept=0.125)
    batch = Batch(
        torch.zeros(1, 4, 80, 80, 80), torch.zeros(1), torch.tensor([row], dtype=torch.bool), keys=(1,)
    )
    seen = method._cubes(batch)
    assert seen.shape == (1, 4, 5, 5, 5)
    assert int(seen.sum()) == 62
    assert {m for m in range(4) if seen[0, m].any()} <= {m for m in range(4) if row[m]}
    other = method._cubes(replace(batch, keys=(2,)))
    assert not torch.equal(seen, other)
    assert torch.equal(seen, method._cubes(batch))


def test_the_network_sees_cubes_and_the_image_elsewhere():
    method, seen = small("pretraining", kept=0.25), []
    net = method.net.forward
    method.net.forward = lambda x, deep_maps=True: (seen.append(x.detach().clone()), net(x))[1]
    batch = make_batch(side=32)
    terms = method(batch, 0)
    cubes = method._cubes(batch)
    filler = cut_out(method.image.voxels[0], batch.origin, None, (32, 32, 32))
    for b, m, d, h, w in np.ndindex(2, 4, 2, 2, 2):
        place = (b, m, *(slice(16 * at, 16 * at + 16) for at in (d, h, w)))
        source = batch.images if cubes[b, m, d, h, w] else filler
        assert torch.equal(seen[0][place], source[place])
    with torch.no_grad():
        squares = (net(seen[0]).full - batch.images).square().mean()
    torch.testing.assert_close(terms["main"]["reconstruction"].detach(), squares)


def test_rates_of_network_and_image():
    """Both half a cosine to 0; neither decays its weights."""
    method = small("pretraining", schedule="cosine", image_learning_rate=5e-3)
    recipe = Training(epochs=600, learning_rate=3e-4, weight_decay=1e-4)
    for epoch in (0, 150, 300, 599):
        share = (1 + math.cos(math.pi * epoch / 600)) / 2
        found = method.settings_at(float(epoch), recipe)
        assert found["main"]["lr"] == pytest.approx(3e-4 * share)
        assert found["image"]["lr"] == pytest.approx(5e-3 * share)
    assert all(o.param_groups[0]["weight_decay"] == 0 for o in method.optimisers(recipe).values())


# --- fine-tuning


def test_loss_of_one_map():
    """E6: 0.7 Dice with squares and 1, and 0.3 of the cross-entropy."""
    i = torch.arange(1, 25, dtype=torch.float64)
    logits, target = 2 * s(1, 24, 1, 3, 2, 2, 2), (torch.cos(i * i) > 0).double().view(1, 3, 2, 2, 2)
    dice = regions.region_dice(logits.sigmoid(), target, lambda sums: sums, 1.0, squares=True)
    found = 0.7 * dice + 0.3 * regions.region_cross_entropy(logits, target)
    assert float(found) == pytest.approx(0.418706, abs=1e-6)


def test_a_step_against_two_views_by_hand():
    """Both views through the network, sample by sample; sums over both; agreement of the coarsest map."""
    method, batch = small(consistency_weight=0.3).double(), make_batch()
    batch = replace(batch, images=batch.images.double())
    with torch.no_grad():
        method.image.voxels.normal_()
        terms = {name: float(value) for name, value in method(batch, 0)["main"].items()}
        second = torch.cat([method.sample_subsets(g, 1, 0) for g in batch.generators("second view")])
        filler = method.image.voxels[0, :, :16, :16, :16].clone()
        outputs = {}
        for view, subsets in enumerate((batch.available, second)):
            for b in range(2):
                image = torch.where(subsets[b, :, None, None, None], batch.images[b], filler)
                maps = method.net(image[None])
                outputs[view, b] = [*(each[0].numpy() for each in maps.deep), maps.full[0].numpy()]
    inside = np.stack([np.isin(batch.labels, each) for each in ((1, 2, 3), (1, 3), (3,))], 1).astype(float)
    dice = cross = 0.0
    for number in range(3):
        for region in range(3):
            above = below = 0.0
            for (_, b), each in outputs.items():
                p, y = 1 / (1 + np.exp(-each[number][region])), inside[b, region]
                above, below = above + 2 * (p * y).sum(), below + (p**2).sum() + (y**2).sum()
                cross += 0.3 / 12 * -(y * np.log(p) + (1 - y) * np.log(1 - p)).mean()
            dice += 0.7 / 3 * (1 - (above + 1) / (below + 1))
    agree = np.mean([(outputs[0, b][0] - outputs[1, b][0]) ** 2 for b in range(2)])
    assert terms["seg/dice"] == pytest.approx(dice, rel=1e-6)
    assert terms["seg/ce"] == pytest.approx(cross, rel=1e-6)
    assert terms["consistency"] == pytest.approx(0.3 * agree, rel=1e-6)


def test_disagreement_is_between_the_views_of_a_sample():
    views = torch.tensor([1.0, 2.0, 4.0, 8.0]).view(4, 1, 1, 1, 1)
    assert float(disagreement(views)) == (3.0**2 + 6.0**2) / 2


def test_subsets_by_count():
    drawn = by_count(torch.Generator().manual_seed(0), 9600)
    for row, share in (((1, 1, 1, 1), 1 / 4), ((0, 1, 1, 0), 1 / 24), ((0, 0, 0, 1), 1 / 16)):
        found = (drawn == torch.tensor(row)).all(1).double().mean()
        assert float(found) == pytest.approx(share, abs=0.016)


def test_what_a_pretraining_hands_on():
    """All but the last layer, and the image, which is frozen; from the inference state, as cells keep it."""
    parent, child = small("pretraining", seed=1), small(seed=2)
    before = {key: value.clone() for key, value in child.state_dict().items()}
    child.adopt("pretraining", parent.inference_state())
    given = parent.state_dict()
    for key, value in child.state_dict().items():
        own = key.startswith(("net.last.", "net.heads."))
        assert torch.equal(value, before[key] if own else given[key]), key
    assert not child.image.voxels.requires_grad
    assert all(weight is not child.image.voxels for weight in child.parameter_groups()["main"])


def test_a_parent_of_another_size_is_refused():
    torch.manual_seed(0)
    parent = methods.build("m3ae", stage="pretraining", base_width=8, volume=(8, 8, 8))
    with pytest.raises(UserError, match=r"method\.parents\.pretraining: .* same base_width and volume"):
        small().adopt("pretraining", parent.inference_state())


def test_stages_take_parents_and_options_of_their_own():
    def resolved(**method):
        return methods.resolve(config.parse({"method": {"name": "m3ae", **method}}, "test")).method

    assert resolved(parents={"pretraining": "first"}).parents == {"pretraining": "first"}
    with pytest.raises(UserError, match="takes none"):
        resolved(options={"stage": "pretraining"}, parents={"pretraining": "first"})
    with pytest.raises(UserError, match="kept has no effect in fine-tuning"):
        resolved(options={"kept": 0.2})
