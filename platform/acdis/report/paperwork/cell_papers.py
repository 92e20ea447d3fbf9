"""What the files of a cell say that a paper has to tell; the same from a home as from a bundle.

A damaged file is named in the log, and what it would have said is not known.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from acdis import config, files, home
from acdis.cells import schemas
from acdis.config import Experiment
from acdis.errors import UserError

#: Contents of a cell's files, by the cell's name and a pattern such as `config.yaml`.
CellFiles = Callable[[str, str], list[bytes]]
CONFIG, LINEAGE, ROLES, HISTORY = "config.yaml", "lineage.json", "roles.json", "history.json"
PATCH, EXTERNAL = "changes.patch", "evaluations/*/external.md"
#: Most bytes of a file that is read, and of a line that is shown.
LARGEST, LINE = 2**25, 500
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class CellPapers:
    """Of one cell; empty where there is no file, or a damaged one.

    Attributes:
        experiment: the resolved configuration.
        lineage: see `cells.schemas`.
        roles: rows of specs and trials of searches that it serves.
        parts: cells whose training is this one's.
        patched: whether uncommitted changes are kept beside it; none: that is not known.
        external: of each comparison with other people's cases the first line.
    """

    experiment: Experiment | None = None
    lineage: Mapping[str, Any] = field(default_factory=dict)
    roles: tuple[Mapping[str, Any], ...] = ()
    parts: tuple[str, ...] = ()
    patched: bool | None = None
    external: tuple[str, ...] = ()

    @property
    def tags(self) -> Mapping[str, str]:
        """Commit, versions and device of the training."""
        tags: Mapping[str, str] = self.lineage.get("tags", {})
        return tags

    @property
    def splits(self) -> Mapping[str, list[str]]:
        """Names of cases by part; nothing where it is not recorded who trained."""
        splits: Mapping[str, list[str]] = self.lineage.get("splits", {})
        return splits


def of_home(base: Path) -> CellFiles:
    """Files of the cells of a home."""

    def read(cell: str, pattern: str) -> list[bytes]:
        texts = []
        for path in sorted((home.cells(base) / cell).glob(pattern)):
            try:
                texts.append(files.read(path, LARGEST))
            except (OSError, files.TooLargeError) as error:
                log.warning("%s: cannot be read (%s)", path, files.reason(error))
        return texts

    return read


def read(cell: str, contents: CellFiles) -> CellPapers:
    """What there is to know of a cell."""
    patches = contents(cell, PATCH)
    history = _json(cell, HISTORY, schemas.Times, contents)
    return CellPapers(
        _experiment(cell, contents),
        _json(cell, LINEAGE, schemas.Lineage, contents),
        tuple(_json(cell, ROLES, schemas.Roles, contents).get("roles", ())),
        tuple(Path(part).name for part in history.get("parts", ())),
        _is_change(patches[0]) if patches else None,
        tuple(text[:LINE].decode("utf-8", "replace").partition("\n")[0] for text in contents(cell, EXTERNAL)),
    )


def _experiment(cell: str, contents: CellFiles) -> Experiment | None:
    source = f"{cell}/{CONFIG}"
    for content in contents(cell, CONFIG):
        try:
            tree = config.read_value(content.decode("utf-8"))
            if not isinstance(tree, dict) or "tracking" not in tree:  # half a file lacks its end
                raise UserError("holds no whole configuration")
            return config.parse(tree, source)
        except (UserError, UnicodeDecodeError) as error:
            log.warning("%s: is damaged (%s); what it says is not known", source, files.reason(error))
    return None


def _json(cell: str, name: str, kind: Any, contents: CellFiles) -> dict[str, Any]:
    for content in contents(cell, name):
        try:
            return schemas.parse(content, f"{cell}/{name}", kind)
        except schemas.DamagedError as error:
            log.warning("%s", error)
    return {}


def _is_change(patch: bytes) -> bool | None:
    """Whether `changes.patch` holds any; none where it says that there was no git to ask."""
    return None if patch.startswith(b"# no git") else bool(patch.strip())
