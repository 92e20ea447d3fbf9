"""`evaluate`, `search`, `ablate`, `report --bundle`, killed while writing: the same again does the rest."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from acdis import files
from acdis.cells import Cell
from acdis.evaluation.records import read_parquet
from acdis.tracking.runs import open_store

pytestmark = [pytest.mark.faults, pytest.mark.slow, pytest.mark.timeout(2400)]

HELPER = Path(__file__).resolve().parents[1] / "helpers" / "killed.py"
EXPERIMENT: dict[str, Any] = {
    "data": {
        "phantoms": {"cases": 5, "shape": [24, 24, 24], "spacing": 7.0},
        "split": {"counts": [2, 1, 2], "seed": 0},
        "min_size": 16,
        "crop": [16, 16, 16],
        "lesion_crops": 0.6,
    },
    "method": {"name": "unet", "options": {"base_width": 4, "levels": 2}},  # what is killed are its writes
    "training": {"epochs": 2, "iterations": 1, "batch_size": 1, "precision": "fp32", "validate_every": 1},
    "evaluation": {"window": [16, 16, 16], "stride": [16, 16, 16], "hd95": False},
}
SPEC = {
    "title": "Two rows",
    "base": "tiny.yaml",
    "seeds": [0],
    "baseline": "usual",
    "rows": {
        "usual": {"label": "as it is"},
        "faster": {"label": "ten times the rate", "set": {"training.learning_rate": 1e-2}},
    },
}
SEARCH = {
    "title": "Two rates",
    "base": "tiny.yaml",
    "search": {
        "trials": 2,
        "sampler": "random",
        "space": {"training.learning_rate": {"low": 1e-4, "high": 1e-2, "log": True}},
    },
}
Run = Callable[[Path, int, list[str]], int]


@pytest.fixture(scope="module")
def run() -> Iterator[Run]:
    """`run(folder, n, words)`: the command, killed at its n-th write; returns its exit code."""
    helper = subprocess.Popen(
        [sys.executable, str(HELPER)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )

    def ask(folder: Path, number: int, words: list[str]) -> int:
        assert helper.stdin
        assert helper.stdout
        print(json.dumps([str(folder), number, words]), file=helper.stdin, flush=True)
        return int(helper.stdout.readline())

    with helper:
        yield ask


@pytest.fixture(scope="module")
def trained(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with spec, search and experiment, whose `home` has a cell that is trained and scored."""
    folder = tmp_path_factory.mktemp("trained")
    for name, tree in (("tiny", EXPERIMENT), ("two", SPEC), ("rates", SEARCH)):
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(tree))
    assert run(folder, 0, ["train", "tiny.yaml"]) == 0, (folder / "said.txt").read_text()
    return folder


def _cells(home: Path) -> dict[str, Any]:
    """What the cells of a home hold, by their names."""
    found = {}
    for folder in sorted((home / "cells").iterdir()):
        cell = Cell(folder)
        weights = torch.load(cell.weights, weights_only=True)
        found[cell.name] = {
            "weights": {name: tensor.tolist() for name, tensor in weights.items()},
            "terms": [entry["terms"] for entry in cell.history()],
            "scores": {each.parent.name: read_parquet(each) for each in folder.rglob("records.parquet")},
            "tables": {each.parent.name: each.read_text() for each in folder.rglob("subsets.md")},
            "status": (cell.state()["status"], cell.state()["evaluation"]),
            "files": sorted(
                str(each.relative_to(folder)) for each in folder.rglob("*") if not each.name.startswith(".")
            ),
        }
    return found


def _runs(home: Path) -> list[tuple[str, str, dict[str, float]]]:
    """MLflow's runs: name, status, scores."""
    client = open_store(f"sqlite:///{home}/mlflow.db")
    found = client.search_runs([each.experiment_id for each in client.search_experiments()])
    return sorted(
        (
            each.info.run_name,
            each.info.status,
            {k: v for k, v in each.data.metrics.items() if "hours" not in k and "seconds" not in k},
        )
        for each in found
    )


def _result(folder: Path, words: list[str]) -> Any:
    made = {name: (folder / name).read_bytes() for name in words if name.startswith("made")}
    home = folder / "home"
    best = home / "searches" / "rates" / "best.yaml"
    text = best.read_text().replace(str(folder), "HERE") if best.exists() else ""
    half = [str(each) for each in folder.rglob(f"*{files.HALF}")]
    return {"cells": _cells(home), "runs": _runs(home), "made": made, "best": text, "half": half}


@pytest.mark.parametrize(
    ("words", "spread", "last"),
    [
        (["evaluate", "unet", "evaluation.et_minimum=10"], 5, 0),
        (["search", "rates.yaml"], 6, 0),
        (["ablate", "two.yaml"], 5, 0),
        (["report", "two.yaml", "--bundle", "made.zip", "--out", "made.md"], 2, 4),
    ],
)
def test_the_same_command_once_does_the_rest(
    run: Run, trained: Path, tmp_path: Path, words: list[str], spread: int, last: int
) -> None:
    """Killed at `spread` writes from the first on, and at the last ones, each time in a folder of its own."""
    undisturbed = shutil.copytree(trained, tmp_path / "whole")
    assert run(undisturbed, 0, words) == 0, (undisturbed / "said.txt").read_text()
    expected = _result(undisturbed, words)
    assert expected["half"] == []
    writes = int((undisturbed / "writes.txt").read_text())
    points = [1 + step * writes // spread for step in range(spread)]
    for number in (*points, *range(writes + 1 - last, writes + 1)):
        folder = shutil.copytree(trained, tmp_path / f"killed{number}")
        assert run(folder, number, words) == -signal.SIGKILL
        assert run(folder, 0, words) == 0, (number, (folder / "said.txt").read_text())
        found = _result(folder, words)
        assert found == expected, f"killed at write {number} of {writes}"
