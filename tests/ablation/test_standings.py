"""How cells stand, on folders made by hand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from acdis import home
from acdis.ablation.expansion import Member, resolve
from acdis.ablation.spec import load
from acdis.ablation.standings import Standing, counted, survey
from acdis.cells import Cell
from acdis.data.inputs import Inputs
from acdis.files import write_json

SPEC = "base: base.yaml\nbaseline: a\nseeds: [0, 1]\nrows:\n  a: {}\n  b: {set: {training.epochs: 9}}\n"


@pytest.fixture
def members(write: Callable[..., Path], inputs: Inputs) -> list[Member]:
    return resolve([load(write(SPEC))], lambda _: inputs)


def _cell(base: Path, name: str, **state: object) -> Cell:
    cell = Cell(home.cells(base) / name)
    cell.folder.mkdir(parents=True)
    if state:
        cell.update(**state)
    return cell


def _finish(base: Path, member: Member, scored: bool = True, **state: object) -> Cell:
    cell = _cell(base, member.cell, **({"status": "done"} | state))
    cell.weights.write_bytes(b"w")
    if scored:
        scores = cell.evaluations / member.evaluation / "records.parquet"
        scores.parent.mkdir(parents=True)
        scores.write_bytes(b"r")
    return cell


def _statuses(standings: list[Standing]) -> list[str]:
    return [each.status for each in standings]


def test_without_a_folder_everything_is_missing(members: list[Member], tmp_path: Path) -> None:
    standings = survey(members, tmp_path / "home")
    assert _statuses(standings) == ["missing"] * 4
    assert [each.member for each in standings] == members
    assert standings[0].state == {}
    assert not (tmp_path / "home").exists()


def test_each_way_to_stand(members: list[Member], tmp_path: Path) -> None:
    _finish(tmp_path, members[0])
    running = _cell(tmp_path, members[1].cell, status="training", epoch=3)
    _cell(tmp_path, members[2].cell, status="failed", reason="the loss became NaN")
    _cell(tmp_path, members[3].cell, status="training")  # its process is dead: nobody holds the lock
    with running.alone():
        standings = survey(members, tmp_path)
    assert _statuses(standings) == ["done", "running", "failed", "missing"]
    assert standings[1].state["epoch"] == 3
    assert standings[2].state["reason"] == "the loss became NaN"
    assert [each.word for each in standings] == ["done", "running", "failed", "stopped"]
    assert counted(standings) == "4 cells: 1 done, 1 running, 1 failed, 1 stopped"
    assert survey(members, tmp_path)[1].status == "missing"
    assert survey(members, tmp_path / "none")[1].word == "missing"


def test_a_failed_cell_that_is_tried_again_is_running(members: list[Member], tmp_path: Path) -> None:
    with _cell(tmp_path, members[0].cell, status="failed").alone():
        assert survey(members, tmp_path)[0].status == "running"


def test_done_takes_weights_scores_and_the_word(members: list[Member], tmp_path: Path) -> None:
    _finish(tmp_path, members[0], scored=False)
    _finish(tmp_path, members[1], status="scored")
    _finish(tmp_path, members[2]).weights.unlink()
    _finish(tmp_path, members[3])
    assert _statuses(survey(members, tmp_path)) == ["missing", "missing", "missing", "done"]


def test_without_test_cases_weights_are_enough(members: list[Member], tmp_path: Path) -> None:
    _finish(tmp_path, members[0], scored=False)
    without = replace(members[0], inputs=replace(members[0].inputs, test=()))
    assert survey([without], tmp_path)[0].status == "done"


def test_scores_of_another_evaluation_do_not_count(members: list[Member], tmp_path: Path) -> None:
    _finish(tmp_path, members[0])
    assert survey([replace(members[0], evaluation="0" * 12)], tmp_path)[0].status == "missing"


def test_a_damaged_state_counts_as_none(members: list[Member], tmp_path: Path) -> None:
    cell = _finish(tmp_path, members[0])
    (cell.folder / "state.json").write_text('{"status": "do')
    (Cell(tmp_path / "cells" / members[1].cell).folder).mkdir()
    (tmp_path / "cells" / members[1].cell / "lineage.json").touch()
    first, second, *others = survey(members, tmp_path)
    assert first.status == "missing"
    assert first.state["status"] == "damaged"
    assert "state.json: is damaged" in first.damage[0]
    assert "lineage.json: is damaged (it is empty)" in second.damage[0]
    assert [each.damage for each in others] == [(), ()]


def test_older_names_of_a_row_and_seed_are_stale(members: list[Member], tmp_path: Path) -> None:
    role = {"spec": "own", "table": "own", "row": "a", "seed": 0}
    _finish(tmp_path, members[0]).add_role(**role)
    _cell(tmp_path, "acdis-0123456789ab", status="done").add_role(**role)
    _cell(tmp_path, "acdis-ba9876543210").add_role(**(role | {"spec": "other"}))
    broken = _cell(tmp_path, "acdis-ffffffffffff")
    write_json(broken.folder / "roles.json", {})
    (broken.folder / "roles.json").write_text("[")
    stale = [each.stale for each in survey(members, tmp_path)]
    assert stale == [("acdis-0123456789ab",), (), (), ()]
