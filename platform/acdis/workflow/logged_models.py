"""A trained cell as a LoggedModel of MLflow: its export, with scores of its test cases and their data set."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from acdis.cells import Cell
from acdis.errors import UserError
from acdis.evaluation.records import Record, read_parquet, summarise
from acdis.evaluation.scores import from_records
from acdis.report import phrases, tables
from acdis.tracking import public
from acdis.version import __version__


def card_table(records: Sequence[Record]) -> str:
    """The 15 subsets of a model card; HD95 with its convention and penalties."""
    scores = from_records(records)
    notes = []
    if scores.hd95 is not None:
        counts = phrases.penalties(scores.penalties, len(scores.cases))
        notes.append(f"{phrases.hd95_rule([scores.hd95_convention])[:-1]}; {counts}.")
    return tables.markdown(summarise(records), "Scores on its test cases", notes)


def log(cell: Cell, exported: Path, tracking: Mapping[str, str], register: str | None) -> list[str]:
    """Log an export of the cell as a model of the cell's run; lines for the user.

    Args:
        tracking: as `jobs.tracking_of` gives it.
        register: also a version of this name in MLflow's registry of models.

    Raises:
        UserError: the store cannot be used, or refuses it.
    """
    from acdis.prediction.model import records_of
    from acdis.tracking.models import Data, log_model

    lineage, scored = cell.lineage(), records_of(cell)
    metrics = summarise(read_parquet(scored)) if scored else {}
    digest = lineage.get("fingerprints", {}).get("scored")
    tested = len(lineage.get("splits", {}).get("test", []))
    address, number = log_model(
        tracking["uri"],
        tracking["experiment"],
        cell.name,
        exported,
        "acdis.prediction.served",
        [f"acdis-platform=={__version__}"],
        metrics,
        Data("testing", str(digest), tested) if digest else None,
        register,
    )
    place = public(tracking["uri"])
    return [
        f"MLflow: {address}" + (f", {register} version {number}" if register else ""),
        f'MLFLOW_TRACKING_URI="{place}" mlflow models serve -m {address} --env-manager local',
    ]


def export_and_log(
    cell: Cell, tracking: Mapping[str, str], register: str | None, say: Callable[[str], None]
) -> None:
    """The same of an export that is made for this alone.

    What MLflow does not take costs no cell: a line says what to do later.
    """
    from acdis.prediction import hand_on

    with tempfile.TemporaryDirectory(dir=cell.folder, prefix=".export-") as folder:
        out = Path(folder) / "export"
        try:
            hand_on.export(cell, out, card_table, "not stated")
            lines = log(cell, out, tracking, register)
        except UserError as error:
            lines = [f"{error}; not logged as a model: `export {cell.name} DIR --log-model` does that later"]
    for line in lines:
        say(line)
