"""bf16 on maps of few voxels: the gradient of a 3³ convolution must be right (see `Conv3d`)."""

import pytest
import torch

from acdis.networks import cpu
from acdis.networks.convolution import Conv3d
from acdis.networks.discriminator import PatchDiscriminator
from acdis.networks.mfsb import ConvMFSB
from acdis.networks.unet import ConvNormAct

SHAPES = [(2, 2, 2), (2, 3, 5), (1, 2, 3), (2, 1, 1), (3, 1, 2), (3, 3, 3), (4, 4, 4), (4, 4, 1), (5, 5, 5)]


def gradients(layer, x, autocast):
    torch.manual_seed(1)
    layer.zero_grad()
    x = x.clone().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        y = layer(x)
    y.backward(torch.randn(y.shape).to(y.dtype))
    return y, [x.grad, *(parameter.grad.clone() for parameter in layer.parameters())]


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("shape", SHAPES)
def test_gradients_under_autocast(shape, stride):
    torch.manual_seed(0)
    layer = Conv3d(8, 8, 3, stride, padding=1)
    x = torch.randn(2, 8, *shape)
    _, expected = gradients(layer, x, autocast=False)
    y, found = gradients(layer, x, autocast=True)
    assert y.dtype == torch.bfloat16
    for got, exact in zip(found, expected, strict=True):
        assert (got - exact).abs().max() <= 0.03 * exact.abs().max()


def test_only_small_maps_leave_half_precision():
    layer = Conv3d(4, 4, 3, padding=1)
    with torch.autocast("cpu", torch.bfloat16):
        assert cpu.writes_out_of_bounds(layer, torch.zeros(1, 4, 9, 2, 9))
        assert not cpu.writes_out_of_bounds(layer, torch.zeros(1, 4, 3, 3, 3))
        assert not cpu.writes_out_of_bounds(Conv3d(4, 4, 1), torch.zeros(1, 4, 2, 2, 2))
        assert cpu.writes_out_of_bounds(Conv3d(4, 4, 3, 2, padding=1), torch.zeros(1, 4, 4, 9, 9))
        assert not cpu.writes_out_of_bounds(Conv3d(4, 4, 3, 2, padding=1), torch.zeros(1, 4, 5, 5, 5))
    assert not cpu.writes_out_of_bounds(layer, torch.zeros(1, 4, 2, 2, 2))


@pytest.mark.parametrize(
    "module",
    [ConvNormAct(4, 4), ConvMFSB(4, 352), PatchDiscriminator(4, (4, 4))],
    ids=lambda m: type(m).__name__,
)
def test_every_wide_kernel_is_guarded(module):
    kernels = [m for m in module.modules() if isinstance(m, torch.nn.Conv3d) and m.kernel_size[0] > 1]
    assert kernels
    assert all(isinstance(kernel, Conv3d) for kernel in kernels)
