"""The state of one training: how it begins, what a checkpoint holds, and how it is taken up again.

Nothing random is carried from step to step: every sample's state is a function of (seed, epoch, case,
occurrence), so a checkpoint needs weights, optimisers and history only.
"""

from __future__ import annotations

import json
import logging
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from acdis import files, methods
from acdis.config import Experiment
from acdis.errors import UserError
from acdis.methods.base import MAIN, Method
from acdis.networks.block import set_checkpointing
from acdis.training import checkpoint, checkpoint_contents, precision
from acdis.training.events import EpochEnd, EpochEntry
from acdis.training.group import Group

LAST = "last.pt"
BEFORE = "before.pt"
BEST = "best.pt"
WEIGHTS = "weights.pt"  # of a cell that is trained, for inference
#: The training state in a cell's folder, of no use when the training is over.
STATE = (LAST, BEFORE, BEST)
log = logging.getLogger(__name__)


@dataclass
class TrainingRun:
    """The state of one training: what a checkpoint holds, and what it trains with.

    Attributes:
        model: the method, or its DDP wrapper.
        dtype: of autocast; none for fp32.
        history: one entry per epoch that is done.
        best: `dice` and `epoch` (from 1) of the best validation; empty before the first, and where
            `training.selection` does not ask for it.
    """

    experiment: Experiment
    method: Method
    model: nn.Module
    optimisers: dict[str, torch.optim.Optimizer]
    group: Group
    dtype: torch.dtype | None
    history: list[EpochEntry] = field(default_factory=list)
    best: dict[str, float] = field(default_factory=dict)

    @property
    def epoch(self) -> int:
        """Epochs that are done."""
        return len(self.history)


def begin(experiment: Experiment, folder: Path, group: Group) -> TrainingRun:
    """A run at its first epoch, or where the checkpoint in `folder` left it; if damaged, the one before.

    Parents (`method.parents`) are cells beside `folder`: what the method adopts of them comes first.

    Raises:
        UserError: the checkpoints are damaged, one belongs to another model, the ranks have different ones,
            or the device lacks bf16; a parent has no weights, or such that do not fit.
    """
    settings = experiment.training
    precision.check(settings.precision, group.device)
    method = new_method(experiment)
    for role, parent in experiment.method.parents.items():
        _adopt(method, role, folder.parent / parent)
    method.to(group.device)
    method.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    set_checkpointing(method, experiment.scaling.activation_checkpointing)
    # Kernels of one input channel or one voxel are the same in both orders of memory, so strides of weight
    # and gradient differ now and then; DDP warns that it copies those few numbers.
    warnings.filterwarnings("ignore", message="Grad strides do not match")
    model = _spread(method) if group.world > 1 else method
    dtype = precision.autocast_dtype(settings.precision)
    run = TrainingRun(experiment, method, model, method.optimisers(settings), group, dtype)
    if group.leads:
        files.sweep(folder)
    _restore(run, folder)
    _check_ranks(run, folder)
    return run


def _spread(method: Method) -> DistributedDataParallel:
    """Blocks that are not active yet have no gradient, hence `find_unused_parameters`."""
    return DistributedDataParallel(method, find_unused_parameters=True, gradient_as_bucket_view=True)


def _adopt(method: Method, role: str, parent: Path) -> None:
    if not (parent / WEIGHTS).exists():
        raise UserError(
            f"method.parents.{role}: {parent.name} has no weights: it failed, or is not trained yet"
        )
    try:
        method.adopt(role, checkpoint.load(parent / WEIGHTS))
    except UserError as error:
        raise UserError(f"method.parents.{role}: {parent.name}: {error}") from None


def new_method(experiment: Experiment) -> Method:
    """The method with the weights that the seed gives it; the caller's random state is left alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(experiment.seed)
        return methods.build(experiment.method.name, **experiment.method.options)


def settle(run: TrainingRun, epochs: float) -> float:
    """Set what the method's schedule gives after so many epochs, in every optimiser.

    Returns:
        The main optimiser's learning rate.
    """
    settings = run.method.settings_at(epochs, run.experiment.training)
    for name, values in settings.items():
        for parameters in run.optimisers[name].param_groups:
            parameters.update(values)
    rate: float = settings[MAIN]["lr"]
    return rate


def state_of(run: TrainingRun) -> dict[str, Any]:
    """What a checkpoint holds, of the epochs that are done; the tensors are the run's own."""
    return {
        "method": run.method.state_dict(),
        "optimisers": {name: optimiser.state_dict() for name, optimiser in run.optimisers.items()},
        "history": json.dumps(run.history),
        "best": dict(run.best),
        "version": run.method.version,
    }


def write(folder: Path, state: dict[str, Any], best: dict[str, Tensor] | None = None) -> None:
    """Write a checkpoint; the one before it is kept too.

    Args:
        best: the weights of an epoch in it that was the best so far; they are written first.
    """
    if best is not None:
        checkpoint.save(folder / BEST, best)
    checkpoint.save(folder / LAST, state, keep=folder / BEFORE)


def is_best(run: TrainingRun, entry: EpochEnd) -> bool:
    """With `training.selection` 'best': whether this is the (first) best validated epoch."""
    dice = entry.validation.get("dice/mean")
    if run.experiment.training.selection != "best" or dice is None:
        return False
    return dice > run.best.get("dice", -1.0)


def final_state(run: TrainingRun, folder: Path) -> dict[str, Tensor]:
    """The weights that `training.selection` asks for, for inference and for cells that start from them."""
    if run.experiment.training.selection == "best":
        return checkpoint.load(folder / BEST, run.group.device)
    return run.method.kept_state()


def _restore(run: TrainingRun, folder: Path) -> None:
    """A process that was killed between two renamings leaves only the checkpoint before the last."""
    there = [path for path in (folder / LAST, folder / BEFORE) if path.exists()]
    for path in there:
        try:
            # To the CPU: Adam counts its steps there, and a count on a GPU is waited for at every step.
            state = checkpoint.load(path)
        except checkpoint.Damaged as error:
            if path == there[-1]:
                raise
            log.warning("%s: the checkpoint before it is used", error)
            if run.group.leads:
                path.unlink(missing_ok=True)  # lest it take the good one's place when the next is written
        else:
            _take_over(run, state, path)
            return


def _check_ranks(run: TrainingRun, folder: Path) -> None:
    """Ranks that go on from different epochs would average weights that do not belong together."""
    done = run.group.gather([run.epoch])
    if len(set(done)) > 1:
        by_rank = ", ".join(f"rank {rank} {epochs}" for rank, epochs in enumerate(done))
        raise UserError(
            f"{folder}: different checkpoints (epochs done: {by_rank}); every node must see "
            "the same ACDIS_HOME"
        )


def _take_over(run: TrainingRun, state: dict[str, Any], path: Path) -> None:
    try:
        _check_version(state["version"], run.method.version)
        run.method.load_state_dict(state["method"])
        scheduled = run.method.settings_at(0.0, run.experiment.training)
        for name, optimiser in run.optimisers.items():
            checkpoint_contents.load_optimiser(optimiser, state["optimisers"][name], scheduled[name])
        run.history = checkpoint_contents.history(state["history"], run.experiment.training.epochs)
        run.best = checkpoint_contents.best(state["best"])
    except (LookupError, RuntimeError, ValueError, TypeError, AttributeError, AssertionError) as error:
        reason = " ".join(str(error).split())[:120]
        raise UserError(
            f"{path}: belongs to another model ({reason}); delete it to train from the start"
        ) from None


def _check_version(version: Any, here: int) -> None:
    if version != here:
        raise ValueError(f"of the method's version {version}, this is version {here}")
