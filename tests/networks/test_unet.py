"""Encoder and decoders: shapes, the residual rule, parameter counts worked out by hand, checkpointing."""

import pytest
import torch
import torch.nn.functional as F

from acdis.networks.block import set_checkpointing
from acdis.networks.convolution import Conv3d
from acdis.networks.cpu import pointwise
from acdis.networks.discriminator import PatchDiscriminator
from acdis.networks.unet import Decoder, Encoder, EncoderLevel, FusionDecoder, initialise

WIDTHS = (4, 8, 16, 32)


def parameters(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


# A side of odd length is rounded up on the way down and met again on the way up.
SIDES = [
    ((16, 16, 16), [(16, 16, 16), (8, 8, 8), (4, 4, 4), (2, 2, 2)]),
    ((17, 20, 23), [(17, 20, 23), (9, 10, 12), (5, 5, 6), (3, 3, 3)]),
]


@pytest.mark.parametrize("padding", ["zeros", "reflect"])
@pytest.mark.parametrize(("side", "expected"), SIDES)
def test_pyramid_halves_and_decoders_come_back(side, expected, padding):
    pyramid = Encoder(1, WIDTHS, padding)(torch.randn(2, 1, *side))
    assert [tuple(f.shape) for f in pyramid] == [(2, c, *s) for c, s in zip(WIDTHS, expected, strict=True)]
    assert Decoder(WIDTHS, 4, padding)(pyramid).shape == (2, 4, *side)
    wide = [f.repeat(1, 4, 1, 1, 1) for f in pyramid]
    assert FusionDecoder(WIDTHS, 4, padding)(wide).shape == (2, 4, *side)


def test_parameter_counts_at_base_16():
    widths = (16, 32, 64, 128)
    entries = 27 * sum(i * o for i, o in zip((1, 16, 32, 64), widths, strict=True))
    pairs = 2 * 27 * sum(c * c for c in widths)
    assert parameters(Encoder(1, widths)) == entries + pairs
    steps = sum(27 * (2 * c) * c + 27 * (2 * c) * c + c * c for c in widths[:3])
    assert parameters(Decoder(widths, 4)) == steps + 16 * 4 + 4
    fused = sum(27 * (2 * c) * c + 27 * (5 * c) * c + c * c for c in widths[:3])
    assert parameters(FusionDecoder(widths, 4)) == 27 * 512 * 128 + fused + 16 * 4 + 4


def test_encoder_level_is_entry_plus_residual_pair():
    level = Encoder(2, (4, 8)).levels[1]
    x = torch.randn(1, 4, 8, 8, 8)

    def conv(module, x, stride):
        x = F.conv3d(x, module[0].weight, stride=stride, padding=1)
        mean, variance = x.mean((2, 3, 4), keepdim=True), x.var((2, 3, 4), unbiased=False, keepdim=True)
        return F.leaky_relu((x - mean) / (variance + 1e-5).sqrt(), 0.2)

    entry = conv(level.entry, x, 2)
    expected = entry + conv(level.pair[1], conv(level.pair[0], entry, 1), 1)
    torch.testing.assert_close(level(x), expected)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last_3d])
@pytest.mark.parametrize(("kernel", "padding"), [(1, "zeros"), (3, "zeros"), (3, "reflect")])
@pytest.mark.parametrize("batch", [1, 2])
def test_parts_add_up_to_the_convolution(layout, kernel, padding, batch):
    layer = Conv3d(6, 5, kernel, padding=kernel // 2, bias=False, padding_mode=padding)
    x = torch.randn(batch, 6, 5, 6, 7).contiguous(memory_format=layout)
    pad = (kernel // 2,) * 6
    wide = F.pad(x, pad, mode="constant" if padding == "zeros" else padding)
    expected = F.conv3d(wide.double(), layer.weight.double()).float()
    torch.testing.assert_close(layer(x), expected, rtol=1e-4, atol=1e-5)
    parts = layer.part(x[:, :2], 0) + layer.part(x[:, 2:3], 2) + layer.part(x[:, 3:], 3)
    torch.testing.assert_close(parts, expected, rtol=1e-4, atol=1e-5)


def test_a_part_that_stands_several_times_is_convolved_once():
    layer = Conv3d(8, 3, 3, padding=1, bias=False)
    x = torch.randn(2, 2, 5, 5, 5)
    expected = layer(torch.cat([torch.zeros(2, 2, 5, 5, 5), x, x, x], dim=1))
    torch.testing.assert_close(layer.part(x, 2, times=3), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last_3d])
def test_small_samples_and_their_gradients_are_right_whatever_way_is_taken(batch, stride, layout):
    """One small sample takes another way than two do (see `cpu.goes_a_slow_way`)."""
    layer = Conv3d(4, 6, 3, stride, padding=1)
    exact = torch.nn.Conv3d(4, 6, 3, stride, padding=1).double()
    exact.load_state_dict({name: value.double() for name, value in layer.state_dict().items()})
    x = torch.randn(batch, 4, 5, 6, 7).contiguous(memory_format=layout)
    found = []
    for module, data in ((layer, x), (exact, x.double())):
        given = data.clone().requires_grad_()
        y = module(given)
        y.square().sum().backward()
        found.append([t.double() for t in (y, given.grad, module.weight.grad, module.bias.grad)])
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_a_matrix_for_each_sample():
    x = torch.randn(2, 3, 4, 5, 6).contiguous(memory_format=torch.channels_last_3d)
    weight = torch.randn(2, 5, 3)
    torch.testing.assert_close(pointwise(x, weight), torch.einsum("boc,bcdhw->bodhw", weight, x))


def test_initialise_is_kaiming_with_zero_biases():
    torch.manual_seed(0)
    layer = torch.nn.Conv3d(16, 64, 3)
    initialise(layer)
    assert layer.bias.abs().max() == 0
    assert layer.weight.std().item() == pytest.approx((2 / (16 * 27)) ** 0.5, rel=0.02)


def test_checkpointing_changes_neither_output_nor_gradients():
    torch.manual_seed(0)
    encoder, decoder = Encoder(1, WIDTHS), Decoder(WIDTHS, 4)
    both = torch.nn.ModuleList([encoder, decoder])
    x = torch.randn(1, 1, 16, 16, 16)
    results = []
    for on in (False, True):
        set_checkpointing(both, on)
        both.zero_grad()
        out = decoder(encoder(x))
        out.square().sum().backward()
        results.append([out, *(parameter.grad.clone() for parameter in both.parameters())])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_discriminator_gives_a_logit_per_voxel():
    discriminator = PatchDiscriminator(8, hidden=(6, 10))
    assert discriminator(torch.randn(3, 8, 2, 3, 4)).shape == (3, 1, 2, 3, 4)
    assert parameters(discriminator) == 27 * (8 * 6 + 6 * 10 + 10) + 6 + 10 + 1
    assert (
        parameters(PatchDiscriminator(128, (256, 512))) == 27 * (128 * 256 + 256 * 512 + 512) + 256 + 512 + 1
    )


def test_checkpointing_computes_again_in_training_only(monkeypatch):
    calls = []
    compute = EncoderLevel.compute
    monkeypatch.setattr(EncoderLevel, "compute", lambda self, *x: (calls.append(1), compute(self, *x))[1])
    encoder = Encoder(1, (2, 4))
    set_checkpointing(encoder, True)
    x = torch.randn(1, 1, 4, 4, 4)
    encoder(x)[-1].sum().backward()
    assert len(calls) == 2 * 2
    calls.clear()
    encoder.eval()(x)[-1].sum().backward()
    assert len(calls) == 2
    calls.clear()
    set_checkpointing(encoder.train(), False)
    encoder(x)[-1].sum().backward()
    assert len(calls) == 2
