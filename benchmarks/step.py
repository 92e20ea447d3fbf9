"""One training step of ACDIS on this CPU, in fp32 and in bf16: seconds and peak memory.

    python benchmarks/step.py [--crop 80] [--width 16] [--batch 1] [--steps 5] [--json FILE]

A step is forward, backward and Adam with every block at work (an epoch past the start of synthesis) on a
sample that has FLAIR alone: three modalities are synthesised, so no other subset costs more. Each precision
runs in a process of its own, one step to warm up and then `--steps` that count. Seconds are their median.
The peak is the process's largest resident memory (Linux: VmHWM), interpreter and libraries included.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import machine

PRECISIONS = ("fp32", "bf16")
LIMIT_GB = 12.0
LATE = 10**6  # an epoch in which every block is at work


def main(arguments: Sequence[str] | None = None) -> None:
    options = _parser().parse_args(arguments)
    if options.measure:
        print(json.dumps(measure(options)))
        return
    results = {precision: run_apart(precision, options) for precision in PRECISIONS}
    size = {"crop": options.crop, "width": options.width, "batch": options.batch, "steps": options.steps}
    summary = summarise(results)
    where = machine.facts(results["fp32"]["threads"], ("torch", "numpy"))
    print(report(size, results, summary))
    print(machine.line(where))
    machine.save(options.json, {"size": size, **results, **summary, "machine": where})


def run_apart(precision: str, options: argparse.Namespace) -> dict[str, Any]:
    """Measure in a fresh process: a peak of memory never falls again, so two would mix."""
    print(f"measuring {precision} …", file=sys.stderr, flush=True)
    size = [f"--{name}={getattr(options, name)}" for name in ("crop", "width", "batch", "steps")]
    line = [sys.executable, __file__, f"--measure={precision}", *size]
    ended = subprocess.run(line, stdout=subprocess.PIPE, text=True, check=False)
    if ended.returncode:
        sys.exit(f"the step in {precision} ended with {ended.returncode} (killed for its memory?)")
    result: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
    return result


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """In the fresh process: seconds of each step after the first, and the peak of memory in bytes."""
    import torch

    from acdis import methods
    from acdis.config import Training

    settings = Training()
    torch.manual_seed(0)
    method = methods.build("acdis", base_width=options.width).to(memory_format=torch.channels_last_3d)
    method.train()
    optimisers = [
        torch.optim.Adam(
            group, lr=settings.learning_rate, weight_decay=settings.weight_decay, amsgrad=settings.amsgrad
        )
        for group in method.parameter_groups().values()
    ]
    batch = draw(options.crop, options.batch)
    libraries = peak_bytes()
    seconds = [step(method, optimisers, batch, options.measure) for _ in range(1 + options.steps)]
    return {
        "seconds": seconds[1:],
        "warm_up_seconds": seconds[0],
        "peak_bytes": peak_bytes(),
        "before_bytes": libraries,
        "parameters": sum(parameter.numel() for parameter in method.parameters()),
        "threads": torch.get_num_threads(),
        "hardware_bf16": bool(torch.ops.mkldnn._is_mkldnn_bf16_supported()),
    }


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


def step(method: Any, optimisers: Sequence[Any], batch: Any, precision: str) -> float:
    """Forward, backward, Adam; seconds."""
    import torch

    start = time.perf_counter()
    for optimiser in optimisers:
        optimiser.zero_grad(set_to_none=True)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bf16"):
        losses = method(batch, LATE)
    torch.stack([term for terms in losses.values() for term in terms.values()]).sum().backward()
    for optimiser in optimisers:
        optimiser.step()
    return time.perf_counter() - start


def peak_bytes() -> int:
    """The largest resident memory that this process has had."""
    status = Path("/proc/self/status")
    if status.exists():
        found = [entry for entry in status.read_text().splitlines() if entry.startswith("VmHWM:")]
        return int(found[0].split()[1]) * 1024
    import resource

    unit = 1 if sys.platform == "darwin" else 1024  # macOS counts bytes, others kibibytes
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def summarise(results: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Medians, ratios, and whether both peaks stay under the limit."""
    median = {name: statistics.median(result["seconds"]) for name, result in results.items()}
    peak = {name: result["peak_bytes"] / machine.GB for name, result in results.items()}
    return {
        "median_seconds": median,
        "peak_gb": peak,
        "speedup_bf16": median["fp32"] / median["bf16"],
        "memory_bf16_over_fp32": peak["bf16"] / peak["fp32"],
        "under_limit": max(peak.values()) < LIMIT_GB,
    }


def report(size: dict[str, int], results: dict[str, dict[str, Any]], summary: dict[str, Any]) -> str:
    """The lines for the terminal."""
    lines = [
        f"ACDIS, {results['fp32']['parameters']:,} parameters, crop {size['crop']}³, batch {size['batch']}, "
        f"base width {size['width']}; median of {size['steps']} steps after one"
    ]
    for name, result in results.items():
        seconds = f"{summary['median_seconds'][name]:8.2f} s/step"
        spread = f"{min(result['seconds']):.2f} to {max(result['seconds']):.2f}"
        start = f"{result['before_bytes'] / machine.GB:.2f} GB before the first step"
        lines.append(
            f"{name} {seconds} ({spread})   peak {summary['peak_gb'][name]:6.2f} GB, of which {start}"
        )
    emulated = "" if results["bf16"]["hardware_bf16"] else " (this CPU has no bf16 instructions)"
    memory = 1 / summary["memory_bf16_over_fp32"]
    lines.append(f"fp32 / bf16: {summary['speedup_bf16']:.2f} × time, {memory:.2f} × memory{emulated}")
    verdict = "yes" if summary["under_limit"] else "NO"
    target = (
        ""
        if (size["crop"], size["width"], size["batch"]) == (80, 16, 1)
        else "; the target is for 80³, width 16, batch 1"
    )
    lines.append(f"peak under {LIMIT_GB:g} GB: {verdict}{target}")
    return "\n".join(lines)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--crop", type=int, default=80, help="voxels a side")
    parser.add_argument("--width", type=int, default=16, help="channels of the finest level")
    parser.add_argument("--batch", type=int, default=1, help="volumes a step")
    parser.add_argument("--steps", type=int, default=5, help="steps that count, after one that warms up")
    parser.add_argument("--json", type=Path, help="write the results to this file too")
    parser.add_argument("--measure", choices=PRECISIONS, help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    main()
