"""What the numbers in a segmentation mean, data set by data set (docs/data.md has the sources)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from acdis.errors import UserError

#: How a file's labels may be named in `data.labels`, and their index in `vocabulary.CLASSES`.
CLASS_NAMES: Mapping[str, int] = {"background": 0, "NCR": 1, "ED": 2, "ET": 3}


@dataclass(frozen=True)
class Scheme:
    """Labels of one data set.

    Attributes:
        name: as `data.scheme` takes it.
        classes: pairs of a file's value and its index in `vocabulary.CLASSES`.
        outside: pairs of a value that belongs to no region, and what it is; read as background, and counted.
    """

    name: str
    classes: tuple[tuple[int, int], ...]
    outside: tuple[tuple[int, str], ...] = ()

    @property
    def values(self) -> tuple[int, ...]:
        """All values that a file may hold, sorted."""
        return tuple(sorted([value for value, _ in self.classes] + [value for value, _ in self.outside]))


def _adult(name: str, enhancing: int, *outside: tuple[int, str]) -> Scheme:
    return Scheme(name, ((0, 0), (1, 1), (2, 2), (enhancing, 3)), outside)


_CAVITY = (4, "resection cavity")

SCHEMES: Mapping[str, Scheme] = {
    scheme.name: scheme
    for scheme in (
        _adult("brats2018", 4),  # 1 NCR/NET, 2 ED, 4 ET
        _adult("brats2020", 4),
        _adult("brats2021", 4),
        _adult("brats2023", 3),  # 1 NCR, 2 ED, 3 ET; also of the tasks SSA, MEN (before surgery) and GoAT
        _adult("brats2024", 3, _CAVITY),  # glioma after treatment: 1 NETC, 2 SNFH, 3 ET, 4 RC
        _adult("brats_met", 3, _CAVITY),
        # 1 enhancing, 2 non-enhancing, 3 cyst, 4 oedema: the cyst is part of the core that does not enhance
        Scheme("brats_ped2024", ((0, 0), (1, 3), (2, 1), (3, 1), (4, 2))),
        Scheme("msd", ((0, 0), (1, 2), (2, 1), (3, 3))),  # 1 oedema, 2 non-enhancing, 3 enhancing
        _adult("upenn_gbm", 4),
        _adult("ucsf_pdgm", 4),
    )
}


def named(name: str) -> Scheme:
    """The scheme of that name.

    Raises:
        UserError: there is none.
    """
    if name not in SCHEMES:
        raise UserError(f"data.scheme: unknown scheme {name!r}; valid are {', '.join(SCHEMES)}")
    return SCHEMES[name]


def from_labels(labels: Mapping[int, str]) -> Scheme:
    """The scheme that `data.labels` writes out; 0 is the background.

    Raises:
        UserError: 0 is something else: all that is no tumour would be it.
    """
    if labels.get(0, "background") != "background":
        raise UserError(f"data.labels: 0 is the background, and cannot be {labels[0]}; leave 0 out")
    classes = {0: 0} | {value: CLASS_NAMES[name] for value, name in labels.items()}
    return Scheme("data.labels", tuple(sorted(classes.items())))


def meanings(value: float) -> str:
    """What a value that a scheme does not know is elsewhere: "4 is ET of brats2018 …, or '' ."""
    words = {index: name for name, index in CLASS_NAMES.items()}
    by_meaning: dict[str, list[str]] = {}
    for scheme in SCHEMES.values():
        for known, meaning in (*((v, words[index]) for v, index in scheme.classes), *scheme.outside):
            if known == value:
                by_meaning.setdefault(meaning, []).append(scheme.name)
    return ", ".join(f"{meaning} in {', '.join(names)}" for meaning, names in by_meaning.items())
