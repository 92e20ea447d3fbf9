"""What a notebook needs, and no more: eight functions, all of them also `acdis.NAME`.

None of them needs Ray or MLflow. pandas is imported by `score` and `results`, which return tables.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from acdis import home, machine
from acdis.cells import Cell
from acdis.config import Experiment

if TYPE_CHECKING:
    import pandas

    from acdis.data.inputs import Inputs
    from acdis.data.prepared_case import Entry
    from acdis.methods.base import Method
    from acdis.prediction.model import Model
    from acdis.prediction.predict import Prediction


def load(path: str | Path | None = None, overrides: Sequence[str] = ()) -> Experiment:
    """An experiment file with overrides such as "training.epochs=3", its options validated and written out.

    Args:
        path: none: the defaults, which are the paper's.

    Raises:
        UserError: with file, line and key.
    """
    from acdis import methods
    from acdis.ablation.expansion import decide

    return decide(methods.load(Path(path) if path is not None else None, overrides))


def cases(experiment: Experiment) -> Inputs:
    """Its cases, found, checked and prepared: `.train`, `.validation`, `.test`.

    Raises:
        UserError: there are none, or some cannot be used.
    """
    from acdis.data.inputs import open_inputs

    return open_inputs(experiment.data, home.home(), machine.processors(), lambda what, done, of: None)


def build(experiment: Experiment) -> Method:
    """The experiment's method with the weights that its seed gives it: a torch module."""
    from acdis.training.run import new_method

    return new_method(experiment)


def train(
    experiment: Experiment, listener: Callable[[Any], None] = lambda event: None, device: str | None = None
) -> Cell:
    """Train and score in this process; the cell is the same as that of `acdis train`.

    What is done already is not done again: it goes on after the last finished epoch.

    Args:
        listener: told every event of `training.events`: Projection, Step, EpochEnd, Scoring and so on.
        device: as torch names it; none: a GPU where there is one.

    Raises:
        UserError: the experiment or its data is wrong, or another process trains this cell.
        Diverged: a term of the loss was not finite.
    """
    from acdis.cluster.worker import run_alone
    from acdis.evaluation import floor_files
    from acdis.tracking.lineage import lineage
    from acdis.workflow.jobs import check_parents, job_of

    place = device or default_device()
    scaling = experiment.scaling.model_copy(
        update={"workers": 1, "min_workers": None, "storage": None, "gpu": place != "cpu"}
    )
    experiment = experiment.model_copy(update={"scaling": scaling})
    base = home.home()
    check_parents([experiment], (), base)
    inputs = cases(experiment).for_scoring(experiment.scored)
    job = job_of(experiment, inputs, base, lineage())
    if inputs.test:
        background = experiment.data.background
        floor_files.place(job.evaluation, home.cache(base), inputs.train, inputs.test, background)
    with job.cell.alone():
        job.cell.begin(status="starting", workers=1, cpus=machine.processors(), gpus=scaling.gpus)
        run_alone(job.plain() | {"again": False}, listener, place)
        job.cell.update(status="done", evaluation=job.evaluation.name)
    return job.cell


def open_cell(cell: str | Path) -> Cell:
    """A trained cell, by its name, the beginning of it, its MLflow run, or its folder, also of an export.

    Raises:
        UserError: none or several match, or the training has not ended.
    """
    from acdis.prediction.hand_on import find

    return find(home.to_read(), cell)


def predict(
    cell: str | Path | Cell | Model | Sequence[str | Path | Cell | Model],
    images: Mapping[str, str | Path],
    *,
    resample: bool = False,
    flips: bool = False,
    maps: bool = False,
    disagreement: bool = False,
    device: str | None = None,
) -> Prediction:
    """Segment one patient: `predict("acdis-0d1a7", {"FLAIR": "flair.nii.gz"}).save("seg.nii.gz")`.

    Args:
        cell: a trained cell, or several, whose probabilities are averaged. Opened once by
            `acdis.prediction.model.open_model`, a model serves many patients.
        images: modality → NIfTI file, any non-empty subset of `vocabulary.MODALITIES`.
        resample: bring images on other grids to the first one's; without it they are refused.
        flips: average over the 8 flips of the volume; 8 times as slow.
        maps: keep the probabilities of regions, and their entropy.
        disagreement: keep where smaller subsets of the images, and single cells, label otherwise.
        device: as torch names it; none: a GPU where there is one.

    Returns:
        `.labels` in the grid of the first file, `.volumes_ml` per region, `.report`, `.save(path)`.

    Raises:
        UserError: with one line that says what is wrong with the cell or the images.
    """
    from acdis.data.scan import read
    from acdis.prediction.model import Model, open_model
    from acdis.prediction.predict import Options
    from acdis.prediction.predict import predict as run

    several = [cell] if isinstance(cell, str | Path | Cell | Model) else list(cell)
    models = [
        trained
        if isinstance(trained, Model)
        else open_model(trained if isinstance(trained, Cell) else open_cell(trained), device)
        for trained in several
    ]
    given = {name: Path(path) for name, path in images.items()}
    scan = read(given, resample, models[0].training_spacing)
    return run(models, scan, Options(flips, maps, disagreement))


def score(
    cell: str | Path | Cell,
    entries: Sequence[Entry] | None = None,
    device: str | None = None,
    **evaluation: Any,
) -> pandas.DataFrame:
    """Per-case scores: a line per case, subset and region; Dice from 0 to 1, HD95 in mm.

    Args:
        entries: prepared cases, such as `cases(experiment).test`; none: the scores of its own test cases that
            are kept with the cell.
        device: as torch names it; none: a GPU where there is one.
        evaluation: settings of `Evaluation` in place of the cell's: `box="given"`, `hd95=False`.

    Raises:
        UserError: no such cell, or it has no scores of its own.
    """
    import pandas

    from acdis.errors import UserError
    from acdis.evaluation.records import as_row, read_parquet
    from acdis.prediction.model import open_model, records_of

    opened = cell if isinstance(cell, Cell) else open_cell(cell)
    if entries is None:
        if evaluation:
            raise UserError(
                "score: give the cases to score with other settings, such as cases(experiment).test"
            )
        kept = records_of(opened)
        if kept is None:
            raise UserError(f"{opened.name}: has no scores of its own; give cases, or `acdis evaluate` it")
        return pandas.DataFrame([as_row(record) for record in read_parquet(kept)])
    import torch

    from acdis.evaluation.metric_pool import processes_for
    from acdis.evaluation.scoring import score as run

    model = open_model(opened, device)
    settings = type(model.experiment.evaluation).model_validate(
        model.experiment.evaluation.model_dump() | evaluation
    )
    processes = processes_for(
        model.experiment.scaling.metric_processes,
        model.device,
        settings,
        len(entries),
        torch.get_num_threads(),
    )
    records = run(
        model.method,
        entries,
        settings,
        model.device,
        model.dtype,
        data=model.experiment.data,
        processes=processes,
    )
    return pandas.DataFrame([as_row(record) for record in records])


def results(
    spec: str | Path,
    experiment: str | Path | None = None,
    overrides: Sequence[str] = (),
    rows: Sequence[str] | None = None,
    seeds: Sequence[int] | None = None,
) -> pandas.DataFrame:
    """Per-case scores of all rows and seeds of a spec that are scored: `report --format csv --cases`.

    `results(spec).groupby(["row", "seed", "region"]).dice.mean()` is the last line of their tables.

    Args:
        experiment, overrides, rows, seeds: as `acdis report` takes them.

    Returns:
        `spec`, `row`, `seed`, `cell` and `phantoms` before the columns of `score`.

    Raises:
        UserError: as `acdis report`.
    """
    import pandas

    from acdis.ablation.expansion import resolve
    from acdis.ablation.selection import load_specs
    from acdis.report import per_case
    from acdis.report.collect import collect
    from acdis.workflow.others import name_of

    base = home.to_read()
    chosen = load_specs([Path(spec)], Path(experiment) if experiment else None, overrides, rows, seeds)
    specs = collect(resolve(chosen, cases, functools.partial(name_of, base=base)), base)
    return pandas.DataFrame(list(per_case.lines(specs, base)), columns=per_case.COLUMNS)


def default_device() -> str:
    """A GPU where there is one."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"
