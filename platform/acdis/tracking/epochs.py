"""An epoch under the names that MLflow keeps it by."""

from __future__ import annotations

import math
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


def times(epochs: Mapping[int, Mapping[str, float]]) -> list[dict[str, Any]]:
    """What `cells.hours_of` asks of a history, from what the journal says of each epoch; others are left out.

    A training writes its history at its end: until then, and where it failed, its journal alone knows.
    """
    history: list[dict[str, Any]] = []
    for values in epochs.values():
        seconds, workers = values.get("epoch_seconds", math.nan), values.get("workers", math.nan)
        if 0 <= seconds < 1e9:
            history.append({"seconds": seconds} | ({"workers": int(workers)} if 1 <= workers < 1e6 else {}))
    return history
