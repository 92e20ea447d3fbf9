"""The files of cells that `status` and `report` read: state, roles, history, lineage, journal, records."""

from __future__ import annotations

import io
import json
import sys
import zipfile
from contextlib import redirect_stderr, redirect_stdout

import numpy as np
import pytest

from acdis import cells, cli, files
from acdis.ablation.expansion import resolve
from acdis.ablation.selection import load_specs
from acdis.data.inputs import Inputs
from acdis.errors import UserError
from acdis.evaluation import floor_files
from acdis.evaluation.calibration import NUMBERS
from acdis.evaluation.examples import read_example
from acdis.evaluation.floor_files import Floors
from acdis.evaluation.floors import Thresholds, given
from acdis.evaluation.records import Record, write_parquet
from acdis.tracking.journal import EPOCHS, JOURNAL, Journal
from acdis.verbs import status
from acdis.vocabulary import REGIONS, SUBSETS, subset_name
from acdis.workflow import opening, trial_cells

EXPERIMENT = """
data: {phantoms: {cases: 4}, min_size: 16, crop: [16, 16, 16]}
evaluation: {window: [16, 16, 16], stride: [16, 16, 16]}
"""
SPEC = """
base: experiment.yaml
baseline: slow
rows:
  slow: {set: {training.learning_rate: 1.0e-4}}
  fast: {set: {training.learning_rate: 1.0e-3}}
"""
STATE = {
    "status": "training",
    "workers": 2,
    "cpus": 3,
    "gpus": 0,
    "epoch": 3,
    "epochs": 5,
    "step": 1,
    "steps": 4,
    "loss": 0.5,
    "done": 2,
    "step_seconds": 1.5,
    "projected_seconds": 20.0,
    "peak_bytes": 10**9,
    "updated": 1.0e9,
    "resumed_at": 0,
    "validation": {"dice/mean": 0.5},
    "evaluation": "0123456789ab",
    "reason": "none",
    "seconds": 4.0,
}
ROLES = {
    "roles": [
        {"spec": "spec", "table": "t", "row": "slow", "seed": 0},
        {"spec": "x", "table": "t", "row": "y", "seed": 1},
    ]
}
ENTRY = {
    "epoch": 1,
    "epochs": 2,
    "terms": {"loss": 1.0},
    "learning_rate": 1e-4,
    "seconds": 60.0,
    "validation": {"dice/mean": 0.3},
}
HISTORY = {"epochs": [ENTRY, {**ENTRY, "epoch": 2}], "best": {}}
LINEAGE = {
    "tags": {"acdis.git_commit": "0123456789abcdef", "acdis.git_dirty": "true"},
    "splits": {"train": ["a"], "validation": [], "test": ["case0"]},
}


def _records():
    return [
        Record(
            f"case{case}",
            subset_name(subset),
            region,
            0.5 + 0.1 * case,
            0.5 if region == "ET" else None,
            3.0,
            1,
            1,
            1.0,
            ece=0.1,
            calibration=(1.0,) * NUMBERS,
        )
        for case in range(2)
        for subset in SUBSETS
        for region in REGIONS
    ]


@pytest.fixture
def cell(room, monkeypatch):
    """The first cell of a spec of two rows, whose cases exist on paper only."""
    (room.data / "experiment.yaml").write_text(EXPERIMENT)
    spec = room.data / "spec.yaml"
    spec.write_text(SPEC)
    inputs = Inputs((), (), ())
    monkeypatch.setattr(opening, "prepare", lambda *_: inputs)
    members = resolve(load_specs([spec]), lambda _: inputs)
    for member in members:
        made = cells.create(room.home, member.cell, member.experiment, LINEAGE)
        files.write_json(made.folder / "state.json", STATE)
        files.write_json(made.folder / "roles.json", ROLES)
        files.write_json(made.folder / "history.json", HISTORY)
        folder = made.evaluations / member.evaluation
        folder.mkdir(parents=True)
        write_parquet(folder / "records.parquet", _records())
    monkeypatch.setattr(status, "_running", lambda _: False)
    return cells.Cell(room.home / "cells" / members[0].cell)


def _command(*words):
    """The command line as a user runs it: 0, or a UserError with 2 and no traceback."""
    said = io.StringIO()
    sys.argv = ["acdis", *map(str, words)]
    with redirect_stdout(io.StringIO()), redirect_stderr(said):
        try:
            cli.main()
        except SystemExit as ended:
            code = ended.code or 0
    if code == 2:
        raise UserError(said.getvalue().strip())
    assert code == 0, said.getvalue()


def _status(room):
    _command("status", room.data / "spec.yaml", "--once")


def _report(room):
    _command("report", room.data / "spec.yaml")
    _checklist(room)


def _checklist(room):
    _command("report", room.data / "spec.yaml", "--checklist", "claim")


def _roles(room):
    _status(room)
    _checklist(room)


def _both(room):
    """Of a cell at rest, and of one at work."""
    _report(room)
    for busy in (False, True):
        cells.Cell.busy = lambda _, busy=busy: busy
        _status(room)


FILES = {"state.json": STATE, "roles.json": ROLES, "history.json": HISTORY, "lineage.json": LINEAGE}
#: What reads the file.
LOOKS = {"state.json": _both, "roles.json": _roles, "history.json": _report, "lineage.json": _report}


@pytest.mark.parametrize("name", FILES)
def test_values_in_a_cells_files(room, cell, fuzz, mutations, name):
    path = cell.folder / name

    def look():
        LOOKS[name](room)
        trial_cells.validated(cell)

    def attempt(tree):
        path.write_text(json.dumps(tree))
        room.tries(f"cell, {name}", look, [name])

    fuzz(mutations.changed(FILES[name]), 35, attempt)


@pytest.mark.parametrize("name", FILES)
def test_bytes_of_a_cells_files(room, cell, fuzz, mutations, name):
    path = cell.folder / name
    whole = path.read_bytes()

    def attempt(content):
        path.write_bytes(content)
        room.tries("cell, bytes", lambda: LOOKS[name](room), [name])

    fuzz(mutations.damaged(whole), 12, attempt)


CRAFTED = {
    "nested": "[" * 100_000,
    "nested mappings": '{"a":' * 100_000,
    "a long number": '{"epochs": ' + "9" * 10_000 + "}",
    "a float of the universe": '{"step_seconds": 1e999, "done": 1e999}',
    "not a number": '{"step_seconds": NaN}',
    "a list": "[1]",
    "null": "null",
    "Latin-1": '{"reason": "gr\xfcn"}'.encode("latin-1"),
    "nothing": "",
    "five million mappings": '{"epochs": [' + "{}," * 5_000_000 + '{}], "roles": []}',
    "as many as may be": '{"epochs": [' + "{}," * 240_000 + '{}], "roles": [' + "{}," * 9_000 + "{}]}",
    "a million keys": "{" + ",".join(f'"k{n}": {n}' for n in range(1_000_000)) + "}",
}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("crafted", CRAFTED)
def test_crafted_files_of_a_cell(room, cell, name, crafted):
    content = CRAFTED[crafted]
    (cell.folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    room.tries("cell, crafted", lambda: LOOKS[name](room), [name])


@pytest.mark.parametrize("crafted", CRAFTED)
def test_a_crafted_word_of_a_worker_is_as_none(room, cell, crafted):
    """What the driver says is left; a float of the universe is no number of epochs, the rest no mapping."""
    content = CRAFTED[crafted]
    before = cell.state()
    path = cell.folder / "attempts" / "000001-0123abcd-0.json"
    path.parent.mkdir()
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    room.tries("cell, a worker's", lambda: _both(room), [path.name])
    assert cell.state()["done"] == before["done"]


def test_a_cells_file_without_end(room, cell):
    path = cell.folder / "state.json"
    path.unlink()
    path.symlink_to("/dev/zero")
    room.tries("cell, crafted", lambda: _status(room), ["state.json"])


def test_bytes_of_the_records(room, cell, fuzz, mutations):
    (path,) = cell.folder.glob("evaluations/*/records.parquet")
    whole = path.read_bytes()

    def attempt(content):
        path.write_bytes(content)
        room.tries("records", lambda: _report(room), ["records.parquet"])

    fuzz(mutations.damaged(whole), 60, attempt)


@pytest.fixture
def floors(cell):
    """What the records of an evaluation are held against, as its file."""
    (records,) = cell.folder.glob("evaluations/*/records.parquet")
    draw = np.random.default_rng(0)
    rule = {given(subset): Thresholds(1.0, 2.0, -0.5) for subset in SUBSETS}
    path = records.with_name(floor_files.FILE)
    floor_files.write(path, Floors(3, rule, ("case0", "case1"), draw.random((2, 3)), draw.random((2, 15, 3))))
    return path


def test_values_and_bytes_of_floors(room, floors, fuzz, mutations):
    whole = floors.read_bytes()

    def attempt(content):
        floors.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
        room.tries("floors", lambda: floor_files.read(floors), ["floors.json"])

    fuzz(mutations.changed(json.loads(whole)), 60, attempt)
    fuzz(mutations.damaged(whole), 60, attempt)


@pytest.mark.parametrize("crafted", CRAFTED)
def test_crafted_floors_cost_no_report(room, floors, crafted):
    content = CRAFTED[crafted]
    floors.write_bytes(content if isinstance(content, bytes) else content.encode())
    _report(room)


def test_the_example_of_an_evaluation(room, fuzz, mutations):
    path = room.home / "example.npz"
    content = {
        "case": np.array("case0"),
        "images": np.random.default_rng(0).random((4, 6, 5), dtype=np.float32),
        "truth": np.ones((6, 5), np.uint8),
        "predictions": np.ones((2, 6, 5), np.uint8),
        "subsets": np.array(["FLAIR", "FLAIR_T1ce"]),
    }
    np.savez_compressed(path, allow_pickle=False, **content)
    whole = path.read_bytes()

    def attempt(damaged):
        path.write_bytes(damaged)
        room.tries("example", lambda: read_example(path), ["example.npz"])

    fuzz(mutations.damaged(whole), 40, attempt)


def test_an_example_of_many_voxels(room):
    """Ten megabytes that hold one of 2.2 GB."""
    path = room.home / "example.npz"
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "<f4", "fortran_order": False, "shape": (4, 10_000, 13_750)}
    )
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open("images.npy", "w", force_zip64=True) as stream,
    ):
        stream.write(header.getvalue())
        for _ in range(22):
            stream.write(bytes(100_000_000))
    assert room.tries("example, crafted", lambda: read_example(path), ["example.npz"]) == "refused"


def test_names_that_take_much_room(room, cell, long_names):
    (path,) = cell.folder.glob("evaluations/*/records.parquet")
    path.write_bytes(long_names)
    assert room.tries("records, crafted", lambda: _report(room), ["records.parquet"]) == "refused"


@pytest.mark.parametrize("name", [JOURNAL, EPOCHS])
def test_a_journal_of_short_lines(room, cell, name):
    """120 MiB of them took 2.2 GB and 37 s."""
    (cell.folder / "history.json").unlink()
    line = b'{"op":"epoch","time":0,"step":%d,"values":{}}\n'
    (cell.folder / name).write_bytes(b"".join(line % step for step in range(2_500_000)))
    assert room.tries("journal, crafted", lambda: trial_cells.validated(cell)) == "sound"


def test_the_journal(room, cell, fuzz, mutations):
    journal = Journal(cell.folder)
    journal.append("tags", values={"a": "b"})
    journal.append("epoch", step=1, values={"validation/dice/mean": 0.5})
    journal.append("metrics", step=1, values={"x": 1.0})
    journal.mark(1, "run")
    wholes = {path: path.read_bytes() for path in (journal.path, cell.folder / "tracking.sent")}
    (cell.folder / "history.json").unlink()

    def look():
        trial_cells.validated(cell)
        Journal(cell.folder).append("tags", values={"c": "d"})

    for path, whole in wholes.items():

        def attempt(content, path=path, whole=whole):
            path.write_bytes(content)
            room.tries("journal", look, [path.name])
            path.write_bytes(whole)

        fuzz(mutations.damaged(whole), 25, attempt)
