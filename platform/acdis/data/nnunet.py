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
_OUTSIDE, _CAVITY = ("rc", "resectioncavity", "cavity"), "resection cavity"
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


def channel_files(stems: Mapping[str, Path]) -> tuple[dict[str, dict[int, Path]], list[Path]]:
    """Case -> channel -> file, and strangers; no case where most files are not named `<case>_0000`."""
    channels: dict[str, dict[int, Path]] = defaultdict(dict)
    strangers: list[Path] = []
    for stem, path in stems.items():
        match = _CHANNEL.fullmatch(stem)
        if match is None:
            strangers.append(path)
        else:
            channels[match["name"]][int(match["number"])] = path
    return ({}, []) if 2 * len(strangers) > len(stems) else (channels, strangers)


def describe(path: Path, labelled: Scheme | None = None) -> Description:
    """Read `dataset.json`.

    Args:
        labelled: what the labels mean, where the experiment says it; the file's own labels are not read then.

    Raises:
        UserError: it is not there, not readable, or names channels or labels that mean nothing here.
    """
    tree = _tree(path)
    return Description(_channels(tree, path), labelled or _scheme(tree.get("labels"), path))


def not_msd(path: Path, channels: tuple[int, ...], scheme: Scheme | None) -> str:
    """What `dataset.json` beside 4-D files tells otherwise than MSD Task01 has it; "" if nothing.

    Args:
        channels: MSD's own number of each of `MODALITIES`.
        scheme: MSD's own labels; None where the experiment says what the labels mean.

    Raises:
        UserError: it cannot be read, or names channels or labels that mean nothing here.
    """
    tree = _tree(path)
    if "modality" in tree or "channel_names" in tree:
        told = _channels(tree, path)
        if tuple(told[modality] for modality in MODALITIES) != channels:
            return "channels"
    labels = tree.get("labels")
    if scheme is None or not isinstance(labels, dict):
        return ""
    return "" if _scheme(labels, path).classes == scheme.classes else "labels"


def _tree(path: Path) -> dict[str, Any]:
    try:
        tree = files.read_json(path)
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path}: cannot be read ({files.reason(error)}); it says which channel is which modality: mend "
            "it, or use data.files"
        ) from None
    if not isinstance(tree, dict):
        raise UserError(f"{path}: holds no object as nnU-Net writes it; mend it, or use data.files")
    return tree


def _plain(name: Any) -> str:
    return re.sub(r"[^a-z0-9]", "", str(name).lower())


def _channels(tree: Mapping[str, Any], path: Path) -> dict[str, int]:
    given = tree.get("channel_names", tree.get("modality"))
    if not isinstance(given, dict):
        raise UserError(
            f"{path}: has no channel_names; say which channel is which modality, or use data.files"
        )
    channels: dict[str, int] = {}
    for number, name in given.items():
        modality = next((m for m, names in _CHANNELS.items() if _plain(name) in names), None)
        if modality is None or not str(number).isdecimal():
            raise UserError(
                f"{path}: channel {number}, {name!r}, is no known modality; name it FLAIR, T1ce, T1 or T2, "
                "or use data.files"
            )
        if modality in channels:
            raise UserError(f"{path}: channels {channels[modality]} and {number} are both {modality}")
        channels[modality] = int(number)
    lacking = [modality for modality in MODALITIES if modality not in channels]
    if lacking:
        raise UserError(f"{path}: has no channel for {', '.join(lacking)}; four modalities are due")
    return channels


def _scheme(labels: Any, path: Path) -> Scheme:
    """Labels as values, or as regions that are lists of values (nnU-Net's own way for BraTS)."""
    if not isinstance(labels, dict) or not labels:
        raise UserError(f"{path}: has no labels; write them, or use data.files and data.labels")
    if all(str(value).isdecimal() for value in labels):  # as MSD and nnU-Net 1 write them: number -> name
        pairs = [(_plain(name), int(value)) for value, name in labels.items()]
    else:
        pairs = [(_plain(name), value) for name, value in labels.items()]
    named = dict(pairs)
    if len(named) < len(pairs):
        twice = next(name for name, _ in pairs if [other for other, _ in pairs].count(name) > 1)
        raise UserError(f"{path}: label {twice!r} is there twice; mend it, or write data.labels")
    if any(isinstance(value, list) for value in named.values()):
        return _of_regions(named, path)
    classes: dict[int, int] = {}
    outside: list[tuple[int, str]] = []
    for name, value in named.items():
        index = next((index for index, names in _CLASSES.items() if name in names), None)
        if not _is_label(value) or (index is None and name not in _OUTSIDE):
            raise UserError(
                f"{path}: label {name!r}: {value!r} is no known class; name it NCR, ED or ET, or write "
                "data.labels"
            )
        if value in classes or value in dict(outside):
            raise UserError(f"{path}: label {value} is named twice; mend it, or write data.labels")
        if (value == 0) != (index == 0):
            raise _no_background(path)
        if index is None:
            outside.append((value, _CAVITY))
        else:
            classes[value] = index
    return Scheme("nnunet", tuple(sorted((classes | {0: 0}).items())), tuple(outside))


def _is_label(value: Any) -> bool:
    return isinstance(value, int) and -(2**15) <= value < 2**16


def _no_background(path: Path) -> UserError:
    return UserError(f"{path}: label 0 is the background, and nothing else is; mend it, or write data.labels")


def _of_regions(named: Mapping[str, Any], path: Path) -> Scheme:
    sets: dict[str, set[int]] = {}
    for region, names in _REGIONS.items():
        value = next((named[name] for name in names if name in named), None)
        values: list[Any] = value if isinstance(value, list) else [value]
        if not all(map(_is_label, values)):
            raise UserError(
                f"{path}: labels name no region {region}; write whole tumor, tumor core and enhancing tumor"
            )
        if 0 in values:
            raise _no_background(path)
        sets[region] = set(values)
    if not sets["ET"] <= sets["TC"] <= sets["WT"]:
        raise UserError(f"{path}: its regions are not nested: WT holds TC, and TC holds ET")
    parts = ((sets["WT"] - sets["TC"], 2), (sets["TC"] - sets["ET"], 1), (sets["ET"], 3))
    outside = [
        (value, _CAVITY)
        for name in _OUTSIDE
        for value in (named.get(name, ()) if isinstance(named.get(name), list) else [named.get(name)])
        if _is_label(value) and value and value not in sets["WT"]
    ]
    classes = sorted((value, index) for values, index in parts for value in values)
    return Scheme("nnunet", ((0, 0), *classes), tuple(sorted(outside)))
