"""How quick `plan` and `status` are on a grid of 1,000 cells, with as many MLflow runs beside them.

    python benchmarks/plan.py [--seeds 4] [--runs 1000] [--repeats 3] [--json FILE]

The cells are those of `ablations/grid.yaml` (289 rows) with so many seeds, on small phantoms: folders as a
training leaves them (configuration, state, history, role, weights and scores of a few bytes), six in ten
done, the others failed, stopped, in training (their locks are held here) or not begun. Each verb runs in a
fresh process, as a user starts it; the time is from start to exit. The MLflow runs are written by SQL, 100
metrics each; `--runs 0` leaves the store out.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import resource
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import machine

ROOT = Path(__file__).resolve().parents[1]
SPEC = ROOT / "ablations" / "grid.yaml"
TARGET = 3.0
METRICS = 100
BUSY = 4
EXPERIMENT = """\
data:
  phantoms: {cases: 6, seed: 1, shape: [24, 24, 24], spacing: 6}
  split: {counts: [4, 1, 1]}
  min_size: 16
  crop: [16, 16, 16]
method: {options: {base_width: 4, levels: 3, afeb_tokens: 2, synthesis_start: 1}}
training: {epochs: 10, iterations: 4}
evaluation: {window: [16, 16, 16], stride: [16, 16, 16]}
"""
#: How the cells stand, again and again; what is none has no folder.
STATUSES = ("done",) * 6 + ("failed", "stopped", None, None)


def main(arguments: Sequence[str] | None = None) -> None:
    options = _parser().parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="acdis-plan-") as folder:
        base = Path(folder) / "home"
        file = Path(folder) / "tiny.yaml"
        file.write_text(EXPERIMENT)
        seeds = ",".join(map(str, range(options.seeds)))
        cells = fill(base, file, range(options.seeds))
        if options.runs:
            track(base, options.runs)
        words = [str(SPEC), "--experiment", str(file), "--seeds", seeds]
        with held(cells):
            seconds = {
                verb: [run(base, verb, *words) for _ in range(options.repeats)] for verb in ("plan", "status")
            }
    where = machine.facts(machine.usable_cpus(), ("pydantic", "rich", "mlflow"))
    results: dict[str, Any] = {
        "cells": len(cells),
        "runs": options.runs,
        "seconds": seconds,
        "machine": where,
    }
    print(report(results))
    print(machine.line(where))
    machine.save(options.json, results)


def fill(base: Path, experiment: Path, seeds: Sequence[int]) -> list[Any]:
    """The folders of the grid's cells; returns those that are in training first."""
    from acdis import config
    from acdis.cells import Cell
    from acdis.files import write_json, write_text
    from acdis.terminal.progress import Display
    from acdis.workflow.opening import open_specs

    with Display() as display:
        members = open_specs([SPEC], experiment, [], None, seeds, base, display)
    training: list[Cell] = []
    others: list[Cell] = []
    for number, member in enumerate(members):
        cell = Cell(base / "cells" / member.cell)
        status = "training" if number < BUSY else STATUSES[number % len(STATUSES)]
        (training if number < BUSY else others).append(cell)
        if status is None:
            continue
        write_text(cell.folder / "config.yaml", config.dump(member.experiment))
        write_json(
            cell.folder / "history.json", {"epochs": [{"epoch": n, "seconds": 2.0} for n in range(10)]}
        )
        cell.add_role(spec=member.spec.name, table=member.spec.table, row=member.row.id, seed=member.seed)
        cell.update(**_state(status))
        (cell.folder / "lock").touch()
        if status == "done":
            cell.weights.write_bytes(b"w" * 1000)
            scores = cell.evaluations / member.evaluation / "records.parquet"
            scores.parent.mkdir(parents=True, exist_ok=True)
            scores.write_bytes(b"r")
    return training + others


@contextlib.contextmanager
def held(cells: Sequence[Any]) -> Iterator[None]:
    """The cells in training are locked, as their trainings would."""
    with contextlib.ExitStack() as locks:
        for cell in cells[:BUSY]:
            locks.enter_context(cell.alone())
        yield


def _state(status: str) -> dict[str, Any]:
    progress = {"epoch": 6, "epochs": 10, "step": 2, "steps": 4, "loss": 1.0, "done": 5}
    measured = {"step_seconds": 0.5, "projected_seconds": 20.0, "peak_bytes": 2**28}
    over = (
        {"done": 10} if status == "done" else {"reason": "the loss became NaN"} if status == "failed" else {}
    )
    return progress | measured | over | {"status": status, "validation": {"dice/mean": 0.5}}


def track(base: Path, runs: int) -> None:
    """An MLflow store with so many finished runs, written by SQL: by its client it takes a minute."""
    from acdis.tracking import default_uri, open_store

    client = open_store(default_uri(base))
    experiment = client.create_experiment("acdis")
    now = int(time.time() * 1000)
    names = [uuid.uuid4().hex for _ in range(runs)]
    run_columns = "run_uuid, name, status, start_time, end_time, lifecycle_stage, artifact_uri, experiment_id"
    with contextlib.closing(sqlite3.connect(base / "mlflow.db")) as store, store:
        store.executemany(
            f"INSERT INTO runs ({run_columns}) VALUES (?, ?, 'FINISHED', ?, ?, 'active', '', ?)",
            [(name, f"cell-{name[:6]}", now, now, int(experiment)) for name in names],
        )
        store.executemany(
            "INSERT INTO tags (key, value, run_uuid) VALUES ('acdis.cell', ?, ?)",
            [(f"acdis-{name[:12]}", name) for name in names],
        )
        values = [(f"dice/{n}", 0.5, now, name, 0, 0) for name in names for n in range(METRICS)]
        for table in ("metrics", "latest_metrics"):
            store.executemany(
                f"INSERT INTO {table} (key, value, timestamp, run_uuid, step, is_nan) "
                "VALUES (?, ?, ?, ?, ?, ?)",
                values,
            )


def run(base: Path, verb: str, *words: str) -> dict[str, float]:
    """Seconds from start to exit, `wall` and `cpu`: on a busy machine the one says little."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(
        [sys.executable, str(ROOT / "experiments" / "main.py"), verb, *words],
        env=kept | {"ACDIS_HOME": str(base)},
        capture_output=True,
        text=True,
        check=False,
    )
    wall = time.perf_counter() - start
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        sys.exit(f"{verb} ended with {done.returncode}: {done.stderr}")
    if f"{BUSY} running" not in done.stdout:
        sys.exit(f"{verb} did not see the cells as they stand:\n{done.stdout[-2000:]}")
    return {"wall": wall, "cpu": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime}


def report(results: dict[str, Any]) -> str:
    """A line per verb: median and range, and whether it is within the target."""
    lines = [f"{results['cells']} cells, {results['runs']} MLflow runs beside them; fresh processes"]
    for verb, runs in results["seconds"].items():
        wall = [run["wall"] for run in runs]
        middle = statistics.median(wall)
        lines.append(
            f"{verb}: {middle:.2f} s ({min(wall):.2f} to {max(wall):.2f}), "
            f"{statistics.median(run['cpu'] for run in runs):.2f} s of CPU; "
            f"under {TARGET:g} s: {'yes' if middle < TARGET else 'NO'} ({TARGET / middle:.1f} × to spare)"
        )
    return "\n".join(lines)


def _parser() -> argparse.ArgumentParser:
    parser = machine.parser(__doc__)
    parser.add_argument("--seeds", type=int, default=4, help="289 cells each")
    parser.add_argument("--runs", type=int, default=1000, help="MLflow runs in the store; 0: no store")
    parser.add_argument("--repeats", type=int, default=3)
    return parser


if __name__ == "__main__":
    main()
