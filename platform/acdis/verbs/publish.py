"""From a cell's folder to what people look at: table, figures, MLflow. Doing it again changes nothing."""

from __future__ import annotations

from pathlib import Path

from acdis.ablation.cells import Cell, write_text
from acdis.config import Evaluation, Experiment, flatten
from acdis.evaluation.records import read_parquet, summarise
from acdis.report import figures, tables
from acdis.report.collect import hours
from acdis.tracking.epochs import epoch_values
from acdis.tracking.runs import RunTracker

TABLE = "subsets.md"


def begin(tracker: RunTracker, cell: Cell, experiment: Experiment, tags: dict[str, str]) -> None:
    """Parameters, tags and the resolved configuration, before the first epoch."""
    tree = experiment.model_dump(mode="json")
    tracker.log_params(
        flatten({key: tree[key] for key in ("seed", "data", "method", "training", "evaluation")})
    )
    tracker.log_tags(tags)
    tracker.log_artifact(cell.folder / "config.yaml", "")
    tracker.log_roles(cell.roles())


def scores(tracker: RunTracker, cell: Cell, evaluation: Path, settings: Evaluation, title: str) -> str:
    """Summary metrics, per-case records, table and figure of one evaluation; returns the table."""
    records = read_parquet(evaluation / "records.parquet")
    summary = summarise(records)
    cases = len({record.case for record in records})
    text = tables.markdown(summary, title, tables.notes(cases, settings.et_minimum))
    write_text(evaluation / TABLE, text)
    figures.qualitative(evaluation / "qualitative.png", evaluation / "example.npz")
    tracker.log_metrics(summary)
    for name in ("records.parquet", TABLE, "qualitative.png"):
        tracker.log_artifact(evaluation / name, "evaluation")
    return text


def curves(tracker: RunTracker, cell: Cell) -> None:
    """Learning curves and history; epochs that MLflow has not heard of are sent."""
    history = cell.history()
    for entry in history:
        tracker.log_epoch(entry["epoch"], epoch_values(entry))
    figures.learning_curves(cell.folder / "curves.png", history, cell.name)
    for name in ("curves.png", "history.json"):
        tracker.log_artifact(cell.folder / name, "training")


def cost(tracker: RunTracker, cell: Cell) -> None:
    """CPU- or GPU-hours, as metrics and as tags."""
    spent = {f"{kind}_hours": value for kind, value in hours(cell, cell.state()).items()}
    tracker.log_metrics(spent)
    tracker.log_tags({f"acdis.{key}": f"{value:.4f}" for key, value in spent.items()})
