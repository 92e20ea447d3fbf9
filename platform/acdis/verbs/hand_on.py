"""`export` and `import`: a trained cell as a folder that can be given away, and back."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from acdis import cells, home
from acdis.cells import Cell
from acdis.prediction import hand_on
from acdis.report import tables
from acdis.tracking import check_store, chosen_uri, public
from acdis.version import __version__


def export(run: str, out: Path, licence: str, log: bool = False, register: str | None = None) -> None:
    """Write a trained cell to `out`, a new folder.

    Args:
        log: also log it as a model of the cell's MLflow run.
        register: also under this name in MLflow's registry of models.

    Raises:
        UserError: no such cell, the folder cannot be written, or MLflow does not take it.
    """
    cell = cells.find_trained(home.to_read(), run)
    if log or register:
        check_store(chosen_uri(cell.experiment().tracking.uri, home.home()), needed=True)

    def table(summary: Mapping[str, float]) -> str:
        return tables.markdown(summary, "Scores on its test cases", [])

    from acdis.prediction.program import PROGRAM  # imports torch

    card = hand_on.export(cell, out, table, licence)
    print(f"exported {cell.name} to {out}; model card: {card}")
    if not (out / PROGRAM).exists():
        print("there is no torch.export program of this method; the model card says why")
    if log or register:
        _log(cell, out, register)
    print("names of cases and patients stand in it as hashes; paths of this machine do not stand in it")


def _log(cell: Cell, out: Path, register: str | None) -> None:
    """The export as a model in MLflow, with the scores of the cell's test cases."""
    from acdis.evaluation.records import read_parquet, summarise
    from acdis.prediction.model import records_of
    from acdis.tracking.models import Data, log_model

    experiment, lineage = cell.experiment(), cell.lineage()
    tracking = experiment.tracking
    uri = chosen_uri(tracking.uri, home.home())
    scored = records_of(cell)
    metrics = summarise(read_parquet(scored)) if scored else {}
    digest = lineage.get("fingerprints", {}).get("scored")
    tested = len(lineage.get("splits", {}).get("test", []))
    address, number = log_model(
        uri,
        tracking.experiment,
        cell.name,
        out,
        "acdis.prediction.served",
        [f"acdis-platform=={__version__}"],
        metrics,
        Data("testing", str(digest), tested) if digest else None,
        register,
    )
    print(f"MLflow: {address}" + (f", {register} version {number}" if register else ""))
    print(f'MLFLOW_TRACKING_URI="{public(uri)}" mlflow models serve -m {address} --env-manager local')


def import_(folder: Path) -> None:
    """Make the export in `folder` a cell of this home.

    Raises:
        UserError: it is none, it is damaged, or another cell has its name.
    """
    cell = hand_on.import_cell(home.home(), folder)
    print(f"imported {cell.name} to {cell.folder}")
    print(f"predict {cell.name} …, evaluate {cell.name} --root DIR, or method.parents.ROLE={cell.name}")
