"""Networks with weights given by formula, and the values that the reference files beside the checkout state.

BASELINES.md 1.5: h(k) = 2 frac(43758.5453 sin(12.9898 k)) - 1 over a tensor's elements, row-major; matrices
and kernels h sqrt(6 shape[0] / numel), gains 1 + 0.1 h, biases and position tables 0.1 h.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch


def h(*shape):
    """The formula's values, float64."""
    k = np.arange(1, math.prod(shape) + 1, dtype=np.float64)
    raised = 43758.5453 * np.sin(12.9898 * k)
    return torch.from_numpy(2 * (raised - np.floor(raised)) - 1).view(*shape)


def s(first, last, *shape):
    """sin(i * i) for i = first, ..., last, float64."""
    i = torch.arange(first, last + 1, dtype=torch.float64)
    return torch.sin(i * i).view(*(shape or (-1,)))


@torch.no_grad()
def filled(module, tables=0.1):
    """The module in float64 and evaluation mode with the formula's weights.

    Args:
        tables: factor of h in learnt tables of tokens; those of positions always have 0.1.
    """
    module.double().eval()
    for name, parameter in module.named_parameters():
        value = h(*parameter.shape)
        if name.endswith("tokens.table"):
            value = tables * value
        elif name.endswith("table") or (parameter.ndim == 1 and name.endswith("bias")):
            value = 0.1 * value
        elif parameter.ndim > 1:
            value = value * math.sqrt(6 * parameter.shape[0] / parameter.numel())
        else:
            value = 1 + 0.1 * value
        parameter.copy_(value)
    return module


def stated(shared: Path, file: str = "baselines_reference.json"):
    """The methods' stated values."""
    path = shared / "design" / file
    if not path.is_file():
        pytest.skip(f"{file} is not beside this checkout")
    return json.loads(path.read_text(encoding="utf-8"))["methods"]


def assert_stated(found, expected, rtol=1e-6):
    """Shape, mean, population standard deviation and single elements, as the reference files state them."""
    flat = found.detach().flatten()
    n = len(flat)
    assert list(found.shape) == expected["shape"]
    values = [flat.mean(), flat.std(unbiased=False), *flat[:4], flat[n // 3], flat[2 * n // 3], flat[-1]]
    names = ["at n//3", "at 2n//3", "last"]
    stated_values = [
        expected["mean"],
        expected["std"],
        *expected["first4"],
        *(expected[name] for name in names),
    ]
    torch.testing.assert_close(
        torch.stack(values), torch.tensor(stated_values, dtype=torch.float64), rtol=rtol, atol=1e-9
    )


def parameters(module):
    """How many numbers a module learns."""
    return sum(parameter.numel() for parameter in module.parameters())
