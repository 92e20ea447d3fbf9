"""From specs to cells: every row with every seed as a resolved experiment, its cell and its evaluation."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
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
        for row in spec.rows:
            experiment = decide(experiment_of(draft, row))
            if experiment.data not in known:
                inputs = opened(experiment)
                known[experiment.data] = _Opened(inputs, inputs.fingerprint, inputs.test_fingerprint)
            for member in _of_row(spec, row, experiment, known[experiment.data]):
                _refuse_twin(mine.get(member.cell), member)
                mine[member.cell] = member
        members += mine.values()
    return members


def _of_row(spec: Spec, row: Row, experiment: Experiment, opened: _Opened) -> Iterator[Member]:
    version = methods.version(experiment.method.name)
    evaluation = cells.evaluation_name(experiment, opened.test_fingerprint)
    for seed in spec.seeds:
        seeded = experiment.model_copy(update={"seed": seed})
        name = cells.cell_name(seeded, opened.fingerprint, version)
        yield Member(spec, row, seed, seeded, opened.inputs, name, evaluation)


def _refuse_twin(twin: Member | None, member: Member) -> None:
    """Rows that differ only in where their data lie are told apart by the data, which are known by now."""
    if twin is not None:
        raise UserError(
            f"{member.spec.path}: rows {twin.row.id!r} and {member.row.id!r} mean the same: the cases that "
            "train and validate are equal, and nothing else tells their weights apart; remove one"
        )
