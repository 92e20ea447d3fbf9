"""What each name of `evaluation.metrics` costs beside HD95, in the same run.

    python benchmarks/lesions.py [ROOT] [--cases 3] [--json FILE]

Truths are those of the first cases of ROOT (none: one phantom of BraTS' size). Predictions are made: truth
moved by two voxels; that with specks all over; clouds, as an untrained network has them. Seconds of
one thread's CPU, summed over the three regions of each case.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import machine
import numpy as np
import torch
import volume
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from acdis.data import cases, nifti
from acdis.errors import UserError
from acdis.evaluation.metrics import hd95, region_mask
from acdis.evaluation.named_metrics import named
from acdis.vocabulary import NAMED_METRICS, REGIONS

TARGET = 3.0
#: Calibration is of probabilities.
OF_MASKS = tuple(name for name in NAMED_METRICS if name != "calibration")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = machine.parser(__doc__)
    parser.add_argument("root", nargs="?", type=Path, help="folder of BraTS cases; none: a phantom is drawn")
    parser.add_argument("--cases", type=int, default=3, help="so many of ROOT")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        try:
            seconds = measure(options, Path(folder))
        except UserError as error:
            print(error, file=sys.stderr)
            sys.exit(2)
    ratios = {
        kind: {name: spent / by_metric["hd95"] for name, spent in by_metric.items()}
        for kind, by_metric in seconds.items()
    }
    for kind, by_metric in ratios.items():
        costs = ", ".join(f"{name} {ratio:.2f}" for name, ratio in by_metric.items() if name != "hd95")
        print(f"{kind:7} HD95 {seconds[kind]['hd95']:7.2f} s; in HD95's time: {costs}")
    both = max(by_metric["brats2023"] + by_metric["brats2026"] for by_metric in ratios.values())
    worst = max(ratio for by_metric in ratios.values() for ratio in by_metric.values())
    print(f"brats2023 and brats2026 together at most {both:.2f} ×")
    print(f"the most: {worst:.2f} × HD95's time  (target: at most {TARGET:g} ×)")
    where = machine.facts(torch.get_num_threads(), ("numpy", "scipy", "torch", "monai"))
    print(machine.line(where))
    machine.save(
        options.json, {"seconds": seconds, "ratios": ratios, "worst": worst, "both": both, "machine": where}
    )


def measure(options: argparse.Namespace, scratch: Path) -> dict[str, dict[str, float]]:
    """Seconds by kind of prediction and metric."""
    first = volume.first_case(options.root, scratch)
    chosen = [first] if options.root is None else cases.find(options.root).cases[: options.cases]
    seconds: dict[str, dict[str, float]] = {}
    for number, case in enumerate(chosen):
        labels, affine = cases.read_labels(case)
        spacing = nifti.voxel_sizes(affine)
        for kind, prediction in predictions(labels, number).items():
            by_metric = seconds.setdefault(kind, dict.fromkeys(("hd95", *OF_MASKS), 0.0))
            for region in REGIONS:
                pair = region_mask(prediction, region), region_mask(labels, region)
                hd95(*pair, spacing)  # MONAI is imported, arrays are warm
                for name in by_metric:
                    start = time.process_time()
                    if name == "hd95":
                        hd95(*pair, spacing)
                    else:
                        named([name], *pair, spacing)
                    by_metric[name] += time.process_time() - start
    return seconds


def predictions(labels: NDArray[np.uint8], seed: int) -> dict[str, NDArray[np.uint8]]:
    """By kind, labels in the grid of `labels`."""
    noise = gaussian_filter(np.random.default_rng(seed).standard_normal(labels.shape), 2)
    noise /= noise.std()
    moved = np.roll(labels, 2, axis=0)
    return {
        "moved": moved,
        "specks": np.where(noise > 3.3, 3, moved).astype(np.uint8),
        "clouds": np.digitize(noise, (1.0, 1.5, 2.0)).astype(np.uint8),
    }


if __name__ == "__main__":
    main()
