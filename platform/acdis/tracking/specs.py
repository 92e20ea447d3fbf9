"""A spec is a run as well: the parent of its cells' runs, with a list of them."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from acdis.files import UnwritableError, sweep, write_bytes, write_json, write_text
from acdis.tracking.journal import JOURNAL, run_of, waiting
from acdis.tracking.orphans import allowed, close_orphans, held, specs
from acdis.tracking.remote import SPEC_TAG
from acdis.tracking.runs import RunTracker, role_tags

__all__ = ["Link", "SpecTracker", "close_orphans", "settle"]

#: The table of cells stands in the run's description up to this many characters (MLflow takes 8,000 a tag).
LONGEST_NOTE = 6000
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Link:
    """A row of a spec at one seed, and the cell that serves it.

    Attributes:
        folder: of the cell.
        status: of the cell, as `survey` says it.
        roles: of the cell, as `Cell.roles` gives them.
    """

    row: str
    label: str
    seed: int
    cell: str
    folder: Path
    status: str
    roles: Sequence[Mapping[str, Any]]


class SpecTracker:
    """The MLflow run of one spec, found again by the tag `acdis.spec`; cells' runs are its children.

    Every call writes to `<base>/ablations/<spec>/` and returns, whatever the server does.
    """

    def __init__(self, base: Path, uri: str, experiment: str, spec: str) -> None:
        self.folder = specs(base) / spec
        self._spec = spec
        self._title = spec
        self._lock = held(self.folder)
        sweep(self.folder)
        self._tracker = RunTracker(self.folder, uri, experiment, spec, spec, tag=SPEC_TAG)

    def begin(
        self, title: str, details: Mapping[str, str], tags: Mapping[str, str], files: Sequence[Path] = ()
    ) -> None:
        """What the spec says and where it comes from, and copies of files such as the spec's own.

        `details` (rows, seeds …) become tags `acdis.rows` and so on: they grow, and params cannot change.
        """
        self._title = title
        self._tracker.log_tags(
            {**tags, **{f"acdis.{key}": value for key, value in details.items()}, "acdis.title": title}
        )
        for file in files:
            write_bytes(self.folder / file.name, file.read_bytes())
            self._tracker.log_artifact(self.folder / file.name, "spec")

    def cells(self, links: Sequence[Link]) -> None:
        """The list of cells, those included whose runs are another spec's children; call it again at will."""
        entries = [_entry(link, self._spec) for link in links]
        text = self._table(entries)
        write_json(self.folder / "cells.json", {"spec": self._spec, "cells": entries})
        write_text(self.folder / "cells.md", text)
        note = text if len(text) <= LONGEST_NOTE else f"{self._title}: see the artifact cells.md"
        shared = sorted({entry["cell"] for entry in entries if entry["parent"] not in (None, self._spec)})
        done = {entry["cell"] for entry in entries if entry["status"] == "done"}
        self._tracker.log_tags(
            {
                "acdis.cells": str(len({link.cell for link in links})),
                "acdis.cells.done": str(len(done)),
                "acdis.cells.shared": ", ".join(shared),
                "mlflow.note.content": note,
            }
        )
        for name in ("cells.json", "cells.md"):
            self._tracker.log_artifact(self.folder / name)

    def finish(self, status: str = "FINISHED") -> None:
        """FINISHED, FAILED (some cell has) or KILLED (stopped before its end)."""
        self._tracker.finish(status)

    def close(self, timeout: float = 30.0) -> int:
        """Wait for what is unsent; what then is left stays on disk for the next start. Returns the lines."""
        left = self._tracker.close(timeout)
        os.close(self._lock)
        return left

    @property
    def run_id(self) -> str | None:
        """MLflow's id of the run; None until the first contact."""
        return self._tracker.run_id

    def _table(self, entries: Sequence[Mapping[str, Any]]) -> str:
        """Markdown, one line per row and seed."""
        lines = [f"**{self._title}**", "", "| row | seed | cell | status | run |", "|---|---|---|---|---|"]
        for entry in entries:
            run = entry["run_id"] or ""
            page = self._tracker.page(run) if run else ""
            shown = f"[{run[:8]}]({page})" if page else run[:8]
            other = f" (child of {entry['parent']})" if entry["parent"] not in (None, self._spec) else ""
            label = f"{entry['row']}: {entry['label']}" if entry["label"] else entry["row"]
            lines.append(
                f"| {label} | {entry['seed']} | {entry['cell']} | {entry['status']} | {shown}{other} |"
            )
        filter_ = f"tags.`acdis.roles` LIKE '%{self._spec}/%'"
        return "\n".join([*lines, "", f"All runs of this spec, shared ones too: `{filter_}`", ""])


def settle(links: Sequence[Link], uri: str, experiment: str, patience: float = 5.0) -> int:
    """Tell the runs of cells that nobody trains their roles, and send what an outage has left in journals.

    For a cell that is done and that another spec now shares. Cells without a journal are left alone.

    Args:
        patience: seconds, for all of them together; what is unsent then is sent at the next start.

    Returns:
        Lines that are still unsent.
    """
    deadline = time.monotonic() + allowed(uri, patience)
    left = 0
    for link in {link.cell: link for link in links}.values():
        if not (link.folder / JOURNAL).exists() or (not waiting(link.folder) and _knows_roles(link)):
            continue
        try:
            tracker = RunTracker(link.folder, uri, experiment, link.cell, link.cell, running=False)
        except UnwritableError as error:  # somebody else's, which is done
            log.warning("%s", error)
            continue
        tracker.log_roles(link.roles)
        left += tracker.close(max(0.0, deadline - time.monotonic()))
    return left


def _entry(link: Link, spec: str) -> dict[str, Any]:
    roles = [dict(role) for role in link.roles]
    return {
        "row": link.row,
        "label": link.label,
        "seed": link.seed,
        "cell": link.cell,
        "status": link.status,
        "run_id": run_of(link.folder),
        "parent": roles[0]["spec"] if roles else spec,
        "roles": roles,
    }


def _knows_roles(link: Link) -> bool:
    """Whether the journal holds the roles already; reads it without parsing."""
    if not link.roles:
        return True
    told = json.dumps({"acdis.roles": role_tags(link.roles)["acdis.roles"]}, ensure_ascii=False)[1:-1]
    return told.encode() in (link.folder / JOURNAL).read_bytes()
