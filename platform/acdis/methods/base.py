"""The seam between a method and everything that trains and scores it (ARCHITECTURE: "A method")."""

from __future__ import annotations

import hashlib
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn

from acdis.config import Training
from acdis.errors import UserError
from acdis.methods.options import MethodOptions
from acdis.networks.modalities import Levels
from acdis.networks.unet import initialise
from acdis.vocabulary import SUBSETS, Subset, subset_mask

#: {optimiser: {term: scalar}}
Terms = dict[str, dict[str, Tensor]]

MAIN = "main"  # the optimiser that every method has


def identity(sums: Tensor) -> Tensor:
    return sums


@dataclass(frozen=True)
class Batch:
    """Crops to train on.

    Attributes:
        images: float [B, 4, D, H, W], all modalities that the cases have, whatever `available` says; 0 where
            `present` says that there is none.
        labels: long [B, D, H, W], 0 to 3.
        available: bool [B, 4], the subset that each sample is trained with, of what its case has.
        origin: int [B, 3], voxels of the working grid: the crop's first voxel in its case's whole volume,
            before augmentation; negative where the box of the brain was grown beyond the volume.
        flips: bool [B, 3], the axes along which augmentation turned the crop round.
        keys: a number per sample, of (seed, epoch, case, occurrence): what `generators` start from.
        pool: sums over this piece of the batch to sums over the global batch. With s_k the sums of piece k of
            n, the pieces of all ranks and accumulation steps: (1) the value is s_1 + ... + s_n, on every
            piece the same to the last bit. (2) The mean over the pieces, weighted by their samples, of the
            gradients through it is the gradient of the global batch's loss. (3) With one piece it is the
            identity. A tensor of any shape may be pooled, several of different shapes one after the other,
            but every piece calls it equally often, with the same shapes in the same order: no branch on what
            a sample holds may stand around a call. Sums alone may pass: a mean is pooled as sum and count.
            What is pooled may not depend on what was pooled before: the pass that collects the sums of
            several pieces does not know it yet.
        present: bool [B, 4], which modalities each sample's case has at all: of others there is nothing to
            learn from. None: no case of the training lacks any (so it is the same for every batch and piece).
    """

    images: Tensor
    labels: Tensor
    available: Tensor
    origin: Tensor | None = None
    flips: Tensor | None = None
    keys: tuple[int, ...] = ()
    pool: Callable[[Tensor], Tensor] = identity
    present: Tensor | None = None

    def __post_init__(self) -> None:
        """What is not there cannot be seen, whatever stands in its place: selected, for 0 x NaN is NaN."""
        if self.present is not None:
            there = self.present[:, :, None, None, None]
            object.__setattr__(self, "images", torch.where(there, self.images, self.images.new_zeros(())))

    def generators(self, purpose: str) -> list[torch.Generator]:
        """A generator per sample, on the CPU: the source of all of a method's randomness in training.

        It depends on the sample's key and on `purpose` alone, so that a sample meets the same numbers on
        whatever rank, in whatever piece of the batch, and however often it is computed (accumulation and
        activation checkpointing compute it twice). Two purposes give independent numbers.

        Raises:
            ValueError: the batch was made without keys.
        """
        if len(self.keys) != len(self.images):
            raise ValueError(f"{len(self.images)} samples with {len(self.keys)} keys have no generators")
        seeds = (hashlib.sha256(f"{purpose}\0{key}".encode()).digest() for key in self.keys)
        return [torch.Generator().manual_seed(int.from_bytes(seed[:8], "big") >> 1) for seed in seeds]


class Method(nn.Module, ABC):
    """A method of Table 1: what is encoded once per window, what is decoded per subset, and how it learns.

    Attributes:
        Options: what only this method knows.
        version: raised when a change of the code changes the weights that a training gives.
        outputs: of what `decode` gives logits: 4 exclusive "classes", or the 3 "regions" WT, TC, ET, each for
            itself. The evaluation merges windows as they are, and makes regions nested at the end: a voxel is
            ET where its ET map says so, else NCR/NET where TC's does, else ED where WT's does.
        merged: what is averaged where windows overlap: "probabilities" (softmax or sigmoid), or "logits".
        training_only: names of the parts that inference does without, such as "mono_decoder" or "net.heads".
        validated_on: the subsets that it is trained for: validation scores these, the evaluation all 15.
        diagnostics: numbers worth logging that are no losses; each forward overwrites them.
    """

    Options: ClassVar[type[MethodOptions]]
    version: ClassVar[int]
    outputs: ClassVar[Literal["classes", "regions"]] = "classes"
    merged: ClassVar[Literal["probabilities", "logits"]] = "probabilities"
    training_only: ClassVar[tuple[str, ...]] = ()
    validated_on: tuple[Subset, ...] = SUBSETS
    passed_on: ClassVar[tuple[str, ...]] = ()

    def __init__(self) -> None:
        super().__init__()
        self.diagnostics: dict[str, Tensor] = {}

    @abstractmethod
    def encode(self, images: Tensor, origin: Tensor | None = None) -> Any:
        """`[B, 4, D, H, W]` to anything that does not depend on the subset."""

    @abstractmethod
    def decode(self, features: Any, available: Tensor) -> Tensor:
        """Logits `[B, 4 or 3, D, H, W]` from what `encode` gave and `available`, bool `[B, 4]`."""

    def decode_subsets(self, features: Any, subsets: Tensor) -> Tensor:
        """Logits `[S, B, 4 or 3, D, H, W]` for subsets, each given to the whole batch.

        Args:
            subsets: bool `[S, 4]` on the CPU, wherever the features are: reading it makes no device wait.
        """
        B, device = self.batch_size(features), next(self.parameters(), subsets).device
        return torch.stack([self.decode(features, subset.expand(B, -1).to(device)) for subset in subsets])

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

    def initialise(self, module: nn.Module) -> None:
        """Give the parameters that `module` itself owns, not its children, their first values.

        Called for every module that has some, each from a random state of its own.
        """
        initialise(module)

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """{optimiser: parameters}; each parameter that learns is in one of them."""
        return {MAIN: [parameter for parameter in self.parameters() if parameter.requires_grad]}

    def optimisers(self, recipe: Training) -> dict[str, torch.optim.Optimizer]:
        """{optimiser: over its group of parameters}; by default the recipe's Adam for each.

        Any optimiser of torch will do: its state is saved, checked and resumed whatever it holds. What
        `settings_at` gives is set before every step, the first included.
        """
        return {
            name: torch.optim.Adam(
                parameters, lr=recipe.learning_rate, weight_decay=recipe.weight_decay, amsgrad=recipe.amsgrad
            )
            for name, parameters in self.parameter_groups().items()
        }

    def settings_at(self, epochs: float, recipe: Training) -> dict[str, dict[str, Any]]:
        """{optimiser: {"lr": …}}, and momentum or the like, after so many epochs, 0 ≤ `epochs` < all.

        Pure: it may read options and buffers, keeps nothing, and is asked before every step, with a fraction
        of an epoch for the steps that are done. By default the recipe's poly decay, epoch by epoch.
        """
        rate = recipe.learning_rate * poly(epochs, recipe)
        return {name: {"lr": rate} for name in self.parameter_groups()}

    def wants_validation(self, epoch: int) -> bool:
        """Whether this epoch, counted from 0, is to be validated beside those of the recipe."""
        return False

    def validated(self, epoch: int, summary: Mapping[str, float]) -> None:
        """Told on every rank, after an epoch that was validated, before its checkpoint is written.

        Args:
            summary: mean Dice over the validation cases: `dice/<REGION>/<SUBSET>`, `dice/<REGION>/mean`,
                `dice/mean`.

        What a method learns from it stands in a buffer: then it is saved, and resuming is exact.
        """

    def adopt(self, role: str, state: Mapping[str, Tensor]) -> None:
        """Take the kept state of a parent (`method.parents`) before the first epoch and on resuming.

        Raises:
            UserError: this method has no such role, or the weights do not fit.
        """
        raise UserError(f"method.parents: {type(self).__name__} takes no parent as {role!r}; remove it")

    def sample_subsets(self, generator: torch.Generator | np.random.Generator, n: int, epoch: int) -> Tensor:
        """Subsets to train on, bool `[n, 4]`: one draw per sample, uniform over the 15 (RFNet convention).

        Args:
            epoch: counted from 0, for methods that begin with easier subsets.
        """
        masks = torch.tensor([subset_mask(subset) for subset in SUBSETS])
        if isinstance(generator, np.random.Generator):
            return masks[torch.from_numpy(generator.integers(len(masks), size=n))]
        return masks[torch.randint(len(masks), (n,), generator=generator)]

    def inference_state(self) -> dict[str, Tensor]:
        """The state without the parts that only training needs."""
        return {key: value for key, value in self.state_dict().items() if not self._is_training_only(key)}

    def kept_state(self) -> dict[str, Tensor]:
        """What a trained cell keeps: the inference state, and what is passed on to cells that start there."""
        dropped = tuple(f"{part}." for part in set(self.training_only) - set(self.passed_on))
        return {key: value for key, value in self.state_dict().items() if not key.startswith(dropped)}

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
        return key.startswith(tuple(f"{part}." for part in self.training_only))


def initialise_by_name(method: Method, seed: int) -> None:
    """Every module's first values from (seed, its qualified name), and from nothing that came before it.

    So two methods, or two rows of a table, begin alike wherever they have the same module at the same place,
    whatever else they are made of. torch's global generator is left as it was.
    """
    generator = torch.default_generator
    before = generator.get_state()
    try:
        with torch.no_grad():
            for name, module in method.named_modules():
                own = list(module.parameters(recurse=False))
                if own:
                    for parameter in own:
                        parameter.fill_(math.nan)  # what is forgotten below must not pass for a value
                    digest = hashlib.sha256(f"{seed}\0{name}".encode()).digest()
                    generator.manual_seed(int.from_bytes(digest[:8], "big") >> 1)
                    method.initialise(module)
    finally:
        generator.set_state(before)


def poly(epochs: float, recipe: Training) -> float:
    """(1 - e/E)^power, e the epochs that are done: the share that is left of a rate (RFNet convention)."""
    share: float = (1 - math.floor(epochs) / recipe.epochs) ** recipe.poly_power
    return share


def _is_weight(value: Any) -> bool:
    return isinstance(value, Tensor) and value.layout == torch.strided and not value.is_complex()


def _examples(word: str, keys: list[str]) -> list[str]:
    return [f"{len(keys)} {word} such as '{keys[0]}'"] if keys else []


def _misfit(method: Method, detail: str) -> UserError:
    return UserError(
        f"the weights do not fit the method {type(method).__name__} with these options ({detail}): "
        "load them with the method.options that they were trained with"
    )
