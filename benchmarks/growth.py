"""How cost grows with crop size, base width, number of cases and number of cells.

    python benchmarks/growth.py [--of crop width cases cells] [--json FILE]

A training step (fp32, batch 1, every block at work; `step.py`) for crops and widths, opening a prepared set
for cases (`feeding.py`), `plan` for cells (`plan.py`). Beside each time stands by how much the size and the
time grew since the row above; the exponent is that of a power law through the first and last row: 1 is
linear, less is cheaper. Fixed costs make the exponent of small sizes smaller than it will be for large ones.
"""

from __future__ import annotations

import argparse
import math
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import feeding
import machine
import plan
import step
import volume

from acdis import config
from acdis.data import cache

Rows = list[tuple[int, float, float]]
"""(what is varied, size that the cost should be linear in, seconds)."""

CROPS, WIDTHS, CASES, SEEDS = (16, 24, 32, 48), (4, 8, 16, 32), (50, 100, 200, 400), (1, 2, 4)


def main(arguments: Sequence[str] | None = None) -> None:
    options = _parser().parse_args(arguments)
    tables = {name: TABLES[name](options) for name in options.of}
    where = machine.facts(machine.usable_cpus(), ("torch", "numpy"))
    print("\n\n".join(table(name, rows) for name, rows in tables.items()))
    print(machine.line(where))
    exponents = {name: exponent(rows) for name, rows in tables.items()}
    machine.save(options.json, {"rows": tables, "exponents": exponents, "machine": where})


def of_crops(options: argparse.Namespace) -> Rows:
    """Linear in voxels."""
    return [(side, float(side**3), _step(side, 8, options.steps)) for side in options.crops or CROPS]


def of_widths(options: argparse.Namespace) -> Rows:
    """Linear in parameters, which grow with the square of the width."""
    return [(width, float(width**2), _step(24, width, options.steps)) for width in options.widths or WIDTHS]


def _step(crop: int, width: int, steps: int) -> float:
    words = [f"--crop={crop}", f"--width={width}", "--batch=1", f"--steps={steps}", "--measure=fp32"]
    result = machine.apart(f"crop {crop}, width {width}", [step.__file__, *words])
    return statistics.median(result["seconds"])


def of_cases(options: argparse.Namespace) -> Rows:
    """Linear in cases: seconds to open what is prepared."""
    data = config.Data(min_size=32, crop=(16, 16, 16))
    rows: Rows = []
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        case = volume.small_case(scratch)
        for count in options.cases or CASES:
            place = scratch / str(count)
            cases = feeding.many(case, data, place, count)
            start = time.perf_counter()
            cache.prepare(cases, data, place / "cache", processes=2)
            rows.append((count, float(count), time.perf_counter() - start))
    return rows


def of_cells(options: argparse.Namespace) -> Rows:
    """Linear in cells: seconds of `plan` in a fresh process."""
    rows: Rows = []
    for seeds in options.seeds or SEEDS:
        with tempfile.TemporaryDirectory(prefix="acdis-growth-") as folder:
            base, file = Path(folder) / "home", Path(folder) / "tiny.yaml"
            file.write_text(plan.EXPERIMENT)
            cells = plan.fill(base, file, range(seeds))
            words = [str(plan.SPEC), "--experiment", str(file), "--seeds", ",".join(map(str, range(seeds)))]
            with plan.held(cells):
                seconds = min(plan.run(base, "plan", *words)["wall"] for _ in range(2))
            rows.append((len(cells), float(len(cells)), seconds))
    return rows


TABLES: dict[str, Callable[[argparse.Namespace], Rows]] = {
    "crop": of_crops,
    "width": of_widths,
    "cases": of_cases,
    "cells": of_cells,
}


def exponent(rows: Rows) -> float:
    """Of the power law through the first and the last row."""
    (_, small, quick), (_, large, slow) = rows[0], rows[-1]
    return math.log(slow / quick) / math.log(large / small)


def table(name: str, rows: Rows) -> str:
    """A line per size: seconds, and how much size and time grew since the line before."""
    lines = [f"{name:>8} {'seconds':>9} {'size ×':>8} {'time ×':>8}"]
    before: tuple[float, float] | None = None
    for varied, size, seconds in rows:
        grown = f"{size / before[0]:8.2f} {seconds / before[1]:8.2f}" if before else ""
        lines.append(f"{varied:8} {seconds:9.3f} {grown}".rstrip())
        before = size, seconds
    lines.append(f"time grows with size to the power of {exponent(rows):.2f}")
    return "\n".join(lines)


def _parser() -> argparse.ArgumentParser:
    parser = machine.parser(__doc__)
    parser.add_argument("--of", nargs="+", choices=tuple(TABLES), default=list(TABLES), help="which tables")
    for name in ("crops", "widths", "cases", "seeds"):
        parser.add_argument(f"--{name}", type=int, nargs="+", help="sizes; none: the usual ones")
    parser.add_argument("--steps", type=int, default=3, help="training steps that count")
    return parser


if __name__ == "__main__":
    main()
