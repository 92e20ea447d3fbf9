"""mmFormer's pieces against torch's own attention, plain convolutions, and their description."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from acdis import methods
from acdis.methods.base import Batch
from acdis.methods.mmformer.blocks import Fusion, NormActConv
from acdis.methods.mmformer.transformer import Positions, SelfAttention, TransformerBlock, drop

SMALL = {"base_width": 2, "embedding": 8, "heads": 2, "feed_forward": 8, "grid": [2, 2, 2]}


def generators(*seeds):
    return [torch.Generator().manual_seed(seed) for seed in seeds]


@pytest.mark.parametrize("training", [False, True])
def test_attention_is_torchs(training):
    """In training with nothing dropped, too: it is written out there."""
    torch.manual_seed(0)
    ours, theirs = SelfAttention(12, 3, 0.0).double(), nn.MultiheadAttention(12, 3, batch_first=True).double()
    with torch.no_grad():
        theirs.in_proj_weight.copy_(ours.qkv.weight)
        theirs.in_proj_bias.zero_()
        theirs.out_proj.weight.copy_(ours.out.weight)
        theirs.out_proj.bias.copy_(ours.out.bias)
    x = torch.randn(2, 7, 12, dtype=torch.float64)
    found = ours(x, generators(1, 2) if training else None)
    torch.testing.assert_close(found, theirs(x, x, x, need_weights=False)[0])


def test_a_block_is_two_residual_steps():
    torch.manual_seed(0)
    block = TransformerBlock(8, 2, 16, 0.0).double()
    x, positions = torch.randn(2, 5, 8, dtype=torch.float64), torch.randn(5, 8, dtype=torch.float64)
    one = x + positions
    two = one + block.attention(
        F.layer_norm(one, (8,), block.attention_norm.weight, block.attention_norm.bias), None
    )
    normed = F.layer_norm(two, (8,), block.feed_norm.weight, block.feed_norm.bias)
    inner = normed @ block.widen.weight.T + block.widen.bias
    inner = inner * (1 + torch.erf(inner / math.sqrt(2))) / 2
    torch.testing.assert_close(
        block(x, positions, None), two + inner @ block.narrow.weight.T + block.narrow.bias
    )


def test_what_is_dropped():
    """A tenth, the rest enlarged so that the mean stays; drawn for each sample, wherever it is computed."""
    x = torch.ones(3, 200, 100)
    found = drop(x, 0.1, generators(1, 2, 1))
    assert set(found.unique().tolist()) == {0.0, torch.tensor(1 / 0.9).item()}
    assert float((found == 0).double().mean()) == pytest.approx(0.1, abs=0.005)
    assert torch.equal(found[0], found[2])
    assert not torch.equal(found[0], found[1])
    assert torch.equal(drop(x[1:2], 0.1, generators(2))[0], found[1])
    assert drop(x, 0.1, None) is x


def test_positions_of_another_grid_lie_between():
    """Along one axis 2 voxels become 4: a quarter and three quarters of the way between their centres."""
    positions = Positions((2, 1, 1), 1)
    with torch.no_grad():
        positions.table.copy_(torch.tensor([[1.0], [3.0]]))
    assert positions((4, 1, 1)).flatten().tolist() == pytest.approx([1.0, 1.5, 2.5, 3.0])
    assert positions((2, 1, 1)) is positions.table


def test_shares_add_up_to_the_convolution_of_all():
    """What each modality adds, summed, is the 1³ convolution of their maps side by side."""
    torch.manual_seed(0)
    fusion = Fusion(4 * 3, 3).double()
    maps = [torch.randn(2, 3, 4, 4, 4, dtype=torch.float64) for _ in range(4)]
    plain = fusion.settle(fusion.mix(fusion.squeeze(torch.cat(maps, dim=1))))
    torch.testing.assert_close(fusion(torch.stack(fusion.shares(maps)).sum(0)), plain)
    gone = [maps[0], torch.zeros_like(maps[1]), maps[2], torch.zeros_like(maps[3])]
    shares = fusion.shares(maps)
    plain = fusion.settle(fusion.mix(fusion.squeeze(torch.cat(gone, dim=1))))
    torch.testing.assert_close(fusion(shares[0] + shares[2]), plain)


def test_norm_and_activation_stand_before_the_convolution():
    torch.manual_seed(0)
    layer = NormActConv(2, 3, kernel=3).double()
    x = torch.randn(1, 2, 4, 4, 4, dtype=torch.float64)
    normed = F.leaky_relu(F.instance_norm(x, eps=1e-5), 0.2)
    padded = F.pad(normed, [1] * 6, mode="reflect")
    expected = F.conv3d(padded, layer.convolution.weight, layer.convolution.bias)
    torch.testing.assert_close(layer(x), expected)


def test_a_step_has_nine_maps():
    """One fused, four mono and four deep ones, each with weight 1: the losses of the sums by hand."""
    torch.manual_seed(0)
    method = methods.build("mmformer", **SMALL, dropout=0.0)
    batch = Batch(
        images=torch.randn(1, 4, 32, 32, 32),
        labels=torch.randint(0, 4, (1, 32, 32, 32)),
        available=torch.tensor([[True, False, True, True]]),
        keys=(1,),
    )
    y = F.one_hot(batch.labels, 4).movedim(-1, 1).float()

    def losses(p):
        weights = 1 - y.mean((2, 3, 4))
        wce = -(weights * (y * p.clamp(0.005, 1).log()).mean((2, 3, 4))).sum()
        inside, size = (p * y).sum((0, 2, 3, 4)), (p + y).sum((0, 2, 3, 4))
        return wce, 1 - (2 * inside / (size + 1e-7)).mean()

    with torch.no_grad():
        terms = method(batch, 0)["main"]
        images = [batch.images[:, m : m + 1] for m in range(4)]
        mono = [method.mono_decoder(e(x)).softmax(1) for e, x in zip(method.encoders, images, strict=True)]
        maps = method._maps(method.encode(batch.images), batch.available, None)
        fused, *deep = (head(x).softmax(1) for head, x in zip(method.fusion_decoder.heads, maps, strict=True))
        deep = [F.interpolate(p, (32, 32, 32), mode="trilinear", align_corners=True) for p in deep]
    assert len(deep) == 4
    for group, each in (("fuse", [fused]), ("mono", mono), ("deep", deep)):
        for place, name in enumerate(("wce", "dice")):
            expected = sum(float(losses(p)[place]) for p in each)
            assert float(terms[f"seg/{group}/{name}"]) == pytest.approx(expected, rel=1e-4)
    assert len(terms) == 6
