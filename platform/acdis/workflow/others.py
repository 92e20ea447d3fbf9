"""Another tool's predictions as a cell: found, scored by our rules, published like a method's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from acdis import cells, home
from acdis.ablation.expansion import Member
from acdis.ablation.spec import Row, Spec
from acdis.ablation.standings import served
from acdis.cells import Cell
from acdis.config import Evaluation, Experiment
from acdis.data import predictions
from acdis.data.inputs import Inputs
from acdis.data.prepared_case import Entry
from acdis.errors import UserError
from acdis.evaluation import floor_files, others
from acdis.evaluation.case_files import CaseFiles
from acdis.evaluation.records import Record, write_parquet
from acdis.terminal.progress import Display
from acdis.tracking.lineage import lineage
from acdis.vocabulary import Subset
from acdis.workflow import publish
from acdis.workflow.jobs import tracking_of
from acdis.workflow.life import opened

#: Where records of single cases wait for the others.
PARTS = "cases"


@dataclass(frozen=True)
class Predicted:
    """Another tool's predictions.

    Attributes:
        label: what tables call the tool.
        places: the folder of each subset.
        scheme: what their labels mean; none: as in the data set.
    """

    label: str
    places: Mapping[Subset, Path]
    scheme: str | None

    def cell(self, base: Path) -> str:
        """The name of the cell that holds their scores: a hash of all files."""
        return f"{cells.EXTERNAL}-{predictions.digest(self.places, self.scheme, home.cache(base))}"

    def find(self, test: Sequence[Entry]) -> Mapping[Subset, Mapping[str, Path]]:
        """The file of each subset and case.

        Raises:
            UserError: one is missing.
        """
        return predictions.find(self.places, [entry.name for entry in test])


def of_row(row: Row, seed: int) -> Predicted:
    """What a row of a spec names.

    Raises:
        UserError: as `predictions.folders`.
    """
    folder = predictions.of_seed(row.predictions or "", seed)
    return Predicted(row.label, predictions.folders(folder), row.scheme)


def name_of(spec: Spec, row: Row, seed: int, base: Path) -> str:
    """The cell of a row of predictions; where these are not at hand the one that has served the row before.

    Raises:
        UserError: neither is there.
    """
    try:
        return of_row(row, seed).cell(base)
    except UserError as error:
        known = served(base).get((spec.name, row.id, seed), ())
        if len(known) == 1:
            return known[0]
        raise UserError(f"{spec.path}: row {row.id!r}: {error}") from None


def score_missing(members: Sequence[Member], base: Path, display: Display) -> None:
    """Score what is missing of rows of predictions.

    Raises:
        UserError: a file is missing or is not as it must be; the others are not looked at then.
    """
    for member in members:
        predicted = of_row(member.row, member.seed)
        cell = made(predicted, member.experiment, member.inputs.test, base)
        cell.add_role(spec=member.spec.name, table=member.spec.table, row=member.row.id, seed=member.seed)
        if not cell.records(member.evaluation).exists():
            folder = cell.evaluations / member.evaluation
            score(predicted, cell, member.experiment, member.inputs, folder, base, display)


def made(predicted: Predicted, experiment: Experiment, test: Sequence[Entry], base: Path) -> Cell:
    """The cell, its folder made. What the tool has learned from is not known, and not made up."""
    splits = {"train": [], "validation": [], "test": [entry.name for entry in test]}
    details = {
        "tags": lineage() | {"acdis.external": predicted.label},
        "splits": splits,
        "external": {"label": predicted.label, "scheme": predicted.scheme},
    }
    return cells.create(base, predicted.cell(base), cells.as_external(experiment), details)


def score(
    predicted: Predicted,
    cell: Cell,
    experiment: Experiment,
    inputs: Inputs,
    folder: Path,
    base: Path,
    display: Display,
) -> str:
    """Score all test cases, keep and publish; returns the table.

    Args:
        folder: of the evaluation, below the cell's.

    Raises:
        UserError: as `evaluation.others.score`.
    """
    test = inputs.test
    floor_files.place(folder, home.cache(base), inputs.train, test, experiment.data.background)
    paths = predicted.find(test)
    parts = CaseFiles(folder / PARTS)
    with cell.alone():
        cell.begin(status="scoring", scored=0, cases=len(test))
        try:
            records = records_of(predicted, paths, test, experiment.evaluation, display, parts)
        except UserError as error:
            cell.update(status="failed", reason=str(error), user_error=True)
            raise
        write_parquet(folder / "records.parquet", records)
        parts.remove()
        with opened(cell.folder, cell.name, tracking_of(experiment, base), running=False) as tracker:
            told = cells.as_external(experiment)
            publish.begin(tracker, cell, told, dict(cell.lineage().get("tags", {})))
            text = publish.scores(tracker, folder, experiment.evaluation, f"{predicted.label} ({cell.name})")
            tracker.finish("FINISHED")
            run = tracker.run_id
        cell.update(status="done", evaluation=folder.name, run_id=run)
    return text


def records_of(
    predicted: Predicted,
    paths: Mapping[Subset, Mapping[str, Path]],
    test: Sequence[Entry],
    evaluation: Evaluation,
    display: Display,
    parts: CaseFiles | None = None,
) -> list[Record]:
    """The scores of all cases, counted on the display.

    Args:
        paths: as `Predicted.find` gives them.
        parts: keeps those of cases that are done; none: nothing is kept.

    Raises:
        UserError: as `evaluation.others.score`.
    """
    if "calibration" in evaluation.metrics:
        display.say(f"{predicted.label}: calibration is not scored, label maps hold no probabilities")
    return others.score(
        paths,
        predicted.scheme,
        test,
        evaluation,
        lambda done: display.count(f"scoring {predicted.label}", done, len(test)),
        parts,
    )
