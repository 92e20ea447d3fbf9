"""What Ray and MLflow cost: a run through `acdis train` against the same loop in one plain process.

    python benchmarks/overhead.py [--epochs 10] [--iterations 10] [--width 8] [--repeats 1] [--json FILE]

Both sides are fresh processes that train the same small network on the same phantoms, prepared beforehand;
neither validates nor scores. `acdis train` starts a local Ray, trains on a worker through Ray Train, tracks
into a new SQLite store of MLflow, draws the curves, and ends Ray. The plain process calls
`training.loop.train` with a listener that only notes the time. The time between epochs' ends tells what an
epoch costs more; the rest of the difference is start-up and end, which a longer run pays once as well.

Then: how long `RunTracker.log_epoch` keeps the training waiting, with 30 values an epoch and SQLite.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import machine

TARGET_MS = 50.0
VALUES = 30
HOUR = 3600.0


def main(arguments: Sequence[str] | None = None) -> None:
    options = _parser().parse_args(arguments)
    if options.alone:
        train_alone(*options.alone)
        return
    with tempfile.TemporaryDirectory(prefix="acdis-overhead-") as folder:
        tracking = track(Path(folder) / "tracking", options.tracked)
        base = Path(folder) / "home"
        file = prepare(base, options)
        pairs = [(run_alone(file, base, seed), run_ray(file, base, seed)) for seed in range(options.repeats)]
    runs = [compare(alone, ray) for alone, ray in pairs]
    middle = {key: statistics.median(run[key] for run in runs) for key in runs[0]}
    where = machine.facts(machine.usable_cpus(), ("torch", "ray", "mlflow"))
    print(report(options, middle, tracking))
    print(machine.line(where))
    size = {key: getattr(options, key) for key in ("epochs", "iterations", "width", "repeats")}
    machine.save(
        options.json, {"size": size, "median": middle, "runs": runs, "tracking": tracking, "machine": where}
    )


def prepare(base: Path, options: argparse.Namespace) -> Path:
    """The experiment's file, its phantoms drawn and its cache built: neither side shall pay for that."""
    from acdis import config
    from acdis.data.inputs import open_inputs

    tree = {
        "data": {
            "phantoms": {"cases": 4, "shape": [40, 40, 40], "spacing": 4.0},
            "split": {"counts": [4, 0, 0]},
            "min_size": 32,
            "crop": [32, 32, 32],
        },
        "method": {"options": {"base_width": options.width, "synthesis_start": 0}},
        "training": {"epochs": options.epochs, "iterations": options.iterations, "learning_rate": 1e-3},
        "evaluation": {"window": [32, 32, 32], "stride": [16, 16, 16]},
    }
    base.mkdir(parents=True)
    file = base / "experiment.yaml"
    file.write_text(json.dumps(tree), encoding="utf-8")  # JSON is YAML
    open_inputs(config.load(file).data, base, machine.usable_cpus(), lambda what, done, of: None)
    return file


def run_alone(file: Path, base: Path, seed: int) -> dict[str, Any]:
    """The plain process: seconds from its start to its end, and when each epoch ended."""
    print("measuring the plain loop …", file=sys.stderr, flush=True)
    out = base / f"alone-{seed}"
    seconds = _timed([sys.executable, __file__, "--alone", str(file), str(out), str(seed)], base)
    ends: list[float] = json.loads((out / "ends.json").read_text(encoding="utf-8"))
    return {"seconds": seconds, "ends": ends}


def train_alone(file: str, out: str, seed: str) -> None:
    """In the plain process: what a worker does, without Ray, files of state, and MLflow."""
    import torch

    from acdis import config, home
    from acdis.ablation.expansion import decide
    from acdis.data.inputs import open_inputs
    from acdis.training import events, loop
    from acdis.training.group import Group

    torch.set_num_threads(machine.usable_cpus())  # as on a Ray worker that has the machine
    experiment = decide(config.load(Path(file), [f"seed={seed}"]))
    inputs = open_inputs(experiment.data, home.home(), machine.usable_cpus(), lambda what, done, of: None)
    folder = Path(out)
    folder.mkdir()
    ends: list[float] = []

    def listen(event: Any) -> None:
        if isinstance(event, events.EpochEnd):
            ends.append(time.time())

    loop.train(experiment, loop.Cases(inputs.train), folder, Group(), listen)
    (folder / "ends.json").write_text(json.dumps(ends), encoding="utf-8")


def run_ray(file: Path, base: Path, seed: int) -> dict[str, Any]:
    """`acdis train`: seconds from its start to its end, and when each epoch was told to the tracker."""
    from acdis import home
    from acdis.tracking.journal import Journal

    print("measuring the run through Ray Train …", file=sys.stderr, flush=True)
    before = set(home.cells(base).glob("*"))
    seconds = _timed([sys.executable, "-m", "acdis", "train", str(file), f"seed={seed}"], base)
    (cell,) = set(home.cells(base).glob("*")) - before
    ends = [entry["time"] / 1000 for entry in Journal(cell).operations() if entry["op"] == "epoch"]
    return {"seconds": seconds, "ends": ends}


def _timed(line: list[str], base: Path) -> float:
    """Seconds that a command takes; a Ray of the caller's is not used.

    Both sides get the workers' environment: whether torch's threads spin or sleep is not Ray's cost.
    """
    from acdis.cluster.session import WORKER_ENVIRONMENT

    environment = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"}
    environment |= WORKER_ENVIRONMENT | {"ACDIS_HOME": str(base)}
    start = time.perf_counter()
    ended = subprocess.run(line, env=environment, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - start
    if ended.returncode:
        sys.exit(
            f"{' '.join(line)}\nended with {ended.returncode}:\n{ended.stdout[-2000:]}{ended.stderr[-4000:]}"
        )
    return seconds


def compare(alone: dict[str, Any], ray: dict[str, Any]) -> dict[str, float]:
    """The difference, split into what an epoch costs more and what is paid once.

    Args:
        alone, ray: `seconds` of the whole process and `ends`, the time at each epoch's end (at least two).
    """
    epochs = len(alone["ends"])
    if len(ray["ends"]) != epochs or epochs < 2:
        sys.exit(f"{epochs} epochs alone, {len(ray['ends'])} through Ray: cannot be compared")
    epoch = {
        name: (side["ends"][-1] - side["ends"][0]) / (epochs - 1)
        for name, side in (("alone", alone), ("ray", ray))
    }
    difference = ray["seconds"] - alone["seconds"]
    once = difference - epochs * (epoch["ray"] - epoch["alone"])
    return {
        "alone_seconds": alone["seconds"],
        "ray_seconds": ray["seconds"],
        "difference_seconds": difference,
        "share": difference / alone["seconds"],
        "epoch_alone_seconds": epoch["alone"],
        "epoch_ray_seconds": epoch["ray"],
        "epoch_share": epoch["ray"] / epoch["alone"] - 1,
        "once_seconds": once,
        "once_share_of_an_hour": once / HOUR,
    }


def track(folder: Path, epochs: int) -> dict[str, float]:
    """Milliseconds of `log_epoch` (what a training waits), and until the values stand in SQLite."""
    from acdis.tracking.runs import RunTracker, default_uri

    tracker = RunTracker(folder, default_uri(folder), "overhead", "overhead", "overhead")
    tracker.drain(120)  # creates the store: once per home, not per epoch
    told, stored = [], []
    for epoch in range(1, epochs + 1):
        values = {f"train/term_{number}": epoch / (number + 1) for number in range(VALUES)}
        start = time.perf_counter()
        tracker.log_epoch(epoch, values)
        told.append(1000 * (time.perf_counter() - start))
        left = tracker.drain(60)
        stored.append(1000 * (time.perf_counter() - start))
        if left:
            sys.exit(f"tracking: {left} lines were not stored")
    tracker.close()
    return {
        "told_ms": statistics.median(told),
        "told_worst_ms": max(told),
        "stored_ms": statistics.median(stored),
        "stored_worst_ms": max(stored),
    }


def report(options: argparse.Namespace, run: dict[str, float], tracking: dict[str, float]) -> str:
    """The lines for the terminal."""
    alone, ray = run["epoch_alone_seconds"], run["epoch_ray_seconds"]
    verdict = "yes" if tracking["told_worst_ms"] < TARGET_MS else "NO"
    rows = (
        ("plain loop, one process", run["alone_seconds"], f"({alone:.3f} s an epoch)"),
        ("acdis train: Ray Train and MLflow", run["ray_seconds"], f"({ray:.3f} s an epoch)"),
        ("difference", run["difference_seconds"], f"= {run['share']:.1%} of the plain run"),
        ("  once: start-up and end", run["once_seconds"], f"= {run['once_share_of_an_hour']:.2%} of an hour"),
        ("  each epoch", ray - alone, f"= {run['epoch_share']:+.1%} of a plain epoch"),
    )
    waits = (
        ("  the training waits", "told_ms", "told_worst_ms"),
        ("  stored, in the background, after", "stored_ms", "stored_worst_ms"),
    )
    size = f"{options.epochs} epochs of {options.iterations} steps, base width {options.width}"
    return "\n".join(
        [
            f"{size}; median of {options.repeats} runs",
            *(f"{name:36}{seconds:9.2f} s   {note}" for name, seconds, note in rows),
            f"tracking, {VALUES} values an epoch, in SQLite:",
            *(
                f"{name:36}{tracking[key]:9.2f} ms  (worst {tracking[worst]:.2f})"
                for name, key, worst in waits
            ),
            f"tracking under {TARGET_MS:g} ms an epoch (worst wait): {verdict}",
        ]
    )


def _parser() -> argparse.ArgumentParser:
    parser = machine.parser(__doc__)
    parser.add_argument("--epochs", type=int, default=10, help="at least 2")
    parser.add_argument("--iterations", type=int, default=10, help="optimiser steps an epoch")
    parser.add_argument("--width", type=int, default=8, help="channels of the finest level")
    parser.add_argument(
        "--repeats", type=int, default=1, help="runs of either side, each with a seed of its own"
    )
    parser.add_argument("--tracked", type=int, default=100, help="epochs told to the tracker")
    parser.add_argument("--alone", nargs=3, help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    main()
