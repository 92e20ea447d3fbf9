"""Which cases of another folder a model has seen: they are left out unless asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from acdis import cells, config, methods
from acdis.cells import Cell
from acdis.data import phantom
from acdis.data.inputs import Inputs
from acdis.data.prepared_case import Entry
from acdis.data.preprocess import Box, Meta
from acdis.errors import UserError
from acdis.prediction.hand_on import without_names
from acdis.terminal.progress import Display
from acdis.workflow import score_again as again
from acdis.workflow.jobs import job_of
from acdis.workflow.score_again import unseen

META = Meta(Box((0, 0, 0), (1, 1, 1)), (1, 1, 1), (1.0, 1.0, 1.0), (1, 1, 1), (1.0, 1.0, 1.0), ((1.0,),))


WINDOW = {"evaluation": {"window": [16, 16, 16], "stride": [16, 16, 16]}}
SEEN = {
    "splits": {"train": ["A", "BraTS-GLI-00001-000"], "validation": ["V"], "test": ["T"]},
    "voxels": {"A": "aa", "BraTS-GLI-00001-000": "bb"},
    "patients": {"A": "Anna"},
}


def make(base: Path, name: str, lineage: dict[str, Any], **parents: str) -> Cell:
    tree = {"method.name": "gss", "method.parents": parents} if parents else {}
    return cells.create(base, name, config.parse(config.overlaid({}, tree), "test"), lineage)


@pytest.fixture
def cell(tmp_path: Path) -> Cell:
    return make(tmp_path, "acdis-000000000123", SEEN)


def entry(name: str, patient: str = "", voxels: str = "other") -> Entry:
    return Entry(name, Path(name), "f", META, patient or name, voxels)


def test_names_patients_and_voxels_are_known_again(cell: Cell) -> None:
    entries = [
        entry("A"),
        entry("V"),
        entry("BraTS-GLI-00001-001", "BraTS-GLI-00001"),
        entry("scan 2", "Anna"),
        entry("renamed", voxels="bb"),
        entry("T"),
        entry("new"),
    ]
    said: list[str] = []
    assert [each.name for each in unseen(cell, entries, said.append)] == ["T", "new"]
    (line,) = said
    assert line.startswith(
        "5 of 7 cases have trained or chosen these weights (2 by name, 2 by patient, 1 by voxels)"
    )
    assert "--with-trained scores them too" in line


def test_nothing_is_said_where_nothing_was_seen(cell: Cell) -> None:
    said: list[str] = []
    assert len(unseen(cell, [entry("new")], said.append)) == 1
    assert said == []


def test_none_left_is_an_error(cell: Cell) -> None:
    with pytest.raises(
        UserError, match=r"1 of 1 cases have trained .* none is left to score; --with-trained"
    ):
        unseen(cell, [entry("A")], print)


def test_what_a_parents_parent_has_seen_was_seen(cell: Cell, tmp_path: Path) -> None:
    """Also once the child is given away; a parent that is not here is named."""
    own = {"splits": {"train": ["C"], "validation": [], "test": ["T"]}}
    between = make(tmp_path, "rfnet-000000000456", own, start=cell.name)
    child = make(tmp_path, "gss-000000000789", own, start=between.name, teacher="rfnet-ffffffffffff")
    entries = [entry("A"), entry("scan 2", "Anna"), entry("renamed", voxels="bb"), entry("C"), entry("new")]
    said: list[str] = []
    assert [each.name for each in unseen(child, entries, said.append)] == ["new"]
    assert said[0].startswith(
        "rfnet-ffffffffffff: a parent of gss-000000000789 that is not here; whom it has"
    )
    said.clear()
    given = make(tmp_path / "theirs", "gss-000000000789", without_names(child))
    assert [each.name for each in unseen(given, entries, said.append)] == ["new"]
    assert len(said) == 1  # what was left out; parents need not be here


def test_a_parent_that_has_seen_the_test_cases_is_refused(cell: Cell, tmp_path: Path) -> None:
    experiment = config.parse({"method": {"name": "gss", "parents": {"start": cell.name}}}, "test")
    inputs = Inputs((entry("new"),), (), (entry("T"), entry("scan 2", "Anna")))
    words = rf"method\.parents\.start: {cell.name} was trained or chosen on 1 of the 2 test cases \(scan 2\)"
    with pytest.raises(UserError, match=words):
        job_of(experiment, inputs, tmp_path, {})
    assert job_of(experiment, Inputs((entry("scan 2", "Anna"),), (), (entry("T"),)), tmp_path, {}).cell


@pytest.mark.parametrize(("with_trained", "scored"), [(False, [2, 3]), (True, [1, 2, 3])])
def test_another_folder_is_scored_without_what_was_seen_unless_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, with_trained: bool, scored: list[int]
) -> None:
    """And what named files, labels and patients of the training's folder is not the other's."""
    phantom.write(tmp_path / "cases", 3, 0, (20, 20, 20), 8.0)
    tree = {"min_size": 16, "crop": [16, 16, 16], "scheme": "brats2023", "patients": "(P)_.*"}
    experiment = methods.resolve(config.parse({"data": tree, "method": {"name": "rfnet"}, **WINDOW}, "test"))
    splits = {"train": ["Phantom_00001"], "validation": [], "test": ["Phantom_00002"]}
    cell = cells.create(tmp_path, "rfnet-000000000123", experiment, {"splits": splits})
    cell.weights.write_bytes(b"weights")
    cell.update(status="done")
    monkeypatch.setattr(again, "_score", lambda job, display: None)
    monkeypatch.setattr(again, "_publish", lambda job: "")
    request = again.Request(cell.name, tmp_path / "cases", with_trained=with_trained)
    with Display() as display:
        job = again.score_again(request, tmp_path, display).job
    assert [int(entry.name[-5:]) for entry in job.inputs.test] == scored
    assert {entry.source.scheme.name for entry in job.inputs.test if entry.source} == {"brats2021"}
