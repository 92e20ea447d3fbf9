"""How the cells of specs stand, from their folders alone."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from acdis import home
from acdis.ablation.expansion import Member
from acdis.cells import Cell
from acdis.cells.schemas import DamagedError

Status = Literal["done", "running", "failed", "missing"]

#: The same in one word for people: of what is missing, what had begun is `stopped`.
WORDS = ("done", "running", "failed", "stopped", "missing")

#: What names a role: the same row and seed of a spec.
_Role = tuple[str, str, int]


@dataclass(frozen=True)
class Standing:
    """A member and how its cell stands.

    Attributes:
        status: `missing` where there is something to do and nobody does it: never begun, stopped, not scored.
        state: what the cell says of itself; empty where there is no folder.
        damage: what is wrong with its small files, a line each.
        stale: names of other cells that once served this row and seed: other settings, data, or an older
            version of the method.
    """

    member: Member
    status: Status
    state: dict[str, Any]
    stale: tuple[str, ...]
    damage: tuple[str, ...] = ()

    @property
    def word(self) -> str:
        """Of `WORDS`."""
        return word_of(self.status, self.state)


def word_of(status: Status, state: Mapping[str, Any]) -> str:
    """How a cell stands in one of the `WORDS`, as the glossary has them; `state`: what it says of itself."""
    return "stopped" if status == "missing" and state else status


def survey(members: Sequence[Member], base: Path) -> list[Standing]:
    """Look into each member's folder below `base` (ACDIS_HOME)."""
    serving = served(base)
    looked: dict[tuple[str, str], tuple[Status, dict[str, Any]]] = {}
    damaged: dict[str, tuple[str, ...]] = {}
    standings = []
    for member in members:
        key = (member.cell, member.evaluation)
        if key not in looked:
            looked[key] = _look(member, base)
            damaged[member.cell] = tuple(Cell(home.cells(base) / member.cell).damage())
        others = serving.get((member.spec.name, member.row.id, member.seed), ())
        stale = tuple(name for name in others if name != member.cell)
        standings.append(Standing(member, *looked[key], stale, damaged[member.cell]))
    return standings


def _look(member: Member, base: Path) -> tuple[Status, dict[str, Any]]:
    cell = Cell(home.cells(base) / member.cell)
    state = _state(cell)
    return status_of(state, lambda: _is_whole(cell, member), cell.busy), state


def status_of(state: Mapping[str, Any], whole: Callable[[], bool], busy: Callable[[], bool]) -> Status:
    """How a cell stands.

    Args:
        state: what it says of itself.
        whole: whether weights and scores are there; busy: whether a process trains it. Asked only if need be.
    """
    if state.get("status") == "done" and whole():
        return "done"
    if state and busy():
        return "running"
    return "failed" if state.get("status") == "failed" else "missing"


def _is_whole(cell: Cell, member: Member) -> bool:
    """The weights are there, if it trains, and the scores where there are cases to score."""
    scored = not member.inputs.scores or cell.records(member.evaluation).exists()
    return (cell.weights.exists() or not member.trains) and scored


def _state(cell: Cell) -> dict[str, Any]:
    try:
        return cell.state()
    except DamagedError as error:
        return {"status": "damaged", "reason": str(error)}


def served(base: Path) -> Mapping[_Role, Sequence[str]]:
    """Which cells have served which row and seed, by the roles that stand in their folders."""
    by_role: dict[_Role, list[str]] = defaultdict(list)
    for file in sorted(home.cells(base).glob("*/roles.json")):
        try:
            roles = Cell(file.parent).roles()
        except DamagedError:  # told with how the cell stands
            continue
        for role in roles:
            by_role[role["spec"], role["row"], role["seed"]].append(file.parent.name)
    return by_role


def counted(standings: Sequence[Standing]) -> str:
    """`6 cells: 2 done, 4 missing`."""
    by_cell = {standing.member.cell: standing.word for standing in standings}
    numbers = Counter(by_cell.values())
    said = ", ".join(f"{numbers[word]} {word}" for word in WORDS if numbers[word])
    return f"{len(by_cell)} cells: {said}"
