"""One ZIP file with everything behind a report, and the report again from that file alone.

    members.json            rows, seeds, cells, hours, what is missing: the facts of the report
    specs/…                 spec and experiment files as written, in their places relative to each other
    cells/<cell>/           config.yaml, lineage.json, state.json, history.json … as in the home; teachers too
    cells/<cell>/evaluations/<evaluation>/records.parquet, and floors.json where it was measured; external.md
    code/commit.json, code/changes.patch    of the checkout that made the bundle
    README.md

Equal content makes equal bytes: no times are kept. Nothing is ever unpacked to disk. Addresses lose user
and password.
"""

from __future__ import annotations

import fnmatch
import functools
import io
import json
import os
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from acdis import files, home
from acdis.cells import Cell, read_json
from acdis.cells.schemas import DamagedError
from acdis.errors import UserError
from acdis.evaluation import floor_files, incomplete
from acdis.evaluation.scores import Scores, read_scores
from acdis.report.collect import records_file, without_passwords
from acdis.report.facts import LARGEST as LARGEST_FACTS
from acdis.report.facts import Reader, SpecFacts, dump, parse
from acdis.report.paperwork.cell_papers import EXTERNAL, CellFiles
from acdis.report.paperwork.cell_papers import LARGEST as LARGEST_PAPER

FACTS = "members.json"
FORMAT = "acdis-bundle-1"
#: What reading a file of a damaged archive raises.
_DAMAGED = (
    zipfile.BadZipFile,
    zlib.error,
    OSError,
    ValueError,
    RuntimeError,  # a compression or encryption that Python does not know, too
    EOFError,
    LookupError,
    OverflowError,
)
_DUE = "give a bundle that `report --bundle` made"
#: What is larger is refused, so that a crafted file cannot fill the memory: a bundle, a file of scores in it.
LARGEST, LARGEST_SCORES = 2**29, 2**26
#: What the state says about the training; the rest is about the machine.
_STATE = (
    *("status", "reason", "epochs", "done", "workers", "cpus", "gpus", "step_seconds", "peak_bytes"),
    *("version", "evaluation", "run_id", "updated"),
)

README = """# Bundle of an ACDIS report

`acdis report THIS.zip` prints the report again, without the machine that it was made on; `--format` md,
latex, csv, html or challenger, or `--checklist claim`. The package and its version are in `code/commit.json`.

- `members.json`: rows, seeds and cells of the report, hours, and what was missing.
- `specs/`: the spec and experiment files as they were written.
- `cells/<cell>/config.yaml`: the resolved configuration; `lineage.json`: commit, versions, device and split
  of the training; `state.json`, `history.json`: how it went.
- `cells/<cell>/evaluations/…/records.parquet`: Dice and HD95 of every case × subset × region; `floors.json`
  beside it: Dice of the whole brain as tumour and of a fitted threshold rule on the same cases.
- `code/`: commit and uncommitted changes of the checkout that made this bundle. A cell whose `lineage.json`
  names another commit was trained with that one.
"""


def write(
    path: Path, specs: Sequence[SpecFacts], sources: Iterable[Path], base: Path, code: Mapping[str, str]
) -> None:
    """Pack a report, atomically.

    Args:
        sources: spec and experiment files.
        base: the home with the cells.
        code: `commit.json` and `changes.patch`, by name.

    Raises:
        UserError: the file cannot be written.
    """
    files.sweep_beside(path)
    try:
        with files.replacing(path) as stream, zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in _texts(specs, sources, base, code):
                archive.writestr(_entry(name), without_passwords(content.decode("utf-8", "replace")))
            for name, records in _scores(specs, base):
                archive.writestr(_entry(name), records)
    except files.UnwritableError as error:
        raise UserError(
            f"--bundle {path}: cannot be written ({files.reason(error)}); give another file"
        ) from None
    except OSError as error:  # of what is packed
        raise UserError(f"{error.filename}: cannot be read ({files.reason(error)})") from None


def _entry(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
    entry.compress_type = zipfile.ZIP_DEFLATED
    entry.external_attr = 0o644 << 16
    return entry


def _texts(
    specs: Sequence[SpecFacts], sources: Iterable[Path], base: Path, code: Mapping[str, str]
) -> Iterator[tuple[str, bytes]]:
    yield "README.md", README.encode()
    yield FACTS, json.dumps({"format": FORMAT, "specs": json.loads(dump(specs))}, indent=1).encode()
    yield from _sources(sources)
    yield from ((f"code/{name}", text.encode()) for name, text in sorted(code.items()))
    rows = [row for spec in specs for row in (*spec.rows, *spec.unscored)]
    for name in sorted({cell.cell for row in rows for cell in row.cells}):
        yield from _cell_files(Cell(home.cells(base) / name))


def _scores(specs: Sequence[SpecFacts], base: Path) -> Iterator[tuple[str, bytes]]:
    cells = [cell for spec in specs for row in spec.rows for cell in row.cells if cell.scored]
    for cell, evaluation in sorted({(scored.cell, scored.evaluation) for scored in cells}):
        path = records_file(base, cell, evaluation)
        yield _records(cell, evaluation), path.read_bytes()
        if known := floor_files.usable(path.with_name(floor_files.FILE)):
            yield _floors(cell, evaluation), floor_files.dump(known)
        if (apart := path.with_name(incomplete.FILE)).is_file():
            yield _incomplete(cell, evaluation), apart.read_bytes()


def _sources(paths: Iterable[Path]) -> Iterator[tuple[str, bytes]]:
    """In their places relative to each other, so that `extends` and `base` still lead somewhere."""
    sources = sorted({path.resolve() for path in paths})
    if not sources:
        return
    root = Path(os.path.commonpath([file.parent for file in sources]))
    for file in sources:
        yield f"specs/{file.relative_to(root).as_posix()}", file.read_bytes()


def _cell_files(cell: Cell) -> Iterator[tuple[str, bytes]]:
    folder = f"cells/{cell.name}"
    comparisons = sorted(path.relative_to(cell.folder) for path in cell.folder.glob(EXTERNAL))
    for name in ("config.yaml", "changes.patch", *(path.as_posix() for path in comparisons)):
        if (cell.folder / name).is_file():
            yield f"{folder}/{name}", (cell.folder / name).read_bytes()
    for name in ("state.json", "lineage.json", "history.json", "roles.json"):
        try:
            tree = cell.state() if name == "state.json" else read_json(cell.folder / name)
        except DamagedError:  # `collect` has named it
            continue
        if name == "state.json":
            tree = {key: value for key, value in tree.items() if key in _STATE}
        if tree:
            yield f"{folder}/{name}", _json(tree)


def _json(tree: Any) -> bytes:
    return json.dumps(tree, indent=1).encode()


def _records(cell: str, evaluation: str) -> str:
    return f"cells/{cell}/evaluations/{evaluation}/records.parquet"


def _floors(cell: str, evaluation: str) -> str:
    return f"cells/{cell}/evaluations/{evaluation}/{floor_files.FILE}"


def _incomplete(cell: str, evaluation: str) -> str:
    return f"cells/{cell}/evaluations/{evaluation}/{incomplete.FILE}"


def is_bundle(path: Path) -> bool:
    """By its name: specs are YAML."""
    return path.suffix.lower() == ".zip"


def read(path: Path) -> tuple[list[SpecFacts], Reader]:
    """The facts in a bundle, and its scores.

    Raises:
        UserError: not a bundle, damaged, or of another version.
    """
    archive = _opened(path)
    specs = _facts(archive, path)

    @functools.cache
    def scores(cell: str, evaluation: str) -> Scores:
        name = _records(cell, evaluation)
        case_scores = read_scores(io.BytesIO(_member(archive, path, name, LARGEST_SCORES)), f"{path}: {name}")
        beside, members = _incomplete(cell, evaluation), archive.namelist()
        if beside in members:
            content = _member(archive, path, beside, LARGEST_SCORES)
            case_scores = replace(case_scores, incomplete=incomplete.parse(content, f"{path}: {beside}"))
        beside = _floors(cell, evaluation)
        if beside not in members:
            return case_scores
        content = _member(archive, path, beside, floor_files.LARGEST)
        return replace(case_scores, floors=floor_files.parse(content, f"{path}: {beside}"))

    return specs, scores


def cell_files(path: Path) -> CellFiles:
    """What a bundle holds of its cells.

    Raises:
        UserError: as `read`, also when a file is asked for that is damaged.
    """
    archive = _opened(path)
    by_cell: dict[str, list[str]] = {}
    for member in sorted(archive.namelist()):
        if (parts := member.split("/", 2))[0] == "cells" and len(parts) == 3:
            by_cell.setdefault(parts[1], []).append(parts[2])

    def contents(cell: str, pattern: str) -> list[bytes]:
        return [
            _member(archive, path, f"cells/{cell}/{name}", LARGEST_PAPER)
            for name in by_cell.get(cell, ())
            if fnmatch.fnmatchcase(name, pattern)
        ]

    return contents


def _opened(path: Path) -> zipfile.ZipFile:
    content = files.given(path, LARGEST, _DUE)
    try:
        return files.archive(io.BytesIO(content))
    except files.TooLargeError as error:
        raise UserError(f"{path}: {error}; {_DUE}") from None
    except _DAMAGED:
        raise UserError(f"{path}: is not a ZIP file; {_DUE}") from None


def _facts(archive: zipfile.ZipFile, path: Path) -> list[SpecFacts]:
    try:
        tree = files.json_of(_member(archive, path, FACTS, LARGEST_FACTS))
        specs = json.dumps(tree["specs"]).encode() if tree["format"] == FORMAT else None
    except files.TooLargeError as error:
        raise UserError(f"{path}: {FACTS} {error}; that is no bundle of ours") from None
    except (ValueError, LookupError, TypeError):
        specs = None
    if specs is None:
        raise UserError(f"{path}: {FACTS} is not of the format {FORMAT}; make the bundle again")
    return parse(specs, f"{path}: {FACTS}")


def _member(archive: zipfile.ZipFile, path: Path, name: str, most: int) -> bytes:
    try:
        if archive.getinfo(name).file_size > most:
            raise UserError(f"{path}: {name} is larger than {most >> 20} MiB; that is no bundle of ours")
        return archive.read(name)
    except KeyError:
        raise UserError(f"{path}: {name} is not in it; {_DUE}") from None
    except _DAMAGED as error:
        reason = str(error)[:100]
        raise UserError(f"{path}: {name} is damaged ({reason}); make the bundle again") from None
