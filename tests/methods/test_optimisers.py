"""Optimisers and schedules of published recipes, against torch's own and by hand."""

import math

import pytest
import torch

from acdis.config import Training
from acdis.methods import optimisers


def test_one_cycle_is_torchs():
    recipe = Training(epochs=30, learning_rate=0.01)
    weight = torch.nn.Parameter(torch.zeros(1))
    theirs = torch.optim.SGD([weight], lr=1.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        theirs, 0.01, total_steps=30, pct_start=0.1, div_factor=25, final_div_factor=1e4
    )
    for epoch in range(30):
        found = 0.01 * optimisers.one_cycle(epoch + 0.5, recipe, warm_up=0.1, start=25, end=1e4)
        assert found == pytest.approx(theirs.param_groups[0]["lr"], rel=1e-9)
        theirs.step()
        if epoch < 29:
            schedule.step()


def test_cosine():
    recipe = Training(epochs=8)
    found = [optimisers.cosine(epochs, recipe) for epochs in (0.0, 2.0, 4.9, 6.0)]
    assert found == pytest.approx([1, (1 + math.sqrt(0.5)) / 2, 0.5, (1 - math.sqrt(0.5)) / 2])


def test_gradients_are_cut_to_a_common_norm():
    """Gradients (3, 4) and 12: norm 13, cut to 1.3; a first Nesterov step is lr (g + momentum g)."""
    weights = [torch.nn.Parameter(torch.zeros(2)), torch.nn.Parameter(torch.zeros(1))]
    weights[0].grad, weights[1].grad = torch.tensor([3.0, 4.0]), torch.tensor([12.0])
    recipe = Training(learning_rate=0.1, weight_decay=0.0)
    optimisers.sgd({"main": weights}, recipe, momentum=0.5, most=1.3)["main"].step()
    found = torch.cat([weight.detach() for weight in weights])
    torch.testing.assert_close(found, -0.1 * 1.5 * torch.tensor([0.3, 0.4, 1.2]), rtol=1e-4, atol=1e-6)


def test_small_gradients_are_left_alone():
    weight = torch.nn.Parameter(torch.zeros(1))
    weight.grad = torch.tensor([0.5])
    recipe = Training(learning_rate=0.1, weight_decay=0.0)
    optimisers.sgd({"main": [weight]}, recipe, momentum=0.5, most=12.0)["main"].step()
    assert weight.item() == pytest.approx(-0.1 * 1.5 * 0.5)
