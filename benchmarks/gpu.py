"""ACDIS on one accelerator, in one call of under ten minutes: step, 15-subset evaluation, projected hours.

    python benchmarks/gpu.py [--methods acdis] [--crop 80] [--batch 2] [--json FILE]

For each method: a training step in bf16 (forward, backward, Adam; random subsets) as the platform runs it
and with `torch.compile`, its arithmetic as torch counts it, peak memory, GPU-hours for the paper's 500
epochs of 110 steps, and the 15 subsets of a window and of a case of `--windows` windows. All TFLOP/s stand
beside the rate of a large bf16 matrix product on the same device. What fails is written down with its
message, and the rest goes on. `--device cpu` with small sizes tries the script itself; its figures mean
nothing.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Sequence
from typing import Any

import machine
import roofline
import torch

from acdis import methods
from acdis.config import Training
from acdis.evaluation import sliding
from acdis.methods.base import Batch, Method

EPOCHS, STEPS = 500, 110  # the paper; 219 cases at batch 2
TARGET_HOURS, TARGET_SECONDS = 10.0, 5.0
LATE = 10**6
PARTS = ("step", "compiled_step", "evaluation")
TERA = 1e12


def main(arguments: Sequence[str] | None = None) -> None:
    options = _parser().parse_args(arguments)
    device = torch.device(options.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        print("no accelerator here: nothing measured (--device cpu tries the script itself)")
        return
    results: dict[str, Any] = {
        "device": _name(device),
        "size": {"crop": options.crop, "width": options.width, "batch": options.batch},
        "ceiling_tflops": roofline.ceiling(device, options.matrix, torch.bfloat16) / TERA,
        "machine": machine.facts(torch.get_num_threads(), ("torch", "numpy")),
    }
    for name in options.methods:
        results[name] = of_method(name, options, device)
        machine.save(options.json, results)  # what is known so far, should the next take too long
    print(report(options.methods, results))
    print(machine.line(results["machine"]))


def of_method(name: str, options: argparse.Namespace, device: torch.device) -> dict[str, Any]:
    """All figures of a method; a part that fails is its message."""
    parts = {
        "step": lambda: step(build(name, options, device), options, device, compiled=False),
        "compiled_step": lambda: step(build(name, options, device), options, device, compiled=True),
        "evaluation": lambda: evaluation(build(name, options, device).eval(), options, device),
    }
    return {part: _tried(parts[part]) for part in options.parts}


def build(name: str, options: argparse.Namespace, device: torch.device) -> Method:
    torch.manual_seed(0)
    method = methods.build(name, base_width=options.width).to(device)
    return method.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload,no-any-return]


def step(method: Method, options: argparse.Namespace, device: torch.device, compiled: bool) -> dict[str, Any]:
    """Seconds of a step, TFLOP/s, peak memory, and hours of the paper's training."""
    settings = Training()
    optimisers = [
        torch.optim.Adam(group, lr=settings.learning_rate, amsgrad=settings.amsgrad)
        for group in method.parameter_groups().values()
    ]
    if compiled:
        method.compile(dynamic=False)
    generator = torch.Generator().manual_seed(0)
    batches = [draw(method, options, device, generator) for _ in range(options.steps)]

    def once(batch: Batch) -> None:
        for optimiser in optimisers:
            optimiser.zero_grad(set_to_none=True)
        with torch.autocast(device.type, dtype=torch.bfloat16):
            losses = method(batch, LATE)
        torch.stack([term for terms in losses.values() for term in terms.values()]).sum().backward()
        for optimiser in optimisers:
            optimiser.step()

    once(batches[0])
    flops = 0.0 if compiled else roofline.count(lambda: once(batches[0]))
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    seconds = [roofline.timed(lambda batch=batch: once(batch), device) for batch in batches]  # type: ignore[misc]
    median = statistics.median(seconds)
    return {
        "seconds": seconds,
        "median_seconds": median,
        "tflop": flops / TERA,
        "tflops": flops / TERA / median,
        "peak_gb": torch.cuda.max_memory_allocated(device) / machine.GB if device.type == "cuda" else None,
        "hours": median * EPOCHS * STEPS / 3600,
    }


def draw(
    method: Method, options: argparse.Namespace, device: torch.device, generator: torch.Generator
) -> Batch:
    """Noise with random subsets."""
    side = (options.crop,) * 3
    images = torch.randn(options.batch, 4, *side, generator=generator)
    return Batch(
        images=images.to(device, memory_format=torch.channels_last_3d),
        labels=torch.randint(4, (options.batch, *side), generator=generator).to(device),
        available=method.sample_subsets(generator, options.batch, 0).to(device),
        origin=torch.zeros(options.batch, 3, dtype=torch.long, device=device),
    )


def evaluation(method: Method, options: argparse.Namespace, device: torch.device) -> dict[str, Any]:
    """Seconds of a window with all 15 subsets as `predict` computes it, and of a case."""
    if hasattr(method, "synthesising"):
        method.synthesising.fill_(True)
    length = options.crop + options.crop // 2 * (options.measured - 1)
    volume = torch.randn(4, options.crop, options.crop, length)
    window, stride = [options.crop] * 3, [options.crop // 2] * 3

    def predict() -> None:
        sliding.predict(method, volume, window, stride, device=device, autocast=torch.bfloat16)

    predict()
    seconds = statistics.median(roofline.timed(predict, device) for _ in range(3)) / options.measured
    with torch.no_grad():
        crop = torch.randn(1, 4, *window, device=device)
        flops = roofline.count(lambda: method.decode_subsets(method.encode(crop), sliding.subset_masks()))
    return {
        "window_seconds": seconds,
        "case_seconds": seconds * options.windows,
        "tflop_per_window": flops / TERA,
        "tflops": flops / TERA / seconds,
    }


def _name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)


def _tried(work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    try:
        return work()
    except Exception as error:
        return {"failed": f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"}


def report(names: Sequence[str], results: dict[str, Any]) -> str:
    """The lines for the terminal."""
    size = results["size"]
    lines = [
        f"{results['device']}, bf16 product of matrices {results['ceiling_tflops']:.1f} TFLOP/s; "
        f"crop {size['crop']}³, batch {size['batch']}, base width {size['width']}"
    ]
    for name in names:
        for part, result in results[name].items():
            lines.append(f"{name:8} {part:14} {_line(part, result)}")
    lines.append(f"targets: under {TARGET_HOURS:g} h for 500 epochs, under {TARGET_SECONDS:g} s a case")
    return "\n".join(lines)


def _line(part: str, result: dict[str, Any]) -> str:
    if "failed" in result:
        return f"failed: {result['failed']}"
    if part == "evaluation":
        return (
            f"{1000 * result['window_seconds']:.0f} ms a window, {result['case_seconds']:.2f} s a case, "
            f"{result['tflops']:.1f} TFLOP/s"
        )
    memory = f", {result['peak_gb']:.1f} GB" if result["peak_gb"] is not None else ""
    rate = f", {result['tflops']:.1f} TFLOP/s" if result["tflops"] else ""
    step = f"{1000 * result['median_seconds']:.0f} ms a step"
    return f"{step}{rate}{memory}, {result['hours']:.1f} h for the paper"


def _parser() -> argparse.ArgumentParser:
    parser = machine.parser(__doc__)
    parser.add_argument("--device", default="cuda", help="cuda, or cpu to try the script")
    parser.add_argument("--methods", nargs="+", choices=methods.names(), default=["acdis"])
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="what is measured")
    parser.add_argument("--crop", type=int, default=80, help="voxels a side, of crops and windows")
    parser.add_argument("--width", type=int, default=16, help="channels of the finest level")
    parser.add_argument("--batch", type=int, default=2, help="volumes a step")
    parser.add_argument(
        "--steps", type=int, default=20, help="steps that count, with subsets of their own each"
    )
    parser.add_argument("--windows", type=int, default=36, help="windows of a case")
    parser.add_argument("--measured", type=int, default=4, help="windows that are measured")
    parser.add_argument("--matrix", type=int, default=8192, help="side of the matrices of the ceiling")
    return parser


if __name__ == "__main__":
    main()
