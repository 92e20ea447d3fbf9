"""From a data configuration to prepared cases, split into those that train, validate and test."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from acdis import home
from acdis.config import Data, Phantoms, Split
from acdis.data import cache, fingerprints, missing, phantom, splits, strata
from acdis.data.cases import Note
from acdis.data.found_cases import FoundCases, Progress, are_drawn, find_cases, refused
from acdis.data.patients import Patients
from acdis.data.prepared_case import Entry
from acdis.data.problems import gathered
from acdis.data.strata import Stratum
from acdis.errors import UserError
from acdis.vocabulary import MODALITIES


@dataclass(frozen=True)
class Inputs:
    """Prepared cases of one experiment."""

    train: tuple[Entry, ...]
    validation: tuple[Entry, ...]
    test: tuple[Entry, ...]
    notes: tuple[str, ...] = ()  # what was taken for what, a line for all cases of a kind
    sizes: tuple[int, int, int] | None = None  # of the three parts, where the cases are not here
    incomplete: tuple[Entry, ...] = ()  # test cases that lack modalities, and stand apart

    @property
    def counts(self) -> tuple[int, int, int]:
        """How many train, validate and test."""
        return self.sizes or (len(self.train), len(self.validation), len(self.tested))

    @property
    def tested(self) -> tuple[Entry, ...]:
        """All cases that are scored."""
        return (*self.test, *self.incomplete)

    def for_scoring(self, scored: bool) -> Inputs:
        """These, or without test cases where nothing is to be scored."""
        return self if scored else replace(self, test=(), incomplete=())

    @property
    def scores(self) -> bool:
        """Whether there are cases to score."""
        return bool(self.test)

    @property
    def fingerprint(self) -> str:
        """Of the cases that can change the weights: train and validation, with which is which."""
        parts = [fingerprints.data_fingerprint(self.train), fingerprints.data_fingerprint(self.validation)]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    @property
    def test_fingerprint(self) -> str:
        """Of the cases that are scored."""
        return fingerprints.data_fingerprint(self.tested)


@dataclass(frozen=True)
class Remembered(Inputs):
    """Cases that are not here: what a cell that has learnt from them remembers. Cells can be named by it.

    Attributes:
        prints: fingerprints of what trains and validates, and of what is scored.
        scored: whether any are scored.
    """

    prints: tuple[str, str] = ("", "")
    scored: bool = True

    def for_scoring(self, scored: bool) -> Remembered:
        """These, or nothing to score."""
        return replace(self, scored=self.scored and scored)

    @property
    def scores(self) -> bool:
        """Whether there were cases to score."""
        return self.scored

    @property
    def fingerprint(self) -> str:
        """As when they were here."""
        return self.prints[0]

    @property
    def test_fingerprint(self) -> str:
        """As when they were here."""
        return self.prints[1]


@dataclass(frozen=True)
class Unprepared(Inputs):
    """Cases that have not been drawn or prepared here: `sizes` tells how many, and no cell can be named yet.

    Attributes:
        placeholder: for both fingerprints; another for other data, so that cells can be told apart.
    """

    placeholder: str = ""

    def for_scoring(self, scored: bool) -> Unprepared:
        """These, or none to score."""
        train, validation, test = self.counts
        return replace(self, sizes=(train, validation, test if scored else 0))

    @property
    def scores(self) -> bool:
        """Whether there are cases to score."""
        return bool(self.counts[2])

    @property
    def fingerprint(self) -> str:
        """Of none that is known."""
        return self.placeholder

    @property
    def test_fingerprint(self) -> str:
        """Of none that is known."""
        return self.placeholder


def open_inputs(data: Data, base: Path, processes: int, progress: Progress) -> Inputs:
    """Find, check, split and prepare the cases that an experiment names.

    With split files only the cases in them count; with counts every case that was found.

    Raises:
        UserError: no cases, bad cases (all of them named, by files and by content), or a split that does not
            fit them.
    """
    dataset = find_cases(data, base, progress)
    lists = split_cases(dataset, data, base, processes, progress)
    dataset = _with_holes(dataset, lists.train, data)
    wanted = (*lists.train, *lists.validation, *lists.test)
    counted = dataset if data.split.counts is not None else dataset.only(wanted)
    entries = prepare_cases(counted, wanted, data, base, processes, progress)
    return _inputs(entries, lists, notes_of(dataset, entries.values(), lists.train))


def look_at_inputs(data: Data, base: Path, processes: int, progress: Progress) -> Inputs:
    """As `open_inputs`, but nothing is drawn or prepared: `Unprepared` where any case is not.

    Raises:
        UserError: as `open_inputs`; what only the content of cases tells is not looked for in new ones.
    """
    if data.phantoms is not None and not are_drawn(data.phantoms, base):
        return _unprepared(data, _split_of_phantoms(data, data.phantoms))
    dataset = find_cases(data, base, lambda *_: None)
    lists = split_cases(dataset, data, base, processes, progress)
    dataset = _with_holes(dataset, lists.train, data)
    wanted = (*lists.train, *lists.validation, *lists.test)
    counted = dataset if data.split.counts is not None else dataset.only(wanted)
    if counted.problems:
        raise refused(counted, gathered(counted.problems))
    whole = [counted.cases[name] for name in wanted]
    entries = cache.opened(whole, data, home.cache(base), processes)
    if entries is None:
        return _unprepared(data, lists)
    return _inputs(entries, lists, notes_of(dataset, entries.values(), lists.train))


def _with_holes(dataset: FoundCases, train: Sequence[str], data: Data) -> FoundCases:
    """What `data.missing` takes from training cases is not even read: no part of training can see it."""
    if data.missing is None:
        return dataset
    has = {name: dataset.cases[name].modalities for name in train if name in dataset.cases}
    kept = missing.draw(has, data.missing)
    with_holes = {name: dataset.cases[name].only(modalities) for name, modalities in kept.items()}
    return replace(dataset, cases=dataset.cases | with_holes)


def _inputs(entries: Mapping[str, Entry], lists: splits.Lists, notes: tuple[str, ...]) -> Inputs:
    train, validation, test = (
        [entries[name] for name in part] for part in (lists.train, lists.validation, lists.test)
    )
    whole, incomplete = to_score(test)
    validated, left_out = _apart(validation)
    if left_out:
        notes = (*notes, f"{len(left_out)} of {len(validation)} validation cases lack modalities: left out")
    return Inputs(tuple(train), validated, whole, notes, incomplete=incomplete)


def to_score(entries: Sequence[Entry]) -> tuple[tuple[Entry, ...], tuple[Entry, ...]]:
    """Cases with all four modalities, and those that lack some and are scored apart.

    Raises:
        UserError: all of them lack some, so that there is no mean of the 15 subsets.
    """
    whole, incomplete = _apart(entries)
    if incomplete and not whole:
        raise UserError(
            f"all {len(entries)} cases to be scored lack modalities: the mean of the 15 subsets needs some "
            "that have all four"
        )
    return whole, incomplete


def _apart(entries: Sequence[Entry]) -> tuple[tuple[Entry, ...], tuple[Entry, ...]]:
    whole = tuple(entry for entry in entries if entry.modalities == MODALITIES)
    return whole, tuple(entry for entry in entries if entry.modalities != MODALITIES)


def _unprepared(data: Data, lists: splits.Lists) -> Unprepared:
    sizes = (len(lists.train), len(lists.validation), len(lists.test))
    tree = json.dumps(data.model_dump(mode="json"), sort_keys=True)
    return Unprepared((), (), (), sizes=sizes, placeholder=hashlib.sha256(tree.encode()).hexdigest())


def _split_of_phantoms(data: Data, drawn: Phantoms) -> splits.Lists:
    """As `split_cases` of phantoms that have yet to be drawn."""
    names, patients = phantom.names(drawn.cases), Patients(data.patients)
    kinds = None if data.split.counts is None else strata.kinds(_strata_of_phantoms(names, drawn.seed))
    return splits.resolve(
        expanded(data.split), names, None, {name: patients.of(name) for name in names}, kinds
    )


def open_for_learning(
    data: Data, base: Path, processes: int, progress: Progress
) -> tuple[Inputs, tuple[str, ...]]:
    """As `open_inputs`, but the test cases are not read: none in the inputs, their names beside them.

    Raises:
        UserError: as `open_inputs`; what is wrong with test cases is not looked for.
    """
    dataset = find_cases(data, base, progress)
    lists = split_cases(dataset, data, base, processes, progress)
    dataset = _with_holes(dataset, lists.train, data)
    wanted = (*lists.train, *lists.validation)
    entries = prepare_cases(dataset.only(wanted), wanted, data, base, processes, progress)
    learning = replace(lists, test=())
    return _inputs(entries, learning, notes_of(dataset, entries.values(), lists.train)), lists.test


def notes_of(dataset: FoundCases, entries: Iterable[Entry], train: Sequence[str] = ()) -> tuple[str, ...]:
    """What was taken for what, when cases were found and when they were prepared, and what training lacks."""
    entries = tuple(entries)
    told = [Note(entry.name, text) for entry in entries for text in entry.notes]
    learning = [entry.modalities for entry in entries if entry.name in train]
    counts = {name: sum(name not in has for has in learning) for name in MODALITIES}
    lacking = ", ".join(f"{count} have no {name}" for name, count in counts.items() if count)
    holes = [f"of the {len(learning)} training cases {lacking}"] if lacking else []
    return (*gathered([*dataset.notes, *told]), *holes)


def split_cases(
    dataset: FoundCases, data: Data, base: Path, processes: int, progress: Progress
) -> splits.Lists:
    """Which of the cases train, validate and test; patients stay on one side.

    Raises:
        UserError: as `splits.resolve`, and what `data.patients` does not say.
    """
    patients = Patients(data.patients)
    names = dataset.names
    kinds = None
    if data.split.counts is None:
        names = sorted({*names, *(problem.case for problem in dataset.blind)})
    elif data.phantoms is not None:  # from their recipe: no segmentation is read
        kinds = strata.kinds(_strata_of_phantoms(sorted(names), data.phantoms.seed))
    else:

        def reading(done: int, of: int) -> None:
            progress("reading segmentations for the draw", done, of)

        whole = list(dataset.cases.values())
        kinds = strata.kinds(strata.of_cases(whole, home.cache(base), processes, reading))
    return splits.resolve(
        expanded(data.split), names, None, {name: patients.of(name) for name in names}, kinds
    )


def _strata_of_phantoms(names: Sequence[str], seed: int) -> dict[str, Stratum]:
    return {name: Stratum(*phantom.stratum(seed, index)) for index, name in enumerate(names, 1)}


def prepare_cases(
    dataset: FoundCases, names: Sequence[str], data: Data, base: Path, processes: int, progress: Progress
) -> dict[str, Entry]:
    """Preprocess the named cases, by name.

    Raises:
        UserError: every problem of `dataset`, and every problem in the content of the named cases.
    """
    problems = gathered(dataset.problems)
    whole = [dataset.cases[name] for name in names if name in dataset.cases]
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
        raise refused(dataset, problems)
    return entries


def expanded(split: Split) -> Split:
    """Split files with `~` and `$VARIABLE` resolved."""
    files = {key: getattr(split, key) for key in ("train", "validation", "test")}
    paths = {
        key: str(home.expand(path, f"data.split.{key}")) for key, path in files.items() if path is not None
    }
    return split.model_copy(update=paths)
