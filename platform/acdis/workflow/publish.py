"""From a cell's folder to what people look at: table, figures, MLflow. Doing it again changes nothing."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from acdis.cells import Cell, read_json
from acdis.cells.schemas import DamagedError
from acdis.config import Evaluation, Experiment, flatten
from acdis.evaluation import floor_files, incomplete
from acdis.evaluation.records import read_parquet, summarise
from acdis.evaluation.scores import beside, from_records
from acdis.files import write_json, write_text
from acdis.report import figures, floors, patterns, tables
from acdis.tracking.epochs import epoch_values, history_entry
from acdis.tracking.journal import epochs_of
from acdis.tracking.runs import RunTracker

TABLE, PICTURES, RELIABILITY = "subsets.md", "qualitative", "reliability.png"


def begin(tracker: RunTracker, cell: Cell, experiment: Experiment, tags: dict[str, str]) -> None:
    """Parameters, these tags and its own, data and the resolved configuration, before the first epoch."""
    tree = experiment.model_dump(mode="json")
    tracker.log_params(
        flatten({key: tree[key] for key in ("seed", "data", "method", "training", "evaluation")})
    )
    own = {"acdis.method": experiment.method.name, "acdis.seed": str(experiment.seed)}
    tracker.log_tags(tags | own)
    lineage = cell.lineage()
    splits, prints = lineage.get("splits", {}), lineage.get("fingerprints", {})
    for name, part, which in (("training", "train", "learnt"), ("testing", "test", "scored")):
        if splits.get(part) and prints.get(which):
            tracker.log_data(name, prints[which], len(splits[part]))
    tracker.log_artifact(cell.folder / "config.yaml", "")
    tracker.log_roles(cell.roles())


def scores(tracker: RunTracker, evaluation: Path, settings: Evaluation, title: str) -> str:
    """Summary metrics, per-case records, table and pictures of one evaluation; returns the table."""
    records = read_parquet(evaluation / "records.parquet")
    summary = summarise(records)
    scored = beside(from_records(records), evaluation)
    told = [*tables.notes(scored, settings.et_minimum), *patterns.notes(scored), *floors.notes(scored)]
    if settings.post_processing:
        told.append(f"Labels were post-processed: {settings.processing_in_words()}.")
    text = tables.markdown(summary, title, told, floors.below(scored), floors.columns(scored))
    write_text(evaluation / TABLE, text)
    tracker.log_metrics(summary)
    kept = ["records.parquet", TABLE, *([floor_files.FILE] if scored.floors else [])]
    kept += [incomplete.FILE] if scored.incomplete else []
    if scored.calibration is not None:
        pooled = scored.calibration.sum(axis=0)
        figures.reliability(evaluation / RELIABILITY, pooled, f"{title}: all test cases and subsets together")
        kept.append(RELIABILITY)
    for name in kept:
        tracker.log_artifact(evaluation / name, "evaluation")
    for picture in pictures(evaluation):
        tracker.log_artifact(picture, f"evaluation/{PICTURES}")
    return text


def pictures(evaluation: Path) -> list[Path]:
    """Draw the slices that an evaluation left of its worst cases; one PNG for each, named after the case."""
    drawn = []
    for example in sorted((evaluation / "examples").glob("*.npz")):
        drawn.append(evaluation / PICTURES / f"{example.stem}.png")
        figures.qualitative(drawn[-1], example)
    for old in set((evaluation / PICTURES).glob("*.png")) - set(drawn):
        old.unlink()
    return drawn


def curves(tracker: RunTracker, cell: Cell) -> None:
    """Learning curves and history; epochs that MLflow has not heard of are sent."""
    epochs = history(cell)
    if not epochs:  # put together from other cells
        return
    for entry in epochs:
        tracker.log_epoch(entry["epoch"], epoch_values(entry))
    figures.learning_curves(cell.folder / "curves.png", epochs, cell.name)
    for name in ("curves.png", "history.json"):
        tracker.log_artifact(cell.folder / name, "training")


def history(cell: Cell) -> list[dict[str, Any]]:
    """A history that is damaged or gone is written again, from the journal."""
    with contextlib.suppress(DamagedError):
        if known := cell.history():
            return known
    epochs = [history_entry(epoch, values) for epoch, values in sorted(epochs_of(cell.folder).items())]
    if epochs:
        write_json(cell.folder / "history.json", {"epochs": epochs})
    return epochs


def workers(tracker: RunTracker, cell: Cell) -> None:
    """How many workers trained which epochs, and on what, as tags and in the lineage: nodes come and go."""
    told = worker_spans(cell.history())
    path = cell.folder / "lineage.json"
    if told:
        tracker.log_tags({"acdis.workers": told})
        write_json(path, read_json(path) | {"workers": told})
    device = cell.state().get("device")
    if device:  # the driver's stood there before: it may have no GPU
        tracker.log_tags({"acdis.device": device})
        kept = read_json(path)
        write_json(path, kept | {"tags": kept.get("tags", {}) | {"acdis.device": device}})


def worker_spans(history: Sequence[Mapping[str, Any]]) -> str:
    """`2` where the number never changed, else `2 (epochs 1–3), 1 (4–6)`; empty where it is not known."""
    spans: list[tuple[int, int, int]] = []
    for entry in history:
        if "workers" not in entry:
            return ""
        epoch, count = int(entry["epoch"]), int(entry["workers"])
        if spans and spans[-1][0] == count:
            spans[-1] = (count, spans[-1][1], epoch)
        else:
            spans.append((count, epoch, epoch))
    if len(spans) < 2:
        return str(spans[0][0]) if spans else ""
    parts = [f"{count} ({first if first == last else f'{first}–{last}'})" for count, first, last in spans]
    return ", ".join([parts[0].replace("(", "(epochs "), *parts[1:]])


def cost(tracker: RunTracker, cell: Cell) -> None:
    """CPU- or GPU-hours, as metrics and as tags."""
    spent = {f"{kind}_hours": value for kind, value in cell.hours().items()}
    tracker.log_metrics(spent)
    tracker.log_tags({f"acdis.{key}": f"{value:.4f}" for key, value in spent.items()})
