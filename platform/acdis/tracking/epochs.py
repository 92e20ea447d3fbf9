"""An epoch under the names that MLflow keeps it by."""

from __future__ import annotations

from typing import Any


def epoch_values(entry: dict[str, Any]) -> dict[str, float]:
    """An epoch's entry of the history under MLflow's names."""
    values = {f"train/{name}": value for name, value in entry["terms"].items()}
    values |= {"learning_rate": entry["learning_rate"], "epoch_seconds": entry["seconds"]}
    values |= {"workers": entry["workers"]} if "workers" in entry else {}  # older histories have none
    return values | {f"validation/{name}": value for name, value in entry["validation"].items()}
