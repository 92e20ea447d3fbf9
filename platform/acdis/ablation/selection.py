"""Specs as the command line names them: some rows, some seeds, on another experiment."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from acdis.ablation import spec
from acdis.ablation.file_kinds import expect
from acdis.ablation.spec import Spec
from acdis.config import nearest
from acdis.errors import UserError


def load_specs(
    paths: Sequence[Path],
    experiment: Path | None = None,
    overrides: Sequence[str] = (),
    rows: Sequence[str] | None = None,
    seeds: Sequence[int] | None = None,
) -> list[Spec]:
    """Read and select; see `open_specs`. A spec that has none of the rows is left out.

    Raises:
        UserError: as `open_specs`, a file that is no spec, and specs of one name, which tags could not tell
            apart.
    """
    if not paths:
        raise UserError("no spec given; name at least one, such as ablations/table2.yaml")
    _refuse_twins(paths)
    for path in paths:
        expect(path, "spec")
    specs = [spec.load(path, experiment, overrides) for path in paths]
    known = list(dict.fromkeys(row.id for table in specs for row in table.rows))
    for name in rows or ():
        if name not in known:
            raise UserError(f"--rows: no spec has a row {name!r}{nearest(name, known)}")
    chosen = [spec.select(table, _of(table, rows), seeds) for table in specs]
    return [table for table in chosen if table.rows]


def _of(table: Spec, rows: Sequence[str] | None) -> list[str] | None:
    names = {row.id for row in table.rows}
    return None if rows is None else [name for name in rows if name in names]


def _refuse_twins(paths: Sequence[Path]) -> None:
    for place, path in enumerate(paths):
        for other in paths[:place]:
            if path.stem == other.stem:
                raise UserError(f"{other} and {path}: two specs called {path.stem!r}; give each once")
