"""Score a finished cell again, on the same or other data, without training."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from acdis import cells, machine
from acdis.cells import Cell
from acdis.cluster.train import Job
from acdis.config import Experiment, Split, flatten
from acdis.data.found_cases import find_cases
from acdis.data.inputs import Inputs, prepare_cases, to_score
from acdis.data.patients import Patients
from acdis.data.prepared_case import Entry
from acdis.data.splits import from_files
from acdis.errors import UserError
from acdis.evaluation import floor_files
from acdis.prediction import seen
from acdis.terminal.progress import Display
from acdis.tracking import check_store, without_mlflow
from acdis.tracking.lineage import lineage
from acdis.workflow import launching, publish
from acdis.workflow.jobs import tracking_of
from acdis.workflow.life import opened, tracker_of

#: Of the training's data these may differ in another folder; they are its own there.
_OF_THE_FOLDER = ("files", "labels", "scheme", "patients", "incomplete")


@dataclass(frozen=True)
class Request:
    """What the user asked for.

    Attributes:
        run: a cell's name, the beginning of it, or its folder, which may be another's and read-only.
        root: folder of cases; none: those that the cell was trained on.
        split: a file that lists the cases to score; none: the cell's own test cases, or with another root
            all cases in it.
        overrides: `evaluation.…`, `scaling.…` and `tracking.…` may be changed, and with `root` what names its
            files and labels: `data.files`, `data.labels`, `data.scheme`, `data.patients`.
        with_trained: also score cases that the training has seen.
    """

    run: str
    root: Path | None = None
    split: Path | None = None
    overrides: Sequence[str] = ()
    with_trained: bool = False


@dataclass(frozen=True)
class ScoredAgain:
    """What came of it: `table` in Markdown, `job` with the cell and the folder of its evaluation."""

    job: Job
    table: str


def score_again(request: Request, base: Path, display: Display) -> ScoredAgain:
    """Score a finished cell and publish, without training.

    Raises:
        UserError: no such cell, not trained yet, or a case that is not there.
    """
    original = cells.find_trained(base, request.run)
    cell = cells.borrowed(base, original)
    experiment = _experiment(cell, request.root, request.overrides)
    launching.check(experiment.scaling)
    if untracked := without_mlflow(experiment.tracking.uri):
        display.say(untracked)
    check_store(tracking_of(experiment, base)["uri"])
    with cell.alone():
        if cell != original:
            display.say(f"{original.folder} cannot be written to: a copy of it is scored in {cell.folder}")
        entries = _entries(cell, experiment, base, request.root, request.split, display)
        if not request.with_trained:
            entries = unseen(original, entries, display.say)  # a copy has no parents beside it
        whole, incomplete = to_score(entries)
        inputs = Inputs((), (), whole, incomplete=incomplete)
        folder = cell.evaluations / cells.evaluation_name(experiment, inputs.test_fingerprint)
        job = Job(experiment, cell, inputs, folder, tracking_of(experiment, base), base)
        display.say(f"scoring {cell.name} on {len(inputs.tested)} cases")
        before = (*original.evaluations.glob("*"), *cell.evaluations.glob("*"))
        floor_files.place_again(folder, before, inputs.test, experiment.data.background)
        _score(job, display)
        return ScoredAgain(job, _publish(job))


def _experiment(cell: Cell, root: Path | None, overrides: Sequence[str]) -> Experiment:
    """The cell's experiment; only what cannot change the weights may differ."""
    names = tuple(f"data.{name}" for name in _OF_THE_FOLDER) if root else ()
    for override in overrides:
        if not override.startswith(("evaluation.", "scaling.", "tracking.", *names)):
            raise UserError(
                f"override {override!r}: evaluation takes evaluation.…, scaling.… and tracking.… only, and "
                f"with --root {', '.join(f'data.{name}' for name in _OF_THE_FOLDER)}"
            )
    fresh = [f"{name}={'false' if name == 'data.incomplete' else 'null'}" for name in names]
    experiment = cell.experiment([*fresh, *overrides])
    if root is None:
        return experiment
    data = experiment.data.model_copy(
        update={"root": str(root.expanduser().resolve()), ("phantoms"): None, "split": Split()}
    )
    return experiment.model_copy(update={"data": data})


def _entries(
    cell: Cell, experiment: Experiment, base: Path, root: Path | None, split: Path | None, display: Display
) -> list[Entry]:
    available = find_cases(experiment.data, base, display.count)
    wanted: Sequence[str]
    if split is not None:
        patients = Patients(experiment.data.patients)
        persons = {name: patients.of(name) for name in available.names}
        wanted = from_files(
            {"train": split}, available.names, persons
        ).train  # the one list that may stand alone
    else:
        wanted = available.names if root else cell.test_cases()
    unknown = [name for name in wanted if name not in available.names]
    if unknown or not wanted:
        what = (
            (f"not found any more: {', '.join(unknown)}")
            if unknown
            else "none: it was trained without test cases"
        )
        raise UserError(f"{cell.name}: cases to score: {what}; give --root or --split")
    entries = prepare_cases(
        available.only(wanted), wanted, experiment.data, base, machine.processors(), display.count
    )
    return [entries[name] for name in wanted]


def unseen(cell: Cell, entries: list[Entry], say: Callable[[str], None]) -> list[Entry]:
    """Those that neither these weights nor parents' were trained or chosen on, by name, patient and voxels.

    Raises:
        UserError: none is left.
    """
    absent = cell.family()[1]
    if absent:
        say(f"{', '.join(absent)}: a parent of {cell.name} that is not here; whom it has seen is not known")
    reasons = seen.reasons(cell, entries)
    if not reasons:
        return entries
    counts = Counter(reasons.values())
    how = ", ".join(
        f"{counts[reason]} by {reason}" for reason in ("name", "patient", "voxels") if counts[reason]
    )
    few = ", ".join(list(reasons)[:3]) + (" …" if len(reasons) > 3 else "")
    told = f"{len(reasons)} of {len(entries)} cases have trained or chosen these weights ({how}): {few}"
    if len(reasons) == len(entries):
        raise UserError(
            f"{cell.name}: {told}; none is left to score; --with-trained scores them all the same"
        )
    say(f"{told}; left out, --with-trained scores them too")
    return [entry for entry in entries if entry.name not in reasons]


def _score(job: Job, display: Display) -> None:
    try:
        launching.launch(job, display.say, display.state, again=True)
    finally:
        job.cell.update(status="done", reason=None)  # the training is, whatever became of this


def _publish(job: Job) -> str:
    """Other data or settings than the training's get an MLflow run of their own, so that its scores stay."""
    cell, experiment, folder, tracking = job.cell, job.experiment, job.evaluation, job.tracking
    title = f"{cell.name} scored again"
    if folder.name == cell.state().get("evaluation"):
        with tracker_of(job, running=False) as tracker:
            return publish.scores(tracker, folder, experiment.evaluation, title)
    name = f"{cell.name}/{folder.name}"
    with opened(folder, name, tracking, running=True) as tracker:
        tree = experiment.model_dump(mode="json")
        tracker.log_params(
            flatten({"data": {"root": tree["data"]["root"]}, "evaluation": tree["evaluation"]})
        )
        tracker.log_tags(lineage() | {"acdis.evaluation_of": cell.name})
        text = publish.scores(tracker, folder, experiment.evaluation, title)
        tracker.finish("FINISHED")
    return text
