"""`report`: tables beside the paper's, from the cells of a home or from a bundle alone. Trains nothing."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from acdis import home
from acdis.errors import UserError
from acdis.files import reason, write_text
from acdis.report import bundle, sources
from acdis.report.facts import Reader, SpecFacts
from acdis.report.forms import RENDERERS, render

_ENDINGS = {".md": "md", ".tex": "latex", ".csv": "csv", ".html": "html", ".htm": "html"}


@dataclass(frozen=True)
class Wanted:
    """What the user asked for.

    Attributes:
        specs: spec files, or one bundle.
        form: of `RENDERERS`; none: what the ending of `out` says, else Markdown.
        out: file for the report; none: standard output.
        pack: file for a bundle.
    """

    specs: Sequence[Path]
    experiment: Path | None = None
    overrides: Sequence[str] = ()
    rows: Sequence[str] | None = None
    seeds: Sequence[int] | None = None
    form: str | None = None
    out: Path | None = None
    pack: Path | None = None


def report(wanted: Wanted) -> None:
    """Print or write the report, and pack a bundle if one is asked for.

    Raises:
        UserError: no or a wrong spec, a damaged bundle or records, or an output that cannot be written.
    """
    form = _form(wanted)
    if not wanted.specs:
        raise UserError("report: name at least one spec file, such as ablations/table2.yaml, or a bundle")
    text = render(*(_packed(wanted) if any(map(bundle.is_bundle, wanted.specs)) else trained(wanted)), form)
    if wanted.out is None:
        sys.stdout.write(text)
    else:
        _write(wanted.out, text)


def _form(wanted: Wanted) -> str:
    form = wanted.form or (_ENDINGS.get(wanted.out.suffix.lower(), "md") if wanted.out else "md")
    if form not in RENDERERS:
        raise UserError(f"--format: {form!r} is none of {', '.join(RENDERERS)}")
    return form


def _packed(wanted: Wanted) -> tuple[list[SpecFacts], Reader]:
    path, *more = wanted.specs
    changed = wanted.experiment or wanted.overrides or wanted.rows or wanted.seeds or wanted.pack
    if more or changed:
        raise UserError(
            f"{next(filter(bundle.is_bundle, wanted.specs))}: a bundle is reported alone and as it is; "
            "leave out other specs, --experiment, --rows, --seeds, --bundle and overrides"
        )
    return bundle.read(path)


def trained(wanted: Wanted) -> tuple[list[SpecFacts], Reader]:
    """What the cells of this home say of the specs; packs a bundle if one is asked for."""
    from acdis.report.collect import collect, reader
    from acdis.verbs.progress import Display
    from acdis.verbs.specs import open_specs

    base = home.to_read()
    # What is said on the way must not stand in the report: `acdis report … > table.csv`.
    with contextlib.redirect_stdout(sys.stderr), Display() as display:
        members = open_specs(
            wanted.specs, wanted.experiment, wanted.overrides, wanted.rows, wanted.seeds, base, display
        )
    specs = collect(members, base)
    if wanted.pack is not None:
        from acdis.tracking.patch import code

        files = [file for member in members for file in (member.spec.path, member.spec.base)]
        written = [each for file in dict.fromkeys(files) for each in sources.files(file)]
        bundle.write(wanted.pack, specs, written, base, code())
        print(f"bundle: {wanted.pack}", file=sys.stderr)
    return specs, reader(base)


def _write(path: Path, text: str) -> None:
    try:
        write_text(path, text)
    except OSError as error:
        raise UserError(f"--out {path}: cannot be written ({reason(error)}); give another file") from None
    print(f"report: {path}", file=sys.stderr)
