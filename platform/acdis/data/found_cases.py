"""The cases that an experiment names: those below a folder, or phantoms; and what is wrong with others."""

from __future__ import annotations

import socket
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from acdis import home
from acdis.config import Data, Phantoms
from acdis.data import phantom
from acdis.data.cases import Case, Note, Problem, find
from acdis.data.problems import way_out
from acdis.errors import UserError

#: Called with what is being done, how much is done, and of how much.
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class FoundCases:
    """Cases by name, and what is wrong with others by the names of their files."""

    cases: dict[str, Case]
    problems: tuple[Problem, ...]
    notes: tuple[Note, ...] = ()
    blind: tuple[Problem, ...] = ()

    @property
    def names(self) -> list[str]:
        """Of all cases, sorted, those with problems too."""
        return sorted({*self.cases, *(problem.case for problem in self.problems)})

    def only(self, names: Collection[str]) -> FoundCases:
        """Those of these names; whoever names a case without a segmentation hears that it has none."""
        return FoundCases(
            {name: case for name, case in self.cases.items() if name in names},
            tuple(problem for problem in (*self.problems, *self.blind) if problem.case in names),
            self.notes,
        )


def find_cases(data: Data, base: Path, progress: Progress) -> FoundCases:
    """The cases below `data.root`, or phantoms, drawn if they are not there yet.

    Raises:
        UserError: neither root nor phantoms are given, or the folder holds nothing like a case.
    """
    drawn = data.phantoms
    if drawn is None:
        return _found(_root(data), data)

    def drawing(done: int, of: int) -> None:
        progress("drawing phantoms", done, of)

    place = _folder_of(drawn, base)
    folders = phantom.write(place, drawn.cases, drawn.seed, drawn.shape, drawn.spacing, drawing)
    return _found(place).only({folder.name for folder in folders})  # beside those of other counts


def are_drawn(drawn: Phantoms, base: Path) -> bool:
    """Whether all phantoms of this recipe are there."""
    folder = _folder_of(drawn, base)
    return phantom.are_written(folder, drawn.cases, drawn.seed, drawn.shape, drawn.spacing)


def refused(dataset: FoundCases, problems: Sequence[str]) -> UserError:
    """What to raise where cases cannot be used by the names of their files alone."""
    bad = len({problem.case for problem in dataset.problems})
    return UserError(
        f"{bad} of {len(dataset.names)} cases lack files or are there twice{way_out(dataset.problems)}:\n  "
        + "\n  ".join(problems)
    )


def _found(root: Path, data: Data | None = None) -> FoundCases:
    finding = find(root, data)
    by_name = {case.name: case for case in finding.cases}
    return FoundCases(by_name, tuple(finding.problems), tuple(finding.notes), tuple(finding.blind))


def _folder_of(drawn: Phantoms, base: Path) -> Path:
    name = "x".join(map(str, drawn.shape)) + f"-{drawn.spacing:g}mm-seed{drawn.seed}"
    return base / "phantoms" / name


def _root(data: Data) -> Path:
    if data.root is None:
        raise UserError("data.root: not set; give the folder of cases as data.root=/path, or data.phantoms")
    root = home.expand(data.root, "data.root")
    if home.UPLOAD in root.parts and not root.is_dir():
        raise UserError(
            f"data.root: {root} is in Ray's copy of the checkout, where no data is; give an absolute path as "
            "data.root=/path"
        )
    if not root.is_dir():
        raise UserError(
            f"data.root: {root} is not a folder on {socket.gethostname()}; give the folder that holds the "
            "cases, on a cluster one that every node sees"
        )
    return root
