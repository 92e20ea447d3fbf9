"""Which cases train, validate and test: lists in files, or a seeded draw. A patient is on one side."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from acdis import config
from acdis.data.exchange import exchange
from acdis.data.lists import bare, read_list
from acdis.errors import UserError

PARTS = ("train", "validation", "test")


@dataclass(frozen=True)
class Lists:
    """Names of cases, each list sorted, disjoint; no patient is in two."""

    train: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...]


def resolve(
    split: config.Split,
    names: Sequence[str],
    base: Path | None,
    patients: Mapping[str, str] | None = None,
    kinds: Mapping[str, int] | None = None,
) -> Lists:
    """The three lists, in the names that the cases have on disk.

    Relative paths are looked for under `base` (the experiment file's folder), then under the current folder.

    Args:
        patients: case -> patient; none: each case is a patient of its own.
        kinds: case -> stratum, for a draw by counts; none: all are alike.

    Raises:
        UserError: no split given, a file that cannot be read, an unknown name, a name twice in a list or in
            two lists, a patient in two lists, an empty training list, or counts that cannot be met.
    """
    if split.counts is not None:
        return draw(names, split.counts, split.seed, patients, kinds)
    if split.train is None:
        raise UserError("data.split: give files (train, validation, test) or counts")
    given = {part: getattr(split, part) for part in PARTS}
    paths = {part: _locate(file, base) for part, file in given.items() if file is not None}
    return from_files(paths, names, patients)


def draw(
    names: Sequence[str],
    counts: tuple[int, int, int],
    seed: int,
    patients: Mapping[str, str] | None = None,
    kinds: Mapping[str, int] | None = None,
) -> Lists:
    """A random split into parts of these sizes, counted in scans; a patient's scans stay together.

    Each kind of case has the same share of every part, as far as whole patients allow. Depends on the set of
    names, their patients and kinds, the counts and the seed alone.

    Raises:
        UserError: more cases wanted than there are, or counts that whole patients do not come to.
    """
    if sum(counts) > len(names):
        raise UserError(f"data.split.counts {counts} ask for {sum(counts)} cases, there are {len(names)}")
    sizes = (*counts, len(names) - sum(counts))
    scans, kind_of = _by_patient(names, patients or {}, kinds or {})
    parts = _share_out(scans, kind_of, sizes, seed, strict=True)
    exchange(parts, scans, kind_of, sizes)
    lists = [sorted(name for patient in part for name in scans[patient]) for part in parts]
    reached = tuple(map(len, lists[:3]))
    if reached != counts:
        raise UserError(
            f"data.split.counts {counts}: some patients have several scans, and whole patients come to "
            f"{reached} near that; choose these counts, or fewer"
        )
    first, second, third = map(tuple, lists[:3])
    return Lists(first, second, third)


def folds(
    names: Sequence[str],
    count: int,
    seed: int,
    patients: Mapping[str, str] | None = None,
    kinds: Mapping[str, int] | None = None,
) -> list[tuple[str, ...]]:
    """Names in so many parts of about one size, patients kept together and kinds spread alike.

    Raises:
        UserError: fewer than two folds, or more than there are patients.
    """
    persons = len({(patients or {}).get(name, name) for name in names})
    if not 2 <= count <= persons:
        raise UserError(f"{count} folds of {persons} patients; give 2 to {persons}")
    sizes = tuple(len(names) // count + (fold < len(names) % count) for fold in range(count))
    scans, kind_of = _by_patient(names, patients or {}, kinds or {})
    parts = _share_out(scans, kind_of, sizes, seed, strict=False)
    return [tuple(sorted(name for patient in part for name in scans[patient])) for part in parts]


def _by_patient(
    names: Sequence[str], patients: Mapping[str, str], kinds: Mapping[str, int]
) -> tuple[dict[str, list[str]], dict[str, int]]:
    """Each patient's scans, and the kind of the last of them."""
    scans: dict[str, list[str]] = defaultdict(list)
    for name in sorted(names):
        scans[patients.get(name, name)].append(name)
    return scans, {patient: kinds.get(own[-1], 0) for patient, own in scans.items()}


def _share_out(
    scans: Mapping[str, Sequence[str]],
    kind_of: Mapping[str, int],
    sizes: Sequence[int],
    seed: int,
    strict: bool,
) -> list[list[str]]:
    """Whole patients into parts of `sizes` scans, those with most scans first, at random among equals.

    Each goes where its kind is shortest of its due, among the parts that have room. Who fits nowhere goes
    where most room is left, and no part stays empty; `strict`: to the last part.
    """
    total = sum(map(len, scans.values()))
    held: Counter[int] = Counter()
    for patient, own in scans.items():
        held[kind_of[patient]] += len(own)
    due = [{kind: size * number / total for kind, number in held.items()} for size in sizes]
    ordered = list(scans)
    shuffled = [ordered[index] for index in np.random.default_rng(seed).permutation(len(ordered))]
    parts: list[list[str]] = [[] for _ in sizes]
    room = list(sizes)
    for done, patient in enumerate(sorted(shuffled, key=lambda patient: -len(scans[patient]))):
        count, kind = len(scans[patient]), kind_of[patient]
        empty = [place for place, part in enumerate(parts) if not part]
        open_parts = [place for place, left in enumerate(room) if left >= count]
        if not strict and len(scans) - done <= len(empty):
            open_parts = empty
        if open_parts:
            best = max(open_parts, key=lambda place: (due[place][kind], room[place] / max(sizes[place], 1)))
        else:
            best = len(sizes) - 1 if strict else max(range(len(sizes)), key=room.__getitem__)
        parts[best].append(patient)
        room[best] -= count
        due[best][kind] -= count
    return parts


def from_files(
    paths: Mapping[str, Path], names: Sequence[str], patients: Mapping[str, str] | None = None
) -> Lists:
    """Read the lists under the keys train, validation and test; what is not given is empty.

    Raises:
        UserError: as `resolve`.
    """
    parts = {part: _mapped(read_list(path, part, names), path, names) for part, path in paths.items()}
    _refuse_shared(parts, paths, "", lambda name: name)
    _refuse_shared(parts, paths, "patients ", lambda name: (patients or {}).get(name, name))
    if not parts.get("train"):
        raise UserError(f"{paths.get('train', 'data.split.train')}: holds no case to train on")
    first, second, third = (tuple(sorted(parts.get(part, ()))) for part in PARTS)
    return Lists(first, second, third)


def _locate(file: str, base: Path | None) -> Path:
    path, mark, fold = os.path.expanduser(file).partition("#")  # unlike pathlib's it leaves strangers' homes
    places = [place / path for place in (base, Path.cwd()) if place is not None]
    existing = next((place for place in places if os.path.isfile(place)), None)
    if existing is None:
        raise UserError(
            f"{file}: no such split file; looked for {' and '.join(map(str, dict.fromkeys(places)))}"
        )
    return existing.with_name(f"{existing.name}{mark}{fold}")


def _mapped(listed: Sequence[str], path: Path, names: Sequence[str]) -> tuple[str, ...]:
    """Names as on disk: the listed one itself, or the one that differs by what others write around it."""
    known = set(names)
    by_bare: dict[str, str] = {}
    for name in sorted(names, reverse=True):
        by_bare[bare(name)] = name
    matches = [name if name in known else by_bare.get(bare(name)) for name in listed]
    unknown = [name for name, match in zip(listed, matches, strict=True) if match is None]
    if unknown:
        raise UserError(
            f"{path}: {len(unknown)} of {len(listed)} names match none of the {len(known)} cases"
            f"{_such_as(names)}: {', '.join(unknown)}"
        )
    matched = [name for name in matches if name is not None]
    twice = sorted(name for name, count in Counter(matched).items() if count > 1)
    if twice:
        raise UserError(f"{path}: listed more than once: {', '.join(twice)}")
    return tuple(matched)


def _such_as(names: Sequence[str]) -> str:
    return f", which are named as {min(names)}" if names else ""


def _refuse_shared(
    parts: Mapping[str, Iterable[str]], paths: Mapping[str, Path], what: str, key: Callable[[str], str]
) -> None:
    """No name, or no patient, may stand in two lists."""
    ordered = list(parts)
    for index, one in enumerate(ordered):
        for other in ordered[index + 1 :]:
            shared = sorted({key(name) for name in parts[one]} & {key(name) for name in parts[other]})
            if not shared:
                continue
            if paths[one] == paths[other]:
                raise UserError(
                    f"{paths[one]}: its lists for {one} and {other} share {what.strip() or 'cases'}, "
                    f"remove from one: {', '.join(shared)}"
                )
            raise UserError(
                f"{paths[other]}: {what}also listed to {one} ({paths[one]}), remove from one: "
                f"{', '.join(shared)}"
            )
