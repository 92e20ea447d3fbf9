"""What the cells of a home remember of the cases that they have learnt from, where these are not at hand."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from acdis import home
from acdis.cells import Cell
from acdis.config import Data, is_table
from acdis.data.inputs import Remembered
from acdis.errors import UserError


def remembered(data: Data, specs: Collection[str], base: Path) -> Remembered | None:
    """The cases of `data` as the cells of these specs in the home `base` remember them.

    Where they lay is no matter, all other settings of `data` must be equal. None where no cell remembers any,
    or two remember other cases: their names cannot be told then.
    """
    learnt: set[str] = set()
    scored: set[str] = set()
    alike: dict[tuple[str, str], bool] = {}
    for cell, prints in _prints(specs, base):
        if prints not in alike:
            alike[prints] = _settings_of(cell) == _settings(data)
        if not alike[prints]:
            continue
        learnt.add(prints[0])
        if cell.test_cases():
            scored.add(prints[1])
    if len(learnt) != 1 or len(scored) > 1:
        return None
    prints = (learnt.pop(), scored.pop() if scored else "")
    return Remembered((), (), (), prints=prints, scored=bool(prints[1]))


def _prints(specs: Collection[str], base: Path) -> Iterator[tuple[Cell, tuple[str, str]]]:
    """Cells that serve one of the specs, with the fingerprints that they have noted."""
    for file in sorted(home.cells(base).glob("*/lineage.json")):
        cell = Cell(file.parent)
        try:
            known = cell.lineage().get("fingerprints", {})
            if known.keys() >= {"learnt", "scored"} and any(role["spec"] in specs for role in cell.roles()):
                yield cell, (known["learnt"], known["scored"])
        except UserError:  # damaged: told with how the cell stands
            continue


def _settings_of(cell: Cell) -> dict[str, Any] | None:
    try:
        return _settings(cell.experiment().data)
    except UserError:
        return None


def _settings(data: Data) -> dict[str, Any]:
    """All but places: of split files and of a table of patients the last part of the path."""
    tree = data.model_dump(mode="json")
    tree["root"] = None
    for key in ("train", "validation", "test"):
        tree["split"][key] = _last(tree["split"][key])
    tree["patients"] = _last(tree["patients"]) if is_table(tree["patients"]) else tree["patients"]
    return tree


def _last(path: str | None) -> str | None:
    return Path(path).name if path else path
