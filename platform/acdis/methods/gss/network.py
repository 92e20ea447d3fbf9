"""GSS: RFNet's network, taught also by what its modalities predict alone (Qiu et al., ICCV 2023)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from acdis.config import Training
from acdis.errors import UserError
from acdis.losses import segmentation
from acdis.methods.base import MAIN, Batch, Terms
from acdis.methods.gss import VERSION, soft_target
from acdis.methods.gss import Options as GSSOptions
from acdis.methods.rfnet.network import RFNet
from acdis.networks import modalities


class GSS(RFNet):
    """Group self-support: starts from a trained RFNet, whose mono-modal maps make a soft target."""

    Options = GSSOptions
    version = VERSION
    options: GSSOptions

    def forward(self, batch: Batch, epoch: int) -> Terms:
        """RFNet's terms, and the cross-entropy of each modality's softened map with the soft target."""
        pyramids = modalities.extract(self.encoders, batch.images)
        fused, regions = self._fuse(modalities.by_level(pyramids), batch.available)
        mono = modalities.each_decoded(self.mono_decoder, pyramids)
        soft = self.options.soft_weight * self._support(mono, batch.generators("masked voxels"))
        return {MAIN: self._terms(batch, fused, mono, regions) | {"soft/wce": soft}}

    def _support(self, mono: Sequence[Tensor], generators: Sequence[torch.Generator]) -> Tensor:
        target = soft_target.soft_target(torch.stack(tuple(mono)), self.options.target)
        voxels = target[0, 0].numel()

        def draw(draws: int) -> Tensor:
            indices = [torch.randint(voxels, (draws,), generator=generator) for generator in generators]
            return torch.stack(indices).to(target.device)

        losses = []
        for logits in mono:
            soft = segmentation.class_probabilities(logits / soft_target.TEMPERATURE)
            emptied = soft_target.masked(target, soft, self.options.masked, draw)
            losses.append(soft_target.soft_cross_entropy(emptied[1], emptied[0]))
        return torch.stack(losses).sum()

    def settings_at(self, epochs: float, recipe: Training) -> dict[str, dict[str, Any]]:
        """The recipe's poly decay, over again in each round."""
        round_epochs = recipe.epochs // self.options.rounds
        return super().settings_at(epochs % round_epochs, recipe.model_copy(update={"epochs": round_epochs}))

    def adopt(self, role: str, state: Mapping[str, Tensor]) -> None:
        """All weights of a trained RFNet, or of a round before; its mono decoder too."""
        if role != "start":
            super().adopt(role, state)
        self.load_inference_state(state)
        if not any(self._is_training_only(key) for key in state):
            raise UserError(
                "it was trained before cells kept the mono decoder, which GSS starts from; train it again"
            )
