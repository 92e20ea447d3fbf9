"""The MLflow side of an ablation: one parent run per spec, the cells below it, and orphans closed."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from acdis import home
from acdis.ablation.expansion import Member
from acdis.ablation.spec import Spec
from acdis.ablation.standings import survey
from acdis.cells import Cell
from acdis.report import spec_outline
from acdis.tracking.lineage import lineage
from acdis.tracking.specs import Link, SpecTracker, close_orphans, settle
from acdis.workflow.jobs import tracking_of


@contextlib.contextmanager
def parents(members: Sequence[Member], base: Path) -> Iterator[None]:
    """A parent run per spec for the time of the block; how the block ends is how they end."""
    spec_outline.save(members, base)
    trackers = [_Parent(spec, members, base) for spec in dict.fromkeys(member.spec for member in members)]
    try:
        yield
    except BaseException as error:
        for tracker in trackers:
            tracker.end("KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED")
        raise
    for tracker in trackers:
        tracker.end("FINISHED" if tracker.complete() else "FAILED")


class _Parent:
    def __init__(self, spec: Spec, members: Sequence[Member], base: Path) -> None:
        self.members = [member for member in members if member.spec == spec]
        self.base = base
        tracking = tracking_of(self.members[0].experiment, base)
        self.uri, self.experiment = tracking["uri"], tracking["experiment"]
        close_orphans(base, self.uri, self.experiment, lambda name: Cell(home.cells(base) / name).busy())
        self.tracker = SpecTracker(base, self.uri, self.experiment, spec.name)
        params = {
            "rows": ", ".join(row.id for row in spec.rows),
            "seeds": ", ".join(str(seed) for seed in spec.seeds),
            "baseline": spec.baseline,
        }
        self.tracker.begin(spec.title, params, lineage(), [spec.path])
        links = self.links()
        self.tracker.cells(links)
        settle([link for link in links if link.status == "done"], self.uri, self.experiment)

    def links(self) -> list[Link]:
        """Each row × seed of the spec and what its cell is doing."""
        return [
            Link(
                standing.member.row.id,
                standing.member.row.label,
                standing.member.seed,
                standing.member.cell,
                home.cells(self.base) / standing.member.cell,
                standing.status,
                Cell(home.cells(self.base) / standing.member.cell).known_roles(),
            )
            for standing in survey(self.members, self.base)
        ]

    def complete(self) -> bool:
        """Whether every cell of the spec is done."""
        return all(link.status == "done" for link in self.links())

    def end(self, status: str) -> None:
        self.tracker.cells(self.links())
        self.tracker.finish(status)
        self.tracker.close()
