"""Cells by what MLflow calls their runs, read from the store's file without MLflow."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from urllib.parse import quote

_RUNS = """
    SELECT DISTINCT tags.value FROM runs JOIN tags ON tags.run_uuid = runs.run_uuid
    WHERE tags.key = 'acdis.cell' AND runs.lifecycle_stage = 'active' AND (runs.run_uuid = ? OR runs.name = ?)
    ORDER BY tags.value
"""


def cells_of(store: Path, run: str) -> list[str]:
    """Names of the cells whose MLflow run has this id or name.

    Args:
        store: file of a SQLite store, such as `mlflow.db` in the home; none where it cannot be read.
    """
    if not store.is_file():
        return []
    try:
        # Not `with connect(...)`: that ends a transaction, not the connection.
        connection = sqlite3.connect(f"file:{quote(str(store.resolve()))}?mode=ro", uri=True, timeout=5)
        try:
            return [name for (name,) in connection.execute(_RUNS, (run, run))]
        finally:
            connection.close()
    except sqlite3.Error:
        return []  # damaged, or of another schema: then the cell's own name is what is left to give
