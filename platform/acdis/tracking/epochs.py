"""An epoch under the names that MLflow keeps it by."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def epoch_values(entry: dict[str, Any]) -> dict[str, float]:
    """An epoch's entry of the history under MLflow's names."""
    values = {f"train/{name}": value for name, value in entry["terms"].items()}
    values |= {"learning_rate": entry["learning_rate"], "epoch_seconds": entry["seconds"]}
    values |= {"workers": entry["workers"]} if "workers" in entry else {}  # older histories have none
    return values | {f"validation/{name}": value for name, value in entry["validation"].items()}


def history_entry(epoch: int, values: Mapping[str, float]) -> dict[str, Any]:
    """The history's entry that `epoch_values` made `values` of."""

    def under(start: str) -> dict[str, float]:
        return {name.removeprefix(start): value for name, value in values.items() if name.startswith(start)}

    entry = {
        "epoch": epoch,
        "terms": under("train/"),
        "learning_rate": values["learning_rate"],
        "seconds": values["epoch_seconds"],
        "validation": under("validation/"),
    }
    return entry | ({"workers": int(values["workers"])} if "workers" in values else {})
