"""The files of cells that `status` and `report` read: state, roles, history, lineage, journal, records."""

from __future__ import annotations

import io
import json
import sys
from contextlib import redirect_stderr, redirect_stdout

import numpy as np
import pytest

from acdis import cli, files
from acdis.ablation import cells
from acdis.ablation.members import resolve
from acdis.data.inputs import Inputs
from acdis.errors import UserError
from acdis.evaluation.records import Record, write_parquet
from acdis.report.figures import read_example
from acdis.tracking.journal import Journal
from acdis.verbs import hunt, specs, status
from acdis.vocabulary import REGIONS, SUBSETS, subset_name

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
    monkeypatch.setattr(specs, "prepare", lambda *_: inputs)
    members = resolve(specs.load_specs([spec]), lambda _: inputs)
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


def _both(room):
    """Of a cell at rest, and of one at work."""
    _report(room)
    for busy in (False, True):
        cells.Cell.busy = lambda _, busy=busy: busy
        _status(room)


FILES = {"state.json": STATE, "roles.json": ROLES, "history.json": HISTORY, "lineage.json": LINEAGE}
#: What reads the file.
LOOKS = {"state.json": _both, "roles.json": _status, "history.json": _report, "lineage.json": _report}


@pytest.mark.parametrize("name", FILES)
def test_values_in_a_cells_files(room, cell, fuzz, mutations, name):
    path = cell.folder / name

    def look():
        LOOKS[name](room)
        hunt.validated(cell)

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


def test_the_journal(room, cell, fuzz, mutations):
    journal = Journal(cell.folder)
    journal.append("tags", values={"a": "b"})
    journal.append("epoch", step=1, values={"validation/dice/mean": 0.5})
    journal.append("metrics", step=1, values={"x": 1.0})
    journal.mark(1, "run")
    wholes = {path: path.read_bytes() for path in (journal.path, cell.folder / "tracking.sent")}
    (cell.folder / "history.json").unlink()

    def look():
        hunt.validated(cell)
        Journal(cell.folder).append("tags", values={"c": "d"})

    for path, whole in wholes.items():

        def attempt(content, path=path, whole=whole):
            path.write_bytes(content)
            room.tries("journal", look, [path.name])
            path.write_bytes(whole)

        fuzz(mutations.damaged(whole), 25, attempt)
