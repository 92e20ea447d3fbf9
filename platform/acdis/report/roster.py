"""Which rows, seeds and cells a spec has, kept in the home: for who looks without spec file and data.

`ablate` and `dashboard` write `<ACDIS_HOME>/ablations/<spec>/facts.json`. How the cells stand is not in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from acdis.ablation.members import Member
from acdis.ablation.spec import Spec
from acdis.files import write_text
from acdis.report.collect import outline, without_passwords
from acdis.report.facts import CellFacts, RowFacts, SpecFacts, dump, parse
from acdis.tracking.orphans import specs

FILE = "facts.json"
NOT_STARTED = "not started"


def save(members: Sequence[Member], base: Path) -> None:
    """Replace what the home knows of the members' specs."""
    for spec in outline(members):
        write_text(specs(base) / spec.name / FILE, dump([spec]).decode())


def files(base: Path) -> list[Path]:
    """One per spec that the home knows, sorted by name."""
    return sorted(specs(base).glob(f"*/{FILE}"))


def read(path: Path) -> SpecFacts:
    """What `save` wrote; no cell is looked at.

    Raises:
        UserError: it is not what `save` wrote.
        OSError: it cannot be read.
    """
    (spec,) = parse(path.read_bytes(), str(path))
    return spec


def sketch(spec: Spec) -> SpecFacts:
    """Of a spec whose data nobody has opened yet: its cells have no names."""
    rows = tuple(
        RowFacts(
            row.id,
            row.label,
            row.note,
            None if row.paper is None else {region: float(value) for region, value in row.paper.items()},
            dict(row.changes),
            tuple(CellFacts(seed, "", "", False, NOT_STARTED, {}, "") for seed in spec.seeds),
        )
        for row in spec.rows
    )
    overrides = tuple(map(without_passwords, spec.overrides))
    about = (spec.name, spec.title, spec.table, spec.baseline, spec.source or "", overrides)
    return SpecFacts(*about, dict(spec.excluded), False, 0.0, rows)
