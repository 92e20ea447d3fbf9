"""15 subsets of a case from one `encode` and shared decoding, against 15 forward passes of the same weights.

    python benchmarks/evaluation.py [ROOT] [--method acdis] [--extent 80 80 120] [--json FILE]

Both sides slide the same windows over the middle of the first case of ROOT (none: a phantom of BraTS' size),
cut to `--extent` voxels, so that the plain side ends: the seconds of a whole case are those of a window times
its windows. The plain side (`plain.py`, for ACDIS) is the usual code in fp32: torch's default memory format,
one subset at a time, nothing shared. Other methods are compared with their own `encode` and `decode`, one
subset at a time. Weights are those of a seed: time and rounding do not depend on what was learned.

Each side has a process of its own with the memory allocator of this platform's workers.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import machine
import roofline
import volume

SIDES = ("plain", "fp32", "bf16")
TARGETS = {"fp32": 2.5, "bf16": 8.0}
CLOSE = 1e-5


def main(arguments: Sequence[str] | None = None) -> None:
    options = _parser().parse_args(arguments)
    if options.side:
        print(json.dumps(measure(options)))
        return
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        images, windows = _prepare(options, scratch)
        results = {side: _apart(side, options, images, scratch) for side in SIDES if machine.computes(side)}
        summary = compare(results, scratch, windows)
    where = machine.facts(results["fp32"]["threads"], ("torch", "numpy"))
    print(report(options, results, summary))
    print(machine.line(where))
    machine.save(options.json, {"sides": results, "summary": summary, "machine": where})


def _prepare(options: argparse.Namespace, scratch: Path) -> tuple[Path, int]:
    """The middle of a prepared case as a file, and the number of windows of the whole case."""
    import numpy as np

    from acdis import config
    from acdis.data import cache
    from acdis.evaluation.sliding import windows

    data = config.Data()
    (entry,) = cache.prepare([volume.first_case(options.root, scratch)], data, scratch, processes=1).values()
    whole = np.asarray(entry.images(), dtype=np.float32)
    starts = [(size - side) // 2 for size, side in zip(whole.shape[1:], options.extent, strict=True)]
    middle = tuple(slice(at, at + side) for at, side in zip(starts, options.extent, strict=True))
    file = scratch / "images.npy"
    np.save(file, whole[(slice(None), *middle)])
    return file, len(windows(whole.shape[1:], [options.window] * 3, [options.window // 2] * 3))


def _apart(side: str, options: argparse.Namespace, images: Path, scratch: Path) -> dict[str, Any]:
    """Measure one side in a fresh process."""
    size = [f"--{name}={getattr(options, name)}" for name in ("method", "window", "memory")]
    size += [] if options.width is None else [f"--width={options.width}"]
    return machine.apart(
        side, [__file__, str(images), f"--side={side}", f"--out={scratch / side}.npy", *size]
    )


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """In the fresh process: seconds, arithmetic and peak of memory; probabilities go to a file."""
    import numpy as np
    import torch

    from acdis import machine as process
    from acdis import methods
    from acdis.evaluation import sliding

    torch.manual_seed(0)
    chosen = {} if options.width is None else {"base_width": options.width}
    method = methods.build(options.method, **chosen).eval()
    if hasattr(method, "synthesising"):
        method.synthesising.fill_(True)
    images = torch.from_numpy(np.load(options.root))
    window, stride = [options.window] * 3, [options.window // 2] * 3
    count = len(sliding.windows(images.shape[1:], window, stride))
    warm = torch.zeros(4, *window)
    before = process.resident()
    process.reset_peak()
    if options.side == "plain":
        seconds, busy, probabilities = _timed(
            lambda: plain_way(options.method, method, images, window, stride)
        )
    else:
        method.to(memory_format=torch.channels_last_3d)
        dtype = torch.bfloat16 if options.side == "bf16" else None
        most = int(options.memory * machine.GB) if options.memory else None

        def ours(of: torch.Tensor) -> torch.Tensor:
            return sliding.predict(method, of, window, stride, autocast=dtype, memory=most)

        ours(warm)
        process.reset_peak()
        seconds, busy, probabilities = _timed(lambda: ours(images))
    np.save(options.out, probabilities.numpy())
    return {
        "seconds": seconds,
        "cpu_seconds": busy,
        "windows": count,
        "window_seconds": seconds / count,
        "peak_over_start_gb": (process.peak() - before) / machine.GB,
        **bound(options, method, window),
        "parameters": sum(p.numel() for p in method.inference_state().values()),
        "threads": torch.get_num_threads(),
    }


def _timed(work: Any) -> tuple[float, float, Any]:
    """Seconds of the clock, of all processors together, and what came of it."""
    start, busy = time.perf_counter(), time.process_time()
    result = work()
    return time.perf_counter() - start, time.process_time() - busy, result


def plain_way(name: str, method: Any, images: Any, window: Sequence[int], stride: Sequence[int]) -> Any:
    """15 separate sliding passes in fp32: `[15, 4, D, H, W]`."""
    import torch

    from acdis.evaluation.sliding import subset_masks, windows

    total = torch.zeros(15, 4, *images.shape[1:])
    counts = torch.zeros(images.shape[1:])
    with torch.no_grad():
        for start in windows(images.shape[1:], window, stride):
            place = tuple(slice(at, at + side) for at, side in zip(start, window, strict=True))
            crop = images[(slice(None), *place)][None]
            counts[place] += 1
            for subset, mask in enumerate(subset_masks()):
                total[(subset, slice(None), *place)] += one_pass(name, method, crop, mask[None])[0].softmax(0)
    return total / counts


def one_pass(name: str, method: Any, crop: Any, available: Any) -> Any:
    """One forward pass for one subset."""
    import plain

    if name == "acdis":
        return plain.predict(method, crop, available)
    return method.decode(method.encode(crop), available)


def bound(options: argparse.Namespace, method: Any, window: Sequence[int]) -> dict[str, float]:
    """The operations of a window, all 15 subsets, and the most that this CPU does a second."""
    import torch

    from acdis.evaluation.sliding import subset_masks

    def work() -> None:
        crop = torch.zeros(1, 4, *window)
        if options.side == "plain":
            for mask in subset_masks():
                one_pass(options.method, method, crop, mask[None])
        else:
            features = method.encode(crop)
            for mask in subset_masks():
                method.decode_subsets(features, mask[None])

    with torch.no_grad():
        return roofline.bound(work, options.side)


def compare(results: dict[str, dict[str, Any]], scratch: Path, windows: int) -> dict[str, Any]:
    """Ratios, what a whole case takes, and how far each fast side is from the plain one."""
    import numpy as np

    plain = np.load(scratch / "plain.npy")
    summary: dict[str, Any] = {"windows_of_the_case": windows}
    for side, result in results.items():
        entry = {"case_seconds": windows * result["window_seconds"]}
        if side != "plain":
            other = np.load(scratch / f"{side}.npy")
            entry["speedup"] = results["plain"]["seconds"] / result["seconds"]
            entry["cpu_speedup"] = results["plain"]["cpu_seconds"] / result["cpu_seconds"]
            entry["arithmetic"] = results["plain"]["gflop"] / result["gflop"]
            entry["difference"] = float(np.abs(other - plain).max())
            entry["other_labels"] = other_labels(plain, other)
        summary[side] = entry
    return summary


def other_labels(plain: Any, other: Any) -> int:
    """Voxels (over subsets) whose label differs though the plain side's two best are over 2e-5 apart."""
    import numpy as np

    second, best = np.partition(plain, -2, axis=1)[:, -2:].swapaxes(0, 1)
    decided = best - second > 2 * CLOSE
    return int(np.count_nonzero((plain.argmax(1) != other.argmax(1)) & decided))


def report(options: argparse.Namespace, results: dict[str, dict[str, Any]], summary: dict[str, Any]) -> str:
    """The lines for the terminal."""
    extent = "×".join(map(str, options.extent))
    lines = [
        f"{options.method}, base width {options.width or 'as published'}, "
        f"{results['fp32']['parameters']:,} values at inference; "
        f"windows of {options.window}³ at stride {options.window // 2}: {results['fp32']['windows']} "
        f"in {extent} voxels, {summary['windows_of_the_case']} in the whole case"
    ]
    for side, result in results.items():
        entry = summary[side]
        lines.append(
            f"{side:6} {result['window_seconds']:8.2f} s/window {entry['case_seconds']:9.0f} s/case "
            f"{result['gflop']:8.0f} GFLOP/window memory {result['peak_over_start_gb']:.2f} GB"
        )
    for side in results.keys() - {"plain"}:
        entry = summary[side]
        target = f"; target: at least {TARGETS[side]:g} ×" if options.method == "acdis" else ""
        lines.append(
            f"plain / {side}: {entry['speedup']:.2f} × ({entry['cpu_speedup']:.2f} × in CPU seconds, which "
            f"others on the machine change less{target}; by arithmetic alone {entry['arithmetic']:.2f} ×); "
            f"probabilities differ by at most {entry['difference']:.1e}, "
            f"{entry['other_labels']} labels outside ties"
        )
        seconds = (results[way]["window_seconds"] for way in (side, "plain"))
        lines.append(f"{side}: {roofline.line(results[side], *seconds)}")
    if "bf16" not in results:
        lines.append("bf16: not measured, this CPU has no bf16 instructions")
    return "\n".join(lines)


def _parser() -> argparse.ArgumentParser:
    parser = machine.parser(__doc__)
    parser.add_argument("root", nargs="?", type=Path, help="folder of BraTS cases; none: a phantom is drawn")
    parser.add_argument("--method", default="acdis", help="a method of the registry")
    parser.add_argument(
        "--extent", type=int, nargs=3, default=[80, 80, 120], help="voxels of the case's middle"
    )
    parser.add_argument("--window", type=int, default=80, help="voxels a side; the stride is half of it")
    parser.add_argument(
        "--width", type=int, help="channels of the finest level; none: the method's own, published width"
    )
    parser.add_argument(
        "--memory", type=float, default=0, help="GB that decoding may take; 0: decided by what is free"
    )
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    main()
