"""Before the first epoch: does a step fit the memory, and how long will all of them take?"""

from __future__ import annotations

import math
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace

import torch

from acdis import machine, methods
from acdis.config import Experiment
from acdis.data.loader import Samples
from acdis.errors import UserError
from acdis.methods.base import Method
from acdis.training import checkpoint_contents
from acdis.training.batches import Cases, batches, steps_per_epoch
from acdis.training.events import Projection
from acdis.training.run import TrainingRun
from acdis.training.step import accumulate

Sides = tuple[int, ...]

#: A step that takes more than this share of what is free would leave the machine nothing.
USABLE = 0.95

_SMALLEST = 16  # voxels: no side of a crop is cut below this


def project(run: TrainingRun, cases: Cases) -> Projection:
    """Measure a step of the costliest epoch on real crops; its gradients are thrown away, nothing is changed.

    Raises:
        UserError: a step does not fit the memory of one of the processes.
    """
    settings = run.experiment.training
    with closing(batches(run, cases, run.epoch)) as source:
        samples = next(source)
    with _untouched(run):
        check_memory(run, samples)
        seconds, peak = measure(run, samples)
    left = settings.epochs - run.epoch
    remaining = seconds * steps_per_epoch(run, cases) * left
    return Projection(run.epoch, settings.epochs, seconds, remaining, peak)


def check_memory(run: TrainingRun, samples: Samples) -> None:
    """Refuse a step that cannot fit, without running it: on a CPU the kernel kills the process that tries.

    On a GPU the full step itself is the check. All processes of the group are refused together.

    Raises:
        UserError: it would not fit.
    """
    if run.group.device.type != "cpu":
        return
    need = predicted_peak(run, samples) - machine.resident() + _optimiser_bytes(run)
    free = machine.free()
    neighbours = run.group.gather([socket.gethostname()]).count(socket.gethostname())
    per_process = f" for each of {neighbours} processes" if neighbours > 1 else ""
    detail = f"about {need / 2**30:.1f} GiB{per_process}, {free / 2**30:.1f} GiB are free"
    refusals = run.group.gather([detail] if need * neighbours > USABLE * free else [])
    if refusals:
        raise out_of_memory(run.experiment, refusals[0])


def predicted_peak(run: TrainingRun, samples: Samples) -> int:
    """Resident memory at the peak of a step, bytes, from steps on two smaller crops.

    What a step holds beside weights, gradients and libraries is activations, which are linear in voxels: the
    line through two sizes goes on to the crop's. A crop too small to be cut is no danger: what is held now.
    """
    crop = samples.labels.shape[1:]
    small, larger = pieces_of(crop, *crop_rule(run.experiment))
    if small == larger:
        return machine.resident()
    costly = _costliest(run.method, samples, run.experiment.training.epochs - 1)
    _peak_of(run, costly, small)  # loads and allocates what later steps use again
    low, high = _peak_of(run, costly, small), _peak_of(run, costly, larger)
    per_voxel = max(0, high - low) / (_volume(larger) - _volume(small))
    return int(high + per_voxel * (_volume(crop) - _volume(larger)))


def crop_rule(experiment: Experiment) -> tuple[int, int]:
    """What sides the method takes, see `MethodOptions.crop_rule`."""
    return methods.validate(experiment.method.name, experiment.method.options).crop_rule()


def pieces_of(crop: Sequence[int], step: int = 1, least: int = _SMALLEST) -> tuple[Sides, Sides]:
    """Two smaller crops: every side halved that stays long enough, and the same with one of them whole.

    Args:
        step, least: what the method takes: multiples of the first, voxels; the second at least.
    """
    halves = (side // 2 // step * step for side in crop)
    small = tuple(
        half if half >= max(_SMALLEST, least) else side for half, side in zip(halves, crop, strict=True)
    )
    for axis, (half, whole) in enumerate(zip(small, crop, strict=True)):
        if half < whole:
            return small, (*small[:axis], whole, *small[axis + 1 :])
    return small, small


def measure(run: TrainingRun, samples: Samples) -> tuple[float, int]:
    """Seconds and peak bytes of a full step, the second of two: the first one warms up.

    Raises:
        UserError: the step ran out of memory.
    """
    device = run.group.device
    machine.reset_peak()
    try:
        # The peak is that of the costliest subset, the time that of the subsets as they are drawn.
        _step(run, _costliest(run.method, samples, run.experiment.training.epochs - 1))
        start = time.perf_counter()
        _step(run, samples)
    except RuntimeError as error:  # torch.OutOfMemoryError is one
        if isinstance(error, torch.OutOfMemoryError) or "not enough memory" in str(error):
            raise out_of_memory(run.experiment, str(error).split(".")[0][:120]) from None
        raise
    seconds = time.perf_counter() - start
    peak = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else machine.peak()
    return seconds, peak


def out_of_memory(experiment: Experiment, detail: str) -> UserError:
    """The one line that names the ways out."""
    data, training, scaling = experiment.data, experiment.training, experiment.scaling
    return UserError(
        f"a training step does not fit the memory ({detail}): make data.crop (now {list(data.crop)}) or "
        f"training.batch_size (now {training.batch_size}) smaller, spread the batch with "
        f"scaling.accumulation (now {scaling.accumulation}), or set scaling.activation_checkpointing=true "
        f"(now {str(scaling.activation_checkpointing).lower()})"
    )


@contextmanager
def _untouched(run: TrainingRun) -> Iterator[None]:
    """In training mode; afterwards gradients and buffers are as they were."""
    before = {name: buffer.clone() for name, buffer in run.method.named_buffers()}
    run.model.train()
    try:
        yield
    finally:
        run.model.zero_grad(set_to_none=True)
        with torch.no_grad():
            for name, buffer in run.method.named_buffers():
                buffer.copy_(before[name])


def _peak_of(run: TrainingRun, samples: Samples, sides: Sides) -> int:
    """Peak bytes of resident memory in a step on a corner of the crops."""
    d, h, w = sides
    cut = replace(samples, images=samples.images[..., :d, :h, :w], labels=samples.labels[:, :d, :h, :w])
    machine.reset_peak()
    _step(run, cut)
    return machine.peak()


def _step(run: TrainingRun, samples: Samples) -> None:
    """A step of the last epoch, when every block is active, without its consequences. NaN is no concern here:
    the epoch that meets it says so."""
    accumulate(run, samples, run.experiment.training.epochs - 1, watched=False)
    run.model.zero_grad(set_to_none=True)
    if run.group.device.type == "cuda":
        torch.cuda.synchronize(run.group.device)


def _costliest(method: Method, samples: Samples, epoch: int) -> Samples:
    """The samples with as few modalities as the method is trained with: most is synthesised then."""
    drawn = method.sample_subsets(torch.Generator().manual_seed(0), 64, epoch)
    fewest = drawn[drawn.sum(1).argmin()].expand(len(samples), -1)
    if samples.present is not None:  # of what a case has; what was drawn for it, where that is nothing
        of_it = fewest & samples.present
        fewest = torch.where(of_it.any(1, keepdim=True), of_it, samples.available)
    return replace(samples, available=fewest)


def _optimiser_bytes(run: TrainingRun) -> int:
    """What the optimisers take at their first step: of Adam two numbers per weight, three with amsgrad."""
    return sum(
        weight.nbytes * len(checkpoint_contents.state_of(optimiser, group).like_weights)
        for optimiser in run.optimisers.values()
        for group in optimiser.param_groups
        for weight in group["params"]
        if weight not in optimiser.state
    )


def _volume(sides: Sequence[int]) -> int:
    return math.prod(sides)
