"""How quick the dashboard's pages are over 1,000 runs, beside MLflow's own ways to the same figures.

    python benchmarks/dashboard.py [--rows 100] [--seeds 10] [--cases 5] [--repeats 5] [--json FILE]

Made-up cells in folders like real ones, each trained for 300 epochs, and a SQLite store with one run for
each (Dice and HD95 of three regions and ET500 for each of the 15 subsets, their means, hours), written by
SQL. `mlflow server --app-name acdis` serves them over HTTP, with one worker. Cold: the first request to a
server that has just said that it is up, a fresh server for each page; it reads ahead in the background
meanwhile, as always. Warm: the median of requests after that. Beside it what MLflow's UI does:
`runs/search` over all runs, and `runs/get` for each of the runs that are compared.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import machine
import report as cells_of_report

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "platform"))

from acdis.evaluation.records import read_parquet, summarise
from acdis.report import spec_outline
from acdis.terminal.progress import Display
from acdis.vocabulary import REGIONS
from acdis.workflow.opening import open_specs

ROOT = Path(__file__).resolve().parents[1]
COLD, WARM = 1.0, 0.2
COMPARED = 100
PAGES = {
    "overview": "/acdis/",
    "overview, live": "/acdis/overview.json",
    "table": "/acdis/table?spec=spec",
    "table, tests": "/acdis/table.json?spec=spec",
    "table, CSV": "/acdis/table/report.csv?spec=spec",
    "subsets": "/acdis/subsets?spec=spec&row=r1&against=r0",
    "cases": "/acdis/cases?spec=spec",
    "cases, 10 rows": "/acdis/cases?spec=spec&" + "&".join(f"row=r{row}" for row in range(10)),
    "curves": "/acdis/curves?spec=spec",
    "run": "/acdis/run?spec=spec&cell=CELL",
}
#: Not pages: what comes after them.
LATER = ("table, tests", "table, CSV")
#: Of the trainings: epochs, and terms of the loss in each; every tenth epoch is validated.
EPOCHS, TERMS = 300, 15


def fill(folder: Path, rows: int, seeds: int, cases: int) -> int:
    """Cells, what `ablate` leaves beside them, and their runs; returns how many metrics a run has."""
    spec = cells_of_report.make(folder, rows, seeds, cases)
    base = folder / "home"
    with Display() as display:
        members = open_specs([spec], None, [], None, None, base, display)
    spec_outline.save(members, base)
    return _track(base, members)


def _history() -> str:
    """`history.json` of a training."""
    names = ("dice/mean", *(f"dice/{region}/mean" for region in REGIONS))
    epochs = [
        {
            "epoch": epoch,
            "epochs": EPOCHS,
            "terms": {f"term{term}": 1 / (epoch + term) for term in range(TERMS)},
            "learning_rate": 1e-3,
            "seconds": 10.0,
            "validation": dict.fromkeys(names, epoch / EPOCHS) if epoch % 10 == 0 else {},
        }
        for epoch in range(1, EPOCHS + 1)
    ]
    return json.dumps({"epochs": epochs}, indent=1)


def _track(base: Path, members: Sequence[Any]) -> int:
    from acdis.cells import Cell
    from acdis.tracking import default_uri, open_store

    experiment = int(open_store(default_uri(base)).create_experiment("acdis"))
    now = int(time.time() * 1000)
    runs, tags, values, metrics = [], [], [], 0
    history = _history()
    for member in members:
        cell, run = Cell(base / "cells" / member.cell), uuid.uuid4().hex
        cell.weights.write_bytes(b"w")
        (cell.folder / "history.json").write_text(history)
        cell.update(status="done", evaluation=member.evaluation, epochs=20, done=20)
        summary = summarise(read_parquet(cell.evaluations / member.evaluation / "records.parquet"))
        summary |= {"cpu_hours": 0.1}
        metrics = len(summary)
        runs.append((run, member.cell, now, now, experiment))
        role = f"spec/{member.row.id}/{member.seed}"
        own = {"acdis.cell": member.cell, "acdis.roles": role, "acdis.git_commit": "0" * 40}
        tags += [(key, value, run) for key, value in own.items()]
        values += [(key, value, now, run, 0, 0) for key, value in summary.items()]
    with contextlib.closing(sqlite3.connect(base / "mlflow.db")) as store, store:
        columns = "run_uuid, name, start_time, end_time, experiment_id"
        columns += ", user_id, status, lifecycle_stage, artifact_uri"
        store.executemany(
            f"INSERT INTO runs ({columns}) VALUES (?, ?, ?, ?, ?, '', 'FINISHED', 'active', '')", runs
        )
        store.executemany("INSERT INTO tags (key, value, run_uuid) VALUES (?, ?, ?)", tags)
        columns = "key, value, timestamp, run_uuid, step, is_nan"
        for table in ("metrics", "latest_metrics"):
            store.executemany(f"INSERT INTO {table} ({columns}) VALUES (?, ?, ?, ?, ?, ?)", values)
    return metrics


@contextlib.contextmanager
def served(folder: Path) -> Iterator[tuple[str, int]]:
    """A fresh server: its address as soon as it answers, and its process."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    base = folder / "home"
    command = [sys.executable, "-m", "mlflow", "server", "--app-name", "acdis", "--workers", "1"]
    command += [
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--backend-store-uri",
        f"sqlite:///{base}/mlflow.db",
    ]
    own = {"ACDIS_HOME": str(base), "ACDIS_SPECS": str(folder / "spec.yaml"), "OMP_NUM_THREADS": "1"}
    own |= {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    own["PYTHONPATH"] = str(ROOT / "platform")
    with (folder / "server.log").open("ab") as said:
        server = subprocess.Popen(
            command, env={**os.environ, **own}, stdout=said, stderr=said, start_new_session=True, cwd=folder
        )
    address = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 120
        while not _answers(address):
            if server.poll() is not None or time.monotonic() > deadline:
                sys.exit((folder / "server.log").read_text()[-3000:])
            time.sleep(0.02)
        yield address, server.pid
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def _answers(address: str) -> bool:
    with contextlib.suppress(OSError), urllib.request.urlopen(f"{address}/health", timeout=1) as answer:
        return bool(answer.status == 200)
    return False


def get(address: str, question: Any = None) -> float:
    """Seconds until the whole answer is there."""
    body = None if question is None else json.dumps(question).encode()
    asked = urllib.request.Request(address, body, {"Content-Type": "application/json"} if body else {})
    began = time.perf_counter()
    with urllib.request.urlopen(asked, timeout=120) as answer:
        answer.read()
    return time.perf_counter() - began


def many(address: str, repeats: int, server: int, question: Any = None) -> tuple[float, float]:
    """Median seconds of a request, and the processor's, which a busy machine changes less."""
    before = _used(server)
    wall = statistics.median(get(address, question) for _ in range(repeats))
    return wall, (_used(server) - before) / repeats


def _used(server: int) -> float:
    """Processor seconds of a server and all processes below it."""
    import psutil

    first = psutil.Process(server)
    times = [process.cpu_times() for process in (first, *first.children(recursive=True))]
    return float(sum(spent.user + spent.system for spent in times))


def pages(folder: Path, names: Sequence[str], repeats: int) -> dict[str, dict[str, float]]:
    """Cold and warm seconds of each page."""
    seconds = {}
    cell = min(os.listdir(folder / "home" / "cells"))
    for name, path in ((name, PAGES[name].replace("CELL", cell)) for name in names):
        with served(folder) as (address, server):
            cold = get(address + path)
            if name not in LATER:
                get(address + PAGES["table, tests"])  # reading ahead is over when this is there
            warm, cpu = many(address + path, repeats, server)
            seconds[name] = {"cold": cold, "warm": warm, "warm_cpu": cpu}
    return seconds


def mlflow(folder: Path, repeats: int) -> dict[str, float]:
    """What MLflow itself takes for figures of the same runs, warm."""
    with contextlib.closing(sqlite3.connect(folder / "home" / "mlflow.db")) as store:
        experiment = store.execute("SELECT experiment_id FROM experiments WHERE name = 'acdis'").fetchone()[0]
        runs = [row[0] for row in store.execute("SELECT run_uuid FROM runs LIMIT ?", (COMPARED,))]
    question = {"experiment_ids": [str(experiment)], "max_results": 1000}
    with served(folder) as (address, server):
        get(address + PAGES["table, tests"])  # our reading ahead is over
        api = f"{address}/ajax-api/2.0/mlflow"
        first = get(f"{api}/runs/search", question)
        search, cpu = many(f"{api}/runs/search", repeats, server, question)
        before, began = _used(server), time.perf_counter()
        for run in runs:
            get(f"{api}/runs/get?run_id={run}")
        compare, compare_cpu = time.perf_counter() - began, _used(server) - before
    searching = {"search": search, "search_first": first, "search_cpu": cpu}
    return searching | {"compare": compare, "compare_cpu": compare_cpu, "compared": len(runs)}


def text(results: dict[str, Any]) -> str:
    """A line per page, and the ratios."""
    theirs = results["mlflow"]
    lines = [
        f"{results['runs']} runs, {results['metrics']} metrics each, SQLite; seconds to the whole answer"
    ]
    for name, page in results["pages"].items():
        ratio = theirs["search_cpu"] / max(page["warm_cpu"], 0.005)
        lines.append(
            f"  {name:15} cold {page['cold']:6.3f}   warm {page['warm']:6.3f} (CPU {page['warm_cpu']:6.3f})"
            f"   runs/search takes {ratio:.0f} times that"
        )
    search = (
        f"{theirs['search']:.2f} (first {theirs['search_first']:.2f}), processor {theirs['search_cpu']:.2f}"
    )
    compare = f"{theirs['compare']:.2f}, processor {theirs['compare_cpu']:.2f}"
    lines.append(f"  MLflow, runs/search over all: {search}")
    lines.append(f"  MLflow, comparing {theirs['compared']} runs, a runs/get each: {compare}")
    shown = [page for name, page in results["pages"].items() if name not in LATER]
    cold, warm = (max(page[kind] for page in shown) for kind in ("cold", "warm"))
    lines.append(f"slowest page cold {cold:.2f} s, target {COLD:g}: {'yes' if cold < COLD else 'NO'}")
    lines.append(f"slowest page warm {warm:.3f} s, target {WARM:g}: {'yes' if warm < WARM else 'NO'}")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = machine.parser(__doc__)
    for name, default in (("rows", 100), ("seeds", 10), ("cases", 5), ("repeats", 5)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--pages", default=";".join(PAGES), help="which, with ; between them")
    words = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="acdis-dashboard-") as name:
        folder = Path(name)
        metrics = fill(folder, words.rows, words.seeds, words.cases)
        results: dict[str, Any] = {"runs": words.rows * words.seeds, "metrics": metrics}
        results |= {
            "pages": pages(folder, words.pages.split(";"), words.repeats),
            "mlflow": mlflow(folder, words.repeats),
        }
    print(text(results))
    where = machine.facts(1, ("mlflow", "fastapi", "sqlalchemy", "numpy"))
    print(machine.line(where))
    machine.save(words.json, results | {"machine": where})


if __name__ == "__main__":
    main()
