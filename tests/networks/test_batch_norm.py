"""Batch norm beside torch's own, and what moves its running statistics (over ranks: test_global_batch.py)."""

import pytest
import torch
from torch import nn

from acdis.networks.batch_norm import BatchNormAct, statistics
from acdis.networks.block import Block, set_checkpointing

SLOPE = 0.2
LAST = torch.channels_last_3d


def maps(*shape, dtype=torch.float64, seed=0):
    return 3 + torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@pytest.mark.parametrize("layout", [torch.contiguous_format, LAST], ids=["default", "channels_last"])
@pytest.mark.parametrize("slope", [SLOPE, 1.0])
def test_it_is_torchs_batch_norm_and_leaky_relu(layout, slope):
    ours = BatchNormAct(5, slope).double()
    theirs = nn.Sequential(nn.BatchNorm3d(5, affine=False), nn.LeakyReLU(slope)).double()
    for step in range(3):
        x = maps(2, 5, 4, 3, 6, seed=step).to(memory_format=layout).requires_grad_()
        y = x.detach().clone().requires_grad_()
        one, other = ours(x), theirs(y)
        torch.testing.assert_close(one, other)
        weights = maps(*one.shape, seed=9)
        (one * weights).sum().backward()
        (other * weights).sum().backward()
        torch.testing.assert_close(x.grad, y.grad)
    torch.testing.assert_close(ours.running_mean, theirs[0].running_mean)
    torch.testing.assert_close(ours.running_var, theirs[0].running_var)
    x = maps(1, 5, 4, 3, 6)
    torch.testing.assert_close(ours.eval()(x), theirs.eval()(x))


def test_gradients_agree_with_finite_differences():
    x = maps(2, 3, 2, 2, 2).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: BatchNormAct(3, SLOPE).double()(x), (x,))


def test_values_far_from_zero_keep_their_digits():
    x = 1e4 + maps(2, 1, 8, 8, 8, dtype=torch.float32)
    found = BatchNormAct(1, 1.0)(x).double()
    assert abs(float(found.mean())) < 5e-3
    assert float(found.std()) == pytest.approx(1, rel=1e-3)


class Layer(Block):
    """Something is kept behind the norm too: torch ends the second computing with the last that is kept."""

    def __init__(self):
        super().__init__()
        self.norm = BatchNormAct(2, SLOPE)

    def compute(self, *inputs):
        return self.norm(inputs[0]).sigmoid()


def test_a_block_that_is_computed_twice_counts_once():
    """And not at all where the caller says so, in neither computing."""
    found = []
    for on in (False, True):
        layer = Layer().double()
        set_checkpointing(layer, on)
        with statistics(counted=False):
            aside = layer(maps(2, 2, 3, 3, 3, seed=1).requires_grad_())
        assert not layer.norm.running_mean.any()
        kept = layer(maps(2, 2, 3, 3, 3).requires_grad_())
        (aside.square().sum() + kept.square().sum()).backward()
        found.append(layer.norm.running_mean.clone())
    assert torch.equal(*found)
    torch.testing.assert_close(found[0], 0.1 * maps(2, 2, 3, 3, 3).mean((0, 2, 3, 4)))


def test_evaluation_leaves_the_running_statistics_alone():
    norm = BatchNormAct(2, SLOPE).double().eval()
    norm(maps(2, 2, 3, 3, 3))
    assert not norm.running_mean.any()
    assert torch.equal(norm.running_var, torch.ones(2, dtype=torch.float64))
