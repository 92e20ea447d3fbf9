"""One training step on this CPU, ours against the plain way: seconds and peak memory.

    python benchmarks/step.py [--method acdis] [--crop 80] [--width 16] [--batch 1] [--steps 5] [--json FILE]

A step is forward, backward and Adam with every block at work (an epoch past the start of synthesis) on
samples that have FLAIR alone: three modalities are synthesised, so no other subset costs more. The sides: the
plain way (`plain.py`: fp32, torch's default memory format, one encoder and one decoder call after the
other; of ACDIS alone, other methods are compared with their own fp32 step in torch's default memory format),
ours in fp32, with activation checkpointing, and in bf16 where the CPU has bf16 instructions. Each
runs in a process of its own with the allocator of this platform's workers, one step to warm up and then
`--steps` that count. Seconds are their median. The peak is the process's largest resident memory (Linux:
VmHWM), interpreter and libraries included. Beside ours stands what the machine could do at most: the
operations of one more step, against the rate of a product of matrices in the same process.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import machine
import roofline

SIDES = ("plain", "fp32", "checkpointed", "bf16")
SIZE = ("method", "crop", "width", "batch", "steps")
TARGET = 4.0
LATE = 10**6  # an epoch in which every block is at work
BOUNDED = ("fp32", "bf16")  # sides that stand beside what the machine can do


def main(arguments: Sequence[str] | None = None) -> None:
    options = _parser().parse_args(arguments)
    if options.measure:
        print(json.dumps(measure(options)))
        return
    results = {side: run_apart(side, options) for side in SIDES if machine.computes(side)}
    size = {name: getattr(options, name) for name in SIZE}
    summary = summarise(results)
    where = machine.facts(results["fp32"]["threads"], ("torch", "numpy"))
    print(report(size, results, summary))
    print(machine.line(where))
    machine.save(options.json, {"size": size, **results, **summary, "machine": where})


def run_apart(side: str, options: argparse.Namespace) -> dict[str, Any]:
    """Measure in a fresh process: a peak of memory never falls again, so two would mix."""
    size = [f"--{name}={getattr(options, name)}" for name in SIZE]
    return machine.apart(side, [__file__, f"--measure={side}", *size])


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """In the fresh process: seconds of each step after the first, and the peak of memory in bytes."""
    import torch

    from acdis import methods
    from acdis.networks.block import set_checkpointing

    torch.manual_seed(0)
    method = methods.build(options.method, base_width=options.width).train()
    if options.measure != "plain":
        method.to(memory_format=torch.channels_last_3d)
    set_checkpointing(method, options.measure == "checkpointed")
    optimisers = optimisers_of(method)
    batch = draw(options.crop, options.batch)
    # plain.py has ACDIS alone: others' plain way is their own code in torch's default memory format
    way = "fp32" if options.measure == "plain" and options.method != "acdis" else options.measure
    libraries = peak_bytes()
    seconds = [step(method, optimisers, batch, way) for _ in range(1 + options.steps)]
    peak = peak_bytes()
    return {
        "seconds": seconds[1:],
        "warm_up_seconds": seconds[0],
        "peak_bytes": peak,
        "before_bytes": libraries,
        "parameters": sum(parameter.numel() for parameter in method.parameters()),
        "threads": torch.get_num_threads(),
        **(
            roofline.bound(lambda: step(method, optimisers, batch, way), way)
            if options.measure in BOUNDED
            else {}
        ),
    }


def optimisers_of(method: Any) -> list[Any]:
    """Adam for each group of parameters, by the default recipe."""
    import torch

    from acdis.config import Training

    recipe = Training()
    return [
        torch.optim.Adam(
            group, lr=recipe.learning_rate, weight_decay=recipe.weight_decay, amsgrad=recipe.amsgrad
        )
        for group in method.parameter_groups().values()
    ]


def draw(side: int, size: int) -> Any:
    """A batch of noise: what a step costs does not depend on what it sees."""
    import torch

    from acdis.methods.base import Batch
    from acdis.vocabulary import CLASSES, MODALITIES

    images = torch.randn(size, len(MODALITIES), side, side, side)
    return Batch(
        images=images.to(memory_format=torch.channels_last_3d),
        labels=torch.randint(len(CLASSES), (size, side, side, side)),
        available=torch.tensor([[True, False, False, False]] * size),
        origin=torch.zeros(size, 3, dtype=torch.long),
    )


def step(method: Any, optimisers: Sequence[Any], batch: Any, side: str) -> float:
    """Forward, backward, Adam; seconds."""
    start = time.perf_counter()
    for optimiser in optimisers:
        optimiser.zero_grad(set_to_none=True)
    loss(method, batch, side).backward()
    for optimiser in optimisers:
        optimiser.step()
    return time.perf_counter() - start


def loss(method: Any, batch: Any, side: str) -> Any:
    """The sum of all terms."""
    import torch

    if side == "plain":
        import plain

        return plain.loss(method, batch)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=side == "bf16"):
        losses = method(batch, LATE)
    return torch.stack([term for terms in losses.values() for term in terms.values()]).sum()


def peak_bytes() -> int:
    """The largest resident memory that this process has had."""
    status = Path("/proc/self/status")
    if status.exists():
        peaks = [entry for entry in status.read_text().splitlines() if entry.startswith("VmHWM:")]
        return int(peaks[0].split()[1]) * 1024
    import resource

    unit = 1 if sys.platform == "darwin" else 1024  # macOS counts bytes, others kibibytes
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def summarise(results: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Medians, and ratios of the plain way to each side."""
    median = {side: statistics.median(result["seconds"]) for side, result in results.items()}
    peak = {side: result["peak_bytes"] / machine.GB for side, result in results.items()}
    return {
        "median_seconds": median,
        "peak_gb": peak,
        "speedup": {side: median["plain"] / seconds for side, seconds in median.items()},
        "memory_over_plain": {side: size / peak["plain"] for side, size in peak.items()},
        "memory_checkpointed_over_fp32": peak["checkpointed"] / peak["fp32"],
    }


def report(size: dict[str, Any], results: dict[str, dict[str, Any]], summary: dict[str, Any]) -> str:
    """The lines for the terminal."""
    lines = [
        f"{size['method']}, {results['fp32']['parameters']:,} parameters, crop {size['crop']}³, "
        f"batch {size['batch']}, base width {size['width']}; median of {size['steps']} steps after one"
    ]
    for side, result in results.items():
        spread = f"({min(result['seconds']):.2f} to {max(result['seconds']):.2f})"
        lines.append(
            f"{side:12} {summary['median_seconds'][side]:8.2f} s/step {spread:20} "
            f"peak {summary['peak_gb'][side]:6.2f} GB   plain / this: {summary['speedup'][side]:.2f} × time, "
            f"{1 / summary['memory_over_plain'][side]:.2f} × memory"
        )
    median = summary["median_seconds"]
    bounded = {side: results[side] for side in BOUNDED if side in results}
    lines += [
        f"{side:12} {roofline.line(result, median[side], median['plain'])}"
        for side, result in bounded.items()
    ]
    best = max(summary["speedup"].values())
    lines.append(f"best {best:.2f} × (target: at least {TARGET:g} ×, at 80³, width 16, batch 2)")
    lines.append(f"checkpointing leaves {100 * summary['memory_checkpointed_over_fp32']:.0f} % of the peak")
    if "bf16" not in results:
        lines.append("bf16: not measured, this CPU has no bf16 instructions")
    return "\n".join(lines)


def _parser() -> argparse.ArgumentParser:
    parser = machine.parser(__doc__)
    parser.add_argument("--method", default="acdis", help="a method of the registry")
    parser.add_argument("--crop", type=int, default=80, help="voxels a side")
    parser.add_argument("--width", type=int, default=16, help="channels of the finest level")
    parser.add_argument("--batch", type=int, default=1, help="volumes a step")
    parser.add_argument("--steps", type=int, default=5, help="steps that count, after one that warms up")
    parser.add_argument("--measure", choices=SIDES, help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    main()
