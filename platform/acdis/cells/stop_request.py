"""Asking a cell that is trained by another process to stop at the end of its epoch: a file in its folder."""

from __future__ import annotations

from acdis.cells.cell import Cell, read_json
from acdis.files import write_json

FILE = "stop.json"


def ask(cell: Cell, reason: str) -> None:
    """Let the training end after its current epoch; told to a cell that is not trained it does nothing."""
    write_json(cell.folder / FILE, {"reason": reason})


def asked(cell: Cell) -> str | None:
    """Why the training should stop; none while it should go on."""
    return read_json(cell.folder / FILE).get("reason")


def forget(cell: Cell) -> None:
    """Before a training and after it: what was asked of an earlier one is over."""
    (cell.folder / FILE).unlink(missing_ok=True)
