"""From the words of the command line to the members of specs: what every verb on specs begins with."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from acdis import machine
from acdis.ablation import spec
from acdis.ablation.members import Member, resolve
from acdis.ablation.sheet import nearest
from acdis.ablation.spec import Spec
from acdis.config import Experiment
from acdis.data.inputs import Inputs, open_inputs
from acdis.errors import UserError
from acdis.tracking import check_store, check_uri, chosen_uri
from acdis.verbs.progress import Display


def open_specs(
    paths: Sequence[Path],
    experiment: Path | None,
    overrides: Sequence[str],
    rows: Sequence[str] | None,
    seeds: Sequence[int] | None,
    base: Path,
    display: Display,
    tracked: bool = False,
) -> list[Member]:
    """Read specs, prepare their cases (with progress), and name their cells.

    Args:
        experiment, overrides: on which the rows are run, instead of the specs' own base.
        rows, seeds: only these; a row must be in one of the specs.
        base: ACDIS_HOME.
        tracked: what follows writes to MLflow's store.

    Raises:
        UserError: a spec, an experiment, its data or the store is wrong, or nothing is left to look at.
    """
    return resolve(
        load_specs(paths, experiment, overrides, rows, seeds),
        lambda wanted: prepare(wanted, base, display, tracked),
    )


def load_specs(
    paths: Sequence[Path],
    experiment: Path | None = None,
    overrides: Sequence[str] = (),
    rows: Sequence[str] | None = None,
    seeds: Sequence[int] | None = None,
) -> list[Spec]:
    """Read and select; see `open_specs`. A spec that has none of the rows is left out.

    Raises:
        UserError: as `open_specs`, and specs of one name, which tags could not tell apart.
    """
    if not paths:
        raise UserError("no spec given; name at least one, such as ablations/table2.yaml")
    _refuse_twins(paths)
    specs = [spec.load(path, experiment, overrides) for path in paths]
    known = list(dict.fromkeys(row.id for each in specs for row in each.rows))
    for name in rows or ():
        if name not in known:
            raise UserError(f"--rows: no spec has a row {name!r}{nearest(name, known)}")
    chosen = [spec.select(each, _of(each, rows), seeds) for each in specs]
    return [each for each in chosen if each.rows]


def prepare(experiment: Experiment, base: Path, display: Display, tracked: bool) -> Inputs:
    """The experiment's cases, found, checked and preprocessed; see `open_specs`.

    Raises:
        UserError: no usable cases, settings that these cases cannot serve, or a store that cannot be used.
    """
    check_uri(experiment.tracking.uri or "sqlite:////")
    if tracked:
        check_store(chosen_uri(experiment.tracking.uri, base))
    inputs = open_inputs(experiment.data, base, machine.processors(), display.count)
    if experiment.training.selection == "best" and not inputs.validation:
        raise UserError(
            "training.selection: 'best' needs validation cases; give data.split some, or choose 'last'"
        )
    for note in inputs.notes:
        display.say(note)
    display.say(
        f"cases: {len(inputs.train)} train, {len(inputs.validation)} validate, {len(inputs.test)} test"
    )
    return inputs


def _of(each: Spec, rows: Sequence[str] | None) -> list[str] | None:
    names = {row.id for row in each.rows}
    return None if rows is None else [name for name in rows if name in names]


def _refuse_twins(paths: Sequence[Path]) -> None:
    for place, path in enumerate(paths):
        for other in paths[:place]:
            if path.stem == other.stem:
                raise UserError(f"{other} and {path}: two specs called {path.stem!r}; give each once")
