"""From specs to cells: every row with every seed as a resolved experiment, its cell and its evaluation."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from acdis import cells, config, methods
from acdis.ablation.spec import Row, Spec, experiment_of
from acdis.config import Data, Experiment
from acdis.data import predictions
from acdis.data.inputs import Inputs, Unprepared
from acdis.errors import UserError
from acdis.training import precision

#: Between a row's name and a part's: no row of a spec file can be called so.
PART = ":"

#: Names the cell that holds the scores of a row of predictions, with one seed.
Predicted = Callable[[Spec, Row, int], str]


@dataclass(frozen=True)
class Member:
    """One row of one spec with one seed, or a part of it.

    Attributes:
        experiment: options written out, precision not `auto`.
        cell: its name; another spec may have the same one.
        evaluation: name of the folder of its scores, below the cell's `evaluations`.
    """

    spec: Spec
    row: Row
    seed: int
    experiment: Experiment
    inputs: Inputs
    cell: str
    evaluation: str

    @property
    def trains(self) -> bool:
        """Whether there is anything to train: false for another tool's predictions."""
        return self.row.predictions is None

    @property
    def part_of(self) -> str:
        """The row whose own cell adopts this one's weights (`methods.parts`); empty for a whole row."""
        whole, mark, _ = self.row.id.partition(PART)
        return whole if mark else ""


@dataclass(frozen=True)
class _Opened:
    """Prepared cases, their fingerprints computed once."""

    inputs: Inputs
    fingerprint: str
    test_fingerprint: str


def decide(experiment: Experiment) -> Experiment:
    """A resolved experiment with `auto` decided for this hardware: what is hashed and what runs. No torch."""
    chosen = precision.resolve(experiment.training.precision, experiment.scaling.gpu)
    training = experiment.training.model_copy(update={"precision": chosen})
    return experiment.model_copy(update={"training": training})


def resolve(
    specs: Sequence[Spec], opened: Callable[[Experiment], Inputs], predicted: Predicted | None = None
) -> list[Member]:
    """The members of specs, in the order spec, row, seed.

    Args:
        opened: prepares the cases of an experiment; called once for each distinct `data`.
        predicted: needed where a spec has rows of predictions.

    Raises:
        UserError: two rows of a spec come to the same cell; what `opened` raises.
    """
    known: dict[Data, _Opened] = {}
    members: list[Member] = []
    for spec in specs:
        draft = config.draft(spec.base, spec.overrides)
        mine: dict[str, Member] = {}
        named: dict[tuple[str, int], str] = {}
        rows = [
            row_and_experiment
            for row in _needed(spec, draft)
            for row_and_experiment in _with_parts(row, decide(experiment_of(draft, row)))
        ]
        order = {row.id: place for place, row in enumerate(spec.rows)}
        for row, experiment in _parents_first(rows, spec):
            if experiment.data not in known:
                inputs = opened(experiment)
                known[experiment.data] = _Opened(inputs, inputs.fingerprint, inputs.test_fingerprint)
            here = known[experiment.data]
            of_row = (
                _of_row(spec, row, experiment, here, named)
                if row.predictions is None
                else _of_others(spec, row, experiment, here, predicted)
            )
            for member in of_row:
                named[row.id, member.seed] = member.cell
                if (member.part_of or row.id) not in order:
                    continue  # named for the sake of those that it is a parent of
                twin = mine.get(member.cell)
                if twin is None or twin.part_of:
                    mine[member.cell] = member
                elif not member.part_of:  # a part that is a row as well is that row's
                    _refuse_twin(twin, member)
        members += sorted(mine.values(), key=lambda member: order[member.part_of or member.row.id])
    return members


def _needed(spec: Spec, draft: config.Draft) -> list[Row]:
    """The chosen rows, and those others whose cells are, or lead to, parents of theirs."""
    others = {row.id: row for row in spec.others}
    rows: list[Row] = []
    left = list(spec.rows)
    while left:
        row = left.pop()
        rows.append(row)
        if others:
            parents = experiment_of(draft, row).method.parents.values()
            left += [others.pop(name) for name in parents if name in others]
    place = {row.id: number for number, row in enumerate((*spec.rows, *spec.others))}
    return sorted(rows, key=lambda row: place[row.id])


def generations(members: Sequence[Member]) -> list[list[Member]]:
    """Members without a parent among them first, then those whose parents stand before them, and so on."""
    left, done, ordered = list(members), set[str](), list[list[Member]]()
    there = {member.cell for member in members}
    while left:
        ready = [
            member for member in left if there.intersection(member.experiment.method.parents.values()) <= done
        ]
        ordered.append(ready)
        done |= {member.cell for member in ready}
        left = [member for member in left if member not in ready]
    return ordered


def _parents_first(rows: Sequence[tuple[Row, Experiment]], spec: Spec) -> list[tuple[Row, Experiment]]:
    """Rows after those that they name as parents.

    Raises:
        UserError: rows are each other's parents.
    """
    names, left, ordered = {row.id for row, _ in rows}, list(rows), list[tuple[Row, Experiment]]()
    while left:
        before = {row.id for row, _ in ordered}
        ready = [pair for pair in left if names.intersection(pair[1].method.parents.values()) <= before]
        if not ready:
            circle = ", ".join(repr(row.id) for row, _ in left)
            raise UserError(f"{spec.path}: method.parents of the rows {circle} lead round in a circle")
        ordered += ready
        left = [pair for pair in left if pair not in ready]
    return ordered


def _with_parts(row: Row, experiment: Experiment) -> list[tuple[Row, Experiment]]:
    """The row, in front of it the parts that its own cell is put together from (`methods.parts`).

    They become its parents, but for those that it names itself. Most methods have no parts.
    """
    if row.predictions is not None:
        return [(row, experiment)]
    name, own, parts = experiment.method.name, experiment.method.options, list[tuple[Row, Experiment]]()
    parents = dict(experiment.method.parents)
    for role, options in methods.parts(experiment).items():
        if role in parents:
            continue
        changes = {**row.changes, **{f"method.options.{key}": value for key, value in options.items()}}
        part = Row(f"{row.id}{PART}{role}", f"{row.label}: {role}", changes, None, None)
        method = config.MethodChoice(name=name, options={**own, **options})
        alone = experiment.model_copy(update={"method": method, "scored": False})
        parts.append((part, methods.resolve(alone)))
        parents[role] = part.id
    method = experiment.method.model_copy(update={"parents": parents})
    return [*parts, (row, experiment.model_copy(update={"method": method}))]


def _of_row(
    spec: Spec, row: Row, experiment: Experiment, opened: _Opened, named: Mapping[tuple[str, int], str]
) -> Iterator[Member]:
    """A row's members; `named` has the cells of the rows before, by row and seed."""
    version = methods.version(experiment.method.name)
    evaluation = cells.evaluation_name(experiment, opened.test_fingerprint)
    for seed in spec.seeds:
        of = experiment.method.parents
        parents = {role: named.get((parent, seed), parent) for role, parent in of.items()}
        method = experiment.method.model_copy(update={"parents": parents})
        methods.check_parents(method)
        seeded = experiment.model_copy(update={"seed": seed, "method": method})
        name = cells.cell_name(seeded, opened.fingerprint, version)
        if isinstance(opened.inputs, Unprepared):
            name = f"unprepared-{name.rpartition('-')[2]}"
        inputs = opened.inputs.for_scoring(experiment.scored)
        yield Member(spec, row, seed, seeded, inputs, name, evaluation)


def _of_others(
    spec: Spec, row: Row, experiment: Experiment, opened: _Opened, predicted: Predicted | None
) -> Iterator[Member]:
    """As many seeds as there are folders of predictions: one, unless the folder's name has `{seed}`."""
    evaluation = cells.evaluation_name(experiment, opened.test_fingerprint)
    if predicted is None:
        raise ValueError(f"{spec.path}: row {row.id!r}: nothing names the cells of predictions here")
    for seed in spec.seeds if predictions.SEED in (row.predictions or "") else spec.seeds[:1]:
        seeded = experiment.model_copy(update={"seed": seed})
        yield Member(spec, row, seed, seeded, opened.inputs, predicted(spec, row, seed), evaluation)


def _refuse_twin(twin: Member, member: Member) -> None:
    """Rows that differ only in where their data lie are told apart by the data, which are known by now."""
    if not member.trains:
        seeds = [(either.row.id, either.seed) for either in (twin, member)]
        told = " and ".join(f"row {row!r}, seed {seed}," for row, seed in seeds)
        raise UserError(f"{member.spec.path}: {told} have the same predictions; a copy is no second training")
    raise UserError(
        f"{member.spec.path}: rows {twin.row.id!r} and {member.row.id!r} mean the same: the cases that "
        "train and validate are equal, and nothing else tells their weights apart; remove one"
    )
