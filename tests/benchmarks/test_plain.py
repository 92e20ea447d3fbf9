"""The yardstick `benchmarks/plain.py` computes what ACDIS computes: fast paths against torch's operations."""

import importlib
import sys
from pathlib import Path

import pytest
import torch

from acdis import methods
from acdis.evaluation.sliding import subset_masks
from acdis.methods.base import Batch

LATE = 10**6
#: Windows of 5 do not divide most of these, nor do strides of 2.
SHAPES = [(20, 20, 20), (16, 16, 16), (17, 20, 11)]
VARIANTS = [{}, {"levels": 3}, {"levels": 3, "afeb_attention": "bottleneck", "afeb_tokens": 3}]


@pytest.fixture
def plain(checkout: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(checkout / "benchmarks")
    yield importlib.import_module("plain")
    sys.modules.pop("plain", None)


def build(**options):
    torch.manual_seed(0)
    method = methods.build("acdis", base_width=4, **options)
    method.synthesising.fill_(True)
    return method


def images(shape, batch=2):
    return torch.randn(batch, 4, *shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("options", VARIANTS)
@pytest.mark.parametrize("batch", [1, 2])
def test_all_subsets_at_once_are_fifteen_passes(plain, shape, options, batch):
    method, given = build(**options).eval(), images(shape, batch)
    method.to(memory_format=torch.channels_last_3d)
    with torch.no_grad():
        found = method.decode_subsets(method.encode(given), subset_masks()).softmax(2)
        one_by_one = [plain.predict(method, given, mask.expand(batch, -1)) for mask in subset_masks()]
    expected = torch.stack(one_by_one).softmax(2)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    assert (expected[1:] - expected[:-1]).abs().max() > 1e-2  # the subsets do differ


def test_bf16_stays_close(plain):
    method, given = build(levels=3).eval(), images((20, 20, 20))
    method.to(memory_format=torch.channels_last_3d)
    with torch.no_grad():
        with torch.autocast("cpu", torch.bfloat16):
            found = method.decode_subsets(method.encode(given), subset_masks()).float().softmax(2)
        one_by_one = [plain.predict(method, given, mask.expand(2, -1)) for mask in subset_masks()]
    difference = (found - torch.stack(one_by_one).softmax(2)).abs()
    assert 0 < difference.mean() < 0.01
    assert difference.max() < 0.2


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("options", VARIANTS)
def test_the_loss_and_its_gradients(plain, shape, options):
    results = []
    labels = torch.randint(0, 4, (2, *shape), generator=torch.Generator().manual_seed(2))
    available = torch.tensor([[True, False, False, True], [False, True, True, True]])
    for ours in (True, False):
        method = build(**options).double()
        if ours:
            method.to(memory_format=torch.channels_last_3d)
        batch = Batch(images(shape).double(), labels, available)
        loss = sum(method(batch, LATE)["main"].values()) if ours else plain.loss(method, batch)
        loss.backward()
        results.append((loss.detach(), {name: p.grad for name, p in method.named_parameters()}))
    (loss, gradients), (expected, others) = results
    # One-hot labels and class weights are float32 on both sides.
    torch.testing.assert_close(loss, expected, rtol=1e-9, atol=0)
    for name, gradient in gradients.items():
        other = others[name]  # none: no sample lacks that modality, and a step of ours is static
        assert other is not None or name.startswith("synthesisers.3."), name
        expected = torch.zeros_like(gradient) if other is None else other
        torch.testing.assert_close(gradient, expected, rtol=1e-6, atol=1e-9, msg=name)
