"""From a data configuration to prepared cases, split into those that train, validate and test."""

from __future__ import annotations

import hashlib
import json
import socket
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from acdis import home
from acdis.config import Data, Phantoms, Split
from acdis.data import cache, fingerprints, phantom, splits, strata
from acdis.data.cases import Case, Note, Problem, find
from acdis.data.entry import Entry
from acdis.data.patients import Patients
from acdis.data.problems import gathered
from acdis.data.strata import Stratum
from acdis.errors import UserError

#: Called with what is being done, how much is done, and of how much.
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Found:
    """Cases by name, and what is wrong with others by the names of their files."""

    cases: dict[str, Case]
    problems: tuple[Problem, ...]
    notes: tuple[Note, ...] = ()
    blind: tuple[Problem, ...] = ()

    @property
    def names(self) -> list[str]:
        """Of all cases, sorted, those with problems too."""
        return sorted({*self.cases, *(problem.case for problem in self.problems)})

    def only(self, names: Collection[str]) -> Found:
        """Those of these names; whoever names a case without a segmentation hears that it has none."""
        return Found(
            {name: case for name, case in self.cases.items() if name in names},
            tuple(each for each in (*self.problems, *self.blind) if each.case in names),
            self.notes,
        )


@dataclass(frozen=True)
class Inputs:
    """Prepared cases of one experiment."""

    train: tuple[Entry, ...]
    validation: tuple[Entry, ...]
    test: tuple[Entry, ...]
    notes: tuple[str, ...] = ()  # what was taken for what, a line for all cases of a kind

    def for_scoring(self, scored: bool) -> Inputs:
        """These, or without test cases where nothing is to be scored."""
        return self if scored else replace(self, test=())

    @property
    def fingerprint(self) -> str:
        """Of the cases that can change the weights: train and validation, with which is which."""
        parts = [fingerprints.data_fingerprint(self.train), fingerprints.data_fingerprint(self.validation)]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    @property
    def test_fingerprint(self) -> str:
        """Of the cases that are scored."""
        return fingerprints.data_fingerprint(self.test)


def open_inputs(data: Data, base: Path, processes: int, progress: Progress) -> Inputs:
    """Find, check, split and prepare the cases that an experiment names.

    With split files only the cases in them count; with counts every case that was found.

    Raises:
        UserError: no cases, bad cases (all of them named, by files and by content), or a split that does not
            fit them.
    """
    found = find_cases(data, base, progress)
    lists = split_cases(found, data, base, processes, progress)
    wanted = (*lists.train, *lists.validation, *lists.test)
    counted = found if data.split.counts is not None else found.only(wanted)
    entries = prepare_cases(counted, wanted, data, base, processes, progress)
    return Inputs(
        tuple(entries[name] for name in lists.train),
        tuple(entries[name] for name in lists.validation),
        tuple(entries[name] for name in lists.test),
        notes_of(found, entries.values()),
    )


def open_for_learning(
    data: Data, base: Path, processes: int, progress: Progress
) -> tuple[Inputs, tuple[str, ...]]:
    """As `open_inputs`, but the test cases are not read: none in the inputs, their names beside them.

    Raises:
        UserError: as `open_inputs`; what is wrong with test cases is not looked for.
    """
    found = find_cases(data, base, progress)
    lists = split_cases(found, data, base, processes, progress)
    wanted = (*lists.train, *lists.validation)
    entries = prepare_cases(found.only(wanted), wanted, data, base, processes, progress)
    train, validation = (tuple(entries[name] for name in part) for part in (lists.train, lists.validation))
    return Inputs(train, validation, (), notes_of(found, entries.values())), lists.test


def notes_of(found: Found, entries: Iterable[Entry]) -> tuple[str, ...]:
    """What was taken for what, when cases were found and when they were prepared."""
    told = [Note(entry.name, text) for entry in entries for text in entry.notes]
    return tuple(gathered([*found.notes, *told]))


def split_cases(found: Found, data: Data, base: Path, processes: int, progress: Progress) -> splits.Lists:
    """Which of the cases train, validate and test; patients stay on one side.

    Raises:
        UserError: as `splits.resolve`, and what `data.patients` does not say.
    """
    patients = Patients(data.patients)
    names = found.names
    kinds = None
    if data.split.counts is None:
        names = sorted({*names, *(problem.case for problem in found.blind)})
    else:
        kinds = strata.kinds(_strata(found, data, base, processes, progress))
    return splits.resolve(
        expanded(data.split), names, None, {name: patients.of(name) for name in names}, kinds
    )


def _strata(found: Found, data: Data, base: Path, processes: int, progress: Progress) -> dict[str, Stratum]:
    """From the recipe of phantoms, which may not even be drawn yet, else from segmentations."""
    if data.phantoms is not None:
        seed = data.phantoms.seed
        return {
            name: Stratum(*phantom.stratum(seed, index)) for index, name in enumerate(sorted(found.names), 1)
        }
    return strata.of_cases(
        list(found.cases.values()),
        home.cache(base),
        processes,
        lambda done, of: progress("reading segmentations for the draw", done, of),
    )


def prepare_cases(
    found: Found, names: Sequence[str], data: Data, base: Path, processes: int, progress: Progress
) -> dict[str, Entry]:
    """Preprocess the named cases, by name.

    Raises:
        UserError: every problem of `found`, and every problem in the content of the named cases.
    """
    problems = gathered(found.problems)
    whole = [found.cases[name] for name in names if name in found.cases]
    entries: dict[str, Entry] = {}
    try:
        entries = cache.prepare(
            whole, data, home.cache(base), processes, lambda done, of: progress("preparing cases", done, of)
        )
    except UserError as error:
        if not problems:
            raise
        problems.append(str(error))
    if problems:
        bad = len({problem.case for problem in found.problems})
        raise UserError(
            (f"{bad} of {len(found.names)} cases lack files or are there twice:\n  ") + "\n  ".join(problems)
        )
    return entries


def expanded(split: Split) -> Split:
    """Split files with `~` and `$VARIABLE` resolved."""
    files = {key: getattr(split, key) for key in ("train", "validation", "test")}
    found = {
        key: str(home.expand(path, f"data.split.{key}")) for key, path in files.items() if path is not None
    }
    return split.model_copy(update=found)


def find_cases(data: Data, base: Path, progress: Progress) -> Found:
    """The cases below `data.root`, or phantoms, drawn if they are not there yet.

    Raises:
        UserError: neither root nor phantoms are given, or the folder holds nothing like a case.
    """
    if data.phantoms is not None:
        folders = _drawn(data.phantoms, base, progress)
        return _found(folders[0].parent).only({folder.name for folder in folders})
    return _found(_root(data), data)


def _found(root: Path, data: Data | None = None) -> Found:
    finding = find(root, data)
    by_name = {case.name: case for case in finding.cases}
    return Found(by_name, tuple(finding.problems), tuple(finding.notes), tuple(finding.blind))


def _drawn(drawn: Phantoms, base: Path, progress: Progress) -> list[Path]:
    """The folders of the phantoms asked for; those of other counts stand beside them."""
    name = "x".join(map(str, drawn.shape)) + f"-{drawn.spacing:g}mm-seed{drawn.seed}"
    return phantom.write(
        base / "phantoms" / name,
        drawn.cases,
        drawn.seed,
        drawn.shape,
        drawn.spacing,
        lambda done, of: progress("drawing phantoms", done, of),
    )


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
