"""The terms of ACDIS's loss (Eq. 4, 10-12). Pure functions of maps and features; means over the batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call

from acdis.losses import Reduction, consistency, segmentation, synthesis
from acdis.methods.acdis.options import WINDOWED, Options

Pool = Callable[[Tensor], Tensor]
Named = dict[str, Tensor]


class Pair(NamedTuple):
    """Synthesised and real features of one modality and level, [B, C, D, H, W].

    `judged`, bool [B], marks the samples whose synthesis counts. The others are computed too: then a step
    does the same whatever subsets were drawn, and nothing waits to be told them by the device.
    """

    judged: Tensor
    made: Tensor
    real: Tensor


def segmentation_terms(logits: Tensor, target: Tensor, pool: Pool) -> Named:
    """L_WCE and L_Dice of one map (Eq. 11): logits and one-hot target `[B, 4, D, H, W]`."""
    return segmentation.map_terms(segmentation.class_probabilities(logits), target, pool)


def mono_terms(maps: Sequence[Tensor], target: Tensor, pool: Pool, present: Tensor | None = None) -> Named:
    """The sum over D_Aux's four maps: each is a map of Eq. 11's sum, with Dice sums of its own.

    Args:
        present: bool [B, 4], the modalities that each sample's case has; none: all. Maps of others count 0.
    """
    return segmentation.summed_map_terms(
        (segmentation.class_probabilities(logits) for logits in maps), target, pool, present
    )


def consistency_terms(
    features: Sequence[Sequence[Tensor]],
    auxiliary: Sequence[Tensor],
    options: Options,
    present: Tensor | None = None,
) -> tuple[Named, Named]:
    """The chosen losses between f_m, each modality's map per level, and f_Aux, all `[B, C, D, H, W]`.

    Means over modalities and levels, each counting the same.

    Args:
        present: bool [B, 4], the modalities that each sample's case has; none: all. A sample's mean is over
            those, and f_Aux is what E_Aux makes of them: of what is not there nothing is to be distilled.

    Returns:
        The terms, and the share of flat windows per level (`flat_windows/level_1` is the finest).
    """
    collected: dict[str, list[Tensor]] = {name: [] for name in options.consistency}
    flat: Named = {}
    reduction: Reduction = "mean" if present is None else "sample"
    for level in options.judged_levels:
        by_modality = distances(features[level], auxiliary[level], options.consistency, options, reduction)
        for name in by_modality[0]:
            values = [terms[name] for terms in by_modality]
            if present is not None:
                values = [over_samples(list(zip(present.unbind(1), values, strict=True)))]
            if name == "flat":
                flat[f"flat_windows/level_{level + 1}"] = mean(values)
            else:
                collected[name] += values
    return {name: mean(values) for name, values in collected.items()}, flat


def distances(
    f_ms: Sequence[Tensor], target: Tensor, names: Sequence[str], options: Options, reduction: Reduction
) -> list[Named]:
    """Per f_m the consistency losses by name; with a window loss also "flat", the share of flat windows."""
    results: list[Named] = [{} for _ in f_ms]
    if windowed := [name for name in names if name in WINDOWED]:
        results = consistency.window_losses_of(
            f_ms, target, options.window, options.stride, windowed, reduction
        )
    for f_m, result in zip(f_ms, results, strict=True):
        if "mse" in names:
            result["mse"] = consistency.mse_loss(f_m, target, reduction)
        if "kl" in names:
            result["kl"] = consistency.kl_loss(f_m, target, reduction)
    return results


def pairs(
    made: Sequence[Sequence[Tensor]], features: Sequence[Sequence[Tensor]], judged: Tensor
) -> list[list[Pair]]:
    """Per level: what was synthesised beside the real features, which are detached; `judged`, bool [B, 4]."""
    return [
        [Pair(judged[:, m], f_hat, f.detach()) for m, (f_hat, f) in enumerate(zip(ours, level, strict=True))]
        for ours, level in zip(made, features, strict=True)
    ]


def synthesis_terms(levels: Sequence[Sequence[Pair]], options: Options) -> Named:
    """The chosen losses between f̂_m and f_m except the adversarial one: Eq. 10, and Table 3's var and covar.

    Per sample the mean over the modalities judged, then over levels and the batch.
    """
    names = [name for name in options.synthesis if name != "adver"]
    measured = [[(pair.judged, _measure(pair, names, options)) for pair in pairs] for pairs in levels]
    return {
        name: mean([over_samples([(judged, losses[name]) for judged, losses in level]) for level in measured])
        for name in names
    }


def _measure(pair: Pair, names: Sequence[str], options: Options) -> Named:
    """[B] per loss."""
    windowed = [name for name in names if name in WINDOWED]
    (result,) = distances([pair.made], pair.real, windowed, options, "sample")
    if "mse" in names:  # of the features themselves, not of their sigmoid as in Table 2
        result["mse"] = synthesis.mse(pair.made, pair.real, "sample")
    return result


def generator_term(discriminator: nn.Module, bottleneck: Sequence[Pair], weight: float) -> Tensor:
    """L_Adver as it enters the sum: the discriminator's parameters are constants here."""
    frozen = {name: parameter.detach() for name, parameter in discriminator.named_parameters()}
    logits = [(pair.judged, functional_call(discriminator, frozen, (pair.made,))) for pair in bottleneck]
    values = [(judged, synthesis.adversarial_real(logit, "sample")) for judged, logit in logits]
    return weight * over_samples(values)


def discriminator_terms(discriminator: nn.Module, bottleneck: Sequence[Pair]) -> Named:
    """What the discriminator learns from: real and synthesised features, equally many, all detached.

    Both are of the modalities that were synthesised: shown others as real, it could tell by the modality.
    """
    real, fake = [], []
    for pair in bottleneck:
        real.append((pair.judged, synthesis.adversarial_real(discriminator(pair.real), "sample")))
        fake.append((pair.judged, synthesis.adversarial_fake(discriminator(pair.made.detach()), "sample")))
    return {"real": over_samples(real), "fake": over_samples(fake)}


def over_samples(values: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """Mean over the batch of each sample's mean over the (judged [B], values [B]) in which it is judged.

    A sample without any counts 0.
    """
    judged = torch.stack([marks for marks, _ in values])
    chosen = torch.where(judged, torch.stack([value for _, value in values]), 0.0)
    return (chosen.sum(0) / judged.sum(0).clamp(min=1)).mean()


def mean(values: Sequence[Tensor]) -> Tensor:
    return torch.stack(list(values)).mean()
