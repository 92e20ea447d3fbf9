"""What one encoding for 15 subsets saves, method by method: arithmetic, and CPU seconds of both ways.

    python benchmarks/sharing.py [METHOD …] [--window 32] [--repeats 3] [--json FILE]

A window of noise and the untrained weights of a method's published width. Both ways run one after the other
in one process, with the same weights, memory format and precision: 15 times `decode(encode)`, and `encode`
once with `decode_subsets` of all. In CPU seconds, the least of the repeats: others on the machine change
those less than the clock's. Each method has a process of its own, in the environment of our workers.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from typing import Any

import machine
import roofline

SIDES = ("fp32", "bf16")


def main(arguments: Sequence[str] | None = None) -> None:
    from acdis import methods

    options = _parser().parse_args(arguments)
    if options.apart:
        print(json.dumps(measure(options.methods[0], options)))
        return
    words = [f"--{name}={getattr(options, name)}" for name in ("window", "repeats")]
    words += [] if options.width is None else [f"--width={options.width}"]
    results = {
        name: machine.apart(name, [__file__, name, "--apart", *words])
        for name in options.methods or methods.names()
    }
    where = machine.facts(next(iter(results.values()))["threads"], ("torch",))
    print(table(results))
    print(machine.line(where))
    machine.save(options.json, {"window": options.window, "methods": results, "machine": where})


def measure(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """In the fresh process: GFLOP of both ways, CPU seconds of both by precision, how far they differ."""
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel

    from acdis import methods
    from acdis.evaluation.sliding import subset_masks
    from acdis.training.capacity import multiply_adds

    torch.manual_seed(0)
    method = methods.build(name, **({} if options.width is None else {"base_width": options.width})).eval()
    if hasattr(method, "synthesising"):
        method.synthesising.fill_(True)
    size, masks = (options.window,) * 3, subset_masks()
    together = 2 * multiply_adds(method, size)[1] / machine.GB
    method.to(memory_format=torch.channels_last_3d)
    images = torch.randn(1, 4, *size, generator=torch.Generator().manual_seed(0))

    def once(mask: torch.Tensor) -> torch.Tensor:
        decoded: torch.Tensor = method.decode(method.encode(images), mask[None])
        return decoded

    def apart() -> torch.Tensor:
        return torch.stack([once(mask) for mask in masks])

    def shared() -> torch.Tensor:
        return method.decode_subsets(method.encode(images), masks)

    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH):  # `decode` costs every subset the same
        separate = len(masks) * roofline.count(lambda: once(masks[-1])) / machine.GB

    sides: dict[str, Any] = {}
    for side in filter(machine.computes, SIDES):
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=side == "bf16"):
            once(masks[-1])  # the first call allocates
            (plain, one), (fast, other) = (least(way, options.repeats) for way in (apart, shared))
        sides[side] = {
            "apart_cpu_seconds": plain,
            "together_cpu_seconds": fast,
            "ratio": plain / fast,
            "difference": float((one.float() - other.float()).abs().max() / one.float().abs().max()),
        }
    return {
        "apart_gflop": separate,
        "together_gflop": together,
        "ceiling": separate / together,
        "sides": sides,
        "threads": torch.get_num_threads(),
    }


def least(work: Callable[[], Any], repeats: int) -> tuple[float, Any]:
    """CPU seconds of all threads, the least of the repeats, and what came of it."""
    seconds = []
    for _ in range(repeats):
        start = time.process_time()
        result = work()
        seconds.append(time.process_time() - start)
    return min(seconds), result


def table(results: dict[str, dict[str, Any]]) -> str:
    """Markdown, a line for each method."""
    lines = [
        "| method | GFLOP together | apart | at most | fp32 | bf16 | logits differ by, of the largest |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for name, result in results.items():
        sides = result["sides"]
        ratios = [f"{sides[side]['ratio']:.2f} ×" if side in sides else "–" for side in SIDES]
        lines.append(
            f"| {name} | {result['together_gflop']:,.1f} | {result['apart_gflop']:,.1f} "
            f"| {result['ceiling']:.2f} × | {' | '.join(ratios)} | {sides['fp32']['difference']:.1e} |"
        )
    return "\n".join(lines)


def _parser() -> argparse.ArgumentParser:
    parser = machine.parser(__doc__)
    parser.add_argument("methods", nargs="*", metavar="METHOD", help="of the registry; none: all")
    parser.add_argument("--window", type=int, default=32, help="voxels a side")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--width", type=int, help="channels of the finest level; none: the published width")
    parser.add_argument("--apart", action="store_true", help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    main()
