"""Does the fast way learn what the plain way learns? The same steps of both, the same samples and weights.

    python benchmarks/curve.py [ROOT] [--crop 48] [--width 16] [--steps 200] [--seeds 0 1 2] [--json FILE]

Both sides train ACDIS on random augmented crops of the cases below ROOT (none: one phantom of BraTS' size),
batch 1, random subsets, every block at work from the first step, Adam by the default recipe. The plain way
(`plain.py`, fp32, torch's default memory format) runs the first seed, ours (bf16 where the CPU has it, else
fp32) all. The seed decides weights, crops and subsets, so the first seed is the same training on both sides.
Compared are means of the loss over the last quarter of the steps: how far the sides are apart in the first
seed, beside the spread (largest minus smallest) of ours over the seeds.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import machine
import step
import volume


def main(arguments: Sequence[str] | None = None) -> None:
    options = _parser().parse_args(arguments)
    if options.side:
        print(json.dumps(measure(options)))
        return
    fast = "bf16" if machine.computes("bf16") else "fp32"
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        root = options.root or volume.first_case(None, scratch).images[0].parents[1]
        runs = [(fast, seed) for seed in options.seeds] + [("plain", options.seeds[0])]
        results = {f"{side} {seed}": _apart(side, seed, options, root, scratch) for side, seed in runs}
    summary = summarise(results, fast, options.seeds)
    where = machine.facts(next(iter(results.values()))["threads"], ("torch", "numpy"))
    print(report(options, results, summary))
    print(machine.line(where))
    machine.save(options.json, {"runs": results, **summary, "machine": where})


def _apart(side: str, seed: int, options: argparse.Namespace, root: Path, scratch: Path) -> dict[str, Any]:
    size = [f"--{name}={getattr(options, name)}" for name in ("crop", "width", "steps")]
    words = [__file__, str(root), f"--side={side}", f"--seeds={seed}", f"--cache={scratch / 'cache'}", *size]
    result: dict[str, Any] = machine.apart(f"{side}, seed {seed}", words)
    return result


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """In the fresh process: the loss of each step, and the seconds of all."""
    import torch

    from acdis import methods

    (seed,) = options.seeds
    torch.manual_seed(seed)
    method = methods.build("acdis", base_width=options.width).train()
    if options.side != "plain":
        method.to(memory_format=torch.channels_last_3d)
    optimisers = step.optimisers_of(method)
    start = time.perf_counter()
    losses = [train(method, optimisers, batch, options.side) for batch in batches(method, options, seed)]
    return {"losses": losses, "seconds": time.perf_counter() - start, "threads": torch.get_num_threads()}


def batches(method: Any, options: argparse.Namespace, seed: int) -> Iterator[Any]:
    """A batch of one sample per step, keyed by the seed alone."""
    import torch

    from acdis import config
    from acdis.data import cache, cases, loader
    from acdis.training.batches import as_batch

    data = config.Data(crop=(options.crop,) * 3)
    shares = loader.epoch_batches(
        list(cache.prepare(cases.find(options.root).cases, data, options.cache, processes=1).values()),
        data,
        seed=seed,
        epoch=0,
        batch_size=1,
        iterations=options.steps,
        sample_subsets=method.sample_subsets,
    )
    return (as_batch(share, torch.device("cpu")) for share in shares)


def train(method: Any, optimisers: Sequence[Any], batch: Any, side: str) -> float:
    """One step; the loss before it."""
    for optimiser in optimisers:
        optimiser.zero_grad(set_to_none=True)
    loss = step.loss(method, batch, side)
    loss.backward()
    for name, parameter in method.named_parameters():
        if name.startswith("synthesisers.") and parameter.grad is None:
            parameter.grad = parameter.new_zeros(parameter.shape)  # a step of ours is static: 0, and not none
    for optimiser in optimisers:
        optimiser.step()
    return float(loss.detach())


def summarise(results: dict[str, dict[str, Any]], fast: str, seeds: Sequence[int]) -> dict[str, Any]:
    """Means of the last quarter, the sides' difference and the seeds' spread."""
    last = {name: statistics.fmean(of["losses"][-(len(of["losses"]) // 4) :]) for name, of in results.items()}
    ours = [last[f"{fast} {seed}"] for seed in seeds]
    return {
        "last_quarter": last,
        "difference": abs(last[f"plain {seeds[0]}"] - ours[0]),
        "spread": max(ours) - min(ours),
        "speedup": results[f"plain {seeds[0]}"]["seconds"] / results[f"{fast} {seeds[0]}"]["seconds"],
    }


def report(options: argparse.Namespace, results: dict[str, dict[str, Any]], summary: dict[str, Any]) -> str:
    """The lines for the terminal."""
    lines = [f"ACDIS, crop {options.crop}³, base width {options.width}, batch 1, {options.steps} steps"]
    for name, of in results.items():
        first = statistics.fmean(of["losses"][: max(1, len(of["losses"]) // 20)])
        lines.append(
            f"{name:8} loss of the first steps {first:8.4f}, of the last quarter "
            f"{summary['last_quarter'][name]:8.4f}; {of['seconds']:.0f} s"
        )
    verdict = "below" if summary["difference"] < summary["spread"] else "NOT below"
    lines.append(
        f"the sides differ by {summary['difference']:.4f} in seed {options.seeds[0]}, {verdict} the spread "
        f"of {len(options.seeds)} seeds, {summary['spread']:.4f}; {summary['speedup']:.2f} × faster"
    )
    return "\n".join(lines)


def _parser() -> argparse.ArgumentParser:
    parser = machine.parser(__doc__)
    parser.add_argument("root", nargs="?", type=Path, help="folder of BraTS cases; none: a phantom is drawn")
    parser.add_argument("--crop", type=int, default=48, help="voxels a side")
    parser.add_argument("--width", type=int, default=16, help="channels of the finest level")
    parser.add_argument("--steps", type=int, default=200, help="optimiser steps")
    parser.add_argument(
        "--seeds", type=int, nargs="+", default=[0, 1, 2], help="of our side; the first of both"
    )
    parser.add_argument("--cache", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--side", choices=("plain", "fp32", "bf16"), help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    main()
