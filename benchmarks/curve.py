"""Do the fast ways learn as the plain way does? 200 steps of both from the same weights and crops.

    python benchmarks/curve.py [ROOT] [--crop 48] [--steps 200] [--seeds 0 1 2] [--plain-seeds 0]

No figure of speed: `step.py` has those. Each seed draws weights, crops and subsets; the plain way
(`plain.py`) and ours then see the same ones. Shown is the mean loss of the last quarter of the steps: how
far the two are apart under one seed, and how far seeds are apart (the standard deviation of ours). Crops
come from the first case of ROOT (none: a phantom of BraTS' size).
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import machine
import step
import torch
import volume

from acdis import config, methods
from acdis.data import cache, loader
from acdis.training.batches import as_batch


def main(arguments: Sequence[str] | None = None) -> None:
    options = _parser().parse_args(arguments)
    fast = "bf16" if machine.computes("bf16") else "fp32"
    with tempfile.TemporaryDirectory() as folder:
        data = config.Data(crop=(options.crop,) * 3)
        case = volume.first_case(options.root, Path(folder))
        (entry,) = cache.prepare([case], data, Path(folder) / "cache", processes=1).values()
        ours = {seed: curve(entry, data, options, seed, fast) for seed in options.seeds}
        plain = {seed: curve(entry, data, options, seed, "plain") for seed in options.plain_seeds}
    summary = summarise(ours, plain)
    where = machine.facts(torch.get_num_threads(), ("torch", "numpy"))
    print(report(options, fast, summary))
    print(machine.line(where))
    machine.save(options.json, {"ours": ours, "plain": plain, **summary, "side": fast, "machine": where})


def curve(
    entry: cache.Entry, data: config.Data, options: argparse.Namespace, seed: int, side: str
) -> list[float]:
    """The loss of every step."""
    torch.manual_seed(seed)
    method = methods.build("acdis", base_width=options.width).train()
    if side != "plain":
        method.to(memory_format=torch.channels_last_3d)
    optimisers = step.optimisers_of(method)
    found = []
    for number, batch in enumerate(batches(entry, data, options, seed, method), 1):
        found.append(step.step(method, optimisers, batch, side)[1])
        print(f"\r{side}, seed {seed}: step {number} of {options.steps}", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    return found


def batches(
    entry: cache.Entry, data: config.Data, options: argparse.Namespace, seed: int, method: Any
) -> Iterator[Any]:
    """Two crops a step."""
    drawn = loader.epoch_batches(
        [entry],
        data,
        seed=seed,
        epoch=0,
        batch_size=2,
        iterations=options.steps,
        sample_subsets=method.sample_subsets,
    )
    return (as_batch(samples, torch.device("cpu")) for samples in drawn)


def summarise(ours: dict[int, list[float]], plain: dict[int, list[float]]) -> dict[str, Any]:
    """Means of the last quarter, the seeds' spread, and the two ways' largest difference under one seed."""
    last = {seed: _last_quarter(losses) for seed, losses in ours.items()}
    last_plain = {seed: _last_quarter(losses) for seed, losses in plain.items()}
    return {
        "last_ours": last,
        "last_plain": last_plain,
        "spread": statistics.stdev(last.values()),
        "difference": max(abs(last[seed] - value) for seed, value in last_plain.items()),
    }


def _last_quarter(losses: Sequence[float]) -> float:
    return statistics.mean(losses[-max(1, len(losses) // 4) :])


def report(options: argparse.Namespace, fast: str, summary: dict[str, Any]) -> str:
    """The lines for the terminal."""
    verdict = "below" if summary["difference"] < summary["spread"] else "NOT below"
    lines = [
        f"ACDIS, crop {options.crop}³, batch 2, width {options.width}, {options.steps} steps; last quarter:"
    ]
    for seed, value in summary["last_ours"].items():
        other = summary["last_plain"].get(seed)
        beside = f"   plain {other:.4f}" if other is not None else ""
        lines.append(f"seed {seed}: {fast} {value:.4f}{beside}")
    lines.append(
        f"plain and {fast} differ by {summary['difference']:.1e} at most, {verdict} the spread of "
        f"{len(summary['last_ours'])} seeds, {summary['spread']:.1e}"
    )
    return "\n".join(lines)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("root", nargs="?", type=Path, help="folder of BraTS cases; none: a phantom is drawn")
    parser.add_argument("--crop", type=int, default=48, help="voxels a side")
    parser.add_argument("--width", type=int, default=16, help="channels of the finest level")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of ours, at least two")
    parser.add_argument(
        "--plain-seeds", type=int, nargs="+", default=[0], help="of the plain way, some of them"
    )
    parser.add_argument("--json", type=Path, help="write the results to this file too")
    return parser


if __name__ == "__main__":
    main()
