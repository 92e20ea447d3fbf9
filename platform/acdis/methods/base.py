"""The seam between a method and everything that trains and scores it (ARCHITECTURE: "A method")."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from acdis.errors import UserError
from acdis.methods.options import MethodOptions
from acdis.networks.modalities import Levels
from acdis.vocabulary import SUBSETS, subset_mask

#: {optimiser: {term: scalar}}
Terms = dict[str, dict[str, Tensor]]

MAIN = "main"  # the optimiser that every method has


def identity(sums: Tensor) -> Tensor:
    return sums


@dataclass(frozen=True)
class Batch:
    """Crops to train on.

    Attributes:
        images: float [B, 4, D, H, W], all four modalities whatever `available` says.
        labels: long [B, D, H, W], 0 to 3.
        available: bool [B, 4], the subset that each sample is trained with.
        origin: int [B, 3], voxels: the crops' places in their volumes; none where no method asks.
        pool: turns the Dice sums of this share of the batch into those of the global batch. A method calls it
            once per segmentation map, always in the same order on every rank.
    """

    images: Tensor
    labels: Tensor
    available: Tensor
    origin: Tensor | None = None
    pool: Callable[[Tensor], Tensor] = identity


class Method(nn.Module, ABC):
    """A method of Table 1: what is encoded once per window, what is decoded per subset, and how it learns.

    Attributes:
        Options: what only this method knows.
        version: raised when a change of the code changes the weights that a training gives.
        training_only: names of the children that inference does without.
        diagnostics: numbers worth logging that are no losses; each forward overwrites them.
    """

    Options: ClassVar[type[MethodOptions]]
    version: ClassVar[int]
    training_only: ClassVar[tuple[str, ...]] = ()

    def __init__(self) -> None:
        super().__init__()
        self.diagnostics: dict[str, Tensor] = {}

    @abstractmethod
    def encode(self, images: Tensor, origin: Tensor | None = None) -> Any:
        """`[B, 4, D, H, W]` to anything that does not depend on the subset."""

    @abstractmethod
    def decode(self, features: Any, available: Tensor) -> Tensor:
        """Logits `[B, 4 classes, D, H, W]` from what `encode` gave and `available`, bool `[B, 4]`."""

    def decode_subsets(self, features: Any, subsets: Tensor) -> Tensor:
        """Logits `[S, B, 4 classes, D, H, W]` for subsets, bool `[S, 4]`, each given to the whole batch."""
        B = self.batch_size(features)
        return torch.stack([self.decode(features, subset.expand(B, -1)) for subset in subsets])

    def modality_features(self, features: Any) -> Levels:
        """Each modality's own features, from what `encode` gave, for figures; empty where there are none."""
        return ()

    def completed(self, features: Any, available: Tensor) -> Levels:
        """The same with what `available`, bool `[B, 4]`, lacks synthesised from the rest; empty where nothing
        is synthesised: by this method never, or not yet in the training that gave these weights."""
        return ()

    def bytes_per_voxel(self, subsets: int) -> int:
        """What a window takes at most per voxel, fp32: `encode`, its result, `decode_subsets` of so many."""
        return 4096 + 20 * subsets

    def batch_size(self, features: Any) -> int:
        """B of what `encode` gave: by default a tensor `[B, ...]`, or (nested) sequences of such."""
        while not isinstance(features, Tensor):
            features = features[0]
        return len(features)

    @abstractmethod
    def forward(self, batch: Batch, epoch: int) -> Terms:
        """The loss, term by term and optimiser by optimiser; `epoch` counts from 0.

        The caller sums all terms of all optimisers and goes backward once. Every term is a mean
        over the batch of a number per sample, Dice excepted (see `Batch.pool`): shares average to the whole.
        """

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """{optimiser: parameters}; each parameter in one of them."""
        return {MAIN: list(self.parameters())}

    def optimiser_settings(self) -> dict[str, dict[str, float]]:
        """{optimiser: {"lr": …}}: what differs from the training's recipe."""
        return {}

    def sample_subsets(self, generator: torch.Generator | np.random.Generator, n: int) -> Tensor:
        """Subsets to train on, bool `[n, 4]`: one draw per sample, uniform over the 15 (RFNet convention)."""
        masks = torch.tensor([subset_mask(subset) for subset in SUBSETS])
        if isinstance(generator, np.random.Generator):
            return masks[torch.from_numpy(generator.integers(len(masks), size=n))]
        return masks[torch.randint(len(masks), (n,), generator=generator)]

    def inference_state(self) -> dict[str, Tensor]:
        """The state without the parts that only training needs."""
        return {key: value for key, value in self.state_dict().items() if not self._is_training_only(key)}

    def load_inference_state(self, state: Mapping[str, Tensor]) -> None:
        """Load what `inference_state` gave (a whole state dict is taken too).

        Raises:
            UserError: the weights are of another method, or of other options.
        """
        if not all(isinstance(key, str) and _is_weight(value) for key, value in state.items()):
            raise _misfit(self, "it holds other things than weights")
        try:
            missing, unexpected = self.load_state_dict(state, strict=False)
        except RuntimeError as error:
            raise _misfit(self, str(error).strip().splitlines()[-1].strip()) from None
        lacking = [key for key in missing if not self._is_training_only(key)]
        if lacking or unexpected:
            examples = ", ".join(_examples("missing", lacking) + _examples("unknown", unexpected))
            raise _misfit(self, examples)

    def _is_training_only(self, key: str) -> bool:
        return key.split(".", 1)[0] in self.training_only


def _is_weight(value: Any) -> bool:
    return isinstance(value, Tensor) and value.layout == torch.strided and not value.is_complex()


def _examples(word: str, keys: list[str]) -> list[str]:
    return [f"{len(keys)} {word} such as '{keys[0]}'"] if keys else []


def _misfit(method: Method, detail: str) -> UserError:
    return UserError(
        f"the weights do not fit the method {type(method).__name__} with these options ({detail}): "
        "load them with the method.options that they were trained with"
    )
