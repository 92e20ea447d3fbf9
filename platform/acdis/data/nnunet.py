"""nnU-Net's raw data: which file is which modality, and what the labels mean, from `dataset.json`."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from acdis import files
from acdis.data.schemes import Scheme
from acdis.errors import UserError
from acdis.vocabulary import MODALITIES

_CHANNEL = re.compile(r"(?P<name>.+)_(?P<number>\d{4})", re.DOTALL)
#: Names of channels, in small letters without marks, by modality.
_CHANNELS = {
    "FLAIR": ("flair", "t2f", "t2flair"),
    "T1ce": ("t1ce", "t1c", "t1gd", "t1post", "t1contrast"),
    "T1": ("t1", "t1n", "t1w", "t1native"),
    "T2": ("t2", "t2w"),
}
#: Names of labels, in small letters without marks, by class; what lies outside of every region has none.
_CLASSES = {
    0: ("background",),
    1: ("ncr", "net", "ncrnet", "netc", "necrosis", "necrotic", "nonenhancing", "nonenhancingtumor",
        "necrotictumorcore", "necrotictumourcore"),
    2: ("ed", "edema", "oedema", "peritumoraledema", "peritumouraloedema", "snfh"),
    3: ("et", "enhancing", "enhancingtumor", "enhancingtumour"),
}  # fmt: skip
_OUTSIDE = ("rc", "resectioncavity", "cavity")
_REGIONS = {
    "WT": ("wt", "wholetumor", "wholetumour"),
    "TC": ("tc", "tumorcore", "tumourcore"),
    "ET": _CLASSES[3],
}


@dataclass(frozen=True)
class Description:
    """The number of each modality's channel, and the labels."""

    channels: Mapping[str, int]
    scheme: Scheme


def channel_files(stems: Mapping[str, Path]) -> dict[str, dict[int, Path]]:
    """Case -> channel -> file; empty where any file is not named `<case>_0000`."""
    found: dict[str, dict[int, Path]] = defaultdict(dict)
    for stem, path in stems.items():
        match = _CHANNEL.fullmatch(stem)
        if match is None:
            return {}
        found[match["name"]][int(match["number"])] = path
    return found


def describe(path: Path) -> Description:
    """Read `dataset.json`.

    Raises:
        UserError: it is not there, not readable, or names channels or labels that mean nothing here.
    """
    try:
        tree = files.json_of(files.read(path, files.TEXT))
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path}: cannot be read ({files.reason(error)}); it says which channel is which modality: mend "
            "it, or use data.files"
        ) from None
    if not isinstance(tree, dict):
        raise UserError(f"{path}: holds no object as nnU-Net writes it; mend it, or use data.files")
    return Description(_channels(tree, path), _scheme(tree.get("labels"), path))


def _plain(name: Any) -> str:
    return re.sub(r"[^a-z0-9]", "", str(name).lower())


def _channels(tree: Mapping[str, Any], path: Path) -> dict[str, int]:
    given = tree.get("channel_names", tree.get("modality"))
    if not isinstance(given, dict):
        raise UserError(
            f"{path}: has no channel_names; say which channel is which modality, or use data.files"
        )
    found: dict[str, int] = {}
    for number, name in given.items():
        modality = next((m for m, names in _CHANNELS.items() if _plain(name) in names), None)
        if modality is None or not str(number).isdecimal():
            raise UserError(
                f"{path}: channel {number}, {name!r}, is no known modality; name it FLAIR, T1ce, T1 or T2, "
                "or use data.files"
            )
        if modality in found:
            raise UserError(f"{path}: channels {found[modality]} and {number} are both {modality}")
        found[modality] = int(number)
    lacking = [modality for modality in MODALITIES if modality not in found]
    if lacking:
        raise UserError(f"{path}: has no channel for {', '.join(lacking)}; four modalities are due")
    return found


def _scheme(labels: Any, path: Path) -> Scheme:
    """Labels as values, or as regions that are lists of values (nnU-Net's own way for BraTS)."""
    if not isinstance(labels, dict) or not labels:
        raise UserError(f"{path}: has no labels; write them, or use data.files and data.labels")
    named = {_plain(name): value for name, value in labels.items()}
    if any(isinstance(value, list) for value in named.values()):
        return _of_regions(named, path)
    classes: dict[int, int] = {0: 0}
    outside: list[tuple[int, str]] = []
    for name, value in named.items():
        index = next((index for index, names in _CLASSES.items() if name in names), None)
        if not isinstance(value, int) or (index is None and name not in _OUTSIDE):
            raise UserError(
                f"{path}: label {name!r}: {value!r} is no known class; name it NCR, ED or ET, or write "
                "data.labels"
            )
        if index is None:
            outside.append((value, "resection cavity"))
        else:
            classes[value] = index
    return Scheme("nnunet", tuple(sorted(classes.items())), tuple(outside))


def _of_regions(named: Mapping[str, Any], path: Path) -> Scheme:
    sets: dict[str, set[int]] = {}
    for region, names in _REGIONS.items():
        value = next((named[name] for name in names if name in named), None)
        values: list[Any] = value if isinstance(value, list) else [value]
        if not all(isinstance(each, int) for each in values):
            raise UserError(
                f"{path}: labels name no region {region}; write whole tumor, tumor core and enhancing tumor"
            )
        sets[region] = set(values)
    if not sets["ET"] <= sets["TC"] <= sets["WT"]:
        raise UserError(f"{path}: its regions are not nested: WT holds TC, and TC holds ET")
    parts = ((sets["WT"] - sets["TC"], 2), (sets["TC"] - sets["ET"], 1), (sets["ET"], 3))
    return Scheme("nnunet", ((0, 0), *sorted((value, index) for values, index in parts for value in values)))
