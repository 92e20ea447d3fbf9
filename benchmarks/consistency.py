"""L_Var + L_Covar over all levels, forward and backward: ours, the plain way, and the sigmoid alone.

    python benchmarks/consistency.py [--crop 80] [--width 16] [--batch 2] [--repeats 3] [--json FILE]

Features are noise in channels_last, four modalities against one f_Aux at every level, as in a step of
ACDIS. The plain way (`plain.py`) unfolds whole windows and goes modality by modality, in torch's default
memory format. Each has a process of its own; seconds are the least of `--repeats` after one that warms up.
Divided by what `step.py` measures it is the share of a training step.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from typing import Any

import machine

LEVELS, MODALITIES = 4, 4
TARGET = 2.0


def main(arguments: Sequence[str] | None = None) -> None:
    options = _parser().parse_args(arguments)
    if options.side:
        print(json.dumps(best(WAYS[options.side], options)))
        return
    size = [f"--{name}={getattr(options, name)}" for name in ("crop", "width", "batch", "repeats")]
    seconds = {side: machine.apart(side, [__file__, f"--side={side}", *size]) for side in WAYS}
    summary = {
        "speedup": seconds["plain"] / seconds["ours"],
        "sigmoids": seconds["ours"] / seconds["sigmoid"],
    }
    where = machine.facts(machine.usable_cpus(), ("torch",))
    print(report(options, seconds, summary))
    print(machine.line(where))
    machine.save(options.json, {"seconds": seconds, **summary, "machine": where})


def best(way: Callable[[Any, Any], Any], options: argparse.Namespace) -> float:
    """Seconds of all levels, forward and backward."""
    import torch

    memory = torch.contiguous_format if way is plain_way else torch.channels_last_3d
    levels = features(options, memory)
    seconds = []
    for _ in range(1 + options.repeats):
        start = time.perf_counter()
        for f_ms, f_aux in levels:
            way(f_ms, f_aux).backward()
        seconds.append(time.perf_counter() - start)
    return min(seconds[1:])


def features(options: argparse.Namespace, memory: Any) -> list[tuple[list[Any], Any]]:
    """Per level what four encoders and E_Aux would give."""
    import torch

    torch.manual_seed(0)
    levels = []
    for level in range(LEVELS):
        shape = (options.batch, options.width * 2**level, *[options.crop // 2**level] * 3)
        drawn = [torch.randn(shape).to(memory_format=memory) for _ in range(MODALITIES + 1)]
        levels.append(([f.requires_grad_() for f in drawn[1:]], drawn[0]))
    return levels


def plain_way(f_ms: Sequence[Any], f_aux: Any) -> Any:
    import plain

    return sum(plain.acct(f_m, f_aux) for f_m in f_ms)


def ours(f_ms: Sequence[Any], f_aux: Any) -> Any:
    from acdis.losses.consistency import window_losses_of

    return sum(losses["var"] + losses["covar"] for losses in window_losses_of(f_ms, f_aux))


def sigmoid(f_ms: Sequence[Any], f_aux: Any) -> Any:
    return sum(f_m.sigmoid().sum() for f_m in f_ms) + f_aux.sigmoid().sum()


WAYS = {"plain": plain_way, "ours": ours, "sigmoid": sigmoid}


def report(options: argparse.Namespace, seconds: dict[str, float], summary: dict[str, float]) -> str:
    """The lines for the terminal."""
    lines = [f"{LEVELS} levels from {options.crop}³, base width {options.width}, batch {options.batch}"]
    lines += [f"{name:8} {value:8.3f} s" for name, value in seconds.items()]
    lines.append(
        f"plain / ours: {summary['speedup']:.1f} ×; ours is {summary['sigmoids']:.1f} times the sigmoid "
        f"alone (target: {TARGET:g}, or under 5 % of a step)"
    )
    return "\n".join(lines)


def _parser() -> argparse.ArgumentParser:
    parser = machine.parser(__doc__)
    parser.add_argument("--crop", type=int, default=80, help="voxels a side of the finest level")
    parser.add_argument("--width", type=int, default=16, help="channels of the finest level")
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--side", choices=tuple(WAYS), help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    main()
