"""Cases, patients, splits and their checksums, what is done to images: from lineages and configurations."""

from __future__ import annotations

import functools
import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from acdis import config
from acdis.config import Data
from acdis.data import data_sets, patients
from acdis.errors import UserError
from acdis.report.facts import RowScores
from acdis.report.paperwork.study import Facts, RowRun, Study, counted, grouped, listed
from acdis.vocabulary import MODALITIES, REGIONS

PARTS = ("train", "validation", "test")
HERE = Path(__file__).parent
#: Methods whose training draws subsets uniformly whatever their options.
_UNIFORM = frozenset(("acdis", "rfnet", "mmformer", "gss", "unet_mfi", "demoseg", "imfuse"))


@functools.cache
def known_sets() -> Mapping[str, Mapping[str, Any]]:
    """What is certain of each known data set, by its name in `data.data_sets`."""
    return config.read_yaml(HERE / "data_sets.yaml")


def facts(study: Study) -> Facts:
    """By what they are about."""
    runs = study.trained
    return {
        "data_sets": grouped(runs, _data_set),
        "data_licence": grouped(runs, lambda run: _of_sets(run, "terms")),
        "data_origin": grouped(runs, lambda run: _of_sets(run, "where")),
        "retrospective": grouped(runs, _retrospective),
        "splits": grouped(runs, _splits),
        "split_rule": grouped(runs, lambda run: _of_data(run, split_rule)),
        "split_checksums": grouped(runs, _checksums),
        "disjoint": grouped(runs, _disjoint),
        "scored_cases": _scored(study),
        "case_mix": _by_row(study, _case_mix),
        "empty_truth": _by_row(study, _empty_truth),
        "preprocessing": grouped(runs, lambda run: _of_data(run, preprocessing)),
        "augmentation": grouped(runs, lambda run: _of_data(run, augmentation)),
        "labels": grouped(runs, _labels),
        "training_subsets": grouped(runs, _subsets_of_training),
        "missing_modalities": _missing(study),
        "left_out": [line for _, _, result in study.compared for line in result.left_out],
    }


def sets_of(run: RowRun) -> dict[str, int]:
    """Known data sets of a run's cases by their names, and how many cases of each; others are under ""."""
    names = [name for part in PARTS for name in run.papers.splits.get(part, ())]
    if run.papers.lineage.get("names") == "sha256" or _phantoms(run):
        return {}
    return dict(Counter(data_sets.of_name(name) or "" for name in names))


def _phantoms(run: RowRun) -> bool:
    return run.papers.experiment is not None and run.papers.experiment.data.phantoms is not None


def _data_set(run: RowRun) -> str:
    experiment = run.papers.experiment
    if experiment is not None and (drawn := experiment.data.phantoms) is not None:
        shape = " × ".join(map(str, drawn.shape))
        return (
            f"phantoms, drawn by the platform: {counted(drawn.cases, 'case')}, seed {drawn.seed}, {shape} "
            f"voxels of {drawn.spacing:g} mm; no patients"
        )
    sets = sets_of(run)
    if not any(sets):
        return ""
    told = [
        f"{known_sets()[name]['title']}: {counted(cases, 'scan')}" for name, cases in sets.items() if name
    ]
    other = [f"{counted(sets[''], 'scan')} whose names say no known data set"] if "" in sets else []
    return "; ".join([*told, *other]) + " (by the names of the cases)"


def _of_sets(run: RowRun, key: str) -> str:
    if _phantoms(run):
        return (
            "phantoms are drawn by the platform, under its own licence (Apache-2.0)" if key == "terms" else ""
        )
    told = [known_sets()[name] for name in sets_of(run) if name]
    return "; ".join(f"{data_set['title']}: {data_set[key]}" for data_set in told if key in data_set)


def _retrospective(run: RowRun) -> str:
    if _phantoms(run):
        return "no patients: phantoms"
    told = [known_sets()[name]["title"] for name in sets_of(run) if name]
    return f"retrospective: {listed(told)} was collected and published before" if told else ""


def _splits(run: RowRun) -> str:
    counts = []
    for part in PARTS:
        names = run.papers.splits.get(part)
        if names is None:
            continue
        who = _patients(run, part, names)
        of = f" of {counted(len(set(who)), 'patient')}" if who and not _phantoms(run) else ""
        counts.append(f"{part} {counted(len(names), 'scan')}{of}")
    return "; ".join(counts)


def _patients(run: RowRun, part: str, names: Sequence[str]) -> list[str]:
    """Who was scanned, scan by scan; empty where that is not known."""
    noted: Mapping[str, str] = run.papers.lineage.get("patients", {})
    if part != "test" or all(name in noted for name in names):
        return [noted[name] for name in names] if all(name in noted for name in names) else []
    told = run.papers.experiment.data.patients if run.papers.experiment else None
    if run.papers.lineage.get("names") == "sha256" or told is not None:
        return []  # the scores know it, see `scored_cases`
    by_name = patients.known(names)
    return [by_name[name] for name in names]


def split_rule(data: Data) -> str:
    """How cases came to train, validate or test."""
    split = data.split
    if split.counts is not None:
        return (
            f"drawn at random with seed {split.seed}: {' / '.join(map(str, split.counts))} cases to train, "
            "validate, test on, stratified by ET and size of lesion, scans of a patient kept together"
        )
    lists = {part: getattr(split, part) for part in PARTS}
    told = [f"{part}: {Path(path).name}" for part, path in lists.items() if path is not None]
    return (
        f"by lists of names ({', '.join(told)}); lists that part a patient's scans are refused"
        if told
        else ""
    )


def _checksums(run: RowRun) -> str:
    """Of names as `sort FILE | sha256sum` has it for a list of one name a line; of contents as in "
    "lineages."""
    sums = []
    for part in PARTS:
        if names := run.papers.splits.get(part):
            text = "".join(f"{name}\n" for name in sorted(names))
            sums.append(f"{part} {hashlib.sha256(text.encode()).hexdigest()}")
    prints = run.papers.lineage.get("fingerprints", {})
    contents = [
        f"{words} {prints[key]}"
        for key, words in (("learnt", "trained and validated on"), ("scored", "scored"))
        if prints.get(key)
    ]
    by_name = f"SHA-256 of the sorted names, one a line: {', '.join(sums)}" if sums else ""
    whole = f"SHA-256 over names and voxels as prepared: {', '.join(contents)}" if contents else ""
    return "; ".join(filter(None, (by_name, whole)))


def _disjoint(run: RowRun) -> str:
    """Counted, not taken on trust."""
    parts = {part: run.papers.splits.get(part) or [] for part in PARTS}
    there = [part for part, names in parts.items() if names]
    if len(there) < 2:
        return ""
    who = {part: _patients(run, part, parts[part]) for part in there}
    unit, groups = (
        ("patients", who) if all(who.values()) else ("scans", {part: parts[part] for part in there})
    )
    twice = {
        name
        for place, one in enumerate(there)
        for other in there[place + 1 :]
        for name in set(groups[one]) & set(groups[other])
    }
    between = " and ".join((", ".join(there[:-1]), there[-1]))
    return f"{unit}: {len(twice) or 'none'} in more than one of {between}"


def _scored(study: Study) -> list[str]:
    holders: dict[str, list[str]] = {}
    for _, rows, _ in study.compared:
        for row in rows:
            for scores in row.seeds.values():
                people = len(set(scores.patients or scores.cases))
                text = f"{counted(len(scores.cases), 'scan')} of {counted(people, 'patient')} scored"
                holders.setdefault(text, []).append(row.label)
    if len(holders) == 1:
        return list(holders)
    return [f"{listed(labels)}: {text}" for text, labels in holders.items()]


def _by_row(study: Study, told: Callable[[RowScores], str]) -> list[str]:
    """Of the test cases of each row; one line where they are the same."""
    holders: dict[str, list[str]] = {}
    for _, rows, _ in study.compared:
        for row in rows:
            if row.seeds and (text := told(row)):
                holders.setdefault(text, []).append(row.label)
    return (
        list(holders) if len(holders) == 1 else [f"{listed(rows)}: {text}" for text, rows in holders.items()]
    )


def _case_mix(row: RowScores) -> str:
    truth = next((scores.truth for scores in row.seeds.values() if scores.truth is not None), None)
    if truth is None:
        return ""
    parts = []
    for place, region in enumerate(REGIONS):
        volumes = truth[:, place][truth[:, place] > 0]
        if len(volumes):
            low, middle, high = np.min(volumes), np.median(volumes), np.max(volumes)
            parts.append(f"{region} median {middle:.3g} ml ({low:.3g} to {high:.3g})")
    return f"volumes in the test cases that have the region: {'; '.join(parts)}" if parts else ""


def _empty_truth(row: RowScores) -> str:
    truth = next((scores.truth for scores in row.seeds.values() if scores.truth is not None), None)
    if truth is None:
        return ""
    counts = ", ".join(
        f"{region} {int((truth[:, place] == 0).sum())}" for place, region in enumerate(REGIONS)
    )
    return f"test cases without the region: {counts} of {len(truth)}"


def _of_data(run: RowRun, told: Callable[[Data], str]) -> str:
    return "" if run.papers.experiment is None else told(run.papers.experiment.data)


def preprocessing(data: Data) -> str:
    """What is done to every case before crops are drawn."""
    ranges = (
        f" after cutting at percentiles {data.cut[0]:g} and {data.cut[1]:g} of the brain" if data.cut else ""
    )
    scale = {
        "zscore": "each modality to mean 0 and deviation 1 in the brain",
        "clip": "each modality to mean 0 and deviation 1 in the brain",
        "minmax": "each modality to 0 to 1",
    }[data.normalisation]
    outside = (
        "0 outside the brain" if data.background == "zero" else "the background normalised with the rest"
    )
    grid = "the files' own spacing" if data.spacing is None else f"resampled to {data.spacing:g} mm isotropic"
    side = " × ".join(map(str, dict.fromkeys(data.least)))
    last = "" if data.last_slice else ", its last slice on each axis left out"
    return (
        f"axes as BraTS's; box of the brain{last}, each side grown to {side} voxels at least; "
        f"{scale}{ranges}; "
        f"{outside}; {grid}"
    )


def augmentation(data: Data) -> str:
    """What training crops go through."""
    given = data.augmentation
    parts = []
    if given.rotation:
        filled = "" if given.rotation_fill == "background" else ", corners filled with -1"
        parts.append(
            f"rotation by whole degrees in [-{given.rotation}, {given.rotation}) in one random plane "
            f"({given.rotation_images} for images{filled})"
        )
    if given.intensity_scale or given.intensity_shift:
        how = "slice" if given.intensity_per_slice else "modality"
        parts.append(
            f"intensity × U({1 - given.intensity_scale:g}, {1 + given.intensity_scale:g}) + "
            f"U(-{given.intensity_shift:g}, {given.intensity_shift:g}) per {how}"
        )
    if given.flip:
        parts.append(f"flips with probability {given.flip:g} on each axis")
    return "; ".join(parts) or "none"


def _labels(run: RowRun) -> str:
    """What the values in segmentation files mean."""
    if run.papers.experiment is None or _phantoms(run) or not run.papers.splits:
        return ""
    names = [name for part in PARTS for name in run.papers.splits.get(part, ())]
    data, hashed = run.papers.experiment.data, run.papers.lineage.get("names") == "sha256"
    said = data.scheme is not None or data.labels is not None
    if hashed or not (said or any(map(data_sets.of_name, names))):
        return ""
    try:
        scheme = data_sets.scheme_of(data, names)
    except UserError:  # of another version
        return ""
    words = ("background", "NCR/NET", "ED", "ET")
    told = ", ".join(f"{value} is {words[index]}" for value, index in scheme.classes if index)
    return f"the data set's own segmentations, in which {told}"


def _subsets_of_training(run: RowRun) -> str:
    experiment = run.papers.experiment
    if experiment is None:
        return ""
    options = experiment.method.options
    drawn = options.get("subsets")
    if drawn == "by_count":
        return "in training a number of modalities from 1 to 4 is drawn for each sample, then as many of them"
    student = experiment.method.name == "mmanet" and options.get("stage") == "student"
    uniform = experiment.method.name in _UNIFORM or drawn == "uniform" or student
    if uniform or (experiment.method.name == "unet" and options.get("drop_rates") is None):
        return "in training one of the 15 subsets is drawn for each sample, all equally likely"
    if experiment.method.name == "unet" and isinstance(rates := options["drop_rates"], list):
        rates = ", ".join(f"{name} {rate}" for name, rate in zip(MODALITIES, rates, strict=False))
        return f"in training modalities are left out of each sample by chance: {rates}"
    return ""


def _missing(study: Study) -> list[str]:
    boxes = {
        "all": "box, brain mask and normalisation of a test case come from all four modalities, also where "
        "some are missing (the field's protocol)",
        "given": "box, brain mask and normalisation of a test case come from the subset's own modalities "
        "alone",
    }
    first = (
        f"each test case is scored on all 15 non-empty subsets of {', '.join(MODALITIES)}; what a subset "
        "lacks does not reach the network"
    )
    boxes_used = grouped(
        study.trained,
        lambda run: boxes[run.papers.experiment.evaluation.box] if run.papers.experiment else "",
    )
    used = [*boxes_used, *grouped(study.trained, _holes), *grouped(study.trained, _incomplete)]
    return [first, *used] if study.scored else used


def _holes(run: RowRun) -> str:
    """`data.missing`, where it takes anything away."""
    drawn = run.papers.experiment.data.missing if run.papers.experiment else None
    rates = [f"{name} {100 * rate:g} %" for name, rate in drawn.rates().items() if rate] if drawn else []
    if drawn is None or not rates:
        return ""
    return (
        f"of the training cases these shares lack a modality altogether, drawn by seed {drawn.seed}: "
        f"{', '.join(rates)}; every case keeps one at least, validation and test cases keep all"
    )


def _incomplete(run: RowRun) -> str:
    if run.papers.experiment is None or not run.papers.experiment.data.incomplete:
        return ""
    return (
        "cases whose files lack modalities take part in training; to be tested they are scored on the "
        "subsets that they have, apart from the means over 15 subsets; none is validated on"
    )
