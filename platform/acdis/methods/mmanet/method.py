"""MMANet as two methods, teacher and student: their steps' terms."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from acdis.config import Training
from acdis.errors import UserError
from acdis.losses import segmentation
from acdis.methods import optimisers
from acdis.methods.base import MAIN, Batch, Method, Terms
from acdis.methods.mmanet import VERSION
from acdis.methods.mmanet import Options as MMANetOptions
from acdis.methods.mmanet.distillation import margin_distillation
from acdis.methods.mmanet.network import Decoded, Network
from acdis.methods.mmanet.ranking import Ranking, foreground_dice
from acdis.networks.modalities import Levels
from acdis.networks.unet import Decoder
from acdis.vocabulary import CLASSES, MODALITIES

_LEVELS = 3  # that are distilled: the coarsest
_MOMENTUM = 0.9
_CYCLE = {"warm_up": 0.1, "start": 25.0, "end": 1e4}


class Teacher(Method):
    """The network alone, on all modalities; what inference does is the student's too."""

    Options = MMANetOptions
    version = VERSION

    def __init__(self, options: MMANetOptions) -> None:
        super().__init__()
        self.options = options
        self.net = _network(options)

    def encode(self, images: Tensor, origin: Tensor | None = None) -> Levels:
        """`[B, 4, D, H, W]` to each modality's share of the fusions, level by level."""
        features: Levels = self.net.encode(images.contiguous(memory_format=torch.channels_last_3d))
        return features

    def decode(self, features: Levels, available: Tensor) -> Tensor:
        """Logits `[B, 4, D, H, W]`; zeros stand for the features that `available` (bool [B, 4]) lacks."""
        return self.net.decode(features, available).logits

    def forward(self, batch: Batch, epoch: int) -> Terms:
        """Weighted cross-entropy and Dice of the one map."""
        decoded = self.net.decode(self.net.encode(batch.images), batch.available)
        return {MAIN: self._task(batch, decoded)}

    def sample_subsets(self, generator: torch.Generator | np.random.Generator, n: int, epoch: int) -> Tensor:
        return torch.ones(n, len(MODALITIES), dtype=torch.bool)

    def optimisers(self, recipe: Training) -> dict[str, torch.optim.Optimizer]:
        if self.options.optimiser == "adam":
            return super().optimisers(recipe)
        return optimisers.sgd(self.parameter_groups(), recipe, _MOMENTUM)

    def settings_at(self, epochs: float, recipe: Training) -> dict[str, dict[str, Any]]:
        if self.options.optimiser == "adam":
            return super().settings_at(epochs, recipe)
        return {MAIN: {"lr": recipe.learning_rate * optimisers.one_cycle(epochs, recipe, **_CYCLE)}}

    def bytes_per_voxel(self, subsets: int) -> int:
        # Shares of four modalities, their selection and sum, and the decoder's maps at the finest level.
        return 4 * (20 * self.options.base_width + 40) + 32 * subsets

    def _task(self, batch: Batch, decoded: Decoded) -> dict[str, Tensor]:
        probabilities = segmentation.class_probabilities(decoded.logits)
        terms = segmentation.map_terms(probabilities, segmentation.one_hot(batch.labels), batch.pool)
        return {f"seg/{name}": value for name, value in terms.items()}


class Student(Teacher):
    """Learns from subsets, from a frozen teacher, and once more from the samples of the weakest subset."""

    training_only = ("auxiliary", "teacher", "ranking")

    def __init__(self, options: MMANetOptions) -> None:
        super().__init__(options)
        self.auxiliary = Decoder(options.widths, len(CLASSES), options.padding)
        self.teacher = _network(options).requires_grad_(False)
        self.ranking = Ranking(options.begin_epoch, options.ranking_epochs)

    def train(self, mode: bool = True) -> Student:
        super().train(mode)
        self.teacher.eval()
        return self

    def sample_subsets(self, generator: torch.Generator | np.random.Generator, n: int, epoch: int) -> Tensor:
        return Method.sample_subsets(self, generator, n, epoch)

    def forward(self, batch: Batch, epoch: int) -> Terms:
        """The task's loss; from `begin_epoch` on also MAD (the teacher's margins) and MAR."""
        decoded = self.net.decode(self.net.encode(batch.images), batch.available)
        terms = self._task(batch, decoded)
        target = segmentation.one_hot(batch.labels)
        if epoch <= self.options.begin_epoch:
            dice = foreground_dice(segmentation.class_probabilities(decoded.logits.detach()), target)
            self.ranking.observe(epoch, dice, batch.available, batch.pool)
        if epoch >= self.options.begin_epoch:
            terms["mad"] = self.options.distillation_weight * self._margins(batch, decoded)
            terms |= self._weakest(batch, decoded, target)
        return {MAIN: terms}

    def adopt(self, role: str, state: Mapping[str, Tensor]) -> None:
        """The weights of a trained teacher, which stay as they are."""
        if role != "teacher":
            super().adopt(role, state)
        own = self.teacher.state_dict()
        taken = {key.removeprefix("net."): value for key, value in state.items()}
        if taken.keys() != own.keys() or any(value.shape != own[key].shape for key, value in taken.items()):
            raise UserError(
                "method.parents.teacher: its weights are of another network; it needs "
                "method.options.stage 'teacher' and the same base_width and levels"
            )
        self.teacher.load_state_dict(taken)

    def _margins(self, batch: Batch, decoded: Decoded) -> Tensor:
        """MAD, mean over the samples, summed over the coarsest levels."""
        with torch.no_grad():
            everything = torch.ones_like(batch.available)
            known = self.teacher.decode(self.teacher.encode(batch.images), everything)
        pairs = zip(decoded.fused[-_LEVELS:], known.fused[-_LEVELS:], strict=True)
        margins = [margin_distillation(own, theirs, known.logits).mean() for own, theirs in pairs]
        return torch.stack(margins).sum()

    def _weakest(self, batch: Batch, decoded: Decoded, target: Tensor) -> dict[str, Tensor]:
        """MAR: the task's loss of the auxiliary decoder's map, over samples of the weakest subset.

        The mean is over all samples, with zeros for the others (theirs is over those samples alone).
        """
        probabilities = segmentation.class_probabilities(self.auxiliary(decoded.fused))
        chosen = self.ranking.concerns(batch.available).to(probabilities.dtype)
        counts = batch.pool(torch.stack([chosen.sum(), chosen.new_tensor(float(len(chosen)))]))
        of_each = segmentation.weighted_cross_entropy(probabilities, target, reduction="sample")
        kept = chosen[:, None, None, None, None]
        # Sums of the chosen samples alone; without any the Dice is 1, and counts for nothing.
        dice = segmentation.dice_loss(probabilities * kept, target * kept, batch.pool)
        share = (counts[0] / counts[1]).detach()
        self.diagnostics = {
            "mar/weakest_subset": self.ranking.accounts.argmax().float(),
            "mar/largest_account": self.ranking.accounts.max(),
            "mar/share": share,
        }
        weight = self.options.regularisation_weight
        return {"mar/wce": weight * (of_each * chosen).mean(), "mar/dice": weight * share * dice}


def build(options: MMANetOptions) -> Method:
    """The method of a stage."""
    return Teacher(options) if options.stage == "teacher" else Student(options)


def _network(options: MMANetOptions) -> Network:
    return Network(options.widths, len(CLASSES), len(MODALITIES), options.padding)
