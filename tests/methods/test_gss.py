"""GSS against the public network's values, and a step's soft term voxel by voxel."""

import itertools
import math

import pytest
import torch
from reference import assert_stated, filled, h, parameters, stated

from acdis import methods
from acdis.config import Training
from acdis.errors import UserError
from acdis.methods.base import Batch
from acdis.methods.gss import soft_target
from acdis.vocabulary import MODALITIES

SMALL = {"base_width": 4, "levels": 2}


def build(**options):
    torch.manual_seed(0)
    return methods.build("gss", **options)


def test_parameters_per_module(shared):
    """Convolutions before a norm have no bias here: one number less per channel of each."""
    counts = stated(shared)["gss"]["parameters"]
    shapes = stated(shared)["gss"]["parameter_shapes"]
    method = build()
    theirs = sum(math.prod(shape) for shape in shapes["encoder (x4)"] if len(shape) > 1)
    assert [parameters(encoder) for encoder in method.encoders] == [theirs] * 4
    assert (
        counts["modules"]["decoder_sep"] - parameters(method.mono_decoder)
        == 2 * (64 + 32 + 16) + 64 + 32 + 16
    )
    rfnet = methods.build("rfnet")
    assert {k: v.shape for k, v in method.state_dict().items()} == {
        k: v.shape for k, v in rfnet.state_dict().items()
    }


def exchanged(weight, first):
    """A kernel whose first so many input channels come last."""
    return torch.cat([weight[:, first:], weight[:, :first]], dim=1)


@torch.no_grad()
def public():
    """The formula's weights, in the public decoder's order of two maps that are joined.

    That is the other way round: the decoder's before the features' in a region map, and the fused before the
    enlarged in the decoder.
    """
    method = filled(build())
    levels = zip(method.fusion_decoder.maps, method.fusion_decoder.decoder.levels, (16, 32, 64), strict=False)
    for maps, level, width in levels:
        for convolution in (maps.judge[0].convolution, level.merge.convolution):
            convolution.weight.copy_(exchanged(convolution.weight, width))
    return method


@torch.no_grad()
@pytest.mark.parametrize(("name", "given"), [("1111", (1, 1, 1, 1)), ("0100", (0, 1, 0, 0))])
def test_forward_values(shared, name, given):
    """A bias before a norm is taken away by it, so the network without those has the same values."""
    expected = stated(shared)["gss"]["forward_S16 (FLAIR,T1ce,T1,T2)"][name]
    method = public()
    features = method.encode(h(1, 4, 16, 16, 16))
    assert_stated(method.decode(features, torch.tensor([given]) > 0).softmax(1), expected["fuse probability"])
    means = [method.mono_decoder([level[m] for level in features])[:, 3].mean().item() for m in range(4)]
    assert means == pytest.approx(expected["mono logits, means of class ET"], rel=1e-6)


def by_hand(logits, places):
    """The soft term of one sample, from `[4 modalities][4 classes][voxels]` logits, in plain numbers."""
    voxels = len(logits[0][0])

    def softmax(column, temperature):
        raised = [math.exp(x / temperature) for x in column]
        return [x / sum(raised) for x in raised]

    p, q = (
        [[softmax([logits[m][c][v] for c in range(4)], T) for v in range(voxels)] for m in range(4)]
        for T in (1, 8)
    )
    leaders = ({"FLAIR"}, {"T1ce"}, {"FLAIR", "T2"}, {"T1ce"})
    target = []
    for v in range(voxels):
        row = []
        for c in range(4):
            lead = [m for m, name in enumerate(MODALITIES) if name in leaders[c]]
            rest = [m for m in range(4) if m not in lead]
            sure = [m for m in lead if p[m][v][c] > 0.75]
            values = [q[m][v][c] for m in lead]
            if len(sure) == len(lead):
                row.append(max(values))
            elif sure:
                row.append(max(values) - 0.3 * (max(values) - min(values)))
            elif all(p[m][v][c] > 0.85 for m in rest):
                row.append(sum(q[m][v][c] for m in rest) / len(rest))
            else:
                row.append(min(q[m][v][c] for m in range(4)))
        target.append([x / sum(row) for x in row])
    total = 0.0
    for m in range(4):
        kept = [v for v in range(voxels) if v not in places[m]]
        mass = [sum(target[v][c] for v in kept) for c in range(4)]
        for c, v in itertools.product(range(4), kept):
            weight = 1 - mass[c] / sum(mass)
            total -= weight * target[v][c] * math.log(min(max(q[m][v][c], 0.005), 1)) / voxels
    return total


def test_the_soft_term_of_a_step():
    """Two samples; each modality of each empties voxels of its own, drawn from the sample's generator."""
    method = build(**SMALL, soft_weight=2.0, masked=0.25).double()
    torch.manual_seed(1)
    batch = Batch(
        images=torch.randn(2, 4, 4, 4, 4, dtype=torch.float64),
        labels=torch.randint(0, 4, (2, 4, 4, 4)),
        available=torch.tensor([[True, False, False, False], [True] * 4]),
        keys=(3, 4),
    )
    with torch.no_grad():
        method.mono_decoder.head.weight.mul_(3)  # so that some are sure
        found = method(batch, 0)["main"]["soft/wce"]
        features = method.encode(batch.images)
        maps = [method.mono_decoder([level[m] for level in features]) for m in range(4)]
    expected = []
    for b, generator in enumerate(batch.generators("masked voxels")):
        places = [set(torch.randint(64, (16,), generator=generator).tolist()) for _ in range(4)]
        expected.append(by_hand([maps[m][b].flatten(1).tolist() for m in range(4)], places))
    assert found.item() == pytest.approx(2 * sum(expected) / 2, rel=1e-9)


def test_no_gradient_through_the_target():
    """A modality's encoder learns from its own softened map; the target is as good as given."""
    method = build(**SMALL, masked=0.0)
    method.requires_grad_(False)
    method.encoders[0].requires_grad_(True)
    batch = Batch(
        images=torch.randn(1, 4, 4, 4, 4),
        labels=torch.zeros(1, 4, 4, 4, dtype=torch.long),
        available=torch.ones(1, 4, dtype=torch.bool),
        keys=(0,),
    )
    method(batch, 0)["main"]["soft/wce"].backward()
    whole = [p.grad.clone() for p in method.encoders[0].parameters()]
    method.zero_grad()
    with torch.no_grad():
        features = method.encode(batch.images)
        maps = torch.stack([method.mono_decoder([level[m] for level in features]) for m in range(4)])
        target = soft_target.soft_target(maps)
    pyramid = method.encoders[0](batch.images[:, :1])
    q = (method.mono_decoder(pyramid) / 8).softmax(1)
    (1.92 * soft_target.soft_cross_entropy(q, target)).backward()
    for one, other in zip(whole, method.encoders[0].parameters(), strict=True):
        torch.testing.assert_close(one, other.grad, rtol=1e-4, atol=1e-7)


def test_each_round_begins_at_the_full_rate():
    recipe, method = Training(epochs=20, learning_rate=1.0, poly_power=0.9), build(**SMALL, rounds=4)
    rates = [method.settings_at(epochs, recipe)["main"]["lr"] for epochs in (0, 1.5, 4.9, 5, 19.5)]
    assert rates == pytest.approx([1, 0.8**0.9, 0.2**0.9, 1, 0.2**0.9])


def test_it_starts_from_all_of_rfnet():
    torch.manual_seed(1)
    parent, method = methods.build("rfnet", **SMALL), build(**SMALL)
    method.adopt("start", parent.kept_state())
    for key, value in parent.state_dict().items():
        assert torch.equal(method.state_dict()[key], value)
    with pytest.raises(UserError, match="before cells kept the mono decoder"):
        method.adopt("start", parent.inference_state())
    with pytest.raises(UserError, match="weights do not fit the method GSS"):
        method.adopt("start", methods.build("rfnet", base_width=8, levels=2).kept_state())
    with pytest.raises(UserError, match="takes no parent as 'teacher'"):
        method.adopt("teacher", parent.kept_state())


def test_a_parent_of_another_method_is_named():
    choice = methods.config.MethodChoice(name="gss", parents={"start": "uhemis-0123456789ab"})
    with pytest.raises(
        UserError, match=r"start: uhemis-0123456789ab is a cell of uhemis; gss takes rfnet or gss"
    ):
        methods.check_parents(choice)
    methods.check_parents(choice.model_copy(update={"parents": {"start": "rfnet-0123456789ab"}}))


def test_epochs_that_no_round_divides():
    with pytest.raises(UserError, match=r"rounds: 3: 10 training\.epochs are no multiple of it"):
        methods.load(
            None,
            [
                "method.name=gss",
                "method.parents.start=rfnet",
                "training.epochs=10",
                "method.options.rounds=3",
            ],
        )
