"""`evaluate FILE --predictions DIR`: score another tool's segmentations by our rules, as a row of ours."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from acdis import cells, config, home
from acdis.ablation.file_kinds import kind_of
from acdis.ablation.selection import load_specs
from acdis.config import Evaluation, Experiment
from acdis.data import predictions
from acdis.data.prepared_case import Entry
from acdis.errors import UserError
from acdis.evaluation.records import summarise
from acdis.report import phrases
from acdis.terminal.progress import Display
from acdis.vocabulary import REGIONS, Subset, subset_name
from acdis.workflow.jobs import where_to_look
from acdis.workflow.opening import prepare
from acdis.workflow.others import Predicted, made, records_of, score


@dataclass(frozen=True)
class Request:
    """What the user asked for.

    Attributes:
        like: experiment file, or spec file (its base): which cases are scored, and how.
        folder: holds a folder for each subset, or with `subset` the files themselves.
        label: what tables call the tool.
        subset: as `FLAIR_T2`; none: all 15.
        scheme: what their labels mean, as `data.scheme` names it; none: as in the data set.
    """

    like: Path
    folder: Path
    label: str
    subset: str | None = None
    scheme: str | None = None
    overrides: Sequence[str] = ()


def evaluate_predictions(request: Request) -> None:
    """Score the test cases. All 15 subsets make a cell, which a row of a spec can name; one alone is shown.

    Raises:
        UserError: no such file, or a prediction is missing or not as it must be.
    """
    base = home.home()
    with Display() as display:
        subset = predictions.named_subset(request.subset) if request.subset else None
        places = predictions.folders(request.folder, subset)
        predicted = Predicted(request.label, places, request.scheme)
        experiment = _experiment(request)
        inputs = prepare(experiment, base, display, tracked=True)
        if not inputs.test:
            raise UserError(f"{request.like}: has no test cases; give data.split.test")
        display.say(f"scoring {predicted.label} on {len(inputs.test)} cases")
        if inputs.incomplete:
            display.say(f"{len(inputs.incomplete)} more lack modalities and are left out")
        if subset is not None:
            display.say(_of_one_subset(predicted, subset, inputs.test, experiment.evaluation, display))
            return
        cell = made(predicted, experiment, inputs.test, base)
        folder = cell.evaluations / cells.evaluation_name(experiment, inputs.test_fingerprint)
        display.say(score(predicted, cell, experiment, inputs, folder, base, display))
        display.say(f"as a row of a spec, which `ablate` and `report` take in:\n  {_row(request)}")
        display.say(where_to_look(experiment, base))


def _experiment(request: Request) -> Experiment:
    if kind_of(request.like) == "spec":
        (spec,) = load_specs([request.like], None, request.overrides)
        return config.load(spec.base, spec.overrides)
    return config.load(request.like, request.overrides)


def _row(request: Request) -> str:
    name = re.sub(r"[^a-z0-9]+", "_", request.label.lower()).strip("_") or "other"
    values = {"label": request.label, "predictions": str(request.folder.resolve()), "scheme": request.scheme}
    given = ", ".join(f"{key}: {json.dumps(value)}" for key, value in values.items() if value)
    return f"{name}: {{{given}}}"


def _of_one_subset(
    predicted: Predicted, subset: Subset, test: Sequence[Entry], evaluation: Evaluation, display: Display
) -> str:
    records = records_of(predicted, predicted.find(test), test, evaluation, display)
    lines = [f"{predicted.label}, {subset_name(subset)}, mean over {len(test)} cases:"]
    for name, value in summarise(records, [subset]).items():
        if not name.endswith("/mean"):
            metric, region, _ = name.split("/")
            shown = f"{100 * value:.2f} %" if metric.startswith("dice") else f"{value:.4g}"
            lines.append(f"  {metric} {region}: {shown}")
    if evaluation.hd95:
        counts = [
            sum(bool(record.hd95_penalty) for record in records if record.region == region)
            for region in REGIONS
        ]
        rule = phrases.hd95_rule([evaluation.hd95_convention])
        lines.append(f"{rule[:-1]}; {phrases.penalties(np.array([counts]), len(test))}.")
    lines += [
        rule for metric, rule in phrases.LESION_RULES.items() if getattr(records[0], metric) is not None
    ]
    lines.append("shown and not kept: a row of a table needs all 15 subsets, a folder each")
    return "\n".join(lines)
