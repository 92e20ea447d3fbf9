"""DeMoSeg against the values of the public network (NEWCOMERS.md, section 1)."""

import pytest
import torch
from reference import assert_stated, filled, h, parameters, s, stated
from torch import nn

from acdis.methods.demoseg import network
from acdis.vocabulary import MODALITIES

THEIRS = ("T1", "T1ce", "T2", "FLAIR")  # the public network's order
FILE = "newcomers_reference.json"
NAMES = {
    "pool4 S32 1111": THEIRS,
    "pool4 S32 T1ce only": ("T1ce",),
    "pool4 S32 FLAIR only": ("FLAIR",),
    "pool4 S32 T1+T2": ("T1", "T2"),
    "pool4 S32 FLAIR+T2": ("FLAIR", "T2"),
    "pool4 S32 T1+T1ce": ("T1", "T1ce"),
}


def reordered(images):
    return torch.stack([images[:, THEIRS.index(name)] for name in MODALITIES], dim=1)


def mask(names):
    return torch.tensor([[name in names for name in MODALITIES]])


@pytest.fixture(scope="module")
def nets():
    parts = nn.Module()
    parts.stems = network.Stems(32, shuffled=True)
    parts.net = network.UNet((32, 64, 128, 256, 320), 4, shuffled=True)
    return filled(parts)


@pytest.fixture(scope="module")
def stems(nets):
    with torch.no_grad():
        return nets.stems(reordered(h(1, 4, 32, 32, 32)))


@pytest.mark.parametrize("halvings", [4, 5])
def test_parameters_per_module(shared, halvings):
    name = "parameters, 5 poolings" if halvings == 5 else "parameters, 4 poolings (crop 80) [ours]"
    counts = stated(shared, FILE)["demoseg"][name]
    stems = network.Stems(32, shuffled=True)
    net = network.UNet((32, 64, 128, 256, 320, 320)[: halvings + 1], 4, shuffled=True)
    assert parameters(stems) == counts["stems, all four"]
    for number, stage in enumerate(net.encoder, 2):
        assert parameters(stage) == counts[f"encoder stage {number}"]
    for number, (rise, stage, head) in enumerate(zip(net.rises, net.decoder, net.heads, strict=True), 1):
        assert parameters(stage) == counts[f"decoder stage {number}: blocks"]
        assert parameters(rise) == counts[f"decoder stage {number}: transposed"]
        assert parameters(head) == counts[f"head {number}"]
    assert parameters(stems) + parameters(net) == counts["total"]


def test_the_plain_network_has_no_scores(shared):
    expected = stated(shared, FILE)["demoseg"]["parameters never trained (score MLPs)"]["4 poolings"]
    counts = [
        parameters(network.Stems(32, on)) + parameters(network.UNet((32, 64, 128, 256, 320), 4, on))
        for on in (True, False)
    ]
    assert counts[0] - counts[1] == expected


@pytest.mark.parametrize("name", NAMES)
def test_forward_values(nets, stems, shared, name):
    expected = stated(shared, FILE)["demoseg"]["forward (input order T1,T1ce,T2,FLAIR; logits)"][name]
    with torch.no_grad():
        logits = nets.net(network.fill_slots(stems, mask(NAMES[name])))
    assert_stated(logits[0], expected["full"])
    means = [level.mean().item() for level in logits]
    assert means == pytest.approx(expected["deep means (finest to coarsest)"], rel=1e-6)


def test_stems(stems, shared):
    expected = stated(shared, FILE)["demoseg"]["forward (input order T1,T1ce,T2,FLAIR; logits)"]
    for name in ("T1", "T1ce"):
        assert_stated(stems[MODALITIES.index(name)], expected[f"stem {name} (conv, CSSA)"])


def test_distillation_of_a_batch(nets, shared):
    expected = stated(shared, FILE)["demoseg"]["forward (input order T1,T1ce,T2,FLAIR; logits)"]
    images = reordered(h(1, 4, 32, 32, 32))
    both = torch.cat([images, -images])
    with torch.no_grad():
        entries = [stage.entry(both[:, m : m + 1]) for m, stage in enumerate(nets.stems.stages)]
        found = network.distillation(entries, torch.cat([mask(THEIRS), mask(("T1", "T1ce"))]))
    assert found.tolist() == pytest.approx(expected["kl single"], rel=1e-6)


def test_order():
    """N1: four channels."""
    means = torch.tensor([[0.2, 0.1, 0.4, 0.3]], dtype=torch.float64)
    for descending, expected in ((False, [2, 1, 0, 3]), (True, [3, 0, 1, 2])):
        order = network.ChannelOrder(4, descending).double()
        with torch.no_grad():
            order.squeeze.weight.copy_(s(1, 4, 1, 4))
            order.squeeze.bias.copy_(0.1 * s(1, 1))
            order.widen.weight.copy_(s(5, 8, 4, 1))
            order.widen.bias.copy_(0.1 * s(2, 5))
        assert order(means).tolist() == [expected]


def test_equal_scores_keep_the_channels_order():
    order = network.ChannelOrder(8, descending=True)
    torch.nn.init.zeros_(order.widen.weight)
    torch.nn.init.zeros_(order.widen.bias)
    assert order(torch.randn(1, 8)).tolist() == [list(range(8))]


def test_slots(shared):
    """N2: who stands for whom, in all 15 subsets."""
    table = stated(shared, FILE)["demoseg"]["examples"]["N2 slots"]["table"]
    assert len(table) == 15
    groups = {
        f"{name}.{group}": float(10 * m + group) for m, name in enumerate(MODALITIES) for group in range(4)
    }
    stems = [
        torch.tensor([groups[f"{name}.{g}"] for g in range(4)]).view(1, 4, 1, 1, 1) for name in MODALITIES
    ]
    for subset, expected in table.items():
        missing = [name not in subset.split("+") for name in MODALITIES]
        spoiled = [
            torch.full_like(x, torch.nan) if gone else x for x, gone in zip(stems, missing, strict=True)
        ]
        slots = network.fill_slots(spoiled, mask(subset.split("+"))).flatten().tolist()
        assert slots == [groups[name] for name in expected]


def test_distillation(shared):
    """N3: groups of two channels."""
    values = stated(shared, FILE)["demoseg"]["examples"]["N3 KL after the factor .5"]["values"]
    maps = {name: s(100 * k + 1, 100 * k + 64, 1, 8, 2, 2, 2) for k, name in enumerate(THEIRS)}
    entries = [maps[name] for name in MODALITIES]
    for subset, expected in values.items():
        found = network.distillation(entries, mask(subset.split("+")))
        assert found.item() == pytest.approx(expected, rel=1e-6, abs=1e-12)
