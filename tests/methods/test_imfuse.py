"""IM-Fuse as a method, with the finest level fused: what costs too much in the tests over all."""

import numpy as np
import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from acdis import methods
from acdis.config import Training
from acdis.methods.base import Batch

TINY = {"base_width": 2, "embedding": 16, "heads": 2, "feed_forward": 16, "grid": [2, 2, 2]}


@pytest.fixture(scope="module")
def method():
    torch.manual_seed(0)
    return methods.build("imfuse", **TINY)


@pytest.fixture(scope="module")
def batch():
    draw = torch.Generator().manual_seed(0)
    return Batch(
        torch.randn(1, 4, 32, 32, 32, generator=draw),
        torch.randint(0, 4, (1, 32, 32, 32), generator=draw),
        torch.tensor([[True, False, True, False]]),
        keys=(5,),
    )


def test_the_finest_fusion_learns(method, batch):
    """Its tokens and its scan; the same step with activation checkpointing."""
    gradients = []
    for on in (False, True):
        for part in method.modules():
            if hasattr(part, "checkpointing"):
                part.checkpointing = on
        method.zero_grad()
        torch.stack(list(method(batch, 0)["main"].values())).sum().backward()
        gradients.append({name: weight.grad for name, weight in method.named_parameters()})
    fusion = [each for name, each in gradients[0].items() if name.startswith("net.gather.0.")]
    assert len(fusion) == 16
    assert all(each.abs().max() > 0 for each in fusion)
    for name, each in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], each, msg=name)


@torch.no_grad()
def test_a_missing_image_changes_nothing_and_one_that_is_there_does(method, batch):
    method.eval()
    features = method.encode(batch.images)
    expected = method.decode(features, batch.available)
    spoiled = batch.images.clone()
    spoiled[:, [1, 3]] = torch.nan
    assert torch.equal(method.decode(method.encode(spoiled), batch.available), expected)
    changed = batch.images.clone()
    changed[:, 2] += torch.randn(1, 32, 32, 32)
    assert not torch.allclose(method.decode(method.encode(changed), batch.available), expected, atol=1e-4)


def test_a_window_takes_no_more_memory_than_is_said(method, batch):
    method.eval()
    with torch.no_grad(), profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        method.decode(method.encode(batch.images), batch.available)
    events = [e for e in seen.profiler.kineto_results.events() if e.name() == "[memory]"]
    held = np.cumsum([e.nbytes() for e in sorted(events, key=lambda e: e.start_ns())])
    assert held.max() <= 32**3 * method.bytes_per_voxel(1) + 300_000


@torch.no_grad()
def test_another_crop_reads_between_the_tokens(method):
    images, available = torch.randn(1, 4, 48, 32, 32), torch.ones(1, 4, dtype=torch.bool)
    assert method.eval().decode(method.encode(images), available).shape == (1, 4, 48, 32, 32)


def test_first_values_of_the_scan():
    """Steps log-uniform from 0.001 to 0.1: mean logarithm log(0.01). Decays 1, 2, …; 1 past the state."""
    torch.manual_seed(1)
    mamba = methods.build("imfuse", **TINY | {"embedding": 64}).net.gather_tokens.mamba
    steps = torch.nn.functional.softplus(mamba.step.bias.detach())
    assert 0.001 * 0.999 <= float(steps.min()) <= float(steps.max()) <= 0.1 * 1.001
    # 128 draws: the mean strays by log(100) / sqrt(12 * 128) = 0.117 (one standard deviation)
    assert float(steps.log().mean()) == pytest.approx(np.log(0.01), abs=0.4)
    torch.testing.assert_close(mamba.logarithms.exp()[0], torch.arange(1.0, 65))
    assert torch.equal(mamba.past, torch.ones(128))


def test_published_optimiser_decays_what_it_steps_by(method):
    """RAdam with L2 in the gradient, not beside the step; on the scan's decays too."""
    torch.manual_seed(0)
    small = methods.build("imfuse", **TINY, level1="dropped", optimiser="radam")
    recipe = Training(learning_rate=2e-4, weight_decay=3e-5)
    optimiser = small.optimisers(recipe)["main"]
    assert isinstance(optimiser, torch.optim.RAdam)
    (group,) = optimiser.param_groups
    assert (group["lr"], group["weight_decay"], group["decoupled_weight_decay"]) == (2e-4, 3e-5, False)
    held = {id(weight) for weight in group["params"]}
    assert id(small.net.gather[0].mamba.logarithms) in held
