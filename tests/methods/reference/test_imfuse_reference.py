"""IM-Fuse against the values of the public network, and its scan against a plain loop (NEWCOMERS.md, 2)."""

import pytest
import torch
import torch.nn.functional as F
from reference import assert_stated, filled, h, parameters, s, stated

from acdis.methods.imfuse.fusion import Mamba, MambaFusion
from acdis.methods.imfuse.network import Network
from acdis.methods.imfuse.scan import recurrence, selective_scan
from acdis.methods.mmformer.transformer import maps_of, tokens_of
from acdis.networks import modalities

FILE = "newcomers_reference.json"
VARIANTS = {
    "A: interleaved, skips 2-5 (README training command)": (False, True),
    "B: as A with the level-1 skip (test script)": (True, True),
    "C: not interleaved, skips 2-5": (False, False),
}
SUBSETS = {"1111": (1, 1, 1, 1), "T1ce only": (0, 1, 0, 0), "FLAIR+T2": (1, 0, 0, 1)}


def expected_of(shared):
    return stated(shared, FILE)["imfuse"]["forward (S=32, grid 2, input order FLAIR,T1ce,T1,T2)"]


def network(first, interleaved, grid=(2, 2, 2)):
    return Network((8, 16, 32, 64, 128), 512, 8, 4096, 0.1, grid, 4, 4, first, interleaved, "forward")


@pytest.mark.parametrize("variant", VARIANTS)
def test_forward_values(shared, variant):
    stated_values, (first, interleaved) = expected_of(shared)[variant], VARIANTS[variant]
    net = filled(network(first, interleaved), tables=1.0)
    with torch.no_grad():
        features = net.features(modalities.extract(net.encoders, h(1, 4, 32, 32, 32)), None)
        for name in SUBSETS.keys() & stated_values.keys():
            maps = net.maps(features, torch.tensor([SUBSETS[name]], dtype=torch.bool), None)
            assert_stated(net.heads[0](maps[0]).softmax(1), stated_values[name]["fused probability"])


@pytest.mark.parametrize(("key", "first"), [("B (five", True), ("A (level", False)])
def test_parameters_per_module(shared, key, first):
    variants = stated(shared, FILE)["imfuse"]
    (counts,) = (value["parameters 80"] for name, value in variants.items() if name.startswith(key))
    with torch.device("meta"):
        net = network(first, True, grid=(5, 5, 5))
    assert parameters(net) == counts["total live"]
    assert parameters(net.encoders) == 4 * counts["encoder (x4)"]
    assert parameters(net.transformers) == 5 * counts["transformer (x5)"]
    assert parameters(net.positions) == counts["position tables (5)"]
    decoder = (net.coarsest, net.fusions, net.levels, net.heads)
    assert sum(map(parameters, decoder)) == counts["fusion decoder"]
    assert parameters(net.mono_decoder) == counts["mono decoder"]
    for level, fusion in enumerate((*net.gather, net.gather_tokens), 1 if first else 2):
        assert parameters(fusion.tokens) == counts[f"fusion layer level {level}: tokens"]
        assert parameters(fusion.mamba) == counts[f"fusion layer level {level}: Mamba"]
        rest = parameters(fusion) - parameters(fusion.tokens) - parameters(fusion.mamba)
        assert rest == counts[f"fusion layer level {level}: two LayerNorms and head"]


def test_fusion_of_one_level(shared):
    stated_values = expected_of(shared)["A: interleaved, skips 2-5 (README training command)"]
    (both, without, alone) = (
        value for name, value in stated_values.items() if "level" in name or name.startswith("the same")
    )
    fusion = filled(MambaFusion((4, 4, 4), 64, True, "forward"), tables=1.0)
    maps = [maps_of(h(1, 64, 64) * k / 4, (4, 4, 4)) for k in (1, 2, 3, 4)]
    with torch.no_grad():
        assert_stated(tokens_of(fusion(maps)), both)
        missing = [maps[0], maps[1], 0 * maps[2], 0 * maps[3]]
        assert_stated(tokens_of(fusion(missing)), without)
        assert_stated(fusion.mamba(h(1, 320, 64)), alone)


def test_no_voxel_sees_one_behind_it():
    fusion = filled(MambaFusion((2, 2, 2), 4, True, "forward"), tables=1.0)
    maps = [torch.randn(1, 4, 2, 2, 2, dtype=torch.float64) for _ in range(4)]
    changed = [x.clone() for x in maps]
    changed[2].flatten(2)[:, 0, 5] += 1  # one channel: a norm would take away what all share
    with torch.no_grad():
        one, other = (tokens_of(fusion(each)) for each in (maps, changed))
    assert torch.equal(one[:, :5], other[:, :5])
    assert not torch.allclose(one[:, 5:], other[:, 5:])


def example():
    """N5: L = 4, e = 2, n = 3."""
    A = -torch.exp(s(21, 26, 2, 3))
    dt = F.softplus(s(11, 18, 1, 4, 2))
    return [s(1, 8, 1, 4, 2), dt, A, s(31, 42, 1, 4, 3), s(51, 62, 1, 4, 3), s(71, 72)]


def test_scan_by_the_stated_example(shared):
    expected = stated(shared, FILE)["imfuse"]["examples"]["N5 scan"]
    inputs = [x.requires_grad_() for x in example()]
    y = selective_scan(*inputs)
    assert y.flatten().tolist() == pytest.approx(expected["y (token-major)"], abs=1e-8)
    gradients = torch.autograd.grad((s(81, 88, 1, 4, 2) * y).sum(), inputs)
    for name, gradient in zip(("u", "dt", "A", "B", "C", "D"), gradients, strict=True):
        stated_gradient = expected[f"grad of sum(w y) to {name}"]
        assert gradient.flatten().tolist() == pytest.approx(stated_gradient, abs=1e-8)


@pytest.mark.parametrize("chunk", [1, 3, 4, 7])
def test_gradients_of_the_scan(chunk):
    inputs = [x.requires_grad_() for x in example()]
    assert torch.autograd.gradcheck(lambda *x: selective_scan(*x, chunk=chunk), inputs)


def loop(u, dt, A, B, C, D):
    """The scan as it is written, step by step."""
    h, out = torch.zeros(len(u), *A.shape, dtype=u.dtype), []
    for t in range(u.shape[1]):
        h = torch.exp(dt[:, t, :, None] * A) * h + (dt[:, t] * u[:, t])[..., None] * B[:, t, None]
        out.append((h * C[:, t, None]).sum(-1) + D * u[:, t])
    return torch.stack(out, dim=1)


@pytest.mark.parametrize("chunk", [1, 2, 32, 1000, None])
def test_scan_equals_the_loop(chunk):
    """1,000 chunks take the recursion of the chunks' own recurrence; 32 does not divide 777."""
    draw = torch.Generator().manual_seed(0)
    u, dt = (torch.randn(2, 777, 4, generator=draw, dtype=torch.float64) for _ in range(2))
    B, C = (torch.randn(2, 777, 3, generator=draw, dtype=torch.float64) for _ in range(2))
    A, D = -3 * torch.rand(4, 3, generator=draw, dtype=torch.float64), torch.ones(4, dtype=torch.float64)
    inputs = [u, F.softplus(dt) / 5, A, B, C, D]
    inputs = [x.requires_grad_() for x in inputs]
    w = torch.randn(2, 777, 4, generator=draw, dtype=torch.float64)
    results = []
    for y in (selective_scan(*inputs, chunk=chunk), loop(*inputs)):
        results.append([y, *torch.autograd.grad((w * y).sum(), inputs)])
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-11)


def test_long_scan(shared):
    """N7: 1,000 steps."""
    expected = stated(shared, FILE)["imfuse"]["examples"]["N7 long scan"]
    u = s(1, 4000, 1, 1000, 4)
    A = -0.1 * torch.arange(1.0, 4, dtype=torch.float64).repeat(4, 1)
    B, C = s(1, 3000, 1, 1000, 3), s(3001, 6000, 1, 1000, 3)
    y = selective_scan(u, 0.05 + 0.05 * u.abs(), A, B, C, torch.zeros(4, dtype=torch.float64))[0]
    for t in (0, 499, 999):
        assert y[t].tolist() == pytest.approx(expected[f"y[{t}]"], abs=1e-8)
    assert y.std(unbiased=False).item() == pytest.approx(expected["std"], rel=1e-8)


def test_mamba_block(shared):
    """N6: two channels, three steps; the state is as wide as three here."""
    expected = stated(shared, FILE)["imfuse"]["examples"]["N6 Mamba block"]["out"]
    block = Mamba(2, "forward").double()
    block.sizes = (1, 3, 3)
    values = {
        "enter.weight": s(1, 16, 8, 2), "convolution.weight": s(21, 36, 4, 1, 4),
        "select.weight": s(51, 78, 7, 4),
        "convolution.bias": 0.1 * s(41, 44), "step.weight": s(81, 84, 4, 1), "step.bias": 0.1 * s(91, 94),
        "logarithms": s(101, 112, 4, 3), "past": s(121, 124), "leave.weight": s(131, 138, 2, 4),
    }  # fmt: skip
    for name, value in values.items():
        block.get_parameter(name).data = value
    assert block(s(141, 146, 1, 3, 2)).flatten().tolist() == pytest.approx(expected, abs=1e-8)


def test_both_ways_is_the_mean_of_two_scans():
    forward, both = Mamba(4, "forward"), Mamba(4, "both")
    both.load_state_dict(forward.state_dict())
    x = torch.randn(2, 9, 4)
    torch.testing.assert_close(both(x), (forward(x) + forward(x.flip(1)).flip(1)) / 2)


def test_recurrence_by_a_loop():
    decay, added = torch.rand(1, 300, 2, dtype=torch.float64), torch.randn(1, 300, 2, dtype=torch.float64)
    state, expected = torch.zeros(1, 2, dtype=torch.float64), []
    for k in range(300):
        expected.append(state)
        state = decay[:, k] * state + added[:, k]
    torch.testing.assert_close(recurrence(decay, added), torch.stack(expected, dim=1))
