"""From the words of the command line to the members of specs: what every verb on specs begins with."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from acdis import machine
from acdis.ablation.expansion import Member, resolve
from acdis.ablation.selection import load_specs
from acdis.config import Experiment
from acdis.data.inputs import Inputs, Unprepared, look_at_inputs, open_inputs
from acdis.errors import UserError
from acdis.terminal.progress import Display
from acdis.tracking import check_store, check_uri, chosen_uri, without_mlflow
from acdis.workflow.memory import remembered
from acdis.workflow.others import name_of

NOT_PREPARED = "the cases are not prepared here yet (`ablate` does it); "
REMEMBERED = "cells are named by what they remember of them"
PLACEHOLDERS = "cells get their names then, and until then placeholders: unprepared-…"


def open_specs(
    paths: Sequence[Path],
    experiment: Path | None,
    overrides: Sequence[str],
    rows: Sequence[str] | None,
    seeds: Sequence[int] | None,
    base: Path,
    display: Display,
    tracked: bool = False,
    looking: bool = False,
    remembering: bool = False,
) -> list[Member]:
    """Read specs, prepare their cases (with progress), and name their cells.

    Args:
        experiment, overrides: on which the rows are run, instead of the specs' own base.
        rows, seeds: only these; a row must be in one of the specs.
        base: ACDIS_HOME.
        tracked: what follows writes to MLflow's store.
        looking: nothing is trained or scored, so nothing is drawn or prepared: where the cases are not, what
            cells remember of them will do, else cells get placeholders for names.
        remembering: the same where the cases cannot be read.

    Raises:
        UserError: a spec, an experiment, its data or the store is wrong, or nothing is left to look at.
    """
    specs = load_specs(paths, experiment, overrides, rows, seeds)
    names = {spec.name for spec in specs}

    def opened(wanted: Experiment) -> Inputs:
        try:
            inputs = prepare(wanted, base, display, tracked, looking)
        except UserError as error:
            known = remembered(wanted.data, names, base) if remembering else None
            if known is None:
                raise
            display.say(f"the cases cannot be read ({error}); cells are named by what they remember of them")
            return known
        if isinstance(inputs, Unprepared):
            known = remembered(wanted.data, names, base)
            display.say(NOT_PREPARED + (REMEMBERED if known else PLACEHOLDERS))
            return replace(known, sizes=inputs.sizes) if known else inputs
        return inputs

    return resolve(specs, opened, functools.partial(name_of, base=base))


def prepare(
    experiment: Experiment, base: Path, display: Display, tracked: bool, looking: bool = False
) -> Inputs:
    """The experiment's cases, found, checked and preprocessed, or only looked at; see `open_specs`.

    Raises:
        UserError: no usable cases, settings that these cases cannot serve, or a store that cannot be used.
    """
    check_uri(experiment.tracking.uri or "sqlite:////")
    if tracked:
        if untracked := without_mlflow(experiment.tracking.uri):
            display.say(untracked)
        check_store(chosen_uri(experiment.tracking.uri, base))
    opened = look_at_inputs if looking else open_inputs
    inputs = opened(experiment.data, base, machine.processors(), display.count)
    train, validation, test = inputs.counts
    if experiment.training.selection == "best" and not validation:
        raise UserError(
            "training.selection: 'best' needs validation cases; give data.split some, or choose 'last'"
        )
    for note in inputs.notes:
        display.say(note)
    display.say(f"cases: {train} train, {validation} validate, {test} test")
    return inputs
