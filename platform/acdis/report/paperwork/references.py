"""BibTeX of what was used, and of nothing else: platform, methods, data, metrics, statistics, software."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from acdis import config
from acdis.report.paperwork.about_data import known_sets, sets_of
from acdis.report.paperwork.about_scores import further_of
from acdis.report.paperwork.about_software import LIBRARIES
from acdis.report.paperwork.about_training import methods_of
from acdis.report.paperwork.study import Study
from acdis.tracking.lineage import COMMIT, UNKNOWN

HERE = Path(__file__).parent
PLATFORM = "acdis_platform"
#: Registered methods, and papers that they are from.
METHODS = {
    "acdis": ("zhang2024acdis",),
    "rfnet": ("ding2021rfnet",),
    "uhemis": ("dorent2019uhved", "havaei2016hemis"),
    "uhved": ("dorent2019uhved",),
    "mmformer": ("zhang2022mmformer",),
    "gss": ("qiu2023gss", "ding2021rfnet"),
    "m3ae": ("liu2023m3ae",),
    "mmanet": ("wei2023mmanet",),
    "unet_mfi": ("zhao2022mfi",),
    "shaspec": ("wang2023shaspec",),
    "demoseg": ("yang2024demoseg",),
    "imfuse": ("pipoli2025imfuse", "zhang2022mmformer"),
    "unet": ("cicek2016unet3d",),
    "unet_dedicated": ("cicek2016unet3d",),
}
#: Libraries whose versions are noted with a training.
SOFTWARE = {
    "torch": "paszke2019pytorch",
    "monai": "cardoso2022monai",
    "ray": "moritz2018ray",
    "mlflow": "zaharia2018mlflow",
}
_METRICS = {
    "hd95": "huttenlocher1993hausdorff",
    "nsd_1mm": "nikolov2018nsd",
    "lesion_dice": "moawad2023brats",
    "ece": "naeini2015calibrated",
}
_TESTS = ("obuchowski1995hypothesis", "hillis2007comparison", "holm1979simple")
#: Order of the fields; others follow.
_FIELDS = ("author", "title", "booktitle", "journal", "volume", "number", "pages", "publisher", "year")


@functools.cache
def known() -> Mapping[str, Mapping[str, Any]]:
    """Every reference, by its key."""
    return config.read_yaml(HERE / "references.yaml")


def keys(study: Study, checklist: Sequence[str]) -> list[str]:
    """What is to be cited, each once, in the order platform, methods, data, metrics, statistics, software.

    Args:
        checklist: what the list itself is cited by.
    """
    return list(dict.fromkeys(_keys(study, checklist)))


def _keys(study: Study, checklist: Sequence[str]) -> Iterator[str]:
    yield PLATFORM
    for method in methods_of(study):
        yield from METHODS.get(method, ())
    for run in study.trained:
        for name in filter(None, sets_of(run)):
            yield from known_sets()[name]["cite"]
    if study.scored:
        yield "dice1945measures"
        yield from (key for name, key in _METRICS.items() if name in further_of(study))
    if any(result.tests for _, _, result in study.compared):
        yield from _TESTS
    tags = [run.papers.tags for run in study.trained]
    for name, key in SOFTWARE.items():
        noted = {noted_tags.get(f"acdis.version.{name}", "absent") for noted_tags in tags}
        if noted - {"absent", UNKNOWN}:
            yield key
    yield from checklist


def without(study: Study) -> list[str]:
    """What was used and has no entry, in words."""
    unknown = [method for method in methods_of(study) if method not in METHODS]
    foreign = [run.label for run in study.runs if run.foreign]
    sets = {
        known_sets()[name]["title"]
        for run in study.trained
        for name in sets_of(run)
        if name and not known_sets()[name]["cite"]
    }
    other = any("" in sets_of(run) for run in study.trained)
    told = [f"the method {name}" for name in unknown]
    told += [f"the tool behind {label}" for label in dict.fromkeys(foreign)]
    told += [*sorted(sets), *(["the data set, whose names say none that is known"] if other else [])]
    return told


def bibtex(study: Study, wanted: Sequence[str]) -> str:
    """The entries of these keys, one after the other; ends with a newline."""
    return "\n".join(
        _entry(key, {**known()[key], **(_release(study) if key == PLATFORM else {})}) for key in wanted
    )


def _release(study: Study) -> dict[str, str]:
    """Versions and commits that the cells were trained with."""
    versions = {tags["acdis.version.acdis"] for tags in _tags(study) if "acdis.version.acdis" in tags}
    commits = {tags[COMMIT] for tags in _tags(study) if tags.get(COMMIT, UNKNOWN) != UNKNOWN}
    told = [f"{LIBRARIES['acdis']} {version}" for version in sorted(versions)]
    told += [f"commit {commit}" for commit in sorted(commits)]
    return {"note": _plain(", ".join(told))} if told else {}


def _tags(study: Study) -> list[Mapping[str, str]]:
    return [run.papers.tags for run in study.trained]


def _plain(text: str) -> str:
    """Without what TeX reads as its own: tags come from files."""
    return "".join(letter for letter in text if letter.isalnum() or letter in " .,+-:")


def _entry(key: str, fields: Mapping[str, Any]) -> str:
    told = {name: fields[name] for name in _FIELDS if name in fields}
    told |= {name: value for name, value in fields.items() if name not in (*told, "type", "eprint")}
    told["author"] = " and ".join(fields["author"])
    if "eprint" in fields:
        told |= {"eprint": fields["eprint"], "archiveprefix": "arXiv"}
    lines = [f"  {name} = {{{value}}}," for name, value in told.items()]
    return "\n".join([f"@{fields['type']}{{{key},", *lines, "}", ""])
