"""What pages read: specs with how their cells stand, and runs; kept until something changes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from acdis.dashboard import runs
from acdis.dashboard.catalogue import Catalogue, KnownSpecs
from acdis.dashboard.files import Files
from acdis.dashboard.folders import ABSENT, Folders, FolderState
from acdis.dashboard.runs import MlflowRun
from acdis.dashboard.settings import Settings
from acdis.dashboard.store import MlflowStore, StoreAwayError
from acdis.report.collect import SCORED, code_of, standing
from acdis.report.facts import CellFacts, SpecFacts


class NotThereError(Exception):
    """What a page was asked for is not there; says what is, or what to do."""


@dataclass(frozen=True)
class SeenCell:
    """One row and seed of a spec as it stands: cell, folder, run."""

    row: str
    label: str
    cell: CellFacts
    seen: FolderState
    run: MlflowRun | None


class Site:
    """One for each server process."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.files = Files()
        self.store = MlflowStore(settings.uri)
        self.folders = Folders(settings.base, self.files)
        self.catalogue = Catalogue(settings, self.files, self.store)

    def known(self) -> KnownSpecs:
        """All specs, none of their cells looked at."""
        return self.catalogue.known()

    def plan(self, name: str) -> SpecFacts:
        """A spec, none of its cells looked at. Raises NotThereError."""
        known = self.known()
        if name not in known.specs:
            raise NotThereError(
                f"There is no spec of this name. Known: {', '.join(known.specs) or 'none yet'}."
            )
        return known.specs[name]

    def looked(self, name: str) -> tuple[SpecFacts, Sequence[SeenCell]]:
        """A spec as a report sees it, how its cells stand and what they cost; and its cells one by one.

        Raises:
            NotThereError: there is no such spec.
        """
        spec = self.plan(name)
        looks = self.looks(spec)
        cells = iter(looks)
        rows = tuple(replace(row, cells=tuple(next(cells).cell for _ in row.cells)) for row in spec.rows)
        return replace(spec, rows=rows), looks

    def looks(self, spec: SpecFacts) -> list[SeenCell]:
        """Its rows and seeds, in their order, as they stand now."""
        by_cell = self.runs()
        return [self._look(row.id, row.label, cell, by_cell) for row in spec.rows for cell in row.cells]

    def runs(self) -> Mapping[str, MlflowRun]:
        """MLflow's run of each cell; empty where the store cannot be read."""
        try:
            return runs.cells(self.store)
        except StoreAwayError:
            return {}

    def trouble(self) -> str:
        """Why the store cannot be read; empty where it can."""
        try:
            runs.cells(self.store)
        except StoreAwayError as error:
            return str(error)
        return ""

    def _look(self, row: str, label: str, cell: CellFacts, by_cell: Mapping[str, MlflowRun]) -> SeenCell:
        seen, run = self.folders.seen(cell.cell, cell.evaluation), by_cell.get(cell.cell)
        if not seen.state:
            words = "trained elsewhere" if run else "missing"
            code = code_of(self.folders.tags(cell.cell))
            return SeenCell(row, label, replace(cell, standing=words, code=code), ABSENT, run)
        scored = seen.scores is not None
        known = replace(
            cell,
            scored=scored,
            standing=SCORED if scored else standing(self.folders.cell(cell.cell), dict(seen.state)),
            # The folder is the truth; the store stands in where it is away.
            hours=self.folders.hours(cell.cell, seen.state) or dict(run.hours if run else {}),
            code=code_of(run.tags if run and run.tags else self.folders.tags(cell.cell)),
            capacity=self.folders.capacity(cell.cell),
        )
        return SeenCell(row, label, known, seen, run)
