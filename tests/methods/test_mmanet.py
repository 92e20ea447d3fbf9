"""MMANet's teacher and student: ranking, distillation and regularisation worked out by other means."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from acdis import config, methods
from acdis.config import Training
from acdis.errors import UserError
from acdis.losses import segmentation
from acdis.methods.base import Batch
from acdis.methods.mmanet.ranking import Ranking, foreground_dice, subsets_of
from acdis.vocabulary import SUBSETS, subset_mask

MASKS = torch.tensor([subset_mask(subset) for subset in SUBSETS])
FULL = SUBSETS.index(("FLAIR", "T1ce", "T1", "T2"))
T1 = SUBSETS.index(("T1",))
PAIR = SUBSETS.index(("FLAIR", "T2"))


def same(sums):
    return sums


def student(**options):
    torch.manual_seed(0)
    return methods.build("mmanet", base_width=4, levels=3, begin_epoch=3, ranking_epochs=2, **options)


def make_batch(subsets=(T1, FULL), side=16):
    draw = torch.Generator().manual_seed(0)
    n = len(subsets)
    return Batch(
        torch.randn(n, 4, side, side, side, generator=draw),
        torch.randint(0, 4, (n, side, side, side), generator=draw),
        MASKS[list(subsets)],
        keys=tuple(range(n)),
    )


# --- the ranking


def test_ranking_by_a_loop():
    """Epochs 2 and 3 of four rank; epochs 0 and 1 do not. Several steps an epoch, of random subsets."""
    ranking, draw = Ranking(begin=4, count=2), np.random.default_rng(0)
    accounts = np.zeros(15)
    for epoch in range(4):
        seen = [[] for _ in SUBSETS]
        for _ in range(40):
            drawn, dice = draw.integers(0, 15, size=2), draw.random(2)
            dice[drawn == T1] *= 0.1
            ranking.observe(epoch, torch.from_numpy(dice), MASKS[drawn], same)
            for subset, value in zip(drawn, dice, strict=True):
                seen[subset].append(value)
        if epoch >= 2:
            accounts += [
                (np.mean(seen[FULL]) - np.mean(each)) ** 2 if each and seen[FULL] else 0 for each in seen
            ]
    ranking.observe(4, torch.zeros(1), MASKS[:1], same)  # the first sample of the next epoch closes the last
    np.testing.assert_allclose(ranking.accounts.numpy(), accounts, rtol=1e-4)
    assert ranking.weakest().nonzero().flatten().tolist() == [T1]
    before = ranking.accounts.clone()
    ranking.observe(5, torch.zeros(1), MASKS[:1], same)
    assert torch.equal(ranking.accounts, before)


def test_pieces_of_a_batch_rank_as_the_whole():
    """Every piece adds the sums of all pieces: the means are the same."""
    whole, cut = Ranking(1, 1), Ranking(1, 1)
    available, dice = MASKS[[FULL, T1, T1, PAIR]], torch.tensor([0.9, 0.2, 0.4, 0.5])
    whole.observe(0, dice, available, same)
    total = whole.sums.clone()
    for piece in (slice(0, 3), slice(3, 4)):
        cut.observe(0, dice[piece], available[piece], lambda sums: total)
    for each in (whole, cut):
        each.observe(1, dice[:1], available[:1], same)
    torch.testing.assert_close(cut.accounts, whole.accounts)
    assert whole.accounts[T1].item() == pytest.approx((0.9 - 0.3) ** 2, rel=1e-6)
    assert whole.accounts[PAIR].item() == pytest.approx(0.4**2, rel=1e-6)


def test_before_anything_is_ranked_all_are_the_weakest():
    assert Ranking(1, 1).concerns(MASKS).all()


def test_ranking_is_part_of_the_state():
    """So that a resumed training knows the weakest subset; inference does without."""
    method = student()
    keys = {key for key in method.state_dict() if key.startswith("ranking.")}
    assert keys == {"ranking.sums", "ranking.accounts", "ranking.epoch"}
    assert not keys & method.inference_state().keys()


def test_subsets_are_found():
    assert torch.equal(subsets_of(MASKS), torch.eye(15, dtype=torch.bool))


def test_foreground_dice_against_numpy():
    draw = np.random.default_rng(0)
    p, y = draw.random((2, 4, 3, 3, 3)), draw.integers(0, 2, size=(2, 4, 3, 3, 3)).astype(float)
    expected = [
        np.mean(
            [
                (2 * (p[b, c] * y[b, c]).sum() + 1e-5) / (p[b, c].sum() + y[b, c].sum() + 1e-5)
                for c in (1, 2, 3)
            ]
        )
        for b in range(2)
    ]
    found = foreground_dice(torch.from_numpy(p), torch.from_numpy(y))
    np.testing.assert_allclose(found.numpy(), expected)


# --- the student's step


def test_nothing_but_the_task_before_its_epoch():
    method, batch = student(), make_batch()
    assert set(method(batch, 2)["main"]) == {"seg/wce", "seg/dice"}
    assert set(method(batch, 3)["main"]) == {"seg/wce", "seg/dice", "mad", "mar/wce", "mar/dice"}


def test_regularisation_by_hand():
    """The auxiliary map's loss of the samples that have the weakest subset; the factor is their share."""
    method, batch = student(regularisation_weight=0.5).double(), make_batch((T1, FULL, T1, PAIR))
    batch = replace(batch, images=batch.images.double())
    method.ranking.accounts[T1] = 1.0
    with torch.no_grad():
        terms = method(batch, 5)["main"]
        fused = method.net.decode(method.net.encode(batch.images), batch.available).fused
        chosen = [0, 2]
        p = method.auxiliary(fused).softmax(1)[chosen]
        y = segmentation.one_hot(batch.labels[chosen]).double()
        wce = segmentation.weighted_cross_entropy(p, y)
        above, below = 2 * (p * y).sum((0, 2, 3, 4)), (p + y).sum((0, 2, 3, 4)) + 1e-7
    assert terms["mar/wce"].item() == pytest.approx(0.5 * wce.item() * 2 / 4, rel=1e-6)
    assert terms["mar/dice"].item() == pytest.approx(
        0.5 * (1 - (above / below).mean().item()) * 2 / 4, rel=1e-6
    )
    assert method.diagnostics["mar/weakest_subset"].item() == T1
    assert method.diagnostics["mar/share"].item() == 0.5


def test_without_a_sample_of_the_weakest_subset_there_is_no_regularisation():
    method, batch = student(), make_batch((FULL, PAIR))
    method.ranking.accounts[T1] = 1.0
    terms = method(batch, 5)["main"]
    assert terms["mar/wce"].item() == terms["mar/dice"].item() == 0
    sum(terms.values()).backward()
    assert all(weight.grad.isfinite().all() for weight in method.net.parameters())


def test_distillation_against_loops():
    """Gram matrices of every voxel with every other, rows of norm 1, weighed by the teacher's entropy."""
    method, batch = student(distillation_weight=2.0).double(), make_batch((T1,))
    batch = replace(batch, images=batch.images.double())
    with torch.no_grad():
        found = method(batch, 5)["main"]["mad"].item()
        own = method.net.decode(method.net.encode(batch.images), batch.available)
        theirs = method.teacher.decode(method.teacher.encode(batch.images), MASKS[[FULL]])
    expected = 0.0
    for level in range(3):
        side = min(10, 16 // 2**level)
        pool = torch.nn.AdaptiveAvgPool3d(side)
        f, g, z = (
            pool(x)[0].flatten(1).T.numpy() for x in (own.fused[level], theirs.fused[level], theirs.logits)
        )
        s, t = f @ f.T, g @ g.T
        s, t = (m / np.linalg.norm(m, axis=1, keepdims=True) for m in (s, t))
        p = np.exp(z) / np.exp(z).sum(1, keepdims=True)
        entropy = -(p * np.log(p)).sum(1)
        expected += (entropy / entropy.sum() * ((s - t) ** 2).sum(1)).sum()
    assert found == pytest.approx(2 * expected, rel=1e-5)


# --- the teacher


def test_the_teacher_is_frozen_and_in_evaluation_mode():
    method = student().train()
    assert not any(part.training for part in method.teacher.modules())
    assert not any(weight.requires_grad for weight in method.teacher.parameters())
    held = {id(weight) for weight in method.parameter_groups()["main"]}
    assert not held & {id(weight) for weight in method.teacher.parameters()}
    before = {key: value.clone() for key, value in method.teacher.state_dict().items()}
    optimiser = method.optimisers(Training(learning_rate=0.1))["main"]
    sum(method(make_batch(), 5)["main"].values()).backward()
    optimiser.step()
    assert all(torch.equal(value, before[key]) for key, value in method.teacher.state_dict().items())


def test_a_teacher_sees_everything_and_is_handed_on():
    torch.manual_seed(5)
    teacher = methods.build("mmanet", stage="teacher", base_width=4, levels=3)
    assert teacher.sample_subsets(torch.Generator(), 7, 0).all()
    method = student()
    method.adopt("teacher", teacher.kept_state())
    images = torch.randn(1, 4, 16, 16, 16)
    with torch.no_grad():
        known = method.teacher.decode(method.teacher.encode(images), MASKS[[FULL]]).logits
        assert torch.equal(known, teacher.net.decode(teacher.net.encode(images), MASKS[[FULL]]).logits)
    assert not any(weight.requires_grad for weight in method.teacher.parameters())


def test_a_teacher_of_another_width_is_refused():
    with pytest.raises(UserError, match=r"method\.parents\.teacher: .* same base_width and levels"):
        student().adopt(
            "teacher", methods.build("mmanet", stage="teacher", base_width=8, levels=3).kept_state()
        )


def test_a_student_needs_a_teacher():
    def resolved(**method):
        return methods.resolve(config.parse({"method": {"name": "mmanet", **method}}, "test"))

    with pytest.raises(UserError, match=r"method\.parents\.teacher: not given"):
        resolved()
    assert resolved(options={"stage": "teacher"}).method.parents == {}
    with pytest.raises(UserError, match="begin_epoch has no effect on a teacher"):
        resolved(options={"stage": "teacher", "begin_epoch": 3})


def test_one_cycle_of_the_published_recipe():
    """At a tenth of the epochs 0.01 is reached; it begins at a 25th and ends at a 250,000th."""
    method, recipe = student(optimiser="sgd"), Training(epochs=300, learning_rate=0.01)
    rates = [method.settings_at(float(epoch), recipe)["main"]["lr"] for epoch in range(300)]
    assert rates[0] == pytest.approx(0.01 / 25)
    assert max(rates) == rates[29] == pytest.approx(0.01)
    assert rates[-1] == pytest.approx(0.01 / 25 / 1e4)
