"""What bf16 does to a trained model's scores: its test cases on all 15 subsets, in fp32 and in bf16.

    ACDIS_HOME=runs python benchmarks/agreement.py [CELL] [--cases 6] [--json FILE]

CELL is a cell of ACDIS_HOME that has its final weights (its name or the beginning of it). Shown: the largest
difference of mean Dice (over the cases) of a subset and region, and every single case beyond the tolerance,
with what it means in voxels: one false voxel against an empty truth is a whole point of Dice. HD95 is not
computed.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import machine

TOLERANCE = 0.002

Key = tuple[str, str]
"""Subset and region."""


def main(arguments: Sequence[str] | None = None) -> None:
    from acdis.errors import UserError

    options = _parser().parse_args(arguments)
    if options.cell is None:
        print("no cell named: nothing measured (CELL: a trained cell of ACDIS_HOME)")
        return
    try:
        records = measure(options)
    except UserError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    summary = compare(records["fp32"], records["bf16"])
    where = machine.facts(machine.usable_cpus(), ("torch", "numpy"))
    print(report(options.cell, summary, records["seconds"]))
    print(machine.line(where))
    machine.save(options.json, summary | {"seconds": records["seconds"], "machine": where})


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Records of both precisions, and the seconds that each took."""
    import torch

    from acdis import cells, home
    from acdis.data.found_cases import find_cases
    from acdis.data.inputs import prepare_cases
    from acdis.evaluation.scoring import score
    from acdis.report.paper.figure_arrays import load_method

    base = home.home()
    cell = cells.find_trained(base, options.cell)
    experiment, cpu = cell.experiment(), torch.device("cpu")
    names = cells.read_json(cell.folder / "lineage.json")["splits"]["test"][: options.cases]
    dataset = find_cases(experiment.data, base, _quiet).only(names)
    entries = prepare_cases(dataset, names, experiment.data, base, 1, _quiet)
    settings = experiment.evaluation.model_copy(update={"hd95": False})
    method = load_method(cell, experiment, cpu)
    results: dict[str, Any] = {"seconds": {}}
    for precision, dtype in (("fp32", None), ("bf16", torch.bfloat16)):
        start = time.perf_counter()
        results[precision] = score(method, [entries[name] for name in names], settings, cpu, dtype)
        results["seconds"][precision] = time.perf_counter() - start
    return results


def _quiet(*progress: object) -> None:
    """Preparing a few cases needs no progress."""


def compare(exact: Iterable[Any], fast: Iterable[Any]) -> dict[str, Any]:
    """Differences of means, and of single cases beyond the tolerance. Records in the same order."""
    means: dict[Key, list[tuple[float, float]]] = defaultdict(list)
    single = []
    for one, other in zip(exact, fast, strict=True):
        means[one.subset, one.region].append((one.dice, other.dice))
        if abs(one.dice - other.dice) > TOLERANCE:
            single.append(
                {
                    "case": one.case,
                    "subset": one.subset,
                    "region": one.region,
                    "dice": [one.dice, other.dice],
                    "predicted_voxels": [one.predicted_voxels, other.predicted_voxels],
                    "truth_voxels": one.truth_voxels,
                }
            )
    differences = {
        f"{region}/{subset}": abs(
            statistics.fmean(dice for dice, _ in pairs) - statistics.fmean(dice for _, dice in pairs)
        )
        for (subset, region), pairs in means.items()
    }
    return {
        "cases": len(next(iter(means.values()))),
        "largest": max(differences.values()),
        "beyond": sorted(name for name, value in differences.items() if value > TOLERANCE),
        "differences": differences,
        "single": single,
        "mean_dice": statistics.fmean(dice for pairs in means.values() for dice, _ in pairs),
    }


def report(cell: str, summary: dict[str, Any], seconds: dict[str, float]) -> str:
    """The lines for the terminal."""
    count = len(summary["differences"])
    lines = [
        f"{cell}: {summary['cases']} test cases, mean Dice {summary['mean_dice']:.4f} in fp32; "
        f"{seconds['fp32']:.0f} s in fp32, {seconds['bf16']:.0f} s in bf16",
        f"mean Dice differs by at most {summary['largest']:.5f} over {count} pairs of subset and region "
        f"(target: at most {TOLERANCE}); beyond it: {', '.join(summary['beyond']) or 'none'}",
        f"single cases beyond {TOLERANCE}: {len(summary['single'])} of {count * summary['cases']}",
    ]
    for entry in summary["single"]:
        (exact, fast), (before, after) = entry["dice"], entry["predicted_voxels"]
        lines.append(
            f"  {entry['case']} {entry['subset']} {entry['region']}: Dice {exact:.4f} and {fast:.4f}, "
            f"{before} and {after} voxels predicted of {entry['truth_voxels']}"
        )
    return "\n".join(lines)


def _parser() -> argparse.ArgumentParser:
    parser = machine.parser(__doc__)
    parser.add_argument(
        "cell", nargs="?", help="a trained cell of ACDIS_HOME: its name or the beginning of it"
    )
    parser.add_argument("--cases", type=int, default=6, help="test cases at most")
    return parser


if __name__ == "__main__":
    machine.as_worker()
    main()
