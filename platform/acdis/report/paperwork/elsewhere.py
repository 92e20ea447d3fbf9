"""What a home holds beside the cells of a report: trainings that cost too, and searches."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from acdis import config, home, methods
from acdis.cells import Cell, summed
from acdis.config import Experiment
from acdis.errors import UserError
from acdis.files import reason
from acdis.report import spent

TRIAL = "trial-"
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Search:
    """A search of this home.

    Attributes:
        trials: its cells; states: how many of them stand how.
        hours: of them all, by `cpu` or `gpu`.
        tried: {key: values} of the settings in which they differ.
        best: the resolved experiment of its best trial; heading: what the file says of it.
    """

    name: str
    trials: int
    states: Mapping[str, int]
    hours: Mapping[str, float]
    tried: Mapping[str, tuple[Any, ...]]
    best: Experiment | None
    heading: str


@dataclass(frozen=True)
class Elsewhere:
    """Cells that are in no table of the report: how many, and their hours by `cpu` or `gpu`."""

    cells: int
    hours: Mapping[str, float]
    searches: tuple[Search, ...]


def look(base: Path, known: Collection[str]) -> Elsewhere:
    """What else is in the home.

    Args:
        known: names of the cells that the report has.
    """
    every = {path.parent.name: Cell(path.parent) for path in sorted(home.cells(base).glob("*/config.yaml"))}
    others = [cell for name, cell in every.items() if name not in known]
    by_search: dict[str, list[Cell]] = {}
    for cell in every.values():
        for name in _searches(cell):
            by_search.setdefault(name, []).append(cell)
    return Elsewhere(
        len(others),
        summed(_hours(cell) for cell in others),
        tuple(_search(base, name, cells) for name, cells in sorted(by_search.items())),
    )


def _searches(cell: Cell) -> Iterator[str]:
    try:
        roles = cell.roles()
    except UserError:
        return
    yield from dict.fromkeys(role["spec"] for role in roles if str(role["row"]).startswith(TRIAL))


def _hours(cell: Cell) -> dict[str, float]:
    try:
        return spent.hours(cell)
    except UserError as error:
        log.warning("%s", error)
        return {}


def _search(base: Path, name: str, cells: list[Cell]) -> Search:
    states: dict[str, int] = {}
    flat: list[dict[str, str]] = []
    values: list[Mapping[str, Any]] = []
    for cell in cells:
        try:
            status = str(cell.state().get("status", "missing"))
            tree = cell.experiment().model_dump(mode="json")
        except UserError as error:
            log.warning("%s", error)
            continue
        states[status] = states.get(status, 0) + 1
        chosen = {key: tree[key] for key in ("data", "method", "training")}
        flat.append(config.flatten(chosen))
        values.append(chosen)
    keys = sorted({key for settings in flat for key in settings})
    differing = [key for key in keys if len({settings.get(key) for settings in flat}) > 1]
    tried = {key: tuple(_at(tree, key) for tree in values) for key in differing}
    path = base / "searches" / name / "best.yaml"
    best, heading = None, ""
    if path.is_file():
        try:
            best = methods.load(path)
            heading = path.read_text(encoding="utf-8").partition("\n")[0].lstrip("# ")
        except (UserError, OSError, UnicodeDecodeError) as error:
            log.warning("%s: cannot be read (%s)", path, reason(error))
    return Search(name, len(cells), states, summed(_hours(cell) for cell in cells), tried, best, heading)


def _at(tree: Mapping[str, Any], key: str) -> Any:
    value: Any = tree
    for part in key.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value
