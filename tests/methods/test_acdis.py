"""ACDIS: its schedule, its terms against plain recomputation, and which part learns from which term."""

import copy
import logging
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from acdis import methods
from acdis.config import Training
from acdis.errors import UserError
from acdis.losses import consistency, segmentation
from acdis.methods.acdis.network import stand_in_report
from acdis.methods.base import Batch

SIDE = 16
TINY = {"base_width": 4, "afeb_tokens": 4, "synthesis_start": 2}
SIX_MAPS = {f"seg/{which}/{loss}" for which in ("fuse", "aux", "mono") for loss in ("wce", "dice")}
LACKING = ((1, 0, 1, 0), (0, 1, 0, 1))


def build(**options):
    torch.manual_seed(0)
    return methods.build("acdis", **{**TINY, **options})


def make_batch(rows=LACKING):
    generator = torch.Generator().manual_seed(0)
    B = len(rows)
    return Batch(
        torch.randn(B, 4, SIDE, SIDE, SIDE, generator=generator),
        torch.randint(0, 4, (B, SIDE, SIDE, SIDE), generator=generator),
        torch.tensor(rows, dtype=torch.bool),
    )


def summed(terms):
    return torch.stack([term for named in terms.values() for term in named.values()]).sum()


def optimisers(method, weight_decay=1e-2):
    return [
        torch.optim.Adam(parameters, lr=1e-3, weight_decay=weight_decay, amsgrad=True)
        for parameters in method.parameter_groups().values()
    ]


def train(method, epochs, rows=LACKING):
    """One step in each of the epochs, as the training loop takes it."""
    steppers = optimisers(method)
    for epoch in epochs:
        for stepper in steppers:
            stepper.zero_grad(set_to_none=True)
        summed(method(make_batch(rows), epoch)).backward()
        for stepper in steppers:
            stepper.step()


# --- schedule


def test_terms_by_epoch():
    method = build(synthesis=["mse", "adver", "var", "covar"])
    early = method(make_batch(), 1)
    late = method(make_batch(), 2)
    first = SIX_MAPS | {"consistency/var", "consistency/covar"}
    assert {name: set(terms) for name, terms in early.items()} == {"main": first}
    assert set(late["main"]) == first | {f"synthesis/{name}" for name in ("mse", "adver", "var", "covar")}
    assert set(late["discriminator"]) == {"discriminator/real", "discriminator/fake"}


def test_synthesis_starts_with_the_21st_epoch():
    method = methods.build("acdis", base_width=2, afeb_tokens=2)
    assert "synthesis/mse" not in method(make_batch(), 19)["main"]  # the 20th, counted from 0
    assert "synthesis/mse" in method(make_batch(), 20)["main"]


@pytest.mark.parametrize("mfsb", ["mfsb", "conv"])
def test_what_is_not_active_yet_stays_bit_for_bit_and_what_is_moves(mfsb):
    method = build(mfsb=mfsb, synthesis=["mse", "adver"])
    waiting = ("synthesisers.", "discriminator.")
    before = copy.deepcopy(method.state_dict())
    train(method, epochs=(0, 1))
    for name, parameter in method.named_parameters():
        assert torch.equal(parameter, before[name]) == name.startswith(waiting), name
        assert (parameter.grad is None) == name.startswith(waiting), name
    middle = copy.deepcopy(method.state_dict())
    train(method, epochs=(2,))
    still = [name for name, parameter in method.named_parameters() if torch.equal(parameter, middle[name])]
    assert still == []


def test_a_synthesiser_that_no_sample_needs_learns_nothing():
    """It takes part, so that every step does the same: its gradient is there, and 0 to the bit."""
    method = build()
    summed(method(make_batch(((1, 0, 1, 1), (1, 0, 1, 1))), 5)).backward()  # only T1ce is missing
    for name, parameter in method.named_parameters():
        idle = name.startswith("synthesisers.") and not name.startswith("synthesisers.1.")
        assert bool(parameter.grad.any()) != idle, name


def test_the_sixth_map_can_be_held_back():
    method = build(hold_fused_map=True)
    assert not any(name.startswith("seg/fuse") for name in method(make_batch(), 1)["main"])
    assert set(method(make_batch(), 2)["main"]) >= SIX_MAPS
    with_it = build(hold_fused_map=False)
    assert set(with_it(make_batch(), 1)["main"]) >= SIX_MAPS


def test_decoding_follows_the_schedule_and_the_state_remembers_it():
    method, available = build(), torch.tensor([[True, False, True, False]])
    images = make_batch().images[:1]

    def decoded(of):
        with torch.no_grad():
            return of.eval().decode(of.encode(images), available)

    with torch.no_grad():
        method.train()(make_batch(), 1)
    zeros = decoded(method)
    with torch.no_grad():
        features = method.encode(images)
        chosen = available[:, :, None, None, None, None]
        given = [torch.where(chosen, torch.stack(level, 1), torch.zeros(())) for level in features.maps]
        expected = method.fusion_decoder([f.flatten(1, 2) for f in given])
        torch.testing.assert_close(zeros, expected, rtol=1e-4, atol=1e-4)
        method.train()(make_batch(), 2)
    assert not torch.allclose(decoded(method), zeros, atol=1e-4)
    other = build()
    assert not bool(other.synthesising)
    other.load_inference_state(method.inference_state())
    assert bool(other.synthesising)
    assert torch.equal(decoded(other), decoded(method))


# --- terms


@pytest.fixture
def parts():
    """A method, a batch, and what flows through the method, from its children one by one."""
    method = build(synthesis=["mse", "adver", "var", "covar"], consistency=["var", "covar", "mse", "kl"])
    batch = make_batch(((1, 0, 1, 0), (1, 1, 1, 1)))
    with torch.no_grad():
        before = [encoder(batch.images[:, m, None]) for m, encoder in enumerate(method.encoders)]
        after = [[method.enhancers[m][k](before[m][k]) for k in range(4)] for m in range(4)]
        auxiliary = method.auxiliary_encoder(batch.images)
        terms = method(batch, 2)
    return method, batch, before, after, auxiliary, terms


def map_terms(logits, labels):
    probabilities, target = logits.softmax(1), segmentation.one_hot(labels)
    return torch.stack(
        [
            segmentation.weighted_cross_entropy(probabilities, target),
            segmentation.dice_loss(probabilities, target),
        ]
    )


def assert_terms(terms, prefix, expected):
    for name, value in expected.items():
        torch.testing.assert_close(terms["main"][f"{prefix}/{name}"], value, rtol=1e-4, atol=1e-6)


@torch.no_grad()
def test_six_maps(parts):
    method, batch, before, after, auxiliary, terms = parts
    mono = sum(
        map_terms(method.auxiliary_decoder(pyramid), batch.labels) for pyramid in before
    )  # before AFEB
    assert_terms(terms, "seg/mono", dict(zip(("wce", "dice"), mono, strict=True)))
    tiled = [torch.cat([f] * 4, dim=1) for f in auxiliary]
    aux = map_terms(method.fusion_decoder(tiled), batch.labels)
    assert_terms(terms, "seg/aux", dict(zip(("wce", "dice"), aux, strict=True)))
    complete = []
    for k in range(4):
        given = torch.stack(
            [after[m][k] * batch.available[:, m, None, None, None, None] for m in range(4)], dim=1
        )
        level = given.clone()
        for m in (1, 3):  # what the first sample lacks; real features are kept
            level[0, m] = method.synthesisers[m][k](given[:1].flatten(1, 2))[0]
        complete.append(level.flatten(1, 2))
    fuse = map_terms(method.fusion_decoder(complete), batch.labels)
    assert_terms(terms, "seg/fuse", dict(zip(("wce", "dice"), fuse, strict=True)))


@torch.no_grad()
def test_consistency_terms_are_means_over_modalities_and_levels(parts):
    *_, after, auxiliary, terms = parts
    for name, loss in (
        ("var", consistency.variance_loss),
        ("covar", consistency.covariance_loss),
        ("mse", consistency.mse_loss),
        ("kl", consistency.kl_loss),
    ):
        each = [loss(after[m][k], auxiliary[k]) for m in range(4) for k in range(4)]
        assert_terms(terms, "consistency", {name: sum(each) / 16})


@torch.no_grad()
def test_synthesis_terms(parts):
    """The first sample lacks two modalities, the second none and counts 0."""
    method, batch, _, after, _, terms = parts
    totals = dict.fromkeys(("mse", "var", "covar"), 0.0)
    adversarial, real, fake = [], [], []
    for k in range(4):
        given = torch.cat([after[m][k][:1] * batch.available[0, m] for m in range(4)], dim=1)
        for m in (1, 3):
            made, truth = method.synthesisers[m][k](given), after[m][k][:1]
            totals["mse"] += (made - truth).square().mean()
            totals["var"] += consistency.variance_loss(made, truth)
            totals["covar"] += consistency.covariance_loss(made, truth)
            if k == 3:
                adversarial.append(F.softplus(-method.discriminator(made)).mean())  # -log sigmoid
                real.append(F.softplus(-method.discriminator(truth)).mean())
                fake.append(F.softplus(method.discriminator(made)).mean())
    # two samples, two modalities, four levels
    assert_terms(terms, "synthesis", {name: value / (2 * 2 * 4) for name, value in totals.items()})
    assert_terms(terms, "synthesis", {"adver": 1e-3 * sum(adversarial) / 4})
    own = terms["discriminator"]
    torch.testing.assert_close(own["discriminator/real"], sum(real) / 4, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(own["discriminator/fake"], sum(fake) / 4, rtol=1e-4, atol=1e-6)


@torch.no_grad()
def test_terms_of_a_case_that_lacks_a_modality():
    """The first sample's case has no T2: E_Aux sees zeros there, and no term counts a map of it."""
    method = build(consistency=["var", "mse"], synthesis=["mse", "adver"])
    present = ((1, 1, 1, 0), (1, 1, 1, 1))
    batch = make_batch(((1, 0, 1, 0), (1, 1, 0, 1)))
    images = batch.images.clone()
    images[0, 3] = 0
    batch = replace(batch, present=torch.tensor(present) > 0)
    before = [encoder(images[:, m, None]) for m, encoder in enumerate(method.encoders)]
    after = [[method.enhancers[m][k](before[m][k]) for k in range(4)] for m in range(4)]
    auxiliary = method.auxiliary_encoder(images)
    terms = method(batch, 2)

    target, mono = segmentation.one_hot(batch.labels), torch.zeros(2)
    for m in range(4):
        those = [b for b in range(2) if present[b][m]]
        p = method.auxiliary_decoder(before[m]).softmax(1)
        mono[0] += (
            sum(segmentation.weighted_cross_entropy(p[b : b + 1], target[b : b + 1]) for b in those) / 2
        )
        mono[1] += segmentation.dice_loss(p[those], target[those])
    assert_terms(terms, "seg/mono", dict(zip(("wce", "dice"), mono, strict=True)))
    aux = map_terms(method.fusion_decoder([torch.cat([f] * 4, dim=1) for f in auxiliary]), batch.labels)
    assert_terms(terms, "seg/aux", dict(zip(("wce", "dice"), aux, strict=True)))

    for name, loss in (("var", consistency.variance_loss), ("mse", consistency.mse_loss)):
        by_sample = [
            sum(loss(after[m][k][b : b + 1], auxiliary[k][b : b + 1]) for m in range(4) if present[b][m])
            / sum(present[b])
            for b in range(2)
            for k in range(4)
        ]
        assert_terms(terms, "consistency", {name: sum(by_sample) / 8})

    total, judged = 0.0, []
    for b, m in ((0, 1), (1, 2)):  # what it lacks of what its case has: T2 of the first has no target
        for k in range(4):
            given = torch.cat([after[n][k][b : b + 1] * batch.available[b, n] for n in range(4)], dim=1)
            made, truth = method.synthesisers[m][k](given), after[m][k][b : b + 1]
            total += (made - truth).square().mean()
        judged.append(F.softplus(-method.discriminator(truth)).mean())
    assert_terms(terms, "synthesis", {"mse": total / (2 * 4)})
    real = terms["discriminator"]["discriminator/real"]
    torch.testing.assert_close(real, sum(judged) / 2, rtol=1e-4, atol=1e-6)


def test_a_modality_that_no_case_has_teaches_its_encoder_nothing():
    method = build()
    batch = make_batch(((1, 0, 0, 0), (0, 0, 1, 1)))
    present = torch.tensor([[1, 0, 1, 1], [1, 0, 1, 1]]) > 0
    summed(method(replace(batch, present=present), 2)).backward()
    parts = {
        name: [p.grad for p in getattr(method, name)[1].parameters()] for name in ("encoders", "enhancers")
    }
    assert all(not gradient.any() for gradients in parts.values() for gradient in gradients)
    assert any(p.grad.any() for p in method.synthesisers[1].parameters())  # D_Fuse asks for it
    assert all(value.isfinite() for value in method.diagnostics.values())


def test_shares_of_flat_windows_are_of_what_is_there():
    """T2, which no case has, is flat everywhere."""
    method, batch = build(), make_batch()
    with torch.no_grad():
        method(replace(batch, present=torch.tensor([[1, 1, 1, 0]] * 2) > 0), 0)
    assert all(value == 0 for value in method.diagnostics.values())


@torch.no_grad()
def test_synthesis_over_all_judges_every_modality_and_changes_nothing_else():
    batch = make_batch()
    results = {over: build(synthesis_over=over)(batch, 2)["main"] for over in ("missing", "all")}
    for name in results["all"]:
        assert torch.allclose(results["all"][name], results["missing"][name]) == (name != "synthesis/mse")
    method = build(synthesis_over="all")
    features = method.encode(batch.images)
    total = 0.0
    for k, maps in enumerate(features.maps):
        level = torch.stack(maps, dim=1)
        given = (level * batch.available[:, :, None, None, None, None]).flatten(1, 2)
        for m in range(4):
            total += (method.synthesisers[m][k](given) - level[:, m]).square().mean()
    torch.testing.assert_close(results["all"]["synthesis/mse"], total / 16, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("over", ["missing", "all"])
def test_a_batch_that_lacks_nothing_has_finite_terms_and_gradients(over):
    method = build(synthesis=["mse", "adver", "var", "covar"], synthesis_over=over)
    terms = method(make_batch(((1, 1, 1, 1), (1, 1, 1, 1))), 2)
    if over == "missing":
        synthesis = [term for named in terms.values() for name, term in named.items() if "seg" not in name]
        assert [float(term) for term in synthesis if not float(term)] == [0.0] * 6
    summed(terms).backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in method.parameters())


@torch.no_grad()
def test_adapter_widens_the_auxiliary_features():
    method, batch = build(aux_fusion="adapter"), make_batch()
    auxiliary = method.auxiliary_encoder(batch.images)
    wide = [adapt(f) for adapt, f in zip(method.auxiliary_adapters, auxiliary, strict=True)]
    expected = map_terms(method.fusion_decoder(wide), batch.labels)
    assert_terms(method(batch, 0), "seg/aux", dict(zip(("wce", "dice"), expected, strict=True)))


@torch.no_grad()
def test_running_statistics_of_the_fusion_are_those_of_completed_features_alone():
    """What it reads at inference; f_Aux, four times the same map, is there in training alone."""
    method, other, batch = build(norm="batch"), build(norm="batch"), make_batch()
    method(batch, 2)
    other.synthesising.fill_(True)
    other.decode(other.encode(batch.images), batch.available)
    moved = dict(method.fusion_decoder.named_buffers())
    assert any(name.endswith("running_mean") for name in moved)
    expected = {name: value.clone() for name, value in other.fusion_decoder.named_buffers()}
    for name, value in moved.items():
        torch.testing.assert_close(value, expected[name], rtol=1e-4, atol=1e-5)
    other.fusion_decoder([f.repeat(1, 4, 1, 1, 1) for f in other.auxiliary_encoder(batch.images)])
    changed = dict(other.fusion_decoder.named_buffers())
    assert all((changed[name] - expected[name]).abs().max() > 1e-3 for name in expected)


def test_without_a_consistency_loss_none_is_computed(monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("computed")

    for name in ("window_losses", "mse_loss", "kl_loss"):
        monkeypatch.setattr(consistency, name, refuse)
    method = build(consistency=[])
    terms = method(make_batch(), 2)
    assert not any(name.startswith("consistency") for name in terms["main"])
    summed(terms).backward()  # E_Aux and its map are trained all the same
    assert all(p.grad.abs().max() > 0 for p in method.auxiliary_encoder.parameters())


def test_diagnostics_are_of_the_last_forward():
    method = build(consistency_levels=[2, 4])
    images = torch.zeros(1, 4, SIDE, SIDE, SIDE)
    with torch.no_grad():
        method(Batch(images, torch.zeros(1, SIDE, SIDE, SIDE, dtype=torch.long), torch.ones(1, 4) > 0), 0)
        flat = dict(method.diagnostics)
        method(make_batch(), 0)
    assert set(flat) == set(method.diagnostics) == {"flat_windows/level_2", "flat_windows/level_4"}
    assert all(value == 1 for value in flat.values())  # zeros in, E_Aux flat everywhere
    assert all(value == 0 for value in method.diagnostics.values())


# --- who learns from what


def gradients_of(method, term):
    method.zero_grad(set_to_none=True)
    term.backward(retain_graph=True)
    return {
        name.split(".")[0] for name, p in method.named_parameters() if p.grad is not None and p.grad.any()
    }


def test_each_term_teaches_its_own_parts():
    method = build(synthesis=["mse", "adver"])
    terms = method(make_batch(), 2)
    main = terms["main"]
    chain = {"encoders", "enhancers"}
    assert gradients_of(method, main["seg/mono/dice"]) == {"encoders", "auxiliary_decoder"}
    assert gradients_of(method, main["seg/aux/dice"]) == {"auxiliary_encoder", "fusion_decoder"}
    assert gradients_of(method, main["seg/fuse/dice"]) == chain | {"synthesisers", "fusion_decoder"}
    assert gradients_of(method, main["consistency/var"]) == chain  # f_Aux is the label
    assert gradients_of(method, main["synthesis/mse"]) == chain | {"synthesisers"}
    assert gradients_of(method, main["synthesis/adver"]) == chain | {"synthesisers"}  # not the discriminator
    for term in terms["discriminator"].values():
        assert gradients_of(method, term) == {"discriminator"}


def test_synthesis_does_not_move_its_target():
    """T1ce is missing: what its encoder gives is the target alone, so L_Syn must not reach it."""
    method = build()
    method(make_batch(((1, 0, 1, 1),)), 2)["main"]["synthesis/mse"].backward()
    assert all(p.grad is None or not p.grad.any() for p in method.encoders[1].parameters())
    assert all(p.grad is not None and p.grad.any() for p in method.encoders[0].parameters())


def test_optimisers():
    groups = build(synthesis=["adver"]).parameter_groups()
    assert list(groups) == ["main", "discriminator"]
    method = build(synthesis=["adver"], discriminator_learning_rate=3e-4)
    recipe = Training(epochs=4, learning_rate=1e-2, poly_power=1.0)
    assert method.settings_at(3.9, recipe) == {"main": {"lr": 2.5e-3}, "discriminator": {"lr": 7.5e-5}}
    assert list(build().parameter_groups()) == ["main"]
    assert build().settings_at(0.0, recipe) == {"main": {"lr": 1e-2}}


# --- sizes


def parameters(module):
    return sum(parameter.numel() for parameter in module.parameters())


def inference_parameters(method):
    kept = method.inference_state()
    return sum(parameter.numel() for name, parameter in method.named_parameters() if name in kept)


def test_stand_ins_are_within_two_percent_at_base_16_and_logged(caplog):
    with caplog.at_level(logging.INFO, logger="acdis"):
        sizes = {
            (a, m): methods.build("acdis", afeb=a, mfsb=m) for a in ("afeb", "conv") for m in ("mfsb", "conv")
        }
    own = sizes["afeb", "mfsb"]
    for counts in stand_in_report(own.options).values():
        assert counts["stand_in"] == pytest.approx(counts["block"], rel=0.02)
    kept = {which: inference_parameters(method) for which, method in sizes.items()}
    assert all(count == pytest.approx(kept["afeb", "mfsb"], rel=0.02) for count in kept.values())
    # per modality and level, and four modalities: the report is what the network holds
    for child, prefix, (a, m) in (
        ("enhancers", "afeb", ("conv", "mfsb")),
        ("synthesisers", "mfsb", ("afeb", "conv")),
    ):
        counts = [c for name, c in stand_in_report(own.options).items() if name.startswith(prefix)]
        assert parameters(getattr(own, child)) == 4 * sum(c["block"] for c in counts)
        assert parameters(getattr(sizes[a, m], child)) == 4 * sum(c["stand_in"] for c in counts)
    assert "mfsb level 4: 360448 parameters, its stand-in 358592 (-0.5 %)" in caplog.text


def test_stand_ins_without_the_positions_parameters():
    """w nearest to (block - 1000 C) / 54 C: 10, 20, 40, 81."""
    method = methods.build("acdis", afeb="conv", afeb_budget="without_positions", consistency=[])
    levels = method.enhancers[0]
    assert [block.width for block in levels] == [10, 20, 40, 81]
    assert [sum(p.numel() for p in block.parameters()) for block in levels] == [8640, 34560, 138240, 559872]
    with pytest.raises(UserError, match=r"afeb_budget has no effect with method\.options\.afeb 'afeb'"):
        methods.build("acdis", afeb_budget="without_positions")


def test_tiny_stand_ins_say_that_they_miss(caplog):
    with caplog.at_level(logging.INFO, logger="acdis"):
        build(base_width=2)
    assert "whole channels come no nearer" in caplog.text


def test_inference_needs_neither_auxiliary_parts_nor_discriminator():
    method = build(synthesis=["mse", "adver"], aux_fusion="adapter")
    kept = {key.split(".")[0] for key in method.inference_state()}
    assert kept == {"encoders", "enhancers", "synthesisers", "fusion_decoder", "synthesising"}
