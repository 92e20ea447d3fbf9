"""U-HeMIS against its description: parameters, numbers of its functions, and a forward pass by formula."""

import math

import numpy as np
import pytest
import torch

from acdis import methods
from acdis.config import Training
from acdis.methods.uhemis import objective
from acdis.methods.uhemis.network import moments

#: Outputs of a network written apart from this one, weights by formula: mean, deviation, first four values.
FORWARD = {
    (1, 1, 1, 1): (0.223883973147, 1.48895787032, (-0.18495019, -0.49109010, -0.75694488, -0.17502741)),
    (0, 1, 0, 0): (0.179999868287, 1.58450419213, (-0.20685251, -0.05342029, 0.05252538, -0.62080898)),
    (1, 0, 0, 1): (0.220797419793, 1.50417622446, (-0.14689199, -0.70741857, -0.54238656, -0.06821066)),
}  # fmt: skip


def sines(first, last):
    """sin(i²), i from `first` to `last`."""
    return torch.tensor([math.sin(i * i) for i in range(first, last + 1)], dtype=torch.float64)


def formula(shape):
    """2 frac(43758.5453 sin(12.9898 k)) - 1 over the elements in row-major order, k from 1."""
    k = np.arange(1, math.prod(shape) + 1, dtype=np.float64)
    x = 43758.5453 * np.sin(12.9898 * k)
    return torch.from_numpy(2 * (x - np.floor(x)) - 1).reshape(shape)


def test_parameters():
    method = methods.build("uhemis")
    counts = [sum(p.numel() for p in part.parameters()) for part in (*method.encoders, method.decoder)]
    assert counts == [111_776] * 4 + [118_784]
    assert sum(p.numel() for p in method.parameters()) == 565_888
    first, second = (method.encoders[0].levels[0].layers[n] for n in (0, 1))
    assert [tuple(p.shape) for p in first.parameters()] == [(8,), (8,), (8, 8, 3, 3, 3)]
    assert [tuple(p.shape) for p in second.parameters()] == [(8,), (8,), (4, 8, 3, 3, 3)]
    lowest = method.decoder.levels[2].layers[0]
    assert [tuple(p.shape) for p in lowest.parameters()] == [(96,), (96,), (32, 96, 3, 3, 3)]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ((0, 1, 2, 3), [[0.61055486, -0.30321363, 0.29269477, 0.12716861],
                        [0.41303279, -0.08505591, 0.38671117, 0.43319841]]),
        ((1, 3), [[0.33863923, -0.32477749, 0.43583235, 0.0276371],
                  [0.15177007, 0.41681623, 0.56816911, 0.27322974]]),
        ((2,), [[0.92347001, 0.19350297, 0, 0], [0.93647255, -0.88595278, 0, 0]]),
    ],
)  # fmt: skip
def test_mean_and_variance(given, expected):
    """Two voxels, two channels; what is missing holds NaN."""
    maps = [sines(10 * k + 1, 10 * k + 4).view(2, 2).T.reshape(1, 2, 2, 1, 1) for k in range(4)]
    known = [f if k in given else torch.full_like(f, torch.nan) for k, f in enumerate(maps)]
    available = torch.tensor([[k in given for k in range(4)]])
    found = moments(known, available)[0, :, :, 0, 0].T
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-8)


def test_losses():
    """Four voxels, four classes, of which one is absent."""
    logits = (2 * sines(1, 16)).view(4, 4).T.reshape(1, 4, 4, 1, 1)
    found = objective.terms(logits, torch.tensor([0, 0, 2, 3]).view(1, 4, 1, 1))
    assert float(found["seg/ce"]) == pytest.approx(1.700911, abs=1e-6)
    assert float(found["seg/dice"]) == pytest.approx(0.603298, abs=1e-6)


@torch.no_grad()
def test_forward_pass_by_formula():
    method = methods.build("uhemis").double().eval()
    for name, parameter in method.named_parameters():
        values = formula(parameter.shape)
        if parameter.ndim > 1:
            parameter.copy_(values * math.sqrt(6 * len(parameter) / parameter.numel()))
        else:
            parameter.copy_(1 + 0.1 * values if name.endswith("weight") else 0.1 * values)
    features = method.encode(formula((1, 4, 16, 16, 16)))
    for given, (mean, deviation, first) in FORWARD.items():
        logits = method.decode(features, torch.tensor([given]) > 0)
        assert float(logits.mean()) == pytest.approx(mean, rel=1e-6)
        assert float(logits.std(unbiased=False)) == pytest.approx(deviation, rel=1e-6)
        torch.testing.assert_close(logits.flatten()[:4], torch.tensor(first).double(), rtol=0, atol=1e-7)


def test_subsets_by_count():
    """Each number of modalities as often as another, each subset of a number as another of that number."""
    drawn = methods.build("uhemis", subsets="by_count").sample_subsets(np.random.default_rng(0), 9600, 0)
    for row, share in (
        ((1, 1, 1, 1), 1 / 4),
        ((1, 0, 1, 1), 1 / 16),
        ((0, 1, 1, 0), 1 / 24),
        ((0, 0, 0, 1), 1 / 16),
    ):
        found = (drawn == torch.tensor(row)).all(1).double().mean()
        assert float(found) == pytest.approx(share, abs=0.016)


def test_published_rate_falls_to_a_quarter():
    recipe = Training(epochs=600, learning_rate=1e-3)
    method = methods.build("uhemis", quarter_every=100)
    rates = [method.settings_at(epochs, recipe)["main"]["lr"] for epochs in (0.0, 99.99, 100.0, 599.5)]
    assert rates == pytest.approx([1e-3, 1e-3, 2.5e-4, 1e-3 / 4**5])


def test_kernels_start_within_two_deviations():
    weight = methods.build("uhemis").decoder.levels[2].layers[0][2].weight
    deviation = math.sqrt(2 / (96 * 27))
    assert float(weight.abs().max()) <= 2 * deviation
    assert float(weight.std()) == pytest.approx(0.8796 * deviation, rel=0.01)  # of a normal cut off at two
