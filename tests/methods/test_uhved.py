"""U-HVED against the public port's values, its description, and torch's own distributions."""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from reference import assert_stated, filled, h, parameters, stated
from torch.distributions import Normal, kl_divergence

from acdis import methods
from acdis.methods.base import Batch
from acdis.methods.uhemis import network as uhemis
from acdis.methods.uhved import gaussians, network
from acdis.vocabulary import MODALITIES

THEIRS = ("T1", "T1ce", "T2", "FLAIR")  # the port's order of modalities
MASKS = {"1111": THEIRS, "0100 (T1c only)": ("T1ce",), "1001 (T1,Flair)": ("T1", "FLAIR")}


def mask(names):
    return torch.tensor([[name in names for name in MODALITIES]])


def image():
    """The formula's input, its channels put into our order; all encoders have the same weights."""
    values = h(1, 4, 16, 16, 16)
    return torch.stack([values[:, THEIRS.index(name)] for name in MODALITIES], dim=1)


@pytest.fixture
def ported(monkeypatch):
    """The port's slope of 0.01, and its enlarging with aligned corners."""
    method = filled(methods.build("uhved"))
    for part in method.modules():
        if isinstance(part, torch.nn.LeakyReLU):
            part.negative_slope = 0.01
    enlarge = F.interpolate
    monkeypatch.setattr(uhemis, "SLOPE", 0.01)
    monkeypatch.setattr(F, "interpolate", lambda x, **given: enlarge(x, **given | {"align_corners": True}))
    return method


def test_parameters_per_module(shared):
    counts = stated(shared)["uhved"]["parameters"]
    method, modules = methods.build("uhved"), counts["modules"]
    assert [parameters(encoder) for encoder in method.encoders] == [modules["flair_encoder"]] * 4
    assert [parameters(part) for part in method.reconstruction] == [modules["flair_decoder"]] * 4
    assert parameters(method.decoder) == modules["seg_decoder"]
    assert parameters(method) == counts["total"]
    assert sum(value.numel() for value in method.inference_state().values()) == counts["inference"]


@torch.no_grad()
def test_parameter_shapes(shared):
    shapes = stated(shared)["uhved"]["parameter_shapes"]
    method = methods.build("uhved")

    def of(part):
        return sorted(list(p.shape) for p in part.parameters())

    assert of(method.encoders[0]) == sorted(shapes["encoder (x4)"])
    assert of(method.reconstruction[0]) == sorted(shapes["reconstruction decoder (x4)"])
    assert of(method.decoder) == sorted(shapes["segmentation decoder"])


@torch.no_grad()
@pytest.mark.parametrize("name", MASKS)
def test_forward_values_of_the_port(ported, shared, name):
    expected = stated(shared)["uhved"]["forward_S16 (order T1,T1ce,T2,FLAIR; keys are masks in that order)"]
    assert_stated(ported.decode(ported.encode(image()), mask(MASKS[name])), expected[name])


@torch.no_grad()
def test_latents_of_the_port(ported, shared):
    expected = stated(shared)["uhved"]["forward_S16 (order T1,T1ce,T2,FLAIR; keys are masks in that order)"]
    m = MODALITIES.index("T1")
    maps = ported.encoders[m](image()[:, m : m + 1])
    assert_stated(gaussians.split(maps[3]).mean, expected["encoder level 4 mu of T1"])
    assert_stated(gaussians.split(maps[0]).logvar, expected["encoder level 1 logvar of T1"])


@torch.no_grad()
def test_forward_values_of_ours(shared):
    expected = stated(shared)["uhved"]["forward_S16 (order T1,T1ce,T2,FLAIR; keys are masks in that order)"]
    method = filled(methods.build("uhved"))
    found = method.decode(method.encode(image()), mask(THEIRS))
    assert_stated(found, expected["variant slope .02, align_corners False: 1111"])


def random_latents(batch=2):
    draw = torch.Generator().manual_seed(0)
    sides = ((2, 4), (3, 2))  # channels and side of two levels
    return [
        [
            gaussians.Gaussian(*torch.randn(2, batch, c, n, n, n, generator=draw, dtype=torch.float64))
            for _ in range(4)
        ]
        for c, n in sides
    ]


def multiplied(level, chosen, b):
    """The normalised product of normal densities, modality by modality."""
    weight, top = 1.0, 0.0  # the prior
    for m in chosen:
        normal = Normal(level[m].mean[b], (level[m].logvar[b] / 2).exp())
        weight, top = weight + 1 / normal.variance, top + normal.mean / normal.variance
    return Normal(top / weight, (1 / weight).sqrt())


def test_divergence_by_torchs_distributions():
    """Sums over all 15 subsets, each sample with a subset of its own."""
    latents, given = random_latents(), ((0, 2), (1, 2, 3))
    available = torch.tensor([[m in chosen for m in range(4)] for chosen in given])
    values = []
    for level, b in itertools.product(latents, range(2)):
        q = multiplied(level, given[b], b)
        subsets = [c for n in range(1, 5) for c in itertools.combinations(range(4), n)]
        others = [multiplied(level, chosen, b) for chosen in subsets]
        between = sum(kl_divergence(q, other).mean() for other in others) / 14
        prior = sum(kl_divergence(other, Normal(0.0, 1.0)).mean() for other in others) / 15
        values.append(between + prior)
    precise = tuple(tuple(map(gaussians.by_precision, level)) for level in latents)
    found = network.divergence(precise, available)
    torch.testing.assert_close(found, torch.stack(values).mean(), rtol=1e-5, atol=0)


def test_draws_are_those_of_the_product():
    """Mean and deviation of 4,000 draws in one voxel each."""
    latent = gaussians.Gaussian(torch.full((1, 1, 20, 20, 10), 1.5), torch.full((1, 1, 20, 20, 10), 0.8))
    drawn = network.draw(latent, [torch.Generator().manual_seed(0)])
    assert float(drawn.mean()) == pytest.approx(1.5, abs=4 * 1.49 / 4000**0.5)
    assert float(drawn.std()) == pytest.approx(math.exp(0.4), rel=0.05)


def test_terms_of_a_step():
    """The reconstruction's error counts all modalities, available or not; weights are options."""
    torch.manual_seed(0)
    method = methods.build("uhved", divergence_weight=2.0, reconstruction_weight=3.0)
    batch = Batch(
        images=torch.randn(1, 4, 16, 16, 16),
        labels=torch.randint(0, 4, (1, 16, 16, 16)),
        available=torch.tensor([[True, False, False, True]]),
        keys=(7,),
    )
    with torch.no_grad():
        terms = method(batch, 0)["main"]
        latents = method.encode(batch.images)
        (generator,) = batch.generators("latents")
        drawn = [network.draw(gaussians.product(level, batch.available), [generator]) for level in latents]
        errors = [
            (decoder(drawn)[0, 0] - batch.images[0, m]).square().mean()
            for m, decoder in enumerate(method.reconstruction)
        ]
    assert float(terms["image/mse"]) == pytest.approx(3 * float(sum(errors)) / 4, rel=1e-5)
    expected = 2 * float(network.divergence(latents, batch.available))
    assert float(terms["latent/divergence"]) == pytest.approx(expected, rel=1e-5)
    assert set(terms) == {"seg/ce", "seg/dice", "latent/divergence", "image/mse"}


def test_a_case_that_lacks_modalities_is_compared_with_what_it_has():
    """The first case has FLAIR and T1: three subsets and two images. The second has T2 alone: it differs in
    nothing."""
    generator = torch.Generator().manual_seed(0)
    parts = [gaussians.Gaussian(*torch.randn(2, 2, 3, 2, 2, 2, generator=generator)) for _ in range(4)]
    precise = [gaussians.by_precision(part) for part in parts]
    present = torch.tensor([[1, 0, 1, 0], [0, 0, 0, 1]]) > 0
    available = torch.tensor([[1, 0, 0, 0], [0, 0, 0, 1]]) > 0
    found = network.divergence((tuple(precise),), available, present)

    def normal(b, *modalities):
        chosen = torch.tensor([[m in modalities for m in range(4)]])
        one = [gaussians.Precise(*(value[b : b + 1] for value in part)) for part in precise]
        q = gaussians.product(one, chosen)
        return Normal(q.mean, (q.logvar / 2).exp())

    drawn, subsets = normal(0, 0), [normal(0, 0), normal(0, 2), normal(0, 0, 2)]
    between = sum(kl_divergence(drawn, other).mean() for other in subsets) / 2
    prior = sum(kl_divergence(other, Normal(0.0, 1.0)).mean() for other in subsets) / 3
    alone = kl_divergence(normal(1, 3), Normal(0.0, 1.0)).mean()
    torch.testing.assert_close(found, (between + prior + alone) / 2, rtol=1e-4, atol=1e-5)

    images, target = torch.randn(2, 2, 4, 2, 2, 2, generator=generator)
    squares = (images - target).square().mean((2, 3, 4))
    expected = ((squares[0, 0] + squares[0, 2]) / 2 + squares[1, 3]) / 2
    torch.testing.assert_close(network.squared_error(images, target, present), expected)
