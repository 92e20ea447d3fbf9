"""`export` and `import`: a trained cell as a folder that can be given away, and back."""

from __future__ import annotations

from pathlib import Path

from acdis import cells, home
from acdis.prediction import hand_on
from acdis.tracking import check_store, chosen_uri
from acdis.workflow.jobs import tracking_of
from acdis.workflow.logged_models import card_table
from acdis.workflow.logged_models import log as log_model


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

    from acdis.prediction.program import PROGRAM  # imports torch

    card = hand_on.export(cell, out, card_table, licence)
    print(f"exported {cell.name} to {out}; model card: {card}")
    if not (out / PROGRAM).exists():
        print("there is no torch.export program of this method; the model card says why")
    if log or register:
        for line in log_model(cell, out, tracking_of(cell.experiment(), home.home()), register):
            print(line)
    print("names of cases and patients stand in it as hashes; paths of this machine do not stand in it")


def import_(folder: Path) -> None:
    """Make the export in `folder` a cell of this home.

    Raises:
        UserError: it is none, it is damaged, or another cell has its name.
    """
    cell = hand_on.import_cell(home.home(), folder)
    print(f"imported {cell.name} to {cell.folder}")
    print(f"predict {cell.name} …, evaluate {cell.name} --root DIR, or method.parents.ROLE={cell.name}")
