"""A cell as a LoggedModel of MLflow: with its scores, the data that they are of, and by option a name."""

from __future__ import annotations

import math
import os
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from acdis.errors import UserError
from acdis.tracking import experiment_id, open_store, public, store_lock
from acdis.tracking.inputs import Data
from acdis.tracking.remote import CELL_TAG, found_or_made

#: Metrics in one call: MLflow takes 1,000.
_MOST = 500


def log_model(
    uri: str,
    experiment: str,
    cell: str,
    folder: Path,
    loader: str,
    requirements: list[str],
    metrics: Mapping[str, float],
    data: Data | None,
    register: str | None = None,
) -> tuple[str, str | None]:
    """Log an exported cell as a model of the cell's run.

    Args:
        folder: the export.
        loader: the module that loads it.
        requirements: packages that it needs, as pip takes them.
        metrics: of its test cases; those that are no numbers are left out.
        data: these test cases.
        register: name in MLflow's registry of models; a new version where it is known there.

    Returns:
        The address that MLflow loads it by, and the version in the registry.

    Raises:
        UserError: the store cannot be used, or refuses it.
    """
    with _refusals(uri), _store_of_the_process(uri):
        client = open_store(uri)
        with store_lock(uri):
            place = experiment_id(client, uri, experiment)
            run = found_or_made(client, place, (CELL_TAG, cell), cell, None)
        model = client.create_logged_model(place, name=cell, source_run_id=run, tags={CELL_TAG: cell})
        _send_files(client, run, model.model_id, folder, loader, requirements)
        _send_metrics(client, run, model.model_id, metrics, data)
        if client.get_run(run).info.status == "RUNNING":  # made here, of a cell that was imported
            client.set_terminated(run)
        address = f"models:/{model.model_id}"
        if register is None:
            return address, None
        if not client.search_registered_models(f"name = '{register}'"):
            client.create_registered_model(register)
        version = client.create_model_version(register, address, run_id=run, model_id=model.model_id)
        return address, str(version.version)


@contextmanager
def _refusals(uri: str) -> Iterator[None]:
    """What MLflow refuses is the user's: one line, the address without its password."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        said = " ".join(str(error).split())[:300].replace(uri, public(uri))
        raise UserError(f"{public(uri)}: MLflow does not take the model: {said}") from None


@contextmanager
def _store_of_the_process(uri: str) -> Iterator[None]:
    """The registry asks the process's store for a model, not the client's; afterwards all is as before."""
    import mlflow

    before = os.environ.get("MLFLOW_TRACKING_URI")
    mlflow.set_tracking_uri(uri)
    try:
        yield
    finally:
        mlflow.set_tracking_uri(before)  # None takes the address out again


def _send_files(
    client: Any, run: str, model: str, folder: Path, loader: str, requirements: list[str]
) -> None:
    import mlflow
    from mlflow.entities import LoggedModelStatus
    from mlflow.models import Model

    with tempfile.TemporaryDirectory() as made:
        path = Path(made) / "model"
        mlflow.pyfunc.save_model(
            path,
            loader_module=loader,
            data_path=str(folder),
            pip_requirements=requirements,
            mlflow_model=Model(run_id=run, model_id=model),
        )
        client.log_model_artifacts(model, str(path))
    client.finalize_logged_model(model, LoggedModelStatus.READY)


def _send_metrics(client: Any, run: str, model: str, metrics: Mapping[str, float], data: Data | None) -> None:
    from mlflow.entities import Metric

    about = (data.name, data.digest[:36]) if data else (None, None)
    if data:
        client.log_inputs(run, [data.entity()])
    now = time.time_ns() // 1_000_000
    entities = [
        Metric(name, value, now, 0, model, *about) for name, value in metrics.items() if math.isfinite(value)
    ]
    for first in range(0, len(entities), _MOST):
        client.log_batch(run, metrics=entities[first : first + _MOST])
