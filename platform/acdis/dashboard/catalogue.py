"""Which specs there are: those that the home or the store knows, and spec files that nobody has begun."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from acdis import config
from acdis.ablation import spec as spec_files
from acdis.dashboard import runs
from acdis.dashboard.files import Files
from acdis.dashboard.settings import Settings
from acdis.dashboard.store import MlflowStore, StoreAwayError
from acdis.errors import UserError
from acdis.report import spec_outline
from acdis.report.facts import CellFacts, RowFacts, SpecFacts


@dataclass(frozen=True)
class KnownSpecs:
    """Specs by name, none of their cells looked at, and what is wrong with others, a line each."""

    specs: Mapping[str, SpecFacts]
    problems: tuple[str, ...]


class Catalogue:
    """Reads specs, each once until it changes."""

    def __init__(self, settings: Settings, files: Files, store: MlflowStore) -> None:
        self._settings, self._files, self._store = settings, files, store

    def known(self) -> KnownSpecs:
        """Spec files first, in their order; then what only the home knows, then what only the store knows."""
        recorded, stored = self._recorded(), self._stored()
        files = {path.stem: path for path in self._settings.specs}
        by_name: dict[str, SpecFacts | str] = {}
        for name in (*files, *recorded, *stored):
            facts = recorded.get(name)
            if facts is None and name in files:
                facts = self._files.read(files[name], _sketched, None)
            facts = facts or stored.get(name)
            if facts is not None:
                by_name[name] = facts
        specs = {name: facts for name, facts in by_name.items() if isinstance(facts, SpecFacts)}
        return KnownSpecs(specs, tuple(problem for problem in by_name.values() if isinstance(problem, str)))

    def _recorded(self) -> dict[str, SpecFacts | str]:
        """What `ablate` has left in the home."""
        base = self._settings.base
        outlines = {
            path.parent.name: self._files.read(path, _recorded, None)
            for path in (spec_outline.files(base) if base else ())
        }
        return {name: outline for name, outline in outlines.items() if outline is not None}

    def _stored(self) -> Mapping[str, SpecFacts]:
        """Specs of runs that were trained elsewhere: no more of them is known than tags say."""
        try:
            return self._store.kept("stored specs", _stored)
        except StoreAwayError:
            return {}


def _stored(store: MlflowStore) -> Mapping[str, SpecFacts]:
    roles: dict[str, dict[tuple[str, int], str]] = {}
    for cell, run in runs.cells(store).items():
        for spec, row, seed in roles_of(run):
            roles.setdefault(spec, {})[row, seed] = cell
    return {name: _from_tags(run, roles.get(name, {})) for name, run in runs.specs(store).items()}


def _recorded(path: Path) -> SpecFacts | str:
    try:
        return spec_outline.read(path)
    except UserError as error:
        return str(error)


def _sketched(path: Path) -> SpecFacts | str | None:
    """None for a file of another kind: a search."""
    try:
        tree = config.read_yaml(path)
        if not {"rows", "grid", "extends"} & tree.keys():
            return None
        return spec_outline.sketch(spec_files.load(path))
    except UserError as error:
        return str(error)


def roles_of(run: runs.MlflowRun) -> Iterator[tuple[str, str, int]]:
    """Spec, row and seed of each row that a run serves; what is not written like that is left out."""
    for role in run.tags.get("acdis.roles", "").split(", "):
        spec, _, rest = role.partition("/")
        row, _, seed = rest.rpartition("/")
        if spec and row and seed.isdecimal() and len(seed) < 12:
            yield spec, row, int(seed)


def _from_tags(run: runs.MlflowRun, cells: Mapping[tuple[str, int], str]) -> SpecFacts:
    tags = run.tags
    names = [name for name in tags.get("acdis.rows", "").split(", ") if name]
    rows = list(dict.fromkeys([*names, *(row for row, _ in cells)]))
    listed = [int(seed) for seed in tags.get("acdis.seeds", "").split(", ") if seed.isdecimal()]
    seeds = sorted({*listed[:1000], *(seed for _, seed in cells)})
    made = (
        RowFacts(
            row,
            row,
            None,
            None,
            {},
            tuple(CellFacts(seed, cells.get((row, seed), ""), "", False, "", {}, "") for seed in seeds),
        )
        for row in rows
    )
    title = tags.get("acdis.title", run.name)
    about = (run.name, title, run.name, tags.get("acdis.baseline", ""), "", ())
    return SpecFacts(*about, {}, False, 0.0, tuple(made))
