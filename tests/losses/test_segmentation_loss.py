"""Weighted cross-entropy and Dice against plain loops and MONAI; Dice sums pooled over shares of a batch."""

import numpy as np
import pytest
import torch
from torch.autograd import gradcheck

from acdis.losses import segmentation


def drawn(shape=(2, 4, 3, 4, 5), seed=0):
    """Logits and labels (class 3 rare), float64."""
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(shape, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, 4, (shape[0], *shape[2:]), generator=generator)
    labels[labels == 3] *= torch.randint(0, 2, (int((labels == 3).sum()),), generator=generator)
    return logits, labels


def test_one_hot():
    _, labels = drawn()
    target = segmentation.one_hot(labels.to(torch.uint8))
    assert target.dtype == torch.float32
    assert target.shape == (2, 4, 3, 4, 5)
    for b, d, h, w in np.ndindex(*labels.shape):
        assert target[b, :, d, h, w].tolist() == [float(labels[b, d, h, w] == c) for c in range(4)]
    with pytest.raises(RuntimeError):
        segmentation.one_hot(labels + 1)


def test_weighted_cross_entropy_is_rfnets():
    logits, labels = drawn()
    p = logits.softmax(1)
    assert (p < 0.005).any()
    truth = []
    for b in range(2):
        total = 0.0
        for c in range(4):
            weight = 1 - np.mean(labels[b].numpy() == c)
            for index in np.ndindex(*labels.shape[1:]):
                if labels[b][index] == c:
                    total -= weight * np.log(max(p[(b, c, *index)].item(), 0.005))
        truth.append(total / labels[b].numel())
    target = segmentation.one_hot(labels)
    np.testing.assert_allclose(segmentation.weighted_cross_entropy(p, target, "sample"), truth)
    assert segmentation.weighted_cross_entropy(p, target).item() == pytest.approx(np.mean(truth))


def test_a_crop_of_one_class_has_no_cross_entropy():
    p = torch.full((1, 4, 2, 2, 2), 0.25)
    assert segmentation.weighted_cross_entropy(p, segmentation.one_hot(torch.zeros(1, 2, 2, 2))).item() == 0


def test_dice_in_plain_loops():
    logits, labels = drawn()
    p = logits.softmax(1).numpy()
    dice = 0.0
    for c in range(4):
        intersection = prediction = truth = 0.0
        for b, d, h, w in np.ndindex(*labels.shape):
            intersection += p[b, c, d, h, w] * (labels[b, d, h, w].item() == c)
            prediction += p[b, c, d, h, w]
            truth += labels[b, d, h, w].item() == c
        dice += 2 * intersection / (prediction + truth + 1e-7)
    found = segmentation.dice_loss(torch.from_numpy(p), segmentation.one_hot(labels))
    assert found.item() == pytest.approx(1 - dice / 4)


def test_dice_is_monais_with_one_share():
    from monai.losses import DiceLoss

    logits, labels = drawn(seed=1)
    labels[labels == 3] = 0  # a class without truth
    p, target = logits.softmax(1), segmentation.one_hot(labels)
    theirs = DiceLoss(batch=True, smooth_nr=0.0, smooth_dr=1e-7)(p, target.double())
    assert segmentation.dice_loss(p, target).item() == pytest.approx(theirs.item(), rel=1e-12)


def test_a_class_neither_there_nor_predicted_has_no_nan():
    p = segmentation.one_hot(torch.zeros(1, 2, 2, 2)).requires_grad_()
    loss = segmentation.dice_loss(p, p.detach())
    loss.backward()
    assert loss.item() == pytest.approx(0.75)  # RFNet: an absent class counts 0 in the mean
    assert torch.isfinite(p.grad).all()


def test_gradients():
    logits, labels = drawn((2, 4, 2, 3, 2))
    target = segmentation.one_hot(labels)
    logits.requires_grad_()
    assert gradcheck(lambda x: segmentation.weighted_cross_entropy(x.softmax(1), target, "sample"), logits)
    assert gradcheck(lambda x: segmentation.dice_loss(x.softmax(1), target), logits)


def shares_of(logits, labels, sizes):
    """Loss and gradient on each share, its sums pooled with the others', and the mean of the gradients."""
    parts = list(zip(logits.split(sizes), labels.split(sizes), strict=True))
    local = {}

    def sums_of(k):
        def keep(sums):
            local[k] = sums.detach()
            return sums

        segmentation.dice_loss(parts[k][0].softmax(1), segmentation.one_hot(parts[k][1]), keep)
        return local[k]

    total = sum(sums_of(k) for k in range(len(parts)))
    values, gradients = [], []
    for x, y in parts:
        leaf = x.clone().requires_grad_()
        loss = segmentation.dice_loss(
            leaf.softmax(1),
            segmentation.one_hot(y),
            lambda sums: segmentation.straight_through(sums, total, len(parts)),
        )
        loss.backward()
        values.append(loss.item())
        gradients.append(leaf.grad / len(parts))
    return values, torch.cat(gradients)


@pytest.mark.parametrize("sizes", [[1, 1, 1, 1], [2, 2], [3, 1], [4]])
def test_pooled_dice_of_shares_is_the_whole_batchs(sizes):
    logits, labels = drawn((4, 4, 3, 4, 5))
    labels[0] = 0  # the shares differ
    whole = logits.clone().requires_grad_()
    loss = segmentation.dice_loss(whole.softmax(1), segmentation.one_hot(labels))
    loss.backward()
    values, gradient = shares_of(logits, labels, sizes)
    assert values == pytest.approx([loss.item()] * len(sizes), rel=1e-12)
    torch.testing.assert_close(gradient, whole.grad)


def test_without_a_pool_the_shares_would_differ():
    logits, labels = drawn((2, 4, 3, 4, 5))
    labels[0] = 0
    p, target = logits.softmax(1), segmentation.one_hot(labels)
    apart = (segmentation.dice_loss(p[:1], target[:1]) + segmentation.dice_loss(p[1:], target[1:])) / 2
    assert abs(apart - segmentation.dice_loss(p, target)) > 1e-2


def test_straight_through_has_the_totals_bits():
    local = torch.tensor([0.1, 3e6, 7.7], requires_grad=True)
    total = torch.tensor([0.3, 9.1e6, 1e-3])
    pooled = segmentation.straight_through(local, total, 3)
    assert torch.equal(pooled.detach(), total)
    pooled.sum().backward()
    assert local.grad.tolist() == [3.0, 3.0, 3.0]


def test_bf16_probabilities_under_autocast_are_computed_in_float32():
    logits, labels = drawn((2, 4, 8, 8, 8))
    p, target = logits.softmax(1).bfloat16(), segmentation.one_hot(labels)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        for loss in (segmentation.weighted_cross_entropy, segmentation.dice_loss):
            value = loss(p, target)
            assert value.dtype == torch.float32
            assert value.item() == pytest.approx(loss(p.double(), target).item(), rel=1e-5)


def test_shapes_must_agree():
    p = torch.zeros(1, 4, 2, 2, 2)
    for loss in (segmentation.weighted_cross_entropy, segmentation.dice_loss):
        with pytest.raises(ValueError, match="shapes differ"):
            loss(p, p[:, :1])


def test_terms_of_a_map_are_those_of_its_probabilities():
    logits, labels = drawn()
    target = segmentation.one_hot(labels)
    p = segmentation.class_probabilities(logits)
    powers = np.exp(logits.numpy())
    np.testing.assert_allclose(p.numpy(), powers / powers.sum(1, keepdims=True), rtol=1e-12)
    terms = segmentation.map_terms(p, target)
    assert terms["wce"] == segmentation.weighted_cross_entropy(p, target)
    assert terms["dice"] == segmentation.dice_loss(p, target)


def test_probabilities_are_float32_at_least():
    for given, expected in ((torch.bfloat16, torch.float32), (torch.float64, torch.float64)):
        assert segmentation.class_probabilities(torch.zeros(1, 4, 1, 1, 1, dtype=given)).dtype == expected


def test_several_maps_are_summed_and_pooled_one_by_one_in_their_order():
    drawings = [drawn(seed=seed) for seed in range(3)]
    maps, target = [logits.softmax(1) for logits, _ in drawings], segmentation.one_hot(drawings[0][1])
    pooled = []

    def pool(sums):
        pooled.append(sums)
        return sums

    terms = segmentation.summed_map_terms(maps, target, pool)
    assert [float(sums[1, 0]) for sums in pooled] == [pytest.approx(float(p[:, 0].sum())) for p in maps]
    for name, loss in (("wce", segmentation.weighted_cross_entropy), ("dice", segmentation.dice_loss)):
        assert float(terms[name]) == pytest.approx(sum(float(loss(p, target)) for p in maps), rel=1e-12)


def test_samples_that_are_not_judged_count_nothing():
    """As if they were not in the batch, but in the cross-entropy's mean; NaN in them reaches nothing."""
    logits, labels = drawn((3, 4, 3, 4, 5))
    target, judged = segmentation.one_hot(labels).double(), torch.tensor([True, False, True])
    logits[1] = torch.nan
    logits.requires_grad_()
    terms = segmentation.map_terms(logits.softmax(1), target, judged=judged)
    p, t = logits.softmax(1)[judged], target[judged]
    assert terms["dice"].item() == pytest.approx(segmentation.dice_loss(p, t).item(), rel=1e-12)
    entropies = segmentation.weighted_cross_entropy(p, t, "sample")
    assert terms["wce"].item() == pytest.approx(entropies.sum().item() / 3, rel=1e-12)
    assert terms["dice"].isfinite()


def test_a_map_that_no_sample_has_costs_nothing():
    logits, labels = drawn()
    logits.requires_grad_()
    nobody = torch.zeros(len(labels), dtype=torch.bool)
    terms = segmentation.map_terms(logits.softmax(1), segmentation.one_hot(labels), judged=nobody)
    (terms["wce"] + terms["dice"]).backward()
    assert (float(terms["wce"]), float(terms["dice"])) == (0.0, 0.0)
    assert not logits.grad.any()
