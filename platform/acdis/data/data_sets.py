"""Which data set a case is of, and so what its labels mean.

That follows from the name of the task and from all cases together, never from what one file holds.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from acdis import config
from acdis.data import schemes
from acdis.data.case import Case, stem
from acdis.data.problems import Note
from acdis.data.schemes import Scheme
from acdis.errors import UserError


@dataclass(frozen=True)
class _DataSet:
    """A row of docs/data.md's table: which names are of it, and what its labels mean ("": must be named)."""

    name: str
    cases: str
    scheme: str


_DATA_SETS = (
    _DataSet("brats_ped", r"(.*[-_])?PEDs?[-_].+", ""),
    _DataSet("brats_met", r"BraTS-MET-.+", "brats_met"),
    _DataSet("brats_ssa", r"BraTS-SSA-.+", "brats2023"),
    _DataSet("brats_men", r"BraTS-MEN-(?!RT).+", "brats2023"),
    _DataSet("brats_goat", r"BraTS-GoAT-.+", "brats2023"),
    _DataSet("brats2024", r"BraTS-GLI-\d+-[1-9]\d\d", "brats2024"),  # scans of 2024 count from 100
    _DataSet("brats2023", r"BraTS-GLI-.+", "brats2023"),
    _DataSet("unknown task", r"BraTS-[A-Za-z]+-.+", ""),
    _DataSet("upenn_gbm", r"UPENN-GBM-.+", "upenn_gbm"),
    _DataSet("ucsf_pdgm", r"UCSF-PDGM-.+", "ucsf_pdgm"),
    _DataSet("brats2018", r"Brats1[89].+", "brats2018"),
    _DataSet("brats2020", r"BraTS20_.+", "brats2020"),
)
_AS_2021 = re.compile(r"BraTS2021_.+|Phantom_\d+", re.IGNORECASE)
#: Cases whose files end as a data set's do, but whose names are of none.
OTHER_NAMES = "other names"
_MSD_CASE = re.compile(r"BRATS_\d{3}")  # of Task01; BraTS 2018 and 2019 have longer names


def told(data: config.Data) -> Scheme | None:
    """What the labels mean as the configuration says; None where it leaves that to the names."""
    if data.labels is not None:
        return schemes.from_labels(data.labels)
    return None if data.scheme is None else schemes.named(data.scheme)


def scheme_of(data: config.Data, names: Sequence[str]) -> Scheme:
    """What labels mean in a data set whose cases have these names, the folder itself being far away.

    As the configuration says; else by the names; where neither tells, BraTS's 1, 2 and 4.
    """
    configured = told(data)
    if configured is not None:
        return configured
    rows = {row.name: row for name in names for row in _DATA_SETS if _is_of(row, name)}
    if "brats2024" in rows:
        return schemes.SCHEMES["brats2024"]
    fitting = next((row.scheme for row in rows.values() if row.scheme), "")
    if not fitting and names and all(_MSD_CASE.fullmatch(name) for name in names):
        return schemes.SCHEMES["msd"]
    return schemes.SCHEMES[fitting or "brats2021"]


def of_name(name: str) -> str | None:
    """The known data set that the name of a case says by itself; none for other names, and for phantoms."""
    row = next((row for row in _DATA_SETS if _is_of(row, name)), None)
    if row is not None:
        return None if row.name == "unknown task" else row.name
    if _MSD_CASE.fullmatch(name):
        return "msd"
    return "brats2021" if re.fullmatch(r"BraTS2021_\d+", name, re.IGNORECASE) else None


def of_case(name: str, folder: Path, parts: Mapping[str, list[Path]]) -> tuple[str, bool]:
    """The data set by the case's name, and whether that is known; other names by the dashes of 2023 or the
    folders of 2018."""
    row = next((row for row in _DATA_SETS if _is_of(row, name)), None)
    if row is not None:
        return row.name, True
    if any(stem(file.name)[len(name)] == "-" for files in parts.values() for file in files):
        return "brats2023", False
    by_grade = not {"HGG", "LGG"}.isdisjoint(folder.parts)
    return ("brats2018" if by_grade else "brats2021"), bool(_AS_2021.fullmatch(name))


def with_schemes(root: Path, cases: list[Case], data: config.Data) -> list[Case]:
    """What the labels mean, for all cases of a data set alike.

    Raises:
        UserError: the names do not tell, and nothing else does.
    """
    configured = told(data)
    if configured is not None:
        return [replace(case, scheme=configured) for case in cases]
    by_name = {row.name: row.scheme for row in _DATA_SETS}
    open_names = [
        case
        for case in cases
        if by_name.get(case.layout) == "" or (case.naming and case.layout == "brats2023")
    ]
    if open_names:
        what = _uncertain(open_names[0])
        certain = len(cases) - len(open_names)
        raise UserError(
            f"{root}: what the labels of {open_names[0].name} mean is not certain ({what}): name it by "
            f"data.scheme (one of {', '.join(schemes.SCHEMES)}), or write data.labels"
            + (
                f"; give it a root of its own, since that would hold for {certain} others too"
                if certain
                else ""
            )
        )
    later = any(case.layout == "brats2024" for case in cases)
    return [_with_scheme(case, by_name.get(case.layout), later) for case in cases]


def assumed(cases: Sequence[Case], data: config.Data) -> Iterator[Note]:
    """What labels of names that are of no known data set are read as; a 3 would be an error."""
    strangers = [case for case in cases if case.naming == OTHER_NAMES]
    if strangers and told(data) is None:
        few = ", ".join(case.name for case in strangers[:3]) + (" …" if len(strangers) > 3 else "")
        yield Note(
            f"{len(strangers)} named as no known data set ({few})",
            "labels are taken for 1 NCR, 2 ED, 4 ET, as in BraTS 2018 to 2021; if they mean something else, "
            "name data.scheme or write data.labels",
        )


def contradicted(cases: Sequence[Case], data: config.Data) -> Iterator[Note]:
    """Data sets whose own labels mean something else than what the configuration says of all cases."""
    configured = told(data)
    own = {row.name: row.scheme for row in _DATA_SETS} | {name: name for name in ("brats2021", "msd")}
    others: dict[str, list[str]] = {}
    for case in cases:
        scheme = "" if case.naming else own.get(case.layout, "")
        if configured and scheme and schemes.SCHEMES[scheme].classes != configured.classes:
            others.setdefault(case.layout, []).append(case.name)
    for name, names in others.items():
        few = ", ".join(names[:3]) + (" …" if len(names) > 3 else "")
        yield Note(
            f"{len(names)} of {name} ({few})",
            f"labels are read as {configured.name if configured else ''} says, not as the data set's own; if "
            "that is not meant, give each data set a root",
        )


def _with_scheme(case: Case, scheme: str | None, later: bool) -> Case:
    if case.layout == "nnunet":
        return case  # its dataset.json has told
    if later and case.layout == "brats2023":  # a patient's first scan, in a set of scans after treatment
        return replace(case, layout="brats2024", scheme=schemes.SCHEMES["brats2024"])
    return replace(case, scheme=schemes.SCHEMES[scheme or case.layout])


def _uncertain(case: Case) -> str:
    """Why its name does not tell what its labels mean."""
    if case.naming:
        return "files are named as in BraTS 2023 and later, whose tasks label otherwise"
    return "2023 and 2024 label them otherwise" if case.layout == "brats_ped" else "unknown task"


def _is_of(row: _DataSet, name: str) -> bool:
    return re.fullmatch(row.cases, name, re.IGNORECASE | re.DOTALL) is not None
