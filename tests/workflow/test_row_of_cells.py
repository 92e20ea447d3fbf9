"""A row of several cells, from spec to report: parts first, then their whole, which is shown as one row."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from rich.console import Console

from acdis import extras, home
from acdis.ablation.expansion import Member
from acdis.ablation.standings import survey
from acdis.cells import Cell
from acdis.cluster.train import Job
from acdis.cluster.worker import run_alone
from acdis.report.collect import collect, reader
from acdis.report.comparison import figures
from acdis.terminal.progress import Display
from acdis.training import checkpoint
from acdis.verbs import status
from acdis.vocabulary import SUBSETS, subset_name
from acdis.workflow import train_missing
from acdis.workflow.life import complete
from acdis.workflow.opening import open_specs

EXPERIMENT = {
    "data": {
        "phantoms": {"cases": 4, "seed": 3, "shape": [24, 24, 24], "spacing": 6.0},
        "split": {"counts": [2, 0, 2], "seed": 0},
        "min_size": 16,
        "crop": [16, 16, 16],
    },
    "method": {"options_for": {name: {"base_width": 2, "levels": 2} for name in ("unet", "unet_dedicated")}},
    "training": {"epochs": 1, "iterations": 1, "precision": "fp32"},
    "evaluation": {"window": [16, 16, 16], "stride": [16, 16, 16], "hd95": False},
}
SPEC = {
    "base": "tiny.yaml",
    "seeds": [0],
    "baseline": "one",
    "rows": {"each": {"set": {"method.name": "unet_dedicated"}}, "one": {"set": {"method.name": "unet"}}},
}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("row")
    (folder / "tiny.yaml").write_text(yaml.safe_dump(EXPERIMENT))
    (folder / "table.yaml").write_text(yaml.safe_dump(SPEC, sort_keys=False))
    return folder


@pytest.fixture(scope="module")
def trained(base: Path) -> tuple[list[Member], list[list[str]]]:
    """The members, and which cells were trained side by side, as Ray would be asked; here one by one."""
    asked: list[list[str]] = []

    def run(jobs: Sequence[Job], *_: Any) -> None:
        asked.append([job.cell.name for job in jobs])
        for job in jobs:
            with job.cell.alone():
                complete(job, {}, lambda job=job: train(job), lambda line: None)

    def train(job: Job) -> None:
        job.cell.begin(status="starting", workers=1, cpus=1, gpus=0, driver=os.getpid())
        run_alone(job.plain() | {"again": False}, lambda event: None)

    with pytest.MonkeyPatch.context() as patch, Display() as display:
        patch.setattr(extras, "installed", lambda extra: False)  # runs wait in their journals
        patch.setattr(train_missing, "_run", run)
        members = open_specs([base / "table.yaml"], None, [], None, None, base, display)
        for _ in range(2):
            train_missing.train_missing(members, base, display)
    return members, asked


def of(members: Sequence[Member], base: Path, row: str) -> Cell:
    (name,) = (member.cell for member in members if member.row.id == row)
    return Cell(home.cells(base) / name)


@pytest.mark.slow
def test_parts_are_trained_first_and_once(trained: tuple[list[Member], list[list[str]]], base: Path) -> None:
    members, asked = trained
    whole = of(members, base, "each")
    assert [len(cells) for cells in asked] == [16, 1]  # nothing the second time
    assert asked[1] == [whole.name]
    weights = checkpoint.load(whole.weights)
    for subset in map(subset_name, SUBSETS):
        part = of(members, base, f"each:{subset}")
        assert not list(part.evaluations.glob("*/records.parquet"))
        own = checkpoint.load(part.weights)
        assert own
        assert all(torch.equal(weights[name], value) for name, value in own.items())


@pytest.mark.slow
def test_the_whole_is_one_row_a_seed_in_status_report_and_statistics(
    trained: tuple[list[Member], list[list[str]]], base: Path
) -> None:
    members, _ = trained
    (facts,) = collect(members, base)
    assert [(row.id, len(row.cells)) for row in facts.rows] == [("each", 1), ("one", 1)]
    read = reader(base)
    shown = {row.id: read(row.cells[0].cell, row.cells[0].evaluation) for row in facts.rows}
    for scores in shown.values():  # what they are held against came with them, measured once for both
        assert scores.floors is not None
        assert (scores.floors.trained, scores.floors.cases) == (2, scores.cases)
        assert scores.floors.fitted is not None
    dice = shown["each"].dice
    assert dice.shape == (2, 15, 3)
    np.testing.assert_allclose(figures({0: shown["each"]}).mean, 100 * dice.mean((0, 1)))
    with Console(file=open(os.devnull, "w"), width=200, record=True) as console:
        console.print(status.view(survey(members, base), 100))
    lines = console.export_text().splitlines()
    assert sum("table/each:" in line for line in lines) == 15
    assert sum("table/each " in line and "done" in line for line in lines) == 1
