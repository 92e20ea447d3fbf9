"""What was trained and how: methods, recipes, seeds, initial weights, selection, searches for settings."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from acdis.config import Experiment
from acdis.report import phrases
from acdis.report.paperwork.elsewhere import TRIAL, Search
from acdis.report.paperwork.study import Facts, RowRun, Study, counted, grouped, listed

#: Methods whose optimisers and schedules `_schedule` knows.
_KNOWN = frozenset(
    (
        *("acdis", "demoseg", "gss", "imfuse", "m3ae", "mmanet", "mmformer", "rfnet", "shaspec", "uhemis"),
        *("uhved", "unet", "unet_dedicated", "unet_mfi"),
    )
)
#: Keys of a search's trials that are told.
MOST_KEYS = 12


def facts(study: Study) -> Facts:
    """By what they are about."""
    runs = study.trained
    return {
        "task": [
            "semantic segmentation of brain tumours in MRI from any non-empty subset of four modalities, "
            "by deep neural networks: three nested regions, ET in TC in WT"
        ],
        "methods": _methods(study),
        "parents": _parents(study),
        "parameters": grouped(runs, _parameters),
        "recipe": grouped(runs, recipe),
        "published_recipes": _published(runs),
        "seeds": _seeds(study),
        "runs": _runs(study),
        "initial_weights": grouped(runs, _initial),
        "selection": grouped(runs, selection),
        "ensembling": _ensembling(study),
        "hyperparameters": [*_of_trials(runs), *_searches(study)],
        "determinism": grouped(runs, _determinism),
    }


def methods_of(study: Study) -> list[str]:
    """Registered names, each once, those of teachers and parts too."""
    every = [run.papers.experiment for run in (*study.trained, *study.helpers)]
    return list(dict.fromkeys(experiment.method.name for experiment in every if experiment is not None))


def _methods(study: Study) -> list[str]:
    lines: dict[str, None] = {}
    for run in study.runs:
        if run.foreign:
            lines[f"{run.label}: predictions of another tool; how it was trained is not known here"] = None
            continue
        experiment = run.papers.experiment
        if experiment is None:
            continue
        others = {key: value for key, value in run.row.changes.items() if key != "method.name"}
        changed = ", ".join(f"{key}={_short(value)}" for key, value in others.items())
        differs = f" ({changed})" if changed else ""
        lines[f"{run.label}: {experiment.method.name}{differs}"] = None
    return list(lines)


def _short(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _parents(study: Study) -> list[str]:
    """Who learns from whom: teachers, first stages, parts."""
    rows = {run.cell.cell: run.label for run in (*study.runs, *study.helpers)}
    lines: dict[str, None] = {}
    for run in study.trained:
        if run.papers.experiment is not None and (parents := run.papers.experiment.method.parents):
            told = ", ".join(f"{role}: {rows.get(cell, cell)}" for role, cell in parents.items())
            lines[f"parents of {run.label}, which are trained first: {told}"] = None
    return list(lines)


def _parameters(run: RowRun) -> str:
    known = run.cell.capacity
    if "parameters" not in known:
        return ""
    at_inference = known.get("parameters_inference", known["parameters"])
    return f"{known['parameters'] / 1e6:.2f} M parameters, {at_inference / 1e6:.2f} M at inference"


def recipe(run: RowRun) -> str:
    """Optimiser, steps, batch, crops."""
    experiment = run.papers.experiment
    if experiment is None or run.papers.parts:
        return "its parts' weights, no training of its own" if run.papers.parts else ""
    training, data = experiment.training, experiment.data
    steps = (
        "one pass over the cases" if training.iterations is None else counted(training.iterations, "step")
    ) + " each"
    lesions = (
        f", {100 * data.lesion_crops:g} % of them centred on a lesion" if data.lesion_crops else ", uniform"
    )
    return (
        f"{counted(training.epochs, 'epoch')} of {steps}, batch {training.batch_size}, crops of "
        f"{' × '.join(map(str, data.crop))} voxels{lesions}; {_optimiser(experiment)}; {training.precision}"
    )


def _optimiser(experiment: Experiment) -> str:
    training, method = experiment.training, experiment.method
    rates = f"learning rate {training.learning_rate:g}, weight decay {training.weight_decay:g}"
    if method.name not in _KNOWN:
        return f"{rates}, optimiser and schedule of the method's own"
    chosen = str(method.options.get("optimiser", "adam"))
    name = {"adam": "Adam" + (" with AMSGrad" if training.amsgrad else ""), "sgd": "SGD", "radam": "RAdam"}
    return f"{name.get(chosen, chosen)}, {rates}, {_schedule(experiment, chosen)}"


def _schedule(experiment: Experiment, optimiser: str) -> str:
    method, options = experiment.method.name, experiment.method.options
    if quarter := options.get("quarter_every"):
        return f"a quarter of the rate every {quarter} epochs"
    if options.get("schedule") == "cosine":
        return "half a cosine"
    if method == "mmanet" and optimiser == "sgd":
        return "one cycle"
    poly = f"poly decay with power {experiment.training.poly_power:g}"
    if method == "gss":
        return f"{poly}, over again in each of {options.get('rounds')} rounds"
    if method == "shaspec" and optimiser == "sgd" and (warm_up := options.get("warm_up")):
        return f"{poly}, over the {warm_up} epochs of warm-up first"
    return poly


def _published(runs: Sequence[RowRun]) -> list[str]:
    rows = dict.fromkeys(run.label for run in runs if run.row.changes.get("recipe") == "published")
    return [f"the recipe that the method's authors set: {', '.join(rows)}"] if rows else []


def _seeds(study: Study) -> list[str]:
    seeds: dict[str, list[int]] = {}
    for run in study.trained:
        seeds.setdefault(run.label, []).append(run.cell.seed)
    if not seeds:
        return []
    told = grouped(study.trained, lambda run: f"seeds {', '.join(map(str, seeds[run.label]))}")
    return [*told, "a seed feeds every random draw of a training: weights, crops, subsets, augmentation"]


def _runs(study: Study) -> list[str]:
    trained = {run.cell.cell: run for run in study.trained}
    helpers = {run.cell.cell for run in study.helpers} - trained.keys()
    scored = sum(run.cell.scored for run in trained.values())
    more = f", and {len(helpers)} that others learn from" if helpers else ""
    return [f"{counted(len(trained), 'training')} in the tables, of which {scored} are scored{more}"]


def _initial(run: RowRun) -> str:
    experiment = run.papers.experiment
    if experiment is None:
        return ""
    if "start" in experiment.method.parents:
        return "the weights of its first stage or parent"
    return "drawn module by module from the seed and the module's name; nothing is pre-trained elsewhere"


def selection(run: RowRun) -> str:
    """Which weights are scored."""
    if run.papers.experiment is None:
        return ""
    if run.papers.experiment.training.selection == "last":
        return "the weights of the last epoch; no test case and no validation score chooses them"
    return "of the epochs that were validated the one with the best mean Dice on the validation cases"


def _ensembling(study: Study) -> list[str]:
    if not study.scored:
        return []
    parts = [run.label for run in study.trained if run.papers.parts]
    said = f"; a network per subset: {listed(parts)}" if parts else ""
    return [f"none: each trained network is scored by itself, and scores of seeds are averaged{said}"]


def _of_trials(runs: Sequence[RowRun]) -> Iterator[str]:
    """Rows whose cells are trials of a search at the same time."""
    for run in runs:
        for role in run.papers.roles:
            if str(role["row"]).startswith(TRIAL):
                yield f"{run.label}, seed {run.cell.seed} is {role['row']} of the search {role['spec']}"


def _searches(study: Study) -> Iterator[str]:
    for search in study.elsewhere.searches if study.elsewhere else ():
        states = ", ".join(f"{count} {name}" for name, count in sorted(search.states.items()))
        yield (
            f"search {search.name}: {counted(search.trials, 'trial')} ({states}), "
            f"{phrases.hours(search.hours)} "
            f"hours, judged on the validation cases alone{_values(search)}"
        )
        rows = dict.fromkeys(run.label for run in study.trained if _is_best(run, search))
        if rows:
            yield f"{', '.join(rows)}: the settings of {search.heading or f'the best trial of {search.name}'}"


def _is_best(run: RowRun, search: Search) -> bool:
    """Whether a row was trained with what a search has found; seeds may differ."""
    ours, best = run.papers.experiment, search.best
    if ours is None or best is None:
        return False
    training = (experiment.training.model_copy(update={"precision": "auto"}) for experiment in (ours, best))
    one, other = training
    return ours.method == best.method and one == other


def _values(search: Search) -> str:
    told = []
    for key, values in list(search.tried.items())[:MOST_KEYS]:
        every = sorted({json.dumps(value) for value in values})
        numbers = [
            value for value in values if isinstance(value, int | float) and not isinstance(value, bool)
        ]
        if len(numbers) == len(values) and len(every) > 2:
            told.append(f"{key} {min(numbers):.3g} to {max(numbers):.3g}")
        else:
            told.append(f"{key} {listed(every)}")
    return f"; tried: {'; '.join(told)}" if told else ""


def _determinism(run: RowRun) -> str:
    experiment = run.papers.experiment
    if experiment is None:
        return ""
    if not experiment.scaling.gpu:
        return "on a CPU equal workers, threads and processor give the same bits"
    if experiment.scaling.deterministic:
        return "on a GPU with deterministic algorithms, where torch has such"
    return "on a GPU without deterministic algorithms: a second run differs in rounding"
