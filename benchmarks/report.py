"""How long `acdis report` takes over many cells, as its users run it: one process, start-up included.

    python benchmarks/report.py [--rows 100] [--seeds 10] [--cases 5] [--json FILE]

The cells are made up (random scores, 15 subsets × 3 regions for each case), in folders like real ones.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import machine
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "platform"))

from acdis import config, home
from acdis.ablation.expansion import Member
from acdis.cells import Cell
from acdis.evaluation.records import Record, write_parquet
from acdis.files import write_json, write_text
from acdis.terminal.progress import Display
from acdis.vocabulary import REGIONS, SUBSETS, subset_name
from acdis.workflow.opening import open_specs

#: Seconds for 1,000 cells.
TARGET = 10.0
FORMATS = ("md", "latex", "csv", "html")
EPOCHS = 20

EXPERIMENT = """
data:
  phantoms: {{cases: {phantoms}, shape: [32, 32, 32], spacing: 5.0}}
  split: {{counts: [1, 0, {cases}]}}
  min_size: 16
  crop: [16, 16, 16]
evaluation: {{window: [16, 16, 16], stride: [16, 16, 16]}}
"""


def make(folder: Path, rows: int, seeds: int, cases: int) -> Path:
    """A spec of so many rows × seeds, and finished cells for all of them in `folder/home`."""
    text = EXPERIMENT.format(phantoms=cases + 1, cases=cases)
    write_text(folder / "experiment.yaml", text)
    lines = [f"  r{row}: {{set: {{training.learning_rate: {1e-4 * (1 + row)}}}}}" for row in range(rows)]
    head = ["base: experiment.yaml", f"seeds: {list(range(seeds))}", "baseline: r0", "rows:"]
    write_text(folder / "spec.yaml", "\n".join([*head, *lines]) + "\n")
    base = folder / "home"
    with Display() as display:
        members = open_specs([folder / "spec.yaml"], None, [], None, None, base, display)
    resolved = config.dump(members[0].experiment)
    for number, member in enumerate(members):
        _finish(Cell(home.cells(base) / member.cell), member, number, cases, resolved)
    return folder / "spec.yaml"


def _finish(cell: Cell, member: Member, number: int, cases: int, resolved: str) -> None:
    write_text(cell.folder / "config.yaml", resolved)
    write_json(cell.folder / "lineage.json", {"tags": {"acdis.git_commit": "0" * 40}})
    write_json(cell.folder / "state.json", {"status": "done", "workers": 1, "cpus": 2, "gpus": 0})
    epochs = [
        {"epoch": 1 + epoch, "seconds": 10.0, "terms": {"dice": 1.0, "wce": 1.0}} for epoch in range(EPOCHS)
    ]
    write_json(cell.folder / "history.json", {"epochs": epochs})
    folder = cell.evaluations / member.evaluation
    folder.mkdir(parents=True)
    write_parquet(folder / "records.parquet", _records(np.random.default_rng(number), cases))


def _records(draw: np.random.Generator, cases: int) -> list[Record]:
    dice = draw.uniform(0.3, 0.9, size=(cases, len(SUBSETS), len(REGIONS)))
    return [
        Record(
            case=f"case{case}",
            subset=subset_name(subset),
            region=region,
            dice=float(dice[case, s, r]),
            dice_et500=float(dice[case, s, r]) if region == "ET" else None,
            hd95=float(40 * (1 - dice[case, s, r])),
            predicted_voxels=100,
            truth_voxels=100,
            voxel_volume=8.0,
        )
        for case in range(cases)
        for s, subset in enumerate(SUBSETS)
        for r, region in enumerate(REGIONS)
    ]


def measure(folder: Path, words: list[str]) -> dict[str, float]:
    """Wall and processor seconds of one `acdis report`."""
    command = [sys.executable, "-m", "acdis", "report", *words]
    package = Path(__file__).resolve().parents[1] / "platform"
    environment = os.environ | {"ACDIS_HOME": str(folder / "home"), "PYTHONPATH": str(package)}
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"seconds": wall, "cpu_seconds": used}


def run(folder: Path, rows: int, seeds: int, cases: int) -> dict[str, Any]:
    """Every format from the cells, then a bundle, then Markdown from the bundle alone."""
    spec = str(make(folder, rows, seeds, cases))
    bundle, out = str(folder / "bundle.zip"), str(folder / "out.md")
    runs = {form: measure(folder, [spec, "--format", form, "--out", out]) for form in FORMATS}
    runs["md + bundle"] = measure(folder, [spec, "--format", "md", "--out", out, "--bundle", bundle])
    runs["from bundle"] = measure(folder, [bundle, "--format", "md", "--out", out])
    return {"cells": rows * seeds, "records": rows * seeds * cases * 45, "runs": runs}


def text(results: dict[str, Any]) -> str:
    """What was found, one line a run, and whether the target is met."""
    lines = [f"report over {results['cells']} cells, {results['records']} records"]
    for name, result in results["runs"].items():
        lines.append(f"  {name:12} {result['seconds']:6.2f} s wall, {result['cpu_seconds']:6.2f} s processor")
    slowest = max(result["seconds"] for result in results["runs"].values())
    ratio = slowest / TARGET
    lines.append(f"slowest / target of {TARGET:g} s: {ratio:.2f} (under 1: {'yes' if ratio < 1 else 'NO'})")
    return "\n".join(lines)


def main() -> None:
    """Measure and print."""
    parser = machine.parser(__doc__)
    for name, default in (("rows", 100), ("seeds", 10), ("cases", 5)):
        parser.add_argument(f"--{name}", type=int, default=default)
    words = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        results = run(Path(folder), words.rows, words.seeds, words.cases)
    print(text(results))
    where = machine.facts(1, ("numpy", "scipy", "pyarrow"))
    print(machine.line(where))
    machine.save(words.json, results | {"machine": where})


if __name__ == "__main__":
    main()
