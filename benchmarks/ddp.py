"""From one worker to two on this machine, one thread each: what of the second worker arrives.

    python benchmarks/ddp.py [--crop 48] [--width 16] [--steps 5] [--json FILE]

Each worker trains on one sample a step, as in a training whose batch grows with its workers. Three sides: one
worker alone; two apart, which know nothing of each other; two together, which share gradients and Dice sums
(DDP over gloo). Alone against apart is what the machine itself takes (memory, clock), apart against together
what the exchange takes. Ray's own part is in `overhead.py`: it has none in a step.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import machine

#: Processes, and whether they are one training.
SIDES = {"alone": (1, False), "apart": (2, False), "together": (2, True)}
TARGET = 0.85


def main(arguments: Sequence[str] | None = None) -> None:
    options = _parser().parse_args(arguments)
    if options.side:
        print(json.dumps(measure(options)))
        return
    seconds = {side: _run(side, options) for side in SIDES}
    summary = summarise(seconds)
    where = machine.facts(1, ("torch", "numpy"))
    print(report(options, summary))
    print(machine.line(where))
    machine.save(options.json, {"seconds": seconds, **summary, "machine": where})


def _run(side: str, options: argparse.Namespace) -> list[float]:
    """Seconds of each step of the slowest process."""
    print(f"measuring {side} …", file=sys.stderr, flush=True)
    count, _ = SIDES[side]
    size = [f"--{name}={getattr(options, name)}" for name in ("crop", "width", "steps")]
    with tempfile.TemporaryDirectory() as folder:
        started = [
            subprocess.Popen(
                [
                    sys.executable,
                    __file__,
                    f"--side={side}",
                    f"--rank={rank}",
                    f"--meet={folder}/meet",
                    *size,
                ],
                stdout=subprocess.PIPE,
                text=True,
                env=machine.environment() | {"OMP_NUM_THREADS": "1"},
            )
            for rank in range(count)
        ]
        printed = [process.communicate()[0] for process in started]
    if any(process.returncode for process in started):
        sys.exit(f"{side} ended with {[process.returncode for process in started]}")
    by_rank = [json.loads(text.splitlines()[-1]) for text in printed]
    return [max(step) for step in zip(*by_rank, strict=True)]


def measure(options: argparse.Namespace) -> list[float]:
    """In one of the processes: seconds of each step after two that warm up."""
    import torch
    import torch.distributed as dist

    from acdis import config
    from acdis.training.group import Group
    from acdis.training.run import begin
    from acdis.training.step import optimiser_step

    torch.set_num_threads(1)
    world = SIDES[options.side][0] if SIDES[options.side][1] else 1
    group = Group(options.rank if world > 1 else 0, world)
    if world > 1:
        meet = f"file://{options.meet}"
        dist.init_process_group("gloo", init_method=meet, rank=group.rank, world_size=world)
    settings = {"method": {"options": {"base_width": options.width}}, "training": {"precision": "fp32"}}
    run = begin(config.Experiment.model_validate(settings), Path("nowhere"), group)
    run.model.train()
    seconds = []
    for _ in range(2 + options.steps):
        start = time.perf_counter()
        optimiser_step(run, _sample(options.crop), epoch=10**6)
        seconds.append(time.perf_counter() - start)
    if world > 1:
        dist.destroy_process_group()
    return seconds[2:]


def _sample(side: int) -> Any:
    """Noise that has FLAIR alone."""
    import torch

    from acdis.data.loader import Samples

    return Samples(
        images=torch.randn(1, 4, side, side, side),
        labels=torch.randint(4, (1, side, side, side), dtype=torch.uint8),
        available=torch.tensor([[True, False, False, False]]),
        origin=torch.zeros(1, 3, dtype=torch.int64),
        flips=torch.zeros(1, 3, dtype=torch.bool),
        names=("noise",),
        keys=(0,),
    )


def summarise(seconds: dict[str, list[float]]) -> dict[str, Any]:
    """Medians; how much of the second worker arrives; what the machine and the exchange take of a step."""
    median = {side: statistics.median(values) for side, values in seconds.items()}
    together = median["together"]
    return {
        "median_seconds": median,
        "efficiency": median["alone"] / together,
        "machine_share": (median["apart"] - median["alone"]) / together,
        "exchange_share": (together - median["apart"]) / together,
    }


def report(options: argparse.Namespace, summary: dict[str, Any]) -> str:
    """The lines for the terminal."""
    median = summary["median_seconds"]
    lines = [f"ACDIS, crop {options.crop}³, base width {options.width}, one sample and one thread a worker"]
    lines += [f"{side:9} {median[side]:7.2f} s/step" for side in SIDES]
    lines.append(
        f"efficiency of two workers {summary['efficiency']:.2f} (target: at least {TARGET:g}); of a step the "
        f"machine takes {100 * summary['machine_share']:.0f} %, the exchange "
        f"{100 * summary['exchange_share']:.0f} %"
    )
    return "\n".join(lines)


def _parser() -> argparse.ArgumentParser:
    parser = machine.parser(__doc__)
    parser.add_argument("--crop", type=int, default=48, help="voxels a side")
    parser.add_argument("--width", type=int, default=16, help="channels of the finest level")
    parser.add_argument("--steps", type=int, default=5, help="steps that count, after two that warm up")
    parser.add_argument("--side", choices=tuple(SIDES), help=argparse.SUPPRESS)
    parser.add_argument("--rank", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--meet", help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    main()
