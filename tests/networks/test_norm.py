"""Norm and activation in one step, against NumPy and torch's own two steps, forward and backward."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from acdis.networks import norm
from acdis.networks.norm import InstanceNormAct

LAST = torch.channels_last_3d
SHAPES = [(2, 3, 4, 5, 6), (1, 8, 7, 3, 5), (3, 16, 2, 1, 1), (2, 5, 9, 9, 9)]


@pytest.fixture(params=[7, 2**18], ids=["many pieces", "one piece"])
def piece(request, monkeypatch):
    monkeypatch.setattr(norm, "_PIECE", request.param)


def last(shape, dtype=torch.float32, seed=0):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)
    return (3 * x + 2).contiguous(memory_format=LAST)


def two_steps(x, slope):
    return F.leaky_relu(F.instance_norm(x.contiguous()), slope)


@pytest.mark.parametrize("shape", SHAPES)
def test_values_are_those_of_numpy(piece, shape):
    x = last(shape)
    values = x.double().numpy()
    mean, variance = values.mean((2, 3, 4), keepdims=True), values.var((2, 3, 4), keepdims=True)
    normed = (values - mean) / np.sqrt(variance + 1e-5)
    found = InstanceNormAct(0.2)(x)
    np.testing.assert_allclose(found.numpy(), np.where(normed > 0, normed, 0.2 * normed), atol=2e-6)
    assert found.is_contiguous(memory_format=LAST)


@pytest.mark.parametrize("shape", SHAPES)
def test_gradients_are_those_of_torch(piece, shape):
    above = last(shape, torch.float64, seed=1)
    gradients = []
    for step in (InstanceNormAct(0.2), lambda x: two_steps(x, 0.2)):
        x = last(shape, torch.float64).requires_grad_()
        step(x).backward(above)
        gradients.append(x.grad)
    torch.testing.assert_close(*gradients, rtol=1e-9, atol=1e-9)


def test_gradients_are_those_of_finite_differences(piece):
    x = last((2, 3, 2, 3, 2), torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(InstanceNormAct(0.3), (x,))


def test_a_gradient_in_another_layout_is_taken():
    x = last((2, 4, 3, 3, 3)).requires_grad_()
    InstanceNormAct(0.2)(x).square().sum((2, 3, 4)).sum().backward()
    y = x.detach().clone().requires_grad_()
    two_steps(y, 0.2).square().sum().backward()
    torch.testing.assert_close(x.grad, y.grad, rtol=1e-4, atol=1e-5)


def test_statistics_of_bf16_are_precise_and_the_result_is_bf16():
    x = (last((1, 4, 16, 16, 16)) + 100).bfloat16()
    found = InstanceNormAct(0.2)(x)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), two_steps(x.float(), 0.2), rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shape", [(1, 16, 12, 11, 10), (3, 8, 15, 13, 12), (2, 64, 8, 8, 8)])
def test_large_maps_in_half_precision_are_float64s_within_rounding(shape, dtype):
    """Another way is taken there; the reference is torch's two steps on the rounded input."""
    x, above = last(shape, dtype).requires_grad_(), last(shape, dtype, seed=1)
    found = InstanceNormAct(0.2)(x)
    found.backward(above)
    y = x.detach().double().requires_grad_()
    expected = two_steps(y, 0.2)
    expected.backward(above.double())
    assert found.dtype == x.grad.dtype == dtype
    assert found.is_contiguous(memory_format=LAST)
    rounding = torch.finfo(dtype).eps
    torch.testing.assert_close(found.double(), expected, rtol=rounding, atol=rounding)
    torch.testing.assert_close(x.grad.double(), y.grad, rtol=2 * rounding, atol=4 * rounding)


def test_large_samples_in_half_precision_do_not_see_each_others_nan():
    x = last((2, 16, 12, 12, 12), torch.bfloat16)
    spoiled = x.clone()
    spoiled[1] = torch.nan
    assert torch.equal(InstanceNormAct(0.2)(spoiled)[0], InstanceNormAct(0.2)(x)[0])


def test_a_large_mean_costs_no_digits():
    """E[x²] - E[x]² in float32 would leave no variance at all here."""
    x = (last((1, 2, 12, 12, 12), torch.float64) + 1e4).float()
    expected = two_steps(x.double(), 0.2)
    torch.testing.assert_close(InstanceNormAct(0.2)(x).double(), expected, rtol=0, atol=1e-3)


def test_a_flat_map_gives_zeros_and_finite_gradients():
    x = torch.full((1, 4, 3, 3, 3), 5.0).contiguous(memory_format=LAST).requires_grad_()
    found = InstanceNormAct(0.2)(x)
    assert not found.any()
    found.backward(last(x.shape))
    assert x.grad.isfinite().all()


@pytest.mark.parametrize("layout", [torch.contiguous_format, LAST])
def test_a_map_of_one_voxel_is_refused_as_torch_does(layout):
    with pytest.raises(ValueError, match="spatial element"):
        InstanceNormAct(0.2)(torch.zeros(1, 4, 1, 1, 1).contiguous(memory_format=layout))


def test_no_sample_sees_another_not_even_its_nan():
    x = last((2, 4, 5, 5, 5))
    spoiled = x.clone()
    spoiled[1] = torch.nan
    step = InstanceNormAct(0.2)
    assert torch.equal(step(spoiled)[0], step(x)[0])
