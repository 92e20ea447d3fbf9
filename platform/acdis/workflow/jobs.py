"""From an experiment and its cases to a job: the cell, its folder made, and all that training it takes."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Collection, Iterable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from acdis import cells, extras, files, home, methods
from acdis.cells import Cell, schemas
from acdis.cluster.train import Job
from acdis.config import Experiment
from acdis.data.inputs import Inputs
from acdis.data.prepared_case import Entry
from acdis.data.schemes import CLASS_NAMES
from acdis.errors import UserError
from acdis.evaluation.records import read_parquet, read_table, write_parquet
from acdis.prediction import seen
from acdis.tracking import chosen_uri, default_uri, public
from acdis.tracking.patch import of_this_run
from acdis.workflow import publish

#: What the commit does not have, for a reviewer.
CHANGES = "changes.patch"


def job_of(experiment: Experiment, inputs: Inputs, base: Path, tags: dict[str, str]) -> Job:
    """The experiment's cell, its folder made, with all that training it takes.

    Raises:
        UserError: a parent has seen cases that are to be scored, or MLflow is missing for what it is to do.
    """
    for name in ("system_metrics", "log_model"):
        if getattr(experiment.tracking, name):
            extras.need("tracking", f"tracking.{name}")
    _refuse_seen(experiment, inputs, base)
    name = cells.cell_name(experiment, inputs.fingerprint, methods.version(experiment.method.name))
    cell = cells.create(
        base, name, experiment, {"tags": tags, "splits": split_names(inputs), **learned_from(inputs)}
    )
    if cell.weights.exists() and not (cell.folder / "history.json").exists():
        publish.history(cell)
    if not (cell.folder / CHANGES).exists():
        files.write_text(cell.folder / CHANGES, of_this_run())
    evaluation = cell.evaluations / cells.evaluation_name(experiment, inputs.test_fingerprint)
    _say_patients(cell, evaluation / "records.parquet", inputs)
    return Job(experiment, cell, inputs, evaluation, tracking_of(experiment, base), base)


def split_names(inputs: Inputs) -> dict[str, list[str]]:
    """Which cases did what: kept with the cell, so that it can be scored again."""
    parts = {"train": inputs.train, "validation": inputs.validation, "test": inputs.tested}
    return {name: [entry.name for entry in entries] for name, entries in parts.items()}


def learned_from(inputs: Inputs) -> dict[str, dict[str, str]]:
    """By what else than its name a case is known again that trained or chose the weights; and all of them."""
    entries = (*inputs.train, *inputs.validation)
    return {
        "fingerprints": {"learnt": inputs.fingerprint, "scored": inputs.test_fingerprint},
        "voxels": {entry.name: entry.voxels for entry in entries},
        "patients": {entry.name: entry.patient for entry in entries},
    } | _labels(entries)


def _labels(entries: Iterable[Entry]) -> dict[str, dict[str, str]]:
    """What labels mean where names do not tell it later: of nnU-Net's data, whose `dataset.json` did."""
    told = {entry.source.scheme for entry in entries if entry.source and entry.source.layout == "nnunet"}
    if len(told) != 1:
        return {}
    words = {index: name for name, index in CLASS_NAMES.items()}
    (scheme,) = told
    return {"labels": {str(value): words[index] for value, index in scheme.classes}}


def where_to_look(experiment: Experiment, base: Path) -> str:
    """The line that opens the dashboard, with the program that belongs to this Python."""
    uri = chosen_uri(experiment.tracking.uri, base)
    if uri.startswith("http"):
        return f"dashboard: {public(uri)}"
    if not extras.installed("tracking"):
        return f"dashboard: needs MLflow; {extras.command('tracking')}"
    program = Path(sys.executable).parent / "acdis"
    command = ["env", f"ACDIS_HOME={base}", str(program) if program.exists() else "acdis", "dashboard"]
    command += [] if uri == default_uri(base) else ["--store", public(uri)]
    return f"dashboard: {shlex.join(command)}"


def check_parents(experiments: Iterable[Experiment], trained: Collection[str], base: Path) -> None:
    """Every parent is among what is trained now, or a cell that has its weights.

    Raises:
        UserError: one is neither, or of a method that has nothing to give to this one.
    """
    for experiment in experiments:
        methods.check_parents(experiment.method)
        for role, parent in experiment.method.parents.items():
            if parent in trained:
                continue
            try:
                name = cells.find_trained(base, parent).name
            except UserError as error:
                raise UserError(
                    f"method.parents.{role}: no row of the spec that is asked for is called so, and {error}"
                ) from None
            if name != parent:
                raise UserError(f"method.parents.{role}: {parent}: give the cell's whole name, {name}")


def _say_patients(cell: Cell, scored: Path, inputs: Inputs) -> None:
    """`data.patients` is no part of a cell's name: what it says now holds for what was written before."""
    lineage, learned = cell.lineage(), learned_from(inputs)["patients"]
    if learned and lineage.get("names") != "sha256" and lineage.get("patients", learned) != learned:
        schemas.write(cell.folder / "lineage.json", schemas.Lineage, lineage | {"patients": learned})
    if scored.exists() and inputs.test:
        persons = {entry.name: entry.patient for entry in inputs.test}
        with suppress(UserError, OSError), files.opened(scored) as file:  # who needs the scores says so
            table = read_table(file, str(scored))
            known = set(zip(table["case"].to_pylist(), table["patient"].to_pylist(), strict=True))
            if any(persons.get(case, who) != who for case, who in known):  # every row is read only then
                rows = read_parquet(scored)
                write_parquet(
                    scored, [replace(row, patient=persons.get(row.case, row.patient)) for row in rows]
                )


def _refuse_seen(experiment: Experiment, inputs: Inputs, base: Path) -> None:
    """What a parent was trained on is no test of its child."""
    for role, name in experiment.method.parents.items():
        parent = Cell(home.cells(base) / name)
        if (parent.folder / "config.yaml").is_file() and (known := seen.reasons(parent, inputs.tested)):
            few = ", ".join(list(known)[:3]) + (" …" if len(known) > 3 else "")
            raise UserError(
                f"method.parents.{role}: {name} was trained or chosen on {len(known)} of the "
                f"{len(inputs.tested)} test cases ({few}): name one that has not seen them, or others to test"
            )


def tracking_of(experiment: Experiment, base: Path) -> dict[str, str]:
    """Where MLflow keeps the run."""
    return {"uri": chosen_uri(experiment.tracking.uri, base), "experiment": experiment.tracking.experiment}
