"""ShaSpec's parts against the values of the public network (BASELINES.md, section 7)."""

import pytest
import torch
from reference import assert_stated, filled, h, parameters, s, stated

from acdis.methods.shaspec.network import Composition, Decoder, Encoder, StandardConv3d


def test_parameters_per_module(shared):
    counts = stated(shared)["shaspec"]["parameters"]
    encoder = Encoder(64, (1, 2, 2))
    modules, backbone = counts["modules"], counts["backbone"]
    assert parameters(encoder) == modules["shared_enc"] - 512  # ASPP's mean branch has no norm here
    assert parameters(encoder.stem) == backbone["conv1"] + backbone["norm1"]
    assert [parameters(layer) for layer in encoder.layers] == [backbone[f"layer{n}"] for n in (1, 2, 3, 4)]
    assert parameters(encoder.reduce) == counts["encoder"]["asppreduce"]
    assert parameters(encoder.pool) == counts["encoder"]["aspp"] - 512
    assert parameters(Decoder(64, 3, 4, (1, 2, 2))) == modules["shared_dec"]
    assert parameters(Composition(256)) == modules["compos_layer"]


@pytest.mark.parametrize("name", ["encoder on (1,1,32,64,64)", "encoder on zeros"])
def test_encoder(shared, name):
    expected = stated(shared)["shaspec"]["forward_parts_32x64x64"][name]
    image = h(1, 1, 32, 64, 64) if "zeros" not in name else torch.zeros(1, 1, 32, 64, 64).double()
    with torch.no_grad():
        encoded = filled(Encoder(64, (1, 2, 2)))(image)
    assert_stated(encoded.feature, expected["feature"])
    mean = expected["g (mean of the reduced map)"] if "zeros" not in name else expected["g"]
    assert encoded.mean[0, :4].tolist() == pytest.approx(mean["first4"], rel=1e-6)
    if "zeros" not in name:
        for level, skip in enumerate(encoded.skips):
            assert skip.mean().item() == pytest.approx(expected[f"L{level}"]["mean"], rel=1e-6)


def test_composition(shared):
    expected = stated(shared)["shaspec"]["forward_parts_32x64x64"]["composition of r=h(256x2x2x2), s=-r/2"]
    common = h(1, 256, 2, 2, 2)
    with torch.no_grad():
        assert_stated(filled(Composition(256))(common, -common / 2), expected)


def test_decoder(shared):
    parts = stated(shared)["shaspec"]["forward_parts_32x64x64"]
    (expected,) = (value for name, value in parts.items() if name.startswith("decoder"))
    skips = [h(1, 256, 32, 32, 32), h(1, 1024, 16, 16, 16), h(1, 2048, 8, 8, 8), h(1, 4096, 4, 4, 4)]
    with torch.no_grad():
        assert_stated(filled(Decoder(64, 3, 4, (1, 2, 2)))(h(1, 1024, 2, 2, 2), skips), expected)


def test_standardised_convolution(shared):
    losses = stated(shared)["shaspec"]["losses"]
    (expected,) = (value for name, value in losses.items() if name.startswith("weight-standardised"))
    convolution = StandardConv3d(2, 2, 3).double()
    convolution.padding = (0, 0, 0)
    with torch.no_grad():
        convolution.weight = torch.nn.Parameter(s(1, 12, 2, 2, 1, 1, 3))
        found = convolution(s(1, 8, 1, 2, 1, 1, 4))
    assert found.flatten().tolist() == pytest.approx(expected, abs=1e-8)


def test_the_mean_branch_of_aspp_changes_nothing():
    """What is equal everywhere is taken away by the norm behind the joining convolution."""
    pool = filled(Encoder(8, (1, 1, 1)).pool)
    x = h(1, 32, 3, 3, 3)
    with torch.no_grad():
        before = pool(x)[0]
        pool.pooled.weight.neg_()
        torch.testing.assert_close(pool(x)[0], before, rtol=1e-7, atol=1e-9)
