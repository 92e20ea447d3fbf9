"""What every registered method must do. A new method adds `tiny/<name>.yaml` and is tested by this file."""

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from torch.profiler import ProfilerActivity, profile

from acdis import methods
from acdis.config import Training
from acdis.errors import UserError
from acdis.losses.segmentation import straight_through
from acdis.methods.base import Batch, initialise_by_name
from acdis.networks.unet import set_checkpointing
from acdis.vocabulary import SUBSETS, subset_mask

TINY = Path(__file__).parent / "tiny"
SIDE = 16
LATE = 10**6  # an epoch in which every block is active
MASKS = torch.tensor([subset_mask(subset) for subset in SUBSETS])


def variants():
    for name in methods.names():
        for label, options in yaml.safe_load((TINY / f"{name}.yaml").read_text(encoding="utf-8")).items():
            yield pytest.param(name, options, id=f"{name}-{label}")


every_method = pytest.mark.parametrize(("name", "options"), list(variants()))


def build(name, options, seed=0):
    torch.manual_seed(seed)
    return methods.build(name, **options)


def make_batch(rows=((1, 0, 1, 0), (0, 1, 0, 1)), dtype=torch.float32, seed=0):
    """Between them, the rows lack each modality somewhere."""
    generator = torch.Generator().manual_seed(seed)
    B = len(rows)
    return Batch(
        images=torch.randn(B, 4, SIDE, SIDE, SIDE, generator=generator, dtype=dtype),
        labels=torch.randint(0, 4, (B, SIDE, SIDE, SIDE), generator=generator),
        available=torch.tensor(rows, dtype=torch.bool),
        origin=torch.zeros(B, 3, dtype=torch.long),
        flips=torch.zeros(B, 3, dtype=torch.bool),
        keys=tuple(range(B)),
    )


def summed(terms):
    return torch.stack([term for named in terms.values() for term in named.values()]).sum()


def ready(name, options):
    """A method past the start of everything, for inference."""
    method = build(name, options)
    with torch.no_grad():
        method(make_batch(), LATE)
    return method.eval()


@every_method
def test_shapes(name, options):
    method, batch = ready(name, options), make_batch()
    with torch.no_grad():
        features = method.encode(batch.images, origin=batch.origin)
        maps = {"classes": 4, "regions": 3}[method.outputs]
        assert method.decode(features, batch.available).shape == (2, maps, SIDE, SIDE, SIDE)
        assert method.decode_subsets(features, MASKS[:3]).shape == (3, 2, maps, SIDE, SIDE, SIDE)


@every_method
def test_terms_are_finite_scalars_of_known_optimisers(name, options):
    method = build(name, options)
    terms = method(make_batch(), LATE)
    assert set(terms) == set(method.parameter_groups())
    for named in terms.values():
        assert all(term.shape == () and term.isfinite() for term in named.values())
    assert all(not value.requires_grad for value in method.diagnostics.values())


@every_method
def test_gradients_reach_every_parameter(name, options):
    method = build(name, options)
    summed(method(make_batch(), LATE)).backward()
    dead = [n for n, p in method.named_parameters() if p.grad is None or not p.grad.abs().max() > 0]
    assert dead == []
    assert all(p.grad.isfinite().all() for p in method.parameters())


@every_method
def test_optimisers_and_their_schedule(name, options):
    """Every optimiser has a setting for every moment of the training, and asking for it leaves no trace."""
    method, recipe = build(name, options), Training(epochs=10)
    before = {key: value.clone() for key, value in method.state_dict().items()}
    optimisers = method.optimisers(recipe)
    for epochs in (0.0, 3.7, 9.99, 0.0):
        settings = method.settings_at(epochs, recipe)
        assert settings == method.settings_at(epochs, recipe)
        assert set(settings) == set(optimisers) == set(method.parameter_groups())
        for label, values in settings.items():
            assert 0 < values["lr"] < 1
            assert all(values.keys() <= group.keys() for group in optimisers[label].param_groups)
    for label, parameters in method.parameter_groups().items():
        held = [weight for group in optimisers[label].param_groups for weight in group["params"]]
        assert {id(weight) for weight in held} == {id(weight) for weight in parameters}
    assert all(torch.equal(value, before[key]) for key, value in method.state_dict().items())


@every_method
def test_all_randomness_comes_from_the_batch(name, options):
    """Whatever torch's global generator says: the same step, and the generator as it was."""
    results = []
    for seed in (0, 1):
        method = build(name, options)
        torch.manual_seed(seed)
        state = torch.get_rng_state()
        results.append(step(method, make_batch()))
        assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


@every_method
def test_first_weights_follow_seed_and_name(name, options):
    """One number is drawn; whatever a constructor draws beside it counts for nothing."""
    torch.manual_seed(3)
    number = torch.randint(2**63 - 1, ())
    after = torch.rand(2)
    torch.manual_seed(3)
    one = methods.build(name, **options)
    assert torch.equal(torch.rand(2), after)
    assert all(value.isfinite().all() for value in one.state_dict().values())
    torch.manual_seed(4)
    other = methods.build(name, **options)
    drawn = [key for key, value in one.named_parameters() if value.unique().numel() > 1]
    assert drawn
    assert all(not torch.equal(one.state_dict()[key], other.state_dict()[key]) for key in drawn)
    initialise_by_name(other, int(number))
    assert all(torch.equal(one.state_dict()[key], value) for key, value in other.state_dict().items())


@every_method
def test_nothing_is_read_from_the_device(name, options, monkeypatch):
    """On meta tensors a read has no answer: `encode`, `decode` and `decode_subsets` make none."""
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())  # it does not know this device
    method = build(name, options).eval().to("meta")
    images = torch.empty(2, 4, SIDE, SIDE, SIDE, device="meta")
    with torch.no_grad():
        features = method.encode(images, origin=torch.zeros(2, 3, dtype=torch.long, device="meta"))
        assert method.decode(features, torch.empty(2, 4, dtype=torch.bool, device="meta")).shape[0] == 2
        assert method.decode_subsets(features, MASKS).shape[:2] == (15, 2)


@every_method
def test_convolutions_are_guarded(name, options):
    """oneDNN writes beyond its buffers in bf16 on small maps: `networks.unet.Conv3d` is the way round."""
    plain = [n for n, part in build(name, options).named_modules() if type(part) is torch.nn.Conv3d]
    assert plain == []


@every_method
def test_each_parameter_belongs_to_one_optimiser(name, options):
    method = build(name, options)
    grouped = [id(p) for parameters in method.parameter_groups().values() for p in parameters]
    assert sorted(grouped) == sorted(id(p) for p in method.parameters())


@every_method
@pytest.mark.parametrize("kind", ["noise", "nan", "inf"])
def test_nothing_leaks_from_what_is_unavailable(name, options, kind):
    method, images = ready(name, options), make_batch().images
    filler = {"noise": 100 * torch.randn(1), "nan": torch.tensor(torch.nan), "inf": torch.tensor(torch.inf)}
    with torch.no_grad():
        features = method.encode(images)
        together = method.decode_subsets(features, MASKS)
        for mask, fast in zip(MASKS, together, strict=True):
            spoiled = torch.where(
                mask[None, :, None, None, None], images, filler[kind] + torch.randn(images.shape)
            )
            available = mask.expand(2, -1)
            expected = method.decode(features, available)
            assert expected.isfinite().all()
            unclean = method.encode(spoiled)
            assert torch.equal(method.decode(unclean, available), expected)
            assert torch.equal(
                method.decode_subsets(unclean, mask[None])[0], method.decode_subsets(features, mask[None])[0]
            )
            torch.testing.assert_close(fast, expected, rtol=1e-4, atol=1e-4)


@every_method
def test_nothing_leaks_between_the_samples_of_a_batch(name, options):
    """The second sample lacks other modalities than the first; each is what it is alone.

    In float64: kernels for one sample round otherwise than those for two, and norms over a few voxels make
    more of it in float32 than a tolerance that would still see a leak.
    """
    method, batch = ready(name, options).double(), make_batch(dtype=torch.float64)
    spoiled = torch.where(batch.available[:, :, None, None, None], batch.images, torch.nan)
    with torch.no_grad():
        together = method.decode(method.encode(spoiled), batch.available)
        for b in range(2):
            alone = method.decode(method.encode(batch.images[b : b + 1]), batch.available[b : b + 1])
            torch.testing.assert_close(together[b : b + 1], alone)


@every_method
def test_a_change_in_what_is_available_shows(name, options):
    method, images = ready(name, options), make_batch().images[:1]
    noise = torch.randn(images.shape)
    with torch.no_grad():
        features = method.encode(images)
        changed = []
        for m in range(4):
            chosen = torch.arange(4)[None, :, None, None, None] == m
            changed.append(method.encode(torch.where(chosen, noise, images)))
        for mask in MASKS:
            expected = method.decode(features, mask[None])
            for m in mask.nonzero().flatten().tolist():
                assert not torch.allclose(method.decode(changed[m], mask[None]), expected, atol=1e-4)


@every_method
def test_decode_subsets_equals_decoding_one_by_one(name, options):
    method, images = ready(name, options), make_batch().images
    with torch.no_grad():
        features = method.encode(images)
        together = method.decode_subsets(features, MASKS)
        one_by_one = torch.stack([method.decode(features, mask.expand(2, -1)) for mask in MASKS])
    torch.testing.assert_close(together.softmax(2), one_by_one.softmax(2), rtol=0, atol=1e-5)


@every_method
@pytest.mark.parametrize("count", [1, 4, 15])
def test_a_window_takes_no_more_memory_than_is_said(name, options, count):
    method, images = ready(name, options).to(memory_format=torch.channels_last_3d), make_batch().images[:1]
    with torch.no_grad(), profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        method.decode_subsets(method.encode(images), MASKS[-count:])
    events = [e for e in seen.profiler.kineto_results.events() if e.name() == "[memory]"]
    held = np.cumsum([e.nbytes() for e in sorted(events, key=lambda e: e.start_ns())])
    # Some kilobytes do not grow with the window.
    assert held.max() <= SIDE**3 * method.bytes_per_voxel(count) + 300_000


@every_method
def test_state_dict_round_trip(name, options):
    first, second = ready(name, options), build(name, options, seed=1).eval()
    second.load_state_dict(first.state_dict())
    assert_same_predictions(first, second)


@every_method
def test_inference_state_round_trip(name, options):
    first, second = ready(name, options), build(name, options, seed=1).eval()
    state = first.inference_state()
    assert not any(key.startswith(tuple(f"{part}." for part in first.training_only)) for key in state)
    second.load_inference_state(state)
    assert_same_predictions(first, second)
    key = next(iter(state))
    for wrong in (
        {k: v for k, v in state.items() if k != key},
        state | {"what.is.this": torch.zeros(1)},
        state | {key: torch.zeros(7, 7)},
    ):
        with pytest.raises(UserError, match=r"weights do not fit .* method\.options"):
            second.load_inference_state(wrong)


def assert_same_predictions(first, second):
    images = make_batch().images
    with torch.no_grad():
        results = [
            method.decode_subsets(method.encode(images), MASKS[[0, 9, 14]]) for method in (first, second)
        ]
    assert torch.equal(*results)


@every_method
def test_the_same_seed_gives_the_same_step_bit_for_bit(name, options):
    results = []
    for _ in range(2):
        method = build(name, options)
        terms = method(make_batch(), LATE)
        summed(terms).backward()
        results.append([*(t for named in terms.values() for t in named.values())])
        results[-1] += [parameter.grad for parameter in method.parameters()]
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


@every_method
def test_checkpointing_gives_the_same_step(name, options):
    gradients = []
    for on in (False, True):
        method = build(name, options)
        set_checkpointing(method, on)
        summed(method(make_batch(), LATE)).backward()
        gradients.append([parameter.grad for parameter in method.parameters()])
    for plain, again in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, again)


@every_method
@pytest.mark.parametrize("rows", [((1, 0, 1, 0), (0, 1, 0, 1)), ((1, 1, 1, 1), (0, 0, 0, 1))])
def test_a_batch_of_two_is_the_average_of_two_batches_of_one(name, options, rows):
    """With the Dice sums of both: what DDP and accumulation rely on. Float64 keeps the rounding small."""
    if methods.validate(name, options).whole_batch():
        pytest.skip("its samples see each other's statistics, so accumulation is refused")
    batch = make_batch(rows, torch.float64)
    halves = [
        replace(
            batch,
            images=batch.images[b : b + 1],
            labels=batch.labels[b : b + 1],
            available=batch.available[b : b + 1],
            origin=batch.origin[b : b + 1],
            flips=batch.flips[b : b + 1],
            keys=batch.keys[b : b + 1],
        )
        for b in range(2)
    ]
    sums = []  # per half, per map

    def record(local):
        sums[-1].append(local.detach())
        return local

    method = build(name, options).double()
    with torch.no_grad():
        for half in halves:
            sums.append([])
            method(replace(half, pool=record), LATE)
    whole = step(method, batch)
    totals = [sum(each) for each in zip(*sums, strict=True)]
    parts = []
    for half in halves:
        left = iter(totals)
        parts.append(
            step(method, replace(half, pool=lambda s, left=left: straight_through(s, next(left), 2)))
        )
    for both, first, second in zip(whole, *parts, strict=True):
        torch.testing.assert_close(both, (first + second) / 2, rtol=1e-6, atol=1e-9)


def step(method, batch):
    method.zero_grad()
    terms = method(batch, LATE)
    summed(terms).backward()
    values = [term.detach() for named in terms.values() for term in named.values()]
    return values + [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in method.parameters()]


@every_method
def test_a_step_under_autocast_is_finite(name, options):
    method = build(name, options)
    with torch.autocast("cpu", torch.bfloat16):
        terms = method(make_batch(), LATE)
    assert all(term.dtype == torch.float32 for named in terms.values() for term in named.values())
    summed(terms).backward()
    assert all(p.grad.isfinite().all() for p in method.parameters())


@every_method
@pytest.mark.parametrize("generator", [torch.Generator, np.random.default_rng], ids=["torch", "numpy"])
def test_sampled_subsets(name, options, generator):
    method = build(name, options)
    drawn = method.sample_subsets(generator(), 6000, LATE)
    assert drawn.shape == (6000, 4)
    assert drawn.dtype == torch.bool
    assert drawn.any(dim=1).all()
    if type(method).sample_subsets is methods.base.Method.sample_subsets:
        share = (drawn[:, None] == MASKS).all(2).double().mean(0)
        # uniform over the 15: 6000 draws stray from 1/15 by 0.0032 (one standard deviation)
        assert (share - 1 / 15).abs().max() < 0.016


# --- the batch


def test_a_samples_random_numbers_follow_it():
    """Whichever piece of the batch it is in; another purpose gives others."""
    keys = (5, 2**62, 7)
    images = torch.zeros(3, 4, 1, 1, 1)
    whole = Batch(images, torch.zeros(3), torch.zeros(3), keys=keys)
    part = Batch(images[1:], torch.zeros(2), torch.zeros(2), keys=keys[1:])

    def draw(batch, purpose):
        return [torch.rand(4, generator=generator).tolist() for generator in batch.generators(purpose)]

    assert draw(whole, "noise")[1:] == draw(part, "noise") == draw(whole, "noise")[1:]
    drawn = draw(whole, "noise") + draw(whole, "views")
    assert all(one != other for i, one in enumerate(drawn) for other in drawn[:i])
    with pytest.raises(ValueError, match="0 keys"):
        Batch(images, torch.zeros(3), torch.zeros(3)).generators("noise")
