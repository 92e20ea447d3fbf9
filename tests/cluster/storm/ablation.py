"""An ablation of two cells, how it is run and looked at, and what it means that nothing happened to it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
import yaml

from acdis.cells import Cell
from acdis.evaluation.records import read_parquet
from acdis.tracking.runs import open_store

#: Rows of the spec that docs/ablations.md shows; two of its three are run.
ROWS = ("three", "five")
PAGE = Path(__file__).resolve().parents[3] / "docs" / "ablations.md"


def write_specs(place: Any, tree: dict[str, Any]) -> Any:
    """The spec `window` and the experiment that it stands on, in the places that the page's example names."""
    example = PAGE.read_text().split("```yaml\n", 1)[1].split("```", 1)[0]
    for folder in ("experiments", "ablations"):
        (place.base / folder).mkdir()
    (place.base / "experiments" / "phantom.yaml").write_text(
        yaml.safe_dump({"extends": "../tiny.yaml", **tree})
    )
    (place.base / "ablations" / "window.yaml").write_text(example)
    return place


def words(place: Any, *names: str, rows: tuple[str, ...] = ROWS) -> list[str]:
    """`ablate …`"""
    files = [str(place.base / "ablations" / f"{name}.yaml") for name in names]
    return ["ablate", *files, "--rows", ",".join(rows), "--seeds", "0"]


def cells(place: Any) -> list[Cell]:
    """Those that have begun."""
    return [Cell(folder.parent) for folder in sorted((place.base / "cells").glob("*/state.json"))]


def row(place: Any, name: str) -> Cell:
    """The cell of a row."""
    (found,) = (cell for cell in cells(place) if any(role["row"] == name for role in cell.roles()))
    return found


def runs(uri: str, experiment: str | None = None) -> dict[str, Any]:
    """MLflow's runs of cells, by cell: a second run of one would show."""
    client = open_store(uri)
    every = [each for each in client.search_experiments() if experiment in (None, each.name)]
    found = client.search_runs([each.experiment_id for each in every])
    of_cells = [run for run in found if "acdis.cell" in run.data.tags]
    by_cell = {run.data.tags["acdis.cell"]: run for run in of_cells}
    assert len(by_cell) == len(of_cells), "a cell has two runs"
    return by_cell


def assert_equal(ours: Cell, theirs: Cell) -> None:
    """Name, weights, loss terms and per-case scores, bit for bit."""
    assert ours.name == theirs.name
    one, other = (torch.load(cell.weights, weights_only=True) for cell in (ours, theirs))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert [entry["terms"] for entry in ours.history()] == [entry["terms"] for entry in theirs.history()]
    (records,), (expected,) = (
        [read_parquet(folder / "records.parquet") for folder in Path(cell.evaluations).iterdir()]
        for cell in (ours, theirs)
    )
    assert records == expected


def assert_intact(place: Any, undisturbed: Any, uri: str, experiment: str | None, epochs: int) -> None:
    """As undisturbed: cells equal, one finished MLflow run each with every epoch once, no torn file."""
    for name in ROWS:
        cell = row(place, name)
        assert_equal(cell, row(undisturbed, name))
        assert [entry["epoch"] for entry in cell.history()] == list(range(1, epochs + 1))
        assert cell.state()["status"] == "done"
        assert_whole(cell.folder)
    found = runs(uri, experiment)
    assert found.keys() == {cell.name for cell in cells(place)}
    client = open_store(uri)
    for run in found.values():
        assert run.info.status == "FINISHED"
        steps = [point.step for point in client.get_metric_history(run.info.run_id, "train/loss")]
        assert sorted(steps) == list(range(1, epochs + 1))


def assert_whole(folder: Path) -> None:
    """Every file that has its final name can be read to its end."""
    for path in folder.rglob("*"):
        if path.name.startswith(".") or not path.is_file():
            continue
        if path.suffix == ".json":
            json.loads(path.read_text())
        elif path.suffix == ".jsonl":
            assert [json.loads(line) for line in path.read_text().splitlines()]
        elif path.suffix == ".pt":
            torch.load(path, weights_only=True)
        elif path.suffix == ".parquet":
            assert read_parquet(path)
