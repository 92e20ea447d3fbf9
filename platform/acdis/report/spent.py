"""What a training has cost so far, however it ended."""

from __future__ import annotations

from acdis.cells import Cell, hours_of
from acdis.tracking.epochs import times
from acdis.tracking.journal import epochs_of


def hours(cell: Cell) -> dict[str, float]:
    """Hours by `cpu` or `gpu`, also of a training that failed, was stopped or is under way.

    A training writes its history at its end; before, the epochs that it has come through are in its journal.
    What it did after the last of them is not in it.

    Raises:
        DamagedError: history or state.
    """
    return cell.hours() or hours_of(times(epochs_of(cell.folder)), cell.state())
