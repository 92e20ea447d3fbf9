"""`evaluate`: score a trained run again, on the same or other data, without training."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from acdis import home, machine
from acdis.ablation import cells
from acdis.ablation.cells import Cell
from acdis.cluster.train import Job
from acdis.config import Experiment, Split, flatten
from acdis.data.entry import Entry
from acdis.data.inputs import Inputs, find_cases, prepare_cases
from acdis.data.patients import Patients
from acdis.data.patients import known as patients_of
from acdis.data.splits import from_files
from acdis.errors import UserError
from acdis.report.facts import PHANTOM_WARNING
from acdis.tracking import check_store
from acdis.tracking.lineage import lineage
from acdis.verbs import publish
from acdis.verbs.cell import evaluation_folder, opened, tracker_of, tracking_of
from acdis.verbs.progress import Display
from acdis.verbs.train import where_to_look

#: Of the training's data these may differ in another folder; they are its own there.
_OF_THE_FOLDER = ("files", "labels", "scheme", "patients")


def evaluate(
    run: str, root: Path | None, split: Path | None, overrides: Sequence[str], with_trained: bool = False
) -> None:
    """Score a finished cell and show the table.

    Args:
        run: a cell's name, the beginning of it, or its folder, which may be another's and read-only.
        root: folder of cases; none: those that the cell was trained on.
        split: a file that lists the cases to score; none: the cell's own test cases, or with another root
            all cases in it.
        overrides: `evaluation.…`, `scaling.…` and `tracking.…` may be changed, and with `root` what names its
            files and labels: `data.files`, `data.labels`, `data.scheme`, `data.patients`.
        with_trained: also score cases that the training has seen.

    Raises:
        UserError: no such cell, not trained yet, or a case that is not there.
    """
    base = home.home()
    found = cells.find_trained(base, run)
    cell = cells.borrowed(base, found)
    experiment = _experiment(cell, root, overrides)
    check_store(tracking_of(experiment, base)["uri"])
    with Display() as display, cell.alone():
        if cell != found:
            display.say(f"{found.folder} cannot be written to: a copy of it is scored in {cell.folder}")
        entries = _entries(cell, experiment, base, root, split, display)
        if not with_trained:
            entries = unseen(cell, entries, display.say)
        inputs = Inputs((), (), tuple(entries))
        folder = evaluation_folder(cell, experiment, inputs.test_fingerprint)
        job = Job(experiment, cell, inputs, folder, tracking_of(experiment, base), base)
        display.say(f"scoring {cell.name} on {len(inputs.test)} cases")
        _score(job, display)
        display.say(_publish(job))
        if experiment.data.phantoms is not None:
            display.say(PHANTOM_WARNING)
        display.say(where_to_look(experiment, base))


def _experiment(cell: Cell, root: Path | None, overrides: Sequence[str]) -> Experiment:
    """The cell's experiment; only what cannot change the weights may differ."""
    names = tuple(f"data.{name}" for name in _OF_THE_FOLDER) if root else ()
    for override in overrides:
        if not override.startswith(("evaluation.", "scaling.", "tracking.", *names)):
            raise UserError(
                f"override {override!r}: evaluation takes evaluation.…, scaling.… and tracking.… only, and "
                f"with --root {', '.join(f'data.{name}' for name in _OF_THE_FOLDER)}"
            )
    fresh = [f"{name}=null" for name in names]
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
    found = find_cases(experiment.data, base, display.count)
    wanted: Sequence[str]
    if split is not None:
        patients = Patients(experiment.data.patients)
        persons = {name: patients.of(name) for name in found.names}
        wanted = from_files({"train": split}, found.names, persons).train  # the one list that may stand alone
    else:
        wanted = found.names if root else cell.test_cases()
    unknown = [name for name in wanted if name not in found.names]
    if unknown or not wanted:
        what = (
            (f"not found any more: {', '.join(unknown)}")
            if unknown
            else "none: it was trained without test cases"
        )
        raise UserError(f"{cell.name}: cases to score: {what}; give --root or --split")
    entries = prepare_cases(
        found.only(wanted), wanted, experiment.data, base, machine.processors(), display.count
    )
    return [entries[name] for name in wanted]


def unseen(cell: Cell, entries: list[Entry], say: Callable[[str], None]) -> list[Entry]:
    """Those that the weights were neither trained nor chosen on, by name, by patient and by their voxels.

    Raises:
        UserError: none is left.
    """
    known = cell.lineage()
    splits = known.get("splits", {})
    names = {*splits.get("train", []), *splits.get("validation", [])}
    patients = {*patients_of(names).values(), *known.get("patients", {}).values()}
    voxels = set(known.get("voxels", {}).values())
    reasons = {
        entry.name: reason
        for entry in entries
        for reason, hit in (
            ("voxels", entry.voxels in voxels),
            ("patient", entry.patient in patients),
            ("name", entry.name in names),
        )
        if hit
    }
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
    from acdis.cluster import session
    from acdis.cluster.train import launch

    try:
        with session.connected():
            launch(job, session.room(job.experiment.scaling), display.state, again=True)
    finally:
        job.cell.update(status="done", reason=None)  # the training is, whatever became of this


def _publish(job: Job) -> str:
    """Other data or settings than the training's get an MLflow run of their own, so that its scores stay."""
    cell, experiment, folder, tracking = job.cell, job.experiment, job.evaluation, job.tracking
    title = f"{cell.name} scored again"
    if folder.name == cell.state().get("evaluation"):
        with tracker_of(job, running=False) as tracker:
            return publish.scores(tracker, cell, folder, experiment.evaluation, title)
    name = f"{cell.name}/{folder.name}"
    with opened(folder, name, tracking, running=True) as tracker:
        tree = experiment.model_dump(mode="json")
        tracker.log_params(
            flatten({"data": {"root": tree["data"]["root"]}, "evaluation": tree["evaluation"]})
        )
        tracker.log_tags(lineage() | {"acdis.evaluation_of": cell.name})
        text = publish.scores(tracker, cell, folder, experiment.evaluation, title)
        tracker.finish("FINISHED")
    return text
