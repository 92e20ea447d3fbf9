"""DeMoSeg as a method: losses worked out apart, what never learns, and what its crops must be."""

import numpy as np
import pytest
import torch
from reference import s

from acdis import config, methods
from acdis.errors import UserError
from acdis.methods.base import Batch
from acdis.methods.demoseg import objective
from acdis.methods.demoseg.network import fill_slots


def test_losses():
    """N4: logits (1, 4, 2, 2, 2) 2 s(1..32); NCR, ED and ET in Dice, all four in cross-entropy."""
    logits, labels = 2 * s(1, 32, 1, 4, 2, 2, 2), torch.tensor([0, 1, 2, 3, 0, 0, 2, 0]).view(1, 2, 2, 2)
    found = objective.terms([logits], labels)
    assert float(found["seg/dice"]) == pytest.approx(0.752741, abs=1e-6)
    assert float(found["seg/ce"]) == pytest.approx(1.651343, abs=1e-6)


@pytest.mark.parametrize(
    ("halvings", "expected"),
    [(5, [0.5333, 0.2667, 0.1333, 0.0667]), (4, [0.5714, 0.2857, 0.1429])],
)
def test_weights_of_levels(halvings, expected):
    assert objective.level_weights(halvings) == pytest.approx(expected, abs=5e-5)


def test_labels_of_a_level_are_those_of_the_voxel_in_the_middle():
    labels = torch.arange(16**3).view(1, 16, 16, 16)
    for level in (0, 1, 2, 3):
        found, step = objective.at_level(labels, level), 2**level
        for d, h, w in np.ndindex(*found.shape[1:]):
            place = [step * i + (step // 2 if level else 0) for i in (d, h, w)]
            assert found[0, d, h, w] == labels[0, place[0], place[1], place[2]]


def test_loss_of_levels_against_numpy():
    draw = np.random.default_rng(0)
    logits = [draw.normal(size=(2, 4, side, side, side)) for side in (8, 4, 2)]
    labels = draw.integers(0, 4, size=(2, 8, 8, 8))
    dice = cross = 0.0
    for level, (weight, raw) in enumerate(zip((4 / 7, 2 / 7, 1 / 7), logits, strict=True)):
        p = np.exp(raw) / np.exp(raw).sum(1, keepdims=True)
        truth = labels[:, level::1, level::1, level::1] if level == 0 else labels[
            :, 2 ** (level - 1) :: 2**level, 2 ** (level - 1) :: 2**level, 2 ** (level - 1) :: 2**level
        ]  # fmt: skip
        for b in range(2):
            for c in (1, 2, 3):
                y = truth[b] == c
                dice += weight / 6 * (
                    1 - (2 * p[b, c][y].sum() + 1e-5) / (p[b, c].sum() + y.sum() + 1e-5)
                )  # fmt: skip
            chosen = np.take_along_axis(p[b], truth[b][None], 0)
            cross -= weight / 2 * np.log(chosen).mean()
    found = objective.terms([torch.from_numpy(each) for each in logits], torch.from_numpy(labels))
    assert float(found["seg/dice"]) == pytest.approx(dice, rel=1e-6)
    assert float(found["seg/ce"]) == pytest.approx(cross, rel=1e-6)


def small(**options):
    torch.manual_seed(0)
    return methods.build("demoseg", base_width=8, **options)


def test_the_orders_scores_never_learn_and_are_kept():
    method = small()
    frozen = {name for name, weight in method.named_parameters() if not weight.requires_grad}
    assert frozen == {name for name, _ in method.named_parameters() if ".order." in name}
    assert len(frozen) == 4 * (4 + 4 + 4)
    assert frozen <= method.inference_state().keys()
    grouped = {id(weight) for group in method.parameter_groups().values() for weight in group}
    assert not grouped & {id(dict(method.named_parameters())[name]) for name in frozen}


def test_single_modalities_are_not_distilled():
    method = small()
    images, labels = torch.randn(1, 4, 32, 32, 32), torch.randint(0, 4, (1, 32, 32, 32))
    found = []
    for row in ((0, 1, 0, 0), (0, 1, 1, 0)):
        batch = Batch(images, labels, torch.tensor([row], dtype=torch.bool))
        found.append(float(method(batch, 0)["main"]["kl"].detach()))
    assert found[0] == 0
    assert found[1] > 0


def test_the_step_from_the_stems_is_inference():
    """The training's way to a map, by the stem's two parts, and that of inference give one map."""
    method = small()
    images, available = torch.randn(1, 4, 32, 32, 32), torch.tensor([[True, False, True, False]])
    with torch.no_grad():
        parts = method.stems.parts(images)
        trained = method.net(fill_slots([stem for _, stem in parts], available))
        assert [level.shape[2] for level in trained] == [32, 16, 8]
        assert torch.equal(trained[0], method.decode(method.encode(images), available))


@pytest.mark.parametrize(
    ("halvings", "crop", "works"), [(4, 72, 64), (5, 80, 64)]
)  # fmt: skip
def test_crops_that_do_not_halve_are_refused(halvings, crop, works):
    tree = {
        "method": {"name": "demoseg", "options": {"halvings": halvings}},
        "data": {"crop": [crop] * 3},
    }
    with pytest.raises(UserError, match=rf"data\.crop .* data\.crop=\[{works},{works},{works}\] works"):
        methods.resolve(config.parse(tree, "test"))
