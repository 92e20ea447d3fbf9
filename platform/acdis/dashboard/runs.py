"""What the store knows of our runs: those of cells, and of specs, their parents."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from acdis.dashboard.store import MlflowStore
from acdis.tracking.remote import CELL_TAG, SPEC_TAG

#: Runs that bear a tag, the oldest first: neither they nor their experiment deleted.
_MARKED = (
    "SELECT r.run_uuid, r.experiment_id, r.status, r.start_time, r.end_time, t.value FROM tags t "
    "JOIN runs r ON r.run_uuid = t.run_uuid JOIN experiments e ON e.experiment_id = r.experiment_id "
    "WHERE t.key = :tag AND r.lifecycle_stage = 'active' AND e.lifecycle_stage = 'active' "
    "ORDER BY r.start_time"
)
_TAGS = (
    "SELECT t.run_uuid, t.key, t.value FROM tags t JOIN tags c ON c.run_uuid = t.run_uuid AND c.key = :tag "
    "WHERE t.key LIKE 'acdis.%'"
)
_COSTS = (
    "SELECT m.run_uuid, m.key, m.value FROM latest_metrics m "
    "WHERE m.key IN ('cpu_hours', 'gpu_hours') AND m.is_nan = :no"
)


@dataclass(frozen=True)
class MlflowRun:
    """One run in MLflow.

    Attributes:
        name: of the cell or spec.
        start, end: ms since 1970; none where the store has none.
        tags: those of ours.
        hours: what a cell cost, by `cpu` or `gpu`; empty where the store does not say.
    """

    id: str
    experiment: int
    name: str
    status: str
    start: int | None
    end: int | None
    tags: Mapping[str, str] = field(default_factory=dict)
    hours: Mapping[str, float] = field(default_factory=dict)

    @property
    def page(self) -> str:
        """Where MLflow shows it, relative to MLflow's own page."""
        return f"#/experiments/{self.experiment}/runs/{self.id}"


def cells(store: MlflowStore) -> Mapping[str, MlflowRun]:
    """The run of each cell, by the cell's name. Raises StoreAwayError."""
    return store.kept("cells", lambda store: _marked(store, CELL_TAG))


def specs(store: MlflowStore) -> Mapping[str, MlflowRun]:
    """The parent run of each spec, by the spec's name. Raises StoreAwayError."""
    return store.kept("specs", lambda store: _marked(store, SPEC_TAG))


def experiments(store: MlflowStore) -> frozenset[int]:
    """Ids of the experiments that hold runs of ours. Raises StoreAwayError."""
    return frozenset(run.experiment for by_name in (cells(store), specs(store)) for run in by_name.values())


def _marked(store: MlflowStore, tag: str) -> Mapping[str, MlflowRun]:
    tags: dict[str, dict[str, str]] = {}
    for run, key, value in store.rows(_TAGS, tag=tag):
        tags.setdefault(run, {})[key] = value
    hours: dict[str, dict[str, float]] = {}
    for run, key, value in store.rows(_COSTS, no=False) if tag == CELL_TAG else ():
        hours.setdefault(run, {})[key.removesuffix("_hours")] = value
    return {  # of several that bear one name the newest stands
        name: MlflowRun(run, experiment, name, status, start, end, tags.get(run, {}), hours.get(run, {}))
        for run, experiment, status, start, end, name in store.rows(_MARKED, tag=tag)
    }
