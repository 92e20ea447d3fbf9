"""What trainings took: one count for report, dashboard, status and MLflow."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any


def hours_of(epochs: Sequence[Mapping[str, Any]], state: Mapping[str, Any]) -> dict[str, float]:
    """What a training took: the one count for report, dashboard, status and MLflow.

    Each epoch's time with the workers that it had: an elastic training loses and regains some.

    Args:
        epochs: of `history.json`.
        state: of `state.json`: CPUs or GPUs of a worker, and workers where an epoch does not say.

    Returns:
        {"gpu" or "cpu": hours of all workers}; empty before the first epoch.
    """
    if not epochs:
        return {}
    seconds = sum(entry["seconds"] * (entry.get("workers") or state.get("workers", 1)) for entry in epochs)
    kind, count = ("gpu", state["gpus"]) if state.get("gpus") else ("cpu", state.get("cpus", 1))
    return {kind: seconds / 3600 * count}


def summed(spent: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """Hours of several trainings, kind by kind."""
    total: dict[str, float] = {}
    for hours in spent:
        for kind, value in hours.items():
            total[kind] = total.get(kind, 0.0) + value
    return total
