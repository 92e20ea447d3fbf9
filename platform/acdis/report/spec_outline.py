"""Which rows, seeds and cells a spec has, kept in the home: for who looks without spec file and data.

`ablate` and `dashboard` write `<ACDIS_HOME>/ablations/<spec>/facts.json`. How the cells stand is not in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from acdis.ablation.expansion import Member
from acdis.ablation.spec import Spec
from acdis.errors import UserError
from acdis.files import TooLargeError, write_text
from acdis.files import read as content_of
from acdis.report.collect import absent, by_source, figures, outline, without_passwords
from acdis.report.facts import LARGEST, CellFacts, RowFacts, SpecFacts, dump, parse
from acdis.tracking.orphans import specs

FILE = "facts.json"
NOT_STARTED = "missing"


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
    todo = "`ablate` of the spec writes it again"
    try:
        facts = parse(content_of(path, LARGEST), str(path), todo)
    except TooLargeError as error:
        raise UserError(f"{path}: {error}; {todo}") from None
    if len(facts) != 1:
        raise UserError(f"{path}: holds {len(facts)} specs, not one; {todo}")
    return facts[0]


def sketch(spec: Spec) -> SpecFacts:
    """Of a spec whose data nobody has opened yet: its cells have no names."""
    rows = tuple(
        RowFacts(
            row.id,
            row.label,
            row.note,
            figures(row.paper),
            dict(row.changes),
            tuple(CellFacts(seed, "", "", False, NOT_STARTED, {}, "") for seed in spec.seeds),
            row.paper_row,
            by_source(row.published),
        )
        for row in spec.rows
    )
    overrides = tuple(map(without_passwords, spec.overrides))
    about = (spec.name, spec.title, spec.table, spec.baseline, spec.source or "", overrides)
    return SpecFacts(*about, dict(spec.excluded), False, 0.0, rows, spec.family, spec.margin, absent(spec))
