"""From specs to cells: every row with every seed as a resolved experiment, its cell and its evaluation."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from acdis import config, methods
from acdis.ablation import cells
from acdis.ablation.spec import Row, Spec, experiment_of
from acdis.config import Data, Experiment
from acdis.data.inputs import Inputs
from acdis.errors import UserError
from acdis.training import precision


@dataclass(frozen=True)
class Member:
    """One row of one spec with one seed.

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


@dataclass(frozen=True)
class _Opened:
    """Prepared cases, their fingerprints computed once."""

    inputs: Inputs
    fingerprint: str
    test_fingerprint: str


def settle(experiment: Experiment) -> Experiment:
    """Options validated and written out, `auto` decided: what is hashed and what runs. Takes no torch.

    Raises:
        UserError: as `methods.resolve`.
    """
    return decide(methods.resolve(experiment))


def decide(experiment: Experiment) -> Experiment:
    """The experiment with its precision decided for this hardware."""
    chosen = precision.resolve(experiment.training.precision, experiment.scaling.gpu)
    training = experiment.training.model_copy(update={"precision": chosen})
    return experiment.model_copy(update={"training": training})


def resolve(specs: Sequence[Spec], opened: Callable[[Experiment], Inputs]) -> list[Member]:
    """The members of specs, in the order spec, row, seed.

    Args:
        opened: prepares the cases of an experiment; called once for each distinct `data`.

    Raises:
        UserError: two rows of a spec come to the same cell; what `opened` raises.
    """
    known: dict[Data, _Opened] = {}
    members: list[Member] = []
    for spec in specs:
        draft = config.draft(spec.base, spec.overrides)
        mine: dict[str, Member] = {}
        named: dict[tuple[str, int], str] = {}
        rows = [(row, decide(experiment_of(draft, row))) for row in spec.rows]
        for row, experiment in _parents_first(rows, spec):
            if experiment.data not in known:
                inputs = opened(experiment)
                known[experiment.data] = _Opened(inputs, inputs.fingerprint, inputs.test_fingerprint)
            for member in _of_row(spec, row, experiment, known[experiment.data], named):
                _refuse_twin(mine.get(member.cell), member)
                mine[member.cell] = member
                named[row.id, member.seed] = member.cell
        order = {row.id: place for place, row in enumerate(spec.rows)}
        members += sorted(mine.values(), key=lambda member: order[member.row.id])
    return members


def generations(members: Sequence[Member]) -> list[list[Member]]:
    """Members without a parent among them first, then those whose parents stand before them, and so on."""
    left, done, found = list(members), set[str](), list[list[Member]]()
    there = {member.cell for member in members}
    while left:
        ready = [each for each in left if there.intersection(each.experiment.method.parents.values()) <= done]
        found.append(ready)
        done |= {member.cell for member in ready}
        left = [member for member in left if member not in ready]
    return found


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
        seeded = experiment.model_copy(update={"seed": seed, "method": method})
        name = cells.cell_name(seeded, opened.fingerprint, version)
        inputs = opened.inputs.for_scoring(experiment.scored)
        yield Member(spec, row, seed, seeded, inputs, name, evaluation)


def _refuse_twin(twin: Member | None, member: Member) -> None:
    """Rows that differ only in where their data lie are told apart by the data, which are known by now."""
    if twin is not None:
        raise UserError(
            f"{member.spec.path}: rows {twin.row.id!r} and {member.row.id!r} mean the same: the cases that "
            "train and validate are equal, and nothing else tells their weights apart; remove one"
        )
