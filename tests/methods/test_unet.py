"""The plain U-Net: its parameters, its map by torch's own functions, and how often each subset is drawn."""

import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from acdis import methods
from acdis.errors import UserError
from acdis.vocabulary import SUBSETS, subset_mask


def test_parameters():
    """Kernels alone: no bias in front of a norm, norms without affine; the head has four biases."""
    widths, count, before = (16, 32, 64, 128), 0, 4
    for width in widths:
        count += 27 * before * width + 2 * 27 * width * width
        before = width
    for fine, coarse in itertools.pairwise(widths):
        count += 27 * coarse * fine + 27 * 2 * fine * fine + fine * fine
    count += 16 * 4 + 4
    assert count == 2_053_124
    assert sum(p.numel() for p in methods.build("unet").parameters()) == count


def layer(x, weight, stride=1):
    x = F.conv3d(x, weight, stride=stride, padding=weight.shape[-1] // 2)
    return F.leaky_relu(F.instance_norm(x), 0.2)


@torch.no_grad()
def test_map_by_torchs_functions():
    """Residual pairs down, joined skips up, on images in which what is missing is 0."""
    method = methods.build("unet", base_width=4, levels=3).double().eval()
    w = {name: value for name, value in method.state_dict().items() if name.endswith("weight")}
    images = torch.randn(1, 4, 16, 16, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for given in ([1, 1, 1, 1], [0, 1, 0, 1]):
        x, skips = images * torch.tensor(given).view(1, 4, 1, 1, 1), []
        for level in range(3):
            stem = f"network.encoder.levels.{level}"
            x = layer(x, w[f"{stem}.entry.0.weight"], stride=2 if level else 1)
            x = x + layer(layer(x, w[f"{stem}.pair.0.0.weight"]), w[f"{stem}.pair.1.0.weight"])
            skips.append(x)
        for level in (1, 0):
            stem, skip = f"network.decoder.levels.{level}", skips[level]
            x = F.interpolate(x, size=skip.shape[2:], mode="trilinear", align_corners=True)
            x = torch.cat([layer(x, w[f"{stem}.rise.0.weight"]), skip], dim=1)
            x = layer(layer(x, w[f"{stem}.merge.0.weight"]), w[f"{stem}.settle.0.weight"])
        expected = F.conv3d(x, w["network.decoder.head.weight"], method.network.decoder.head.bias)
        found = method.decode(method.encode(images), torch.tensor([given]) > 0)
        torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("generator", [torch.Generator, np.random.default_rng], ids=["torch", "numpy"])
def test_rates_by_drawing_again(generator):
    """Beside 200,000 draws of four coins, of which those that leave nothing do not count."""
    rates = (0.1, 0.5, 0.8, 0.9)
    coins = np.random.default_rng(5).random((200_000, 4)) >= np.array(rates)
    coins = coins[coins.any(axis=1)]
    drawn = methods.build("unet", base_width=4, levels=2, drop_rates=rates).sample_subsets(
        generator(), 40_000, 0
    )
    for subset in SUBSETS:
        mask = np.array(subset_mask(subset))
        share = (drawn.numpy() == mask).all(axis=1).mean()
        assert share == pytest.approx((coins == mask).all(axis=1).mean(), abs=0.012), subset


def test_a_rate_of_nought_never_drops():
    drawn = methods.build("unet", base_width=4, levels=2, drop_rates=(0, 0.5, 0.5, 0.5)).sample_subsets(
        np.random.default_rng(0), 2000, 0
    )
    assert drawn[:, 0].all()


@pytest.mark.parametrize("rates", [[0.5] * 3, [1, 0, 0, 0], [-0.1, 0, 0, 0]])
def test_rates_that_are_none(rates):
    with pytest.raises(UserError, match=r"method\.options\.drop_rates"):
        methods.build("unet", drop_rates=rates)
