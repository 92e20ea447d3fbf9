"""The small files of a cell: read as they are written, and refused with file and key where they are not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from acdis.cells import Cell, schemas
from acdis.errors import UserError


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ("[1]", "holds a list where a mapping is due"),
        ("{", "is damaged"),
        ("[" * 100_000, "is damaged"),
        ('{"done": "three"}', "done: .*'three'"),
        ('{"step_seconds": NaN}', "step_seconds"),
        ('{"step_seconds": 1e300}', "step_seconds"),
        ('{"peak_bytes": 1e999}', "peak_bytes"),
        ('{"validation": [1]}', "validation"),
        ('{"status": "training", "step": 3}', "step without epoch"),
        ('{"status": "scoring"}', "'scoring' without scored"),
        ('{"epochs": 0}', "epochs"),
    ],
)
def test_a_state_that_is_none(tmp_path: Path, state: str, words: str) -> None:
    (tmp_path / "state.json").write_text(state)
    with pytest.raises(UserError, match=rf"state\.json: .*{words}.*weights and scores stay") as refused:
        Cell(tmp_path).state()
    assert isinstance(refused.value, schemas.DamagedError)


def test_what_a_newer_version_writes_is_kept(tmp_path: Path) -> None:
    state = {"status": "training", "loss": float("nan"), "something": {"new": 1}}
    (tmp_path / "state.json").write_text(json.dumps(state))
    assert Cell(tmp_path).state()["something"] == {"new": 1}


def test_no_file_says_nothing(tmp_path: Path) -> None:
    cell = Cell(tmp_path)
    assert (cell.state(), cell.roles(), cell.history(), cell.hours(), cell.test_cases()) == (
        {},
        [],
        [],
        {},
        [],
    )


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("roles.json", '{"roles": [{"row": "a"}]}', "roles.0.spec"),
        ("history.json", '{"epochs": [{"epoch": 1, "seconds": -1}]}', "epochs.0"),
        ("history.json", '{"epochs": {"1": 2}}', "epochs"),
        ("lineage.json", '{"splits": {"test": ["a", 3]}}', "splits.test.1"),
        ("lineage.json", '{"tags": {"a": {}}}', "tags.a"),
    ],
)
def test_other_files_that_are_none(tmp_path: Path, name: str, text: str, words: str) -> None:
    (tmp_path / name).write_text(text)
    cell = Cell(tmp_path)
    read = {"roles.json": cell.roles, "history.json": cell.history, "lineage.json": cell.lineage}[name]
    with pytest.raises(UserError, match=f"{name}: .*{words}"):
        read()
