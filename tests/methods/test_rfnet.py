"""RFNet: its sizes, its schedule, its terms against NumPy, and which part learns from which term."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

from acdis import config, methods
from acdis.errors import UserError
from acdis.losses import segmentation
from acdis.methods.base import Batch

SIDE = 16
TINY = {"base_width": 4, "levels": 3, "fusion_start": 2}
LACKING = ((1, 0, 1, 0), (0, 1, 1, 1))
GROUPS = ("fuse", "mono", "regions")
#: What lies behind the finest region map, so that only the fused map teaches it.
WAITING = tuple(
    f"fusion_decoder.{part}."
    for part in ("fusions.0", "decoder.levels.0.merge", "decoder.levels.0.settle", "decoder.head")
)


def build(**options):
    torch.manual_seed(0)
    return methods.build("rfnet", **{**TINY, **options})


def make_batch(rows=LACKING, dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    B = len(rows)
    return Batch(
        torch.randn(B, 4, SIDE, SIDE, SIDE, generator=generator, dtype=dtype),
        torch.randint(0, 4, (B, SIDE, SIDE, SIDE), generator=generator),
        torch.tensor(rows, dtype=torch.bool),
    )


def named(*groups):
    return {f"seg/{group}/{loss}" for group in groups for loss in ("wce", "dice")}


def summed(terms):
    return torch.stack([term for each in terms.values() for term in each.values()]).sum()


# --- sizes


def millions(module):
    return sum(p.numel() for p in module.parameters()) / 1e6


def test_parameters_at_base_16_are_the_public_models():
    """Measured on that model: 8.98 M, of which fuse decoder 2.53, mono decoder 0.59, encoders 1.47 each."""
    with torch.device("meta"):
        method = methods.build("rfnet")
    assert millions(method) == pytest.approx(8.98, rel=0.01)
    assert millions(method.fusion_decoder) == pytest.approx(2.53, rel=0.01)
    assert millions(method.mono_decoder) == pytest.approx(0.59, rel=0.01)
    assert [millions(encoder) for encoder in method.encoders] == [pytest.approx(1.47, rel=0.01)] * 4


def test_inference_does_without_the_mono_decoder():
    kept = {key.split(".")[0] for key in build().inference_state()}
    assert kept == {"encoders", "fusion_decoder"}


# --- options


def resolved(epochs=500, **options):
    choice = config.MethodChoice(name="rfnet", options=options)
    experiment = config.Experiment(method=choice, training=config.Training(epochs=epochs))
    return methods.resolve(experiment).method.options


def test_defaults():
    assert resolved() == {
        "base_width": 16,
        "levels": 4,
        "padding": "reflect",
        "fusion_start": 20,
        "mono_weight": 1.0,
        "region_weight": 1.0,
    }


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"base_width": 6}, r"^method\.options\.base_width: .*multiple of 4"),
        ({"base_width": 0}, r"^method\.options\.base_width: .*greater than or equal to 4"),
        ({"fusion_start": -1}, r"^method\.options\.fusion_start: .*greater than or equal to 0"),
        ({"mono_weight": 0}, r"^method\.options\.mono_weight: .*greater than 0"),
        ({"fusion_stat": 3}, r"unknown key 'method\.options\.fusion_stat'; did you mean 'fusion_start'\?"),
    ],
)
def test_wrong_options_are_one_clear_line(options, message):
    with pytest.raises(UserError, match=message) as caught:
        methods.build("rfnet", **options)
    assert "\n" not in str(caught.value)


def test_a_training_that_ends_before_the_fused_map_is_trained_is_refused():
    message = r"^method\.options\.fusion_start: 20: .* in 20 epochs, .*; give a number below training\.epochs"
    with pytest.raises(UserError, match=message):
        resolved(epochs=20)
    assert resolved(epochs=21)["fusion_start"] == 20


@pytest.mark.parametrize(
    "other",
    [
        {"base_width": 8},
        {"levels": 2},
        {"padding": "zeros"},
        {"fusion_start": 6},
        {"mono_weight": 0.7},
        {"region_weight": 0.5},
    ],
    ids=lambda options: next(iter(options)),
)
@torch.no_grad()
def test_every_option_has_an_effect(other):
    one, another = (build(**options)(make_batch(), 5)["main"] for options in ({}, other))
    assert one.keys() != another.keys() or any(not torch.equal(one[name], another[name]) for name in one)


# --- schedule


@torch.no_grad()
def test_the_fused_map_starts_with_the_21st_epoch():
    method = build(fusion_start=methods.validate("rfnet", {}).fusion_start)
    early, late = (method(make_batch(), epoch)["main"] for epoch in (19, 20))  # counted from 0
    assert set(early) == named("mono", "regions")
    assert set(late) == named(*GROUPS)
    assert all(torch.equal(early[name], late[name]) for name in early)


def train(method, epochs):
    stepper = torch.optim.Adam(method.parameters(), lr=1e-3, weight_decay=1e-2, amsgrad=True)
    for epoch in epochs:
        stepper.zero_grad(set_to_none=True)
        summed(method(make_batch(), epoch)).backward()
        stepper.step()


def test_what_waits_stays_bit_for_bit_and_everything_else_moves():
    method = build()
    before = copy.deepcopy(method.state_dict())
    train(method, (0, 1))
    for name, parameter in method.named_parameters():
        assert torch.equal(parameter, before[name]) == name.startswith(WAITING), name
        assert (parameter.grad is None) == name.startswith(WAITING), name
    middle = copy.deepcopy(method.state_dict())
    train(method, (2,))
    assert [name for name, p in method.named_parameters() if torch.equal(p, middle[name])] == []


# --- terms


def softmax(x):
    powers = np.exp(x - x.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


def losses(p, labels):
    """WCE and Dice of one map, from their definitions: [B, 4, ...] and [B, ...]."""
    wce, scores = 0.0, []
    for c in range(4):
        truth = labels == c
        scores.append(2 * p[:, c][truth].sum() / (p[:, c].sum() + truth.sum() + 1e-7))
        for b in range(len(p)):
            logarithms = np.log(np.clip(p[b, c], 0.005, 1))
            wce -= (1 - truth[b].mean()) * (truth[b] * logarithms).mean() / len(p)
    return np.array([wce, 1 - np.mean(scores)])


def enlarge(x, side):
    """Linear along each axis, corner voxels kept in place."""
    for axis in (2, 3, 4):
        places = np.linspace(0, x.shape[axis] - 1, side)
        below = np.minimum(places.astype(int), x.shape[axis] - 2)
        share = (places - below).reshape([-1 if a == axis else 1 for a in range(5)])
        x = (1 - share) * np.take(x, below, axis) + share * np.take(x, below + 1, axis)
    return x


@torch.no_grad()
def test_terms_are_those_of_all_maps():
    """One fused map, four of the mono decoder, and here three region maps, brought to the crop's size."""
    method, batch = build(mono_weight=0.7, region_weight=0.3).double(), make_batch(dtype=torch.float64)
    labels = batch.labels.numpy()
    pyramids = [encoder(batch.images[:, m, None]) for m, encoder in enumerate(method.encoders)]
    mono = sum(losses(softmax(method.mono_decoder(pyramid).numpy()), labels) for pyramid in pyramids)
    given = []  # zeros for what the sample lacks
    for level in range(3):
        there = [batch.available[:, m, None, None, None, None] for m in range(4)]
        given.append(torch.cat([pyramids[m][level] * there[m] for m in range(4)], 1))
    logits, maps = method.fusion_decoder(given)
    expected = {
        "fuse": losses(softmax(logits.numpy()), labels),
        "mono": 0.7 * mono,
        "regions": 0.3 * sum(losses(enlarge(p.numpy(), SIDE), labels) for p in maps),
    }
    assert len(maps) == 3
    terms = method(batch, 2)["main"]
    assert set(terms) == named(*GROUPS)
    for group, values in expected.items():
        for loss, value in zip(("wce", "dice"), values, strict=True):
            assert float(terms[f"seg/{group}/{loss}"]) == pytest.approx(value, rel=1e-6), (group, loss)


@torch.no_grad()
def test_decoding_gives_the_map_that_was_judged():
    method, batch = build().double(), make_batch(dtype=torch.float64)
    logits = method.decode(method.encode(batch.images), batch.available)
    expected = losses(softmax(logits.numpy()), batch.labels.numpy())
    found = method(batch, 2)["main"]
    assert [float(found[f"seg/fuse/{loss}"]) for loss in ("wce", "dice")] == pytest.approx(expected, rel=1e-6)


@torch.no_grad()
def test_the_mono_decoder_reads_all_modalities_whatever_subset_was_drawn():
    method, batch = build(), make_batch()
    other = replace(batch, available=torch.tensor([[0, 0, 0, 1], [1, 1, 1, 1]], dtype=torch.bool))
    one, another = (method(given, 2)["main"] for given in (batch, other))
    for name in one:
        assert torch.equal(one[name], another[name]) == name.startswith("seg/mono"), name


@pytest.mark.parametrize("rows", [LACKING, ((1, 1, 1, 1), (0, 0, 0, 1))])
@pytest.mark.parametrize("epoch", [1, 2])
@torch.no_grad()
def test_each_maps_dice_sums_are_pooled_once_in_one_order(epoch, rows):
    """Fused map once it takes part, mono maps by modality, region maps coarse to fine."""
    method, batch = build().double(), make_batch(rows, torch.float64)
    sums = []
    method(replace(batch, pool=lambda s: (sums.append(s), s)[1]), epoch)
    found = [float(1 - (2 * s[0] / (s[1] + s[2] + 1e-7)).mean()) for s in sums]

    features = [torch.stack(level, dim=1) for level in method.encode(batch.images)]
    given = [torch.where(batch.available[:, :, None, None, None, None], f, 0.0) for f in features]
    logits, regions = method.fusion_decoder([f.flatten(1, 2) for f in given])
    mono = [method.mono_decoder([f[:, m] for f in features]) for m in range(4)]
    maps = [softmax(x.numpy()) for x in ([logits] if epoch >= 2 else []) + mono]
    maps += [enlarge(p.numpy(), SIDE) for p in regions]
    assert [p.shape[2] for p in regions] == [4, 8, 16]
    expected = [losses(p, batch.labels.numpy())[1] for p in maps]
    assert found == pytest.approx(expected, rel=1e-6)


# --- who learns from what


def taught(method, term):
    method.zero_grad(set_to_none=True)
    term.backward(retain_graph=True)
    return {name for name, p in method.named_parameters() if p.grad is not None and p.grad.any()}


def under(method, *prefixes):
    return {name for name, _ in method.named_parameters() if name.startswith(prefixes)}


@pytest.mark.parametrize("loss", ["wce", "dice"])
def test_each_term_teaches_its_own_parts(loss):
    method = build()
    terms = method(make_batch(), 2)["main"]
    maps = under(method, "fusion_decoder.maps.")
    assert taught(method, terms[f"seg/mono/{loss}"]) == under(method, "encoders.", "mono_decoder.")
    assert taught(method, terms[f"seg/fuse/{loss}"]) == under(method, "encoders.", "fusion_decoder.") - maps
    whole = under(method, "encoders.", "fusion_decoder.")
    assert taught(method, terms[f"seg/regions/{loss}"]) == whole - under(method, *WAITING)


def test_an_encoder_whose_modality_is_missing_learns_from_the_mono_decoder_alone():
    method = build()
    terms = method(make_batch(((1, 0, 1, 1),)), 2)["main"]
    for name in named("fuse", "regions"):
        assert not taught(method, terms[name]) & under(method, "encoders.1."), name
        assert taught(method, terms[name]) >= under(method, "encoders.0."), name
    assert taught(method, terms["seg/mono/dice"]) >= under(method, "encoders.1.")


@pytest.mark.parametrize(("group", "parts"), [("mono", ("encoders.", "mono_decoder.")), ("fuse", WAITING)])
def test_gradients_agree_with_finite_differences(group, parts):
    """Along a random direction, in float64; of parameters that no detached region map depends on."""
    method, batch = build(levels=2).double(), make_batch(dtype=torch.float64)
    generator = torch.Generator().manual_seed(1)
    chosen = [p for name, p in method.named_parameters() if name.startswith(parts)]
    directions = [torch.randn(p.shape, generator=generator, dtype=p.dtype) for p in chosen]

    def loss(shift):
        with torch.no_grad():
            for p, direction in zip(chosen, directions, strict=True):
                p += shift * direction
        terms = method(batch, 2)["main"]
        return torch.stack([terms[name] for name in sorted(named(group))]).sum()

    loss(0.0).backward()
    slope = float(sum((p.grad * d).sum() for p, d in zip(chosen, directions, strict=True)))
    step = 1e-8  # within it no LeakyReLU and no clamp changes sides
    with torch.no_grad():
        above, below = float(loss(step)), float(loss(-2 * step))
    assert slope == pytest.approx((above - below) / (2 * step), rel=1e-4)


@torch.no_grad()
def test_the_map_of_a_modality_that_a_case_lacks_counts_nothing():
    """The first case has no T1ce, the second no T2, neither FLAIR: what is left is judged case by case."""
    method, present = build().double(), ((0, 0, 1, 1), (0, 1, 1, 0))
    batch = make_batch(((0, 0, 1, 0), (0, 1, 1, 0)), torch.float64)
    batch = replace(batch, present=torch.tensor(present) > 0)
    terms, target = method(batch, 2)["main"], segmentation.one_hot(batch.labels).double()
    entropy = dice = 0.0
    for m in (1, 2, 3):
        those = [b for b in range(2) if present[b][m]]
        p = method.mono_decoder(method.encoders[m](batch.images[those, m, None])).softmax(1)
        entropy += float(segmentation.weighted_cross_entropy(p, target[those], "sample").sum()) / 2
        dice += float(segmentation.dice_loss(p, target[those]))
    assert float(terms["seg/mono/wce"]) == pytest.approx(entropy, rel=1e-9)
    assert float(terms["seg/mono/dice"]) == pytest.approx(dice, rel=1e-9)
