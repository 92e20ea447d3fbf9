"""The network of ACDIS and one training step's terms (paper, Section 3 and Figure 2)."""

from __future__ import annotations

import functools
import logging
from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from acdis.config import Training
from acdis.losses import segmentation
from acdis.methods.acdis import VERSION, objective
from acdis.methods.acdis.options import Options as ACDISOptions
from acdis.methods.base import MAIN, Batch, Method, Terms, poly
from acdis.networks import modalities
from acdis.networks.afeb import AFEB, ConvAFEB
from acdis.networks.batch_norm import statistics
from acdis.networks.convolution import Conv3d
from acdis.networks.discriminator import PatchDiscriminator
from acdis.networks.mfsb import MFSB, ConvMFSB, means
from acdis.networks.modalities import Levels
from acdis.networks.unet import Decoder, Encoder, FusionDecoder, set_norm
from acdis.vocabulary import CLASSES, MODALITIES

log = logging.getLogger(__name__)


class Encoded(NamedTuple):
    """What `encode` gives.

    Attributes:
        maps: f_m, the features after AFEB.
        shares: what each modality's map adds to the first convolution of D_Fuse at its level: computed once,
            used by every subset that has the modality.
        means: of each map over space, `[B, C]`.
    """

    maps: Levels
    shares: Levels
    means: Levels


DISCRIMINATOR = "discriminator"


class ACDIS(Method):
    """Anatomical Consistency Distillation and Inconsistency Synthesis.

    The buffer `synthesising` says whether MFSB takes part: each training step sets it, and it is saved with
    the weights.
    """

    Options = ACDISOptions
    version = VERSION
    training_only = ("auxiliary_encoder", "auxiliary_decoder", "auxiliary_adapters", "discriminator")
    synthesising: Tensor

    def __init__(self, options: ACDISOptions) -> None:
        super().__init__()
        self.options = options
        widths, padding, count = options.widths, options.padding, len(MODALITIES)
        self.encoders = nn.ModuleList(Encoder(1, widths, padding) for _ in MODALITIES)
        self.enhancers = nn.ModuleList(
            nn.ModuleList(_enhancer(options, level) for level in range(options.levels)) for _ in MODALITIES
        )
        self.synthesisers = nn.ModuleList(
            nn.ModuleList(_synthesiser(options, width) for width in widths) for _ in MODALITIES
        )
        self.fusion_decoder = FusionDecoder(widths, len(CLASSES), padding, count)
        self.auxiliary_encoder = Encoder(count, widths, padding)
        self.auxiliary_decoder = Decoder(widths, len(CLASSES), padding)
        self.auxiliary_adapters = nn.ModuleList(
            Conv3d(width, count * width, 1) for width in widths if options.aux_fusion == "adapter"
        )
        judged = "adver" in options.synthesis
        self.discriminator = PatchDiscriminator(widths[-1], options.judge_widths) if judged else None
        set_norm(self, options.norm)
        self.register_buffer("synthesising", torch.tensor(False))
        _log_stand_ins(stand_in_report(options))

    def encode(self, images: Tensor, origin: Tensor | None = None) -> Encoded:
        """`[B, 4, D, H, W]` to f_m of every modality, available or not: no modality sees another here."""
        maps = self._enhance(
            modalities.extract(self.encoders, images.contiguous(memory_format=torch.channels_last_3d))
        )
        share = self.fusion_decoder.share
        shares = [[share(i, f, m * f.shape[1]) for m, f in enumerate(level)] for i, level in enumerate(maps)]
        return Encoded(maps, tuple(map(tuple, shares)), tuple(tuple(map(means, level)) for level in maps))

    def decode(self, features: Encoded, available: Tensor) -> Tensor:
        """Logits [B, 4, D, H, W]; what `available` (bool [B, 4]) lacks is synthesised, or zero."""
        return self._fuse(self._completed(features.maps, available))

    def modality_features(self, features: Encoded) -> Levels:
        """f_m."""
        return features.maps

    def completed(self, features: Encoded, available: Tensor) -> Levels:
        """f_comp: real features of what is given, MFSB's of the rest; empty before MFSB takes part."""
        return self._completed(features.maps, available) if self.synthesising else ()

    def _completed(self, maps: Levels, available: Tensor) -> Levels:
        """f_comp; zeros for what is missing before MFSB takes part."""
        known = modalities.known(maps, available)
        return _complete(known, self._taking_part(self._synthesise(known)), available)

    def _taking_part(self, made: Sequence[Sequence[Tensor]]) -> list[list[Tensor]]:
        """What MFSB made, or zeros before its epoch: no branch, for that would wait for the device."""
        return [[torch.where(self.synthesising, f, 0.0) for f in level] for level in made]

    def decode_subsets(self, features: Encoded, subsets: Tensor) -> Tensor:
        """As `decode`, for less: shares of what is given are only added up, and all subsets are one batch."""
        wanted = [[m for m, there in enumerate(subset) if there] for subset in subsets.tolist()]
        sums = [
            torch.cat([self._sum(level, *parts, given) for given in wanted])
            for level, parts in enumerate(zip(*features, strict=True))
        ]
        return self.fusion_decoder.join(sums).unflatten(0, (len(wanted), -1))

    def _sum(
        self,
        level: int,
        maps: Sequence[Tensor],
        shares: Sequence[Tensor],
        mean: Sequence[Tensor],
        given: Sequence[int],
    ) -> Tensor:
        """D_Fuse's first convolution at a level, `[B, C, …]`, when these modalities are given."""
        total = functools.reduce(torch.add, [shares[m] for m in given])
        missing = [m for m in range(len(maps)) if m not in given]
        if not missing:
            return total
        known = _only(maps, given), _only(mean, given)
        for m in missing:
            made = torch.where(self.synthesising, self.synthesisers[m][level](*known), 0.0)  # type: ignore[index]
            total = total + self.fusion_decoder.share(level, made, m * made.shape[1])
        return total

    def bytes_per_voxel(self, subsets: int) -> int:
        # Maps and shares of four modalities and what makes them; per subset the finest level's map from below
        # enlarged (2C), risen, joined, settled, its shares, and padded copies where padding reflects.
        return 4 * self.options.base_width * (20 + 10 * subsets)

    def forward(self, batch: Batch, epoch: int) -> Terms:
        """Eq. 12 term by term, see `Method.forward`. Terms of blocks that wait for their epoch are absent.

        Of cases that lack modalities: E_Aux sees zeros in their place, as it would of an empty image; f_m,
        D_Aux's map and the target of MFSB count of what is there.
        """
        waiting = epoch < self.options.synthesis_start
        self.synthesising.fill_(not waiting)
        before = modalities.extract(self.encoders, batch.images)
        features = self._enhance(before)
        auxiliary = self.auxiliary_encoder(batch.images)
        known = modalities.known(features, batch.available)
        made = [] if waiting else self._synthesise(known)

        held = waiting and self.options.hold_fused_map
        fused = None if held else self._fuse(_complete(known, made, batch.available))
        terms = self._segmentation(batch, fused, auxiliary, before)
        agreement, self.diagnostics = objective.consistency_terms(
            features, auxiliary, self.options, batch.present
        )
        terms |= _prefixed("consistency", agreement)
        if not made:
            return {MAIN: terms}
        return self._with_synthesis(terms, objective.pairs(made, features, self._judged(batch)))

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """The discriminator has an optimiser of its own, where there is one."""
        groups: dict[str, list[nn.Parameter]] = {MAIN: []}
        for name, parameter in self.named_parameters():
            optimiser = DISCRIMINATOR if name.startswith("discriminator.") else MAIN
            groups.setdefault(optimiser, []).append(parameter)
        return groups

    def settings_at(self, epochs: float, recipe: Training) -> dict[str, dict[str, Any]]:
        settings = super().settings_at(epochs, recipe)
        if DISCRIMINATOR in settings:
            rate = self.options.discriminator_learning_rate * poly(epochs, recipe)
            settings[DISCRIMINATOR] = {"lr": rate}
        return settings

    def _enhance(self, before: Sequence[Sequence[Tensor]]) -> Levels:
        """AFEB on every modality and level."""
        after = [
            [block(f) for block, f in zip(cast(nn.ModuleList, blocks), pyramid, strict=True)]
            for blocks, pyramid in zip(self.enhancers, before, strict=True)
        ]
        return modalities.by_level(after)

    def _judged(self, batch: Batch) -> Tensor:
        """The modalities whose synthesis counts in the loss, bool [B, 4]: of those that have a target."""
        available = batch.available
        wanted = torch.ones_like(available) if self.options.synthesis_over == "all" else ~available
        return wanted if batch.present is None else wanted & batch.present

    def _synthesise(self, known: Levels) -> list[list[Tensor]]:
        """Eq. 5-9 per level: f̂_m of every modality for every sample, whatever it lacks."""
        made = []
        for level, parts in enumerate(known):
            inputs = torch.cat(parts, dim=1), torch.cat([means(f) for f in parts], dim=1)
            made.append([blocks[level](*inputs) for blocks in self.synthesisers])  # type: ignore[index]
        return made

    def _fuse(self, complete: Levels) -> Tensor:
        logits: Tensor = self.fusion_decoder(modalities.joined(complete))
        return logits

    def _fuse_auxiliary(self, auxiliary: Sequence[Tensor]) -> Tensor:
        """D_Fuse on f_Aux alone: `[B, C, …]` becomes `[B, 4C, …]` by an adapter, or four times itself."""
        if self.options.aux_fusion == "adapter":
            wide = [adapt(f) for adapt, f in zip(self.auxiliary_adapters, auxiliary, strict=True)]
            logits: Tensor = self.fusion_decoder(wide)
            return logits
        count = len(MODALITIES)
        share = self.fusion_decoder.share
        return self.fusion_decoder.join([share(i, f, times=count) for i, f in enumerate(auxiliary)])

    def _segmentation(
        self,
        batch: Batch,
        fused: Tensor | None,
        auxiliary: Sequence[Tensor],
        before: Sequence[Sequence[Tensor]],
    ) -> dict[str, Tensor]:
        """Eq. 11. D_Aux reads the features before AFEB."""
        target = segmentation.one_hot(batch.labels)
        terms: dict[str, Tensor] = {}
        if fused is not None:
            terms |= _prefixed("seg/fuse", objective.segmentation_terms(fused, target, batch.pool))
        # D_Fuse's running statistics are those of the completed features: what it reads at inference. f_Aux
        # is there in training alone, and four times the same map would draw them away.
        with statistics(counted=False):
            whole = self._fuse_auxiliary(auxiliary)
        terms |= _prefixed("seg/aux", objective.segmentation_terms(whole, target, batch.pool))
        maps = modalities.each_decoded(self.auxiliary_decoder, before)
        mono = objective.mono_terms(maps, target, batch.pool, batch.present)
        return terms | _prefixed("seg/mono", mono)

    def _with_synthesis(self, terms: dict[str, Tensor], judged: Sequence[Sequence[objective.Pair]]) -> Terms:
        """L_Syn beside the other terms, and what the discriminator learns from, where there is one."""
        terms |= _prefixed("synthesis", objective.synthesis_terms(judged, self.options))
        if self.discriminator is None:
            return {MAIN: terms}
        weight = self.options.adversarial_weight
        terms["synthesis/adver"] = objective.generator_term(self.discriminator, judged[-1], weight)
        own = objective.discriminator_terms(self.discriminator, judged[-1])
        return {MAIN: terms, DISCRIMINATOR: _prefixed("discriminator", own)}


def stand_in_report(options: ACDISOptions) -> dict[str, dict[str, int]]:
    """Parameters of AFEB, MFSB and their stand-ins per level, for one modality; nothing is allocated.

    Returns:
        {"afeb level 1": {"block": …, "stand_in": …}, …}.
    """
    report = {}
    with torch.device("meta"):
        for level in range(options.levels):
            block, other = _afeb(options, level), _conv_afeb(options, level)
            report[f"afeb level {level + 1}"] = {"block": _count(block), "stand_in": _count(other)}
        for level, width in enumerate(options.widths):
            mfsb, stand_in = _mfsb(options, width), _conv_mfsb(options, width)
            report[f"mfsb level {level + 1}"] = {"block": _count(mfsb), "stand_in": _count(stand_in)}
    return report


def _log_stand_ins(report: dict[str, dict[str, int]]) -> None:
    for name, counts in report.items():
        block, stand_in = counts["block"], counts["stand_in"]
        share = stand_in / block - 1
        note = "" if abs(share) <= 0.02 else "; at this width whole channels come no nearer"
        log.info("%s: %d parameters, its stand-in %d (%+.1f %%)%s", name, block, stand_in, 100 * share, note)


def _enhancer(options: ACDISOptions, level: int) -> nn.Module:
    return _afeb(options, level) if options.afeb == "afeb" else _conv_afeb(options, level)


def _afeb(options: ACDISOptions, level: int) -> AFEB:
    attention = options.afeb_attention == "all" or level == options.levels - 1
    return AFEB(options.widths[level], attention, options.afeb_tokens, options.padding)


def _conv_afeb(options: ACDISOptions, level: int) -> ConvAFEB:
    with torch.device("meta"):
        block = _afeb(options, level)
        budget = _count(block)
        if options.afeb_budget == "without_positions" and block.distant is not None:
            budget -= block.distant.position.numel()
    return ConvAFEB(options.widths[level], budget, options.padding)


def _synthesiser(options: ACDISOptions, width: int) -> nn.Module:
    return _mfsb(options, width) if options.mfsb == "mfsb" else _conv_mfsb(options, width)


def _mfsb(options: ACDISOptions, width: int) -> MFSB:
    return MFSB(width, options.mfsb_kernel, options.padding, len(MODALITIES))


def _conv_mfsb(options: ACDISOptions, width: int) -> ConvMFSB:
    with torch.device("meta"):
        budget = _count(_mfsb(options, width))
    return ConvMFSB(width, budget, options.padding, len(MODALITIES))


def _count(module: nn.Module | None) -> int:
    return sum(parameter.numel() for parameter in module.parameters()) if module is not None else 0


def _only(parts: Sequence[Tensor], given: Sequence[int]) -> Tensor:
    """What belongs to these modalities, side by side; zeros for the others."""
    nothing = torch.zeros_like(parts[0])
    return torch.cat([part if m in given else nothing for m, part in enumerate(parts)], dim=1)


def _complete(known: Levels, made: Sequence[Sequence[Tensor]], available: Tensor) -> Levels:
    """f_comp: real features where there are any, else synthesised ones."""
    if not made:
        return known
    return tuple(
        tuple(
            modalities.where(available[:, m], f, f_hat.to(f.dtype))
            for m, (f, f_hat) in enumerate(zip(level, synthesised, strict=True))
        )
        for level, synthesised in zip(known, made, strict=True)
    )


def _prefixed(prefix: str, terms: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}/{name}": value for name, value in terms.items()}
