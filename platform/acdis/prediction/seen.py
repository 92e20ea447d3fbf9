"""Which cases have trained or chosen a cell's weights, those of its parents among them."""

from __future__ import annotations

from collections.abc import Iterable

from acdis.cells import Cell
from acdis.data.patients import known as patients_of
from acdis.data.prepared_case import Entry
from acdis.prediction.hand_on import hashed


def reasons(cell: Cell, entries: Iterable[Entry]) -> dict[str, str]:
    """Name -> by what the case is known again: its name, its patient or its voxels."""
    known_by: dict[str, str] = {}
    for relative in cell.family()[0]:
        lineage = relative.lineage()
        splits, voxels = lineage.get("splits", {}), lineage.get("voxels", {})
        names = {*splits.get("train", []), *splits.get("validation", []), *voxels}
        patients = {*patients_of(names).values(), *lineage.get("patients", {}).values()}
        mark = hashed if lineage.get("names") == "sha256" else str  # of an imported cell
        for entry in entries:
            if mark(entry.name) in names:
                known_by[entry.name] = "name"
            elif mark(entry.patient) in patients:
                known_by.setdefault(entry.name, "patient")
            elif entry.voxels in voxels.values():
                known_by.setdefault(entry.name, "voxels")
    return known_by
