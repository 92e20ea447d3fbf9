"""One cell with all that is known of it: from its folder, else from its run in MLflow."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from acdis import home
from acdis.ablation.standings import Status
from acdis.cells import Cell, read_json
from acdis.dashboard import cellfiles, summaries
from acdis.dashboard.catalogue import roles_of
from acdis.dashboard.files import stamp
from acdis.dashboard.folders import is_name
from acdis.dashboard.runs import MlflowRun
from acdis.dashboard.state import NotThereError, Site
from acdis.dashboard.store import StoreAwayError
from acdis.errors import UserError
from acdis.evaluation.scores import Scores

#: Spec, row and seed of a row that a cell serves.
Role = tuple[str, str, int]
_PARAMS = "SELECT key, value FROM params WHERE run_uuid = :run"
#: Parts of a configuration that do not change the figures; MLflow has them not.
ELSEWHERE = ("scaling.", "tracking.")


@dataclass(frozen=True)
class View:
    """What is known of a cell.

    Attributes:
        cell: its folder; none where this server does not have it.
        state: what it says of itself; empty without a folder.
        settings: its configuration, `{"data.crop": "[80, 80, 80]", …}`.
        tags: what it was trained with: commit, versions, device.
        splits: names of cases that trained, validated, tested.
        evaluation: the name of the last one; empty where there is none.
    """

    name: str
    cell: Cell | None
    status: Status
    state: Mapping[str, Any]
    run: MlflowRun | None
    roles: tuple[Role, ...]
    settings: Mapping[str, str]
    tags: Mapping[str, str]
    splits: Mapping[str, list[str]]
    evaluation: str


def view(site: Site, name: str) -> View:
    """A cell by its name or the beginning of it.

    Raises:
        NotThereError: no cell, or several, have it.
    """
    runs = site.runs()
    name = _found(site, name, runs)
    run, cell = runs.get(name), _folder(site, name)
    if cell is None:
        assert run is not None
        tags = dict(run.tags)
        return View(name, None, "missing", {}, run, tuple(roles_of(run)), _params(site, run), tags, {}, "")
    read = site.files.read
    state = site.folders.seen(name, "").state
    lineage = read(cell.folder / "lineage.json", read_json, {})
    evaluation = _evaluation(cell, state)
    return View(
        name,
        cell,
        site.folders.seen(name, evaluation).status,
        state,
        run,
        tuple(_roles(read(cell.folder / "roles.json", read_json, {}))),
        read(cell.folder / "config.yaml", cellfiles.settings, {}),
        {**(run.tags if run else {}), **_texts(lineage.get("tags"))},
        _splits(lineage.get("splits")),
        evaluation,
    )


def scores(site: Site, shown: View) -> Scores | None:
    """Per-case scores of its last evaluation, else the means that MLflow has; none without either."""
    if shown.cell is not None and shown.evaluation:
        try:
            return site.folders.scores(shown.name, shown.evaluation)
        except (UserError, LookupError):
            return None
    if shown.run is None or shown.cell is not None:
        return None
    try:
        return summaries.of_runs(site.store).get(shown.run.id)
    except StoreAwayError:
        return None


def _found(site: Site, name: str, runs: Mapping[str, MlflowRun]) -> str:
    if _folder(site, name) is not None or name in runs:
        return name
    if not is_name(name):
        raise NotThereError("That is no name of a cell. Choose one on the page of a spec.")
    known = {*runs, *_folders(site.settings.base)}
    matches = sorted(cell for cell in known if cell.startswith(name))
    if len(matches) == 1:
        return matches[0]
    what = (
        f"Several cells begin so: {', '.join(matches[:6])}." if matches else "There is no cell of this name."
    )
    raise NotThereError(f"{what} Choose one in the table of a spec, or among its runs.")


def _folder(site: Site, name: str) -> Cell | None:
    try:
        cell = site.folders.cell(name)
        return cell if cell.folder.is_dir() else None
    except (LookupError, OSError):
        return None


def _folders(base: Path | None) -> list[str]:
    if base is None:
        return []
    return [path.parent.name for path in home.cells(base).glob("*/config.yaml")]


def _evaluation(cell: Cell, state: Mapping[str, Any]) -> str:
    """The one that the cell was finished with, else the newest that has scores."""
    named = str(state.get("evaluation") or "")
    if is_name(named):
        return named
    dated = sorted(
        (when, path.parent.name)
        for path in cell.evaluations.glob("*/records.parquet")
        if (when := stamp(str(path)))
    )
    return dated[-1][1] if dated else ""


def _params(site: Site, run: MlflowRun) -> dict[str, str]:
    try:
        return {str(key): str(value) for key, value in site.store.rows(_PARAMS, run=run.id)}
    except StoreAwayError:
        return {}


def _roles(tree: Mapping[str, Any]) -> list[Role]:
    """As they stand in the folder; what is not written like that is left out."""
    readable = []
    roles = tree.get("roles")
    for role in roles if isinstance(roles, list) else ():
        try:
            readable.append((str(role["spec"]), str(role["row"]), int(role["seed"])))
        except (KeyError, TypeError, ValueError):
            continue
    return readable


def _texts(tree: Any) -> dict[str, str]:
    return {str(key): str(value) for key, value in tree.items()} if isinstance(tree, dict) else {}


def _splits(tree: Any) -> dict[str, list[str]]:
    """Only what is a list of names."""
    if not isinstance(tree, dict):
        return {}
    return {str(name): list(map(str, cases)) for name, cases in tree.items() if isinstance(cases, list)}
