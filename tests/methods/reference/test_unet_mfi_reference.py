"""UNet-MFI against the values of the public network (BASELINES.md, section 4)."""

import pytest
import torch
from reference import assert_stated, filled, h, parameters, s, stated

from acdis.methods.unet_mfi.network import Exchange, Networks

SUBSETS = {"1111": (1, 1, 1, 1), "0100": (0, 1, 0, 0), "1001": (1, 0, 0, 1)}


def test_parameters_per_module(shared):
    counts = stated(shared)["unet_mfi"]["parameters"]
    nets, modules = Networks(32, 4, 3, masked=False), counts["modules"]
    assert parameters(nets) == counts["live"]
    for number, exchange in enumerate(nets.exchanges, 1):
        assert 4 * parameters(exchange) == modules[f"diff{number}"]  # the public code holds four, uses one
    for entry, net in zip(nets.entries, nets.modalities, strict=True):
        assert parameters(entry) + parameters(net) - parameters(net.head) == 7_458_912
        assert parameters(net.head) == 99
    assert [parameters(head) for head in (nets.joint, *nets.deep)] == [39, 10_371, 5_187]


@pytest.mark.parametrize("name", SUBSETS)
def test_forward_values(shared, name):
    expected = stated(shared)["unet_mfi"]["forward_S16 (FLAIR,T1ce,T1,T2)"][name]
    nets = filled(Networks(32, 4, 3, masked=False))
    with torch.no_grad():
        outputs = nets(nets.enter(h(1, 4, 16, 16, 16)), torch.tensor([SUBSETS[name]], dtype=torch.bool))
    mean = torch.stack(outputs.full).mean(0)
    assert_stated(mean, expected["mean of the last five maps (inference logits)"])


@pytest.mark.parametrize("code", ["1111", "1010"])
def test_exchange(shared, code):
    """E5: two channels, a grid of 1 x 1 x 2."""
    expected = stated(shared)["unet_mfi"]["mfi_block"]
    exchange = Exchange(2, masked=False).double()
    with torch.no_grad():
        exchange.hidden.weight.copy_(s(1, 32, 4, 8))
        exchange.hidden.bias.copy_(0.1 * s(1, 4))
        exchange.score.weight.copy_(s(1, 8, 2, 4))
        exchange.score.bias.copy_(0.1 * s(1, 2))
        maps = [s(4 * k + 1, 4 * k + 4, 1, 2, 1, 1, 2) for k in range(4)]
        available = torch.tensor([[bit == "1" for bit in code]])
        outputs = exchange(maps, available)
        weights = exchange.weights(maps, available)[0]
    found = [x.flatten().tolist() for x in outputs]
    for one, other in zip(found, expected[f"code {code} outputs per modality"], strict=True):
        assert one == pytest.approx(other, abs=1e-7)
    stated_weights = torch.tensor(expected[f"code {code} weights[query][source][channel]"])
    torch.testing.assert_close(weights.float(), stated_weights, rtol=0, atol=1e-7)


def test_masked_exchange_gives_what_is_missing_no_weight():
    maps = [torch.randn(2, 8, 1, 2, 2) for _ in range(4)]
    available = torch.tensor([[True, False, True, False], [False, True, True, True]])
    weights = Exchange(8, masked=True).weights(maps, available)
    assert torch.equal(weights[0, :, [1, 3]], torch.zeros(4, 2, 8))
    torch.testing.assert_close(weights.sum(2), torch.ones(2, 4, 8))
