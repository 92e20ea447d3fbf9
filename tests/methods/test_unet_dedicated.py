"""A network for each subset: which network answers, what it learns from, and how fifteen become one."""

import pytest
import torch

from acdis import methods
from acdis.errors import UserError
from acdis.methods.base import Batch
from acdis.vocabulary import SUBSETS, subset_mask, subset_name

TINY = {"base_width": 2, "levels": 2}
NAMES = [subset_name(subset) for subset in SUBSETS]


def build(subset=None, seed=0):
    torch.manual_seed(seed)
    return methods.build("unet_dedicated", **TINY, subset=subset)


def images(count=1):
    return torch.randn(count, 4, 8, 8, 8, generator=torch.Generator().manual_seed(1))


def test_a_network_of_each_is_the_plain_one():
    whole, one = build(), methods.build("unet", **TINY)
    sizes = [sum(p.numel() for p in network.parameters()) for network in whole.networks.values()]
    assert sizes == [sum(p.numel() for p in one.parameters())] * 15
    assert list(whole.networks) == NAMES


@torch.no_grad()
def test_each_subset_is_answered_by_its_own_network():
    """Each gives its own number everywhere, by the bias of its head."""
    whole = build().eval()
    for place, network in enumerate(whole.networks.values()):
        network.decoder.head.weight.zero_()
        network.decoder.head.bias.fill_(place)
    masks = torch.tensor([subset_mask(subset) for subset in SUBSETS])
    together = whole.decode_subsets(whole.encode(images(2)), masks)
    assert torch.equal(together.amin((1, 2, 3, 4, 5)), torch.arange(15.0))
    assert torch.equal(together.amax((1, 2, 3, 4, 5)), torch.arange(15.0))
    mixed = whole.decode(images(15), masks)  # another subset for each sample
    assert torch.equal(mixed.amin((1, 2, 3, 4)), torch.arange(15.0))


def test_one_network_serves_all_and_says_what_it_is_for():
    one = build("T1ce_T2")
    assert one.validated_on == (("T1ce", "T2"),)
    assert build().validated_on == SUBSETS
    drawn = one.sample_subsets(torch.Generator(), 5, 0)
    assert drawn.tolist() == [[False, True, False, True]] * 5


def test_losses_are_the_networks_with_their_own_subsets():
    """Whatever was drawn; the mean over the networks."""
    whole = build()
    batch = Batch(images(2), torch.randint(0, 4, (2, 8, 8, 8)), torch.zeros(2, 4, dtype=torch.bool))
    found = whole(batch, 0)["main"]
    sums = dict.fromkeys(found, 0.0)
    for name, network in whole.networks.items():
        one = build(name)
        one.networks[name].load_state_dict(network.state_dict())
        for term, value in one(batch, 0)["main"].items():
            sums[term] += value.item() / 15
    assert {term: value.item() for term, value in found.items()} == pytest.approx(sums, rel=1e-5)


@torch.no_grad()
def test_fifteen_trained_alone_are_put_together():
    whole = build(seed=9)
    parts = {name: build(name, seed).eval() for seed, name in enumerate(NAMES)}
    for name, part in parts.items():
        whole.adopt(name, part.inference_state())
    masks = torch.tensor([subset_mask(subset) for subset in SUBSETS])
    together = whole.eval().decode_subsets(images(), masks)
    for mask, found, part in zip(masks, together, parts.values(), strict=True):
        assert torch.equal(found, part.decode_subsets(images(), mask[None])[0])
    alike = [torch.equal(a, b) for i, a in enumerate(together) for b in together[:i]]
    assert not any(alike)


@pytest.mark.parametrize("role", ["FLAIR", "T1"])
def test_other_weights_are_refused(role):
    whole, wider = build(), methods.build("unet_dedicated", base_width=4, levels=2, subset="T1")
    words = rf"method\.parents\.{role}: .* another method, subset or size; .*options\.subset={role}"
    with pytest.raises(UserError, match=words):
        whole.adopt(role, wider.inference_state())


def test_options():
    options = methods.validate("unet_dedicated", {})
    assert options.parts() == {name: {"subset": name} for name in NAMES}
    assert options.roles() == tuple(NAMES)
    assert methods.validate("unet_dedicated", {"subset": "T2"}).roles() == ()
    with pytest.raises(
        UserError, match=r"method\.options\.subset: 'T1_FLAIR' is no subset; there are FLAIR, "
    ):
        methods.validate("unet_dedicated", {"subset": "T1_FLAIR"})
