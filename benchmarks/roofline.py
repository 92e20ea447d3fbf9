"""What bounds every figure here: how fast this machine multiplies matrices and copies memory.

    python benchmarks/roofline.py [--matrix 2048]

No convolution beats a product of large matrices, so operations counted / this rate is the least time that
something can take in that precision. `step.py` and `evaluation.py` print it beside their figures, measured
right after them in the same process, since machines that are shared change their speed from hour to hour.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import machine

REPEATS = 5
MATRIX = 2048


def main(arguments: Sequence[str] | None = None) -> None:
    import torch

    parser = machine.parser(__doc__)
    parser.add_argument("--matrix", type=int, default=MATRIX, help="side of the matrices")
    options = parser.parse_args(arguments)
    cpu, sides = torch.device("cpu"), filter(machine.computes, ("fp32", "bf16"))
    rates = {side: ceiling(cpu, options.matrix, precision(side)) for side in sides}
    for side, rate in rates.items():
        print(f"{side}: {rate / machine.GB:.0f} GFLOP/s in a product of {options.matrix}² matrices")
    copied = copying(2**28)
    print(f"copying: {copied / machine.GB:.1f} GB/s, read and written")
    where = machine.facts(torch.get_num_threads(), ("torch",))
    print(machine.line(where))
    machine.save(options.json, {"flops": rates, "bytes": copied, "machine": where})


def bound(work: Callable[[], Any], side: str) -> dict[str, float]:
    """Of a piece of work on the CPU: its operations, and the rate of a product of matrices, both in 10⁹.

    Args:
        side: `bf16`; anything else computes in fp32.
    """
    import torch

    rate = ceiling(torch.device("cpu"), MATRIX, precision(side))
    return {"gflop": count(work) / machine.GB, "ceiling_gflops": rate / machine.GB}


def precision(side: str) -> Any:
    """The dtype that a side of a benchmark computes in."""
    import torch

    return torch.bfloat16 if side == "bf16" else torch.float32


def ceiling(device: Any, side: int, dtype: Any) -> float:
    """Operations a second of a square product of matrices, the best of five."""
    import torch

    a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    torch.mm(a, b)
    return 2 * side**3 / min(timed(lambda: torch.mm(a, b), device) for _ in range(REPEATS))


def copying(size: int) -> float:
    """Bytes a second, each counted when read and when written, the best of five."""
    import torch

    source, target = (torch.ones(size, dtype=torch.uint8) for _ in range(2))
    return 2 * size / min(timed(lambda: target.copy_(source), source.device) for _ in range(REPEATS))


def count(work: Callable[[], Any]) -> float:
    """Multiplications and additions of a piece of work, as torch counts them."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode, conv_flop_count

    # The direct call of oneDNN is a convolution that the counter does not know.
    def direct(x: Any, w: Any, *_: Any, out_shape: Any) -> int:
        return conv_flop_count(x, w, out_shape)

    known = {torch.ops.aten.mkldnn_convolution: direct}
    with FlopCounterMode(display=False, custom_mapping=known) as counter:
        work()
    return float(counter.get_total_flops())


def timed(work: Callable[[], Any], device: Any) -> float:
    """Seconds until the device is done with it."""
    import torch

    wait = torch.cuda.synchronize if device.type == "cuda" else lambda _: None
    wait(device)
    start = time.perf_counter()
    work()
    wait(device)
    return time.perf_counter() - start


def line(result: dict[str, Any], seconds: float, plain: float) -> str:
    """How near seconds are to the `bound` in `result`, and how far the bound is from the plain way's."""
    rate, ceiling = result["gflop"] / seconds, result["ceiling_gflops"]
    return (
        f"{result['gflop']:,.0f} GFLOP at {rate:.0f} GFLOP/s, {100 * rate / ceiling:.0f} % of a product of "
        f"matrices ({ceiling:.0f}), at best {plain * ceiling / result['gflop']:.2f} × the plain way"
    )


if __name__ == "__main__":
    main()
