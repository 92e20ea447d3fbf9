"""What every registered method must do. A new method adds `tiny/<name>.yaml` and is tested by this file."""

import copy
import math
from contextlib import nullcontext
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
import yaml
from torch.profiler import ProfilerActivity, profile
from torch.utils._pytree import tree_leaves

from acdis import methods
from acdis.config import Training
from acdis.errors import UserError
from acdis.losses.segmentation import straight_through
from acdis.methods.base import Batch, Method, initialise_by_name
from acdis.networks.block import Block, set_checkpointing
from acdis.vocabulary import SUBSETS, subset_mask

TINY = Path(__file__).parent / "tiny"
LATE = 10**6  # an epoch in which every block is active
MASKS = torch.tensor([subset_mask(subset) for subset in SUBSETS])


class Variant(NamedTuple):
    """A method with options that make it small.

    Attributes:
        label: of the options, in its file.
        side: of the crops and windows that it is tested with, voxels: the least that it takes, 16 at least.
    """

    name: str
    label: str
    side: int

    @property
    def options(self):
        return VARIANTS[self.name][self.label]


VARIANTS = {
    name: yaml.safe_load((TINY / f"{name}.yaml").read_text(encoding="utf-8")) for name in methods.names()
}


def variants():
    for name, labelled in VARIANTS.items():
        for label, options in labelled.items():
            step, least = methods.validate(name, options).crop_rule()
            side = math.ceil(max(least, 16) / step) * step
            yield pytest.param(Variant(name, label, side), id=f"{name}-{label}")


every_method = pytest.mark.parametrize("variant", list(variants()))


@cache
def built(variant, seed):
    """The method, and what torch's global generator draws afterwards: look, do not touch."""
    torch.manual_seed(seed)
    return methods.build(variant.name, **variant.options), torch.rand(2)


def build(variant, seed=0):
    """A copy: drawing the first weights takes longer than most tests."""
    return copy.deepcopy(built(variant, seed)[0])


def make_batch(side, rows=((1, 0, 1, 0), (0, 1, 0, 1)), dtype=torch.float32, seed=0):
    """Between them, the rows lack each modality somewhere."""
    generator = torch.Generator().manual_seed(seed)
    B = len(rows)
    return Batch(
        images=torch.randn(B, 4, side, side, side, generator=generator, dtype=dtype),
        labels=torch.randint(0, 4, (B, side, side, side), generator=generator),
        available=torch.tensor(rows, dtype=torch.bool),
        origin=torch.zeros(B, 3, dtype=torch.long),
        flips=torch.zeros(B, 3, dtype=torch.bool),
        keys=tuple(range(B)),
    )


def summed(terms):
    return torch.stack([term for named in terms.values() for term in named.values()]).sum()


def learnt(method):
    """All parameters but the frozen ones, such as a teacher's."""
    return [parameter for parameter in method.parameters() if parameter.requires_grad]


def is_drawn(value):
    """Not one number, and not one row of numbers over and over."""
    return value.unique().numel() > 1 and (len(value) == 1 or len(value.unique(dim=0)) > 1)


def forward_and_kept(method, batch):
    """The terms, and the bytes kept for the way back: beside the weights, each piece of memory once."""
    kept = {}

    def note(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    def note_inputs(block, inputs):
        for part in tree_leaves(inputs) if block.checkpointing else ():
            note(part)

    blocks = [part for part in method.modules() if isinstance(part, Block)]
    hooks = [block.register_forward_pre_hook(note_inputs) for block in blocks]
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        terms = method(batch, LATE)
    for hook in hooks:
        hook.remove()
    weights = {value.untyped_storage().data_ptr() for value in method.state_dict().values()}
    return terms, sum(size for place, size in kept.items() if place not in weights)


class Step(NamedTuple):
    """A method after the step backward of its first batch, the terms, and what was kept on the way, bytes."""

    method: Method
    terms: dict
    kept: int


@cache
def stepped(variant):
    """Look, do not touch."""
    method = build(variant)
    terms, kept = forward_and_kept(method, make_batch(variant.side))
    summed(terms).backward()
    return Step(method, terms, kept)


def gradients(method):
    return [torch.zeros_like(p) if p.grad is None else p.grad for p in method.parameters()]


def values(terms):
    return [term.detach() for named in terms.values() for term in named.values()]


@cache
def after_a_batch(variant):
    method = build(variant)
    with torch.no_grad():
        method(make_batch(variant.side), LATE)
    return method.eval()


def ready(variant):
    """A method past the start of everything, for inference."""
    return copy.deepcopy(after_a_batch(variant))


@every_method
def test_shapes(variant):
    method, batch = ready(variant), make_batch(variant.side)
    with torch.no_grad():
        features = method.encode(batch.images, origin=batch.origin)
        maps = {"classes": 4, "regions": 3}[method.outputs]
        assert method.decode(features, batch.available).shape == (2, maps, *[variant.side] * 3)
        assert method.decode_subsets(features, MASKS[:3]).shape == (3, 2, maps, *[variant.side] * 3)


@every_method
def test_terms_are_finite_scalars_of_known_optimisers(variant):
    method, terms, _ = stepped(variant)
    assert set(terms) == set(method.parameter_groups())
    for named in terms.values():
        assert all(term.shape == () and term.isfinite() for term in named.values())
    assert all(not value.requires_grad for value in method.diagnostics.values())


@every_method
def test_gradients_reach_every_parameter(variant):
    method = stepped(variant).method
    learning = [(n, p) for n, p in method.named_parameters() if p.requires_grad]
    dead = [n for n, p in learning if p.grad is None or not p.grad.abs().max() > 0]
    assert dead == []
    assert all(p.grad.isfinite().all() for p in learnt(method))


@every_method
def test_optimisers_and_their_schedule(variant):
    """Every optimiser has a setting for every moment of the training, and asking for it leaves no trace."""
    method, recipe = build(variant), Training(epochs=10)
    before = {key: value.clone() for key, value in method.state_dict().items()}
    optimisers = method.optimisers(recipe)
    for epochs in (0.0, 3.7, 9.99, 0.0):
        settings = method.settings_at(epochs, recipe)
        assert settings == method.settings_at(epochs, recipe)
        assert set(settings) == set(optimisers) == set(method.parameter_groups())
        for label, given in settings.items():
            assert 0 < given["lr"] < 1
            assert all(given.keys() <= group.keys() for group in optimisers[label].param_groups)
    for label, parameters in method.parameter_groups().items():
        held = [weight for group in optimisers[label].param_groups for weight in group["params"]]
        assert {id(weight) for weight in held} == {id(weight) for weight in parameters}
    assert all(torch.equal(value, before[key]) for key, value in method.state_dict().items())


@every_method
def test_all_randomness_comes_from_the_batch(variant):
    """Whatever torch's global generator says: the same step bit for bit, and the generator as it was."""
    first, method = stepped(variant), build(variant)
    torch.manual_seed(1)
    state = torch.get_rng_state()
    terms = method(make_batch(variant.side), LATE)
    summed(terms).backward()
    assert torch.equal(torch.get_rng_state(), state)
    before = values(first.terms) + gradients(first.method)
    assert all(torch.equal(*each) for each in zip(before, values(terms) + gradients(method), strict=True))


@every_method
def test_first_weights_follow_seed_and_name(variant):
    """One number is drawn; whatever a constructor draws beside it counts for nothing."""
    one, after = built(variant, 0)
    torch.manual_seed(0)
    number = torch.randint(2**63 - 1, ())
    assert torch.equal(torch.rand(2), after)
    assert all(value.isfinite().all() for value in one.state_dict().values())
    other = build(variant, seed=1)
    drawn = [key for key, value in one.named_parameters() if is_drawn(value)]
    assert drawn
    assert all(not torch.equal(one.state_dict()[key], other.state_dict()[key]) for key in drawn)
    initialise_by_name(other, int(number))
    assert all(torch.equal(one.state_dict()[key], value) for key, value in other.state_dict().items())


@every_method
def test_nothing_is_read_from_the_device(variant, monkeypatch):
    """On meta tensors a read has no answer: `encode`, `decode` and `decode_subsets` make none."""
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())  # it does not know this device
    method = build(variant).eval().to("meta")
    images = torch.empty(2, 4, *[variant.side] * 3, device="meta")
    with torch.no_grad():
        features = method.encode(images, origin=torch.zeros(2, 3, dtype=torch.long, device="meta"))
        assert method.decode(features, torch.empty(2, 4, dtype=torch.bool, device="meta")).shape[0] == 2
        assert method.decode_subsets(features, MASKS[[0, 9, 14]]).shape[:2] == (3, 2)


@every_method
def test_convolutions_are_guarded(variant):
    """oneDNN writes beyond its buffers in bf16 on small maps: `networks.convolution.Conv3d` does not."""
    plain = [n for n, part in built(variant, 0)[0].named_modules() if type(part) is torch.nn.Conv3d]
    assert plain == []


@every_method
def test_each_parameter_belongs_to_one_optimiser(variant):
    method, _ = built(variant, 0)
    grouped = [id(p) for parameters in method.parameter_groups().values() for p in parameters]
    assert sorted(grouped) == sorted(id(p) for p in learnt(method))


def spoil(images, available):
    """What is unavailable becomes noise, NaN and infinity, a third of the voxels each."""
    generator = torch.Generator().manual_seed(5)
    kind = torch.randint(3, images.shape, generator=generator)
    filler = 100 * torch.randn(images.shape, generator=generator)
    filler = filler.masked_fill(kind == 1, torch.nan).masked_fill(kind == 2, torch.inf)
    return torch.where(available[:, :, None, None, None], images, filler)


@every_method
def test_nothing_leaks_from_what_is_unavailable_and_subsets_are_decoded_as_one_by_one(variant):
    """Every subset of one of two cases; then each modality spoiled in turn, for the subsets that lack it."""
    method, images = ready(variant), make_batch(variant.side).images
    of, each = torch.arange(15) % 2, ~torch.eye(4, dtype=torch.bool)
    with torch.no_grad():
        cases = images[of]
        one_by_one = method.decode(method.encode(cases), MASKS)
        assert one_by_one.isfinite().all()
        assert torch.equal(method.decode(method.encode(spoil(cases, MASKS)), MASKS), one_by_one)
        cases = images.repeat(2, 1, 1, 1, 1)
        features = method.encode(cases)
        together = method.decode_subsets(features, MASKS)
        alike = {number: method.decode(features, MASKS[number].expand(4, -1)) for number in range(0, 15, 3)}
        spoiled = method.decode_subsets(method.encode(spoil(cases, each)), MASKS)
    for m in range(4):
        assert torch.equal(spoiled[~MASKS[:, m], m], together[~MASKS[:, m], m])
    for number, expected in alike.items():
        torch.testing.assert_close(together[number], expected, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(together[number].softmax(1), expected.softmax(1), rtol=0, atol=1e-5)
    # With other samples beside them kernels round otherwise, of which norms over a few voxels make more.
    together = together[torch.arange(15), of]
    torch.testing.assert_close(together.softmax(1), one_by_one.softmax(1), rtol=0, atol=5e-3)


@every_method
def test_nothing_leaks_between_the_samples_of_a_batch(variant):
    """The second sample lacks other modalities than the first; each is what it is alone.

    In float64: kernels for one sample round otherwise than those for two, and norms over a few voxels make
    more of it in float32 than a tolerance that would still see a leak.
    """
    method, batch = ready(variant).double(), make_batch(variant.side, dtype=torch.float64)
    spoiled = torch.where(batch.available[:, :, None, None, None], batch.images, torch.nan)
    with torch.no_grad():
        together = method.decode(method.encode(spoiled), batch.available)
        for b in range(2):
            alone = method.decode(method.encode(batch.images[b : b + 1]), batch.available[b : b + 1])
            torch.testing.assert_close(together[b : b + 1], alone)


@every_method
def test_a_change_in_what_is_available_shows(variant):
    """The first case as it is; in each of four others one modality is noise."""
    method, images = ready(variant), make_batch(variant.side).images[:1]
    noise = torch.eye(4, dtype=torch.bool)[:, :, None, None, None]
    cases = torch.cat([images, torch.where(noise, torch.randn(images.shape), images)])
    with torch.no_grad():
        decoded = method.decode_subsets(method.encode(cases), MASKS)
    for mask, (expected, *changed) in zip(MASKS, decoded, strict=True):
        for m in mask.nonzero().flatten().tolist():
            assert not torch.allclose(changed[m], expected, atol=1e-4)


@every_method
@pytest.mark.parametrize("count", [1, 4, 15])
def test_a_window_takes_no_more_memory_than_is_said(variant, count):
    method, images = (
        ready(variant).to(memory_format=torch.channels_last_3d),
        make_batch(variant.side).images[:1],
    )
    with torch.no_grad(), profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        method.decode_subsets(method.encode(images), MASKS[-count:])
    events = [e for e in seen.profiler.kineto_results.events() if e.name() == "[memory]"]
    held = np.cumsum([e.nbytes() for e in sorted(events, key=lambda e: e.start_ns())])
    # Some kilobytes do not grow with the window.
    assert held.max() <= variant.side**3 * method.bytes_per_voxel(count) + 300_000


@every_method
def test_state_dict_round_trip(variant):
    first, second = ready(variant), build(variant, seed=1).eval()
    second.load_state_dict(first.state_dict())
    assert_same_predictions(first, second, variant.side)


@every_method
def test_inference_state_round_trip(variant):
    first, second = ready(variant), build(variant, seed=1).eval()
    state = first.inference_state()
    assert not any(key.startswith(tuple(f"{part}." for part in first.training_only)) for key in state)
    second.load_inference_state(state)
    assert_same_predictions(first, second, variant.side)
    key = next(iter(state))
    for wrong in (
        {k: v for k, v in state.items() if k != key},
        state | {"what.is.this": torch.zeros(1)},
        state | {key: torch.zeros(7, 7)},
    ):
        with pytest.raises(UserError, match=r"weights do not fit .* method\.options"):
            second.load_inference_state(wrong)


def assert_same_predictions(first, second, side):
    images = make_batch(side).images
    with torch.no_grad():
        results = [
            method.decode_subsets(method.encode(images), MASKS[[0, 9, 14]]) for method in (first, second)
        ]
    assert torch.equal(*results)


@every_method
def test_a_step_after_resuming_is_the_step_without(variant):
    """Weights, buffers and the optimisers' states are all that a method has to remember."""
    recipe = Training(epochs=10)

    def advance(method, optimisers, epochs):
        for label, given in method.settings_at(epochs, recipe).items():
            for group in optimisers[label].param_groups:
                group.update(given)
        method.zero_grad()
        summed(method(make_batch(variant.side, seed=int(epochs)), LATE)).backward()
        for optimiser in optimisers.values():
            optimiser.step()

    straight = build(variant)
    optimisers = straight.optimisers(recipe)
    advance(straight, optimisers, 0.0)
    weights, states = copy.deepcopy(
        (straight.state_dict(), {k: v.state_dict() for k, v in optimisers.items()})
    )
    advance(straight, optimisers, 1.0)
    resumed = build(variant, seed=1)
    again = resumed.optimisers(recipe)
    resumed.load_state_dict(weights)
    for label, state in states.items():
        again[label].load_state_dict(state)
    advance(resumed, again, 1.0)
    for key, value in straight.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[key]), key


@every_method
def test_checkpointing_gives_the_same_step_and_keeps_less(variant):
    """A fifth less at least: what is large stands in a `Block`."""
    usual, method = stepped(variant), build(variant)
    set_checkpointing(method, True)
    terms, less = forward_and_kept(method, make_batch(variant.side))
    assert 0 < less < 0.8 * usual.kept
    summed(terms).backward()
    for plain, again in zip(learnt(usual.method), learnt(method), strict=True):
        torch.testing.assert_close(plain.grad, again.grad)


@every_method
def test_a_batch_of_two_is_the_average_of_two_batches_of_one(variant):
    """With the Dice sums of both: what DDP and accumulation rely on. Float64 keeps the rounding small.

    One lacks nothing and one all but one: a mean over what is missing in the batch would show.
    """
    if methods.validate(variant.name, variant.options).whole_batch():
        pytest.skip("its samples see each other's statistics, so accumulation is refused")
    rows = ((1, 1, 1, 1), (0, 0, 0, 1))
    check_average(variant, make_batch(variant.side, rows, torch.float64))


def check_average(variant, batch):
    method = build(variant).double()
    parts_of = ["images", "labels", "available", "origin", "flips", "keys"]
    parts_of += ["present"] if batch.present is not None else []
    halves = [
        replace(batch, **{name: getattr(batch, name)[b : b + 1] for name in parts_of}) for b in range(2)
    ]

    def recording(sums):
        def record(local):
            sums.append(local.detach())
            return local

        return record

    totals, unpooled, parts, pooled = [], [], [], ([], [])  # each per map
    whole = step(method, replace(batch, pool=recording(totals)))
    with torch.no_grad():
        method(replace(halves[0], pool=recording(unpooled)), LATE)
    for half, locals_ in zip(halves, pooled, strict=True):

        def replay(local, locals_=locals_):
            locals_.append(local.detach())
            return straight_through(local, totals[len(locals_) - 1], 2)

        parts.append(step(method, replace(half, pool=replay)))
    torch.testing.assert_close(pooled[0], unpooled)  # no sum of sums that were pooled
    for one, other, total in zip(*pooled, totals, strict=True):
        torch.testing.assert_close(one + other, total)
    for both, first, second in zip(whole, *parts, strict=True):
        torch.testing.assert_close(both, (first + second) / 2, rtol=1e-6, atol=1e-9)


def step(method, batch):
    method.zero_grad()
    terms = method(batch, LATE)
    summed(terms).backward()
    return values(terms) + [gradient.clone() for gradient in gradients(method)]


# --- cases that lack modalities

#: What the two samples' cases have, and are trained with: between them each modality is there once.
PRESENT, OF_IT = ((1, 1, 0, 0), (0, 1, 1, 1)), ((1, 1, 0, 0), (0, 0, 1, 1))
LEARN_FROM_HOLES = [
    parameter
    for parameter in variants()
    if not methods.validate(parameter.values[0].name, parameter.values[0].options).needs_whole_cases()
]
learns_from_holes = pytest.mark.parametrize("variant", LEARN_FROM_HOLES)
#: One variant of each method, for what does not depend on options.
once_from_holes = pytest.mark.parametrize(
    "variant", list({parameter.values[0].name: parameter for parameter in LEARN_FROM_HOLES[::-1]}.values())
)


def with_holes(side, dtype=torch.float32, fill=None):
    batch = make_batch(side, OF_IT, dtype)
    present = torch.tensor(PRESENT, dtype=torch.bool)
    images = batch.images if fill is None else fill(batch.images, present)
    return replace(batch, images=images, present=present)


@learns_from_holes
def test_nothing_leaks_from_what_a_case_lacks(variant):
    """Noise, NaN and inf where there is nothing: the same terms and gradients, bit for bit; each parameter
    has one all the same."""
    method = build(variant)
    expected = step(method, with_holes(variant.side))
    spoiled = step(method, with_holes(variant.side, fill=spoil))
    assert all(torch.equal(*pair) for pair in zip(expected, spoiled, strict=True))
    assert all(value.isfinite().all() for value in expected)
    learning = [(n, p) for n, p in method.named_parameters() if p.requires_grad]
    assert [n for n, p in learning if p.grad is None or not p.grad.abs().max() > 0] == []


@once_from_holes
def test_an_encoder_of_what_no_case_has_learns_nothing(variant):
    """No term looks at what it makes of zeros, where modalities have encoders of their own."""
    method, batch = build(variant), make_batch(variant.side, ((1, 0, 0, 0), (0, 0, 1, 1)))
    own = [part for name, part in method.named_modules() if name.split(".")[-1] == "encoders"]
    if not own:
        pytest.skip("its modalities share their networks, or meet at the input")
    step(method, replace(batch, present=torch.tensor([[1, 0, 1, 1]] * 2) > 0))
    learnt_by = [any(p.grad is not None and p.grad.any() for p in part.parameters()) for part in own[0]]
    assert learnt_by == [True, False, True, True]


@once_from_holes
def test_cases_that_are_said_to_lack_nothing_give_the_step_that_they_gave(variant):
    """Summed otherwise, so that in float64 rounding alone may differ."""
    batch, method = make_batch(variant.side, dtype=torch.float64), build(variant).double()
    expected = step(method, batch)
    said = step(method, replace(batch, present=torch.ones(2, 4, dtype=torch.bool)))
    for one, other in zip(expected, said, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


@once_from_holes
def test_a_batch_with_holes_is_the_average_of_its_samples(variant):
    check_average(variant, with_holes(variant.side, torch.float64))


@every_method
def test_a_step_under_autocast_is_finite(variant):
    method = build(variant)
    with torch.autocast("cpu", torch.bfloat16):
        terms = method(make_batch(variant.side), LATE)
    assert all(term.dtype == torch.float32 for named in terms.values() for term in named.values())
    summed(terms).backward()
    assert all(p.grad.isfinite().all() for p in learnt(method))


@every_method
@pytest.mark.parametrize("generator", [torch.Generator, np.random.default_rng], ids=["torch", "numpy"])
def test_sampled_subsets(variant, generator):
    method, _ = built(variant, 0)
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
