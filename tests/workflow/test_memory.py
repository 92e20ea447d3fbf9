"""A home without its cases: `status` and `report` name its cells by what these remember."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml

from acdis import files
from acdis.cells import Cell
from acdis.data import phantom
from acdis.errors import UserError
from acdis.evaluation.records import Record, write_parquet
from acdis.terminal.progress import Display
from acdis.verbs.report import ReportRequest, report
from acdis.verbs.status import status
from acdis.vocabulary import REGIONS, SUBSETS, subset_name
from acdis.workflow.jobs import job_of
from acdis.workflow.opening import open_specs

SPEC = {
    "title": "Two rates",
    "base": "small.yaml",
    "seeds": [0, 1],
    "baseline": "slow",
    "rows": {
        "slow": {"label": "slow", "set": {"training.learning_rate": 1.0e-4}},
        "fast": {"label": "fast", "set": {"training.learning_rate": 1.0e-3}},
    },
}


def _scores() -> list[Record]:
    return [
        Record("case", subset_name(subset), region, 0.5, 0.5 if region == "ET" else None, 3.0, 1, 1, 1.0)
        for subset in SUBSETS
        for region in REGIONS
    ]


@pytest.fixture
def lab(tmp_path: Path) -> Path:
    """A folder with cases, a spec, and a home in which three of the four cells are done."""
    phantom.write(tmp_path / "cases", 4, seed=3, shape=(24, 24, 24), spacing=7.0)
    data = {
        "root": str(tmp_path / "cases"),
        "split": {"counts": [2, 1, 1]},
        "min_size": 16,
        "crop": [16, 16, 16],
    }
    window = {"window": [16, 16, 16], "stride": [16, 16, 16]}
    (tmp_path / "small.yaml").write_text(yaml.safe_dump({"data": data, "evaluation": window}))
    (tmp_path / "rates.yaml").write_text(yaml.safe_dump(SPEC, sort_keys=False))
    base = tmp_path / "home"
    with Display() as display:
        members = open_specs([tmp_path / "rates.yaml"], None, [], None, None, base, display)
    for member in members[:3]:
        job = job_of(member.experiment, member.inputs, base, {})
        job.cell.add_role(spec="rates", table="rates", row=member.row.id, seed=member.seed)
        job.cell.update(status="done", evaluation=member.evaluation)
        job.cell.weights.write_text("weights")
        job.evaluation.mkdir(parents=True)
        write_parquet(job.evaluation / "records.parquet", _scores())
    return tmp_path


def _moved(lab: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The home on a laptop; the cases stay where they were, which the laptop does not see."""
    shutil.move(lab / "home", lab / "laptop")
    shutil.rmtree(lab / "cases")
    shutil.rmtree(lab / "laptop" / "cache")
    monkeypatch.setenv("ACDIS_HOME", str(lab / "laptop"))
    return lab / "laptop"


def _told(lab: Path, capsys: pytest.CaptureFixture[str]) -> tuple[str, str]:
    capsys.readouterr()
    status([lab / "rates.yaml"], None, [], None, None, once=True)
    stood = capsys.readouterr().out
    report(ReportRequest([lab / "rates.yaml"]))
    return stood, capsys.readouterr().out


def test_status_and_report_of_a_moved_home_work_without_the_cases(
    lab: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ACDIS_HOME", str(lab / "home"))
    stood, text = _told(lab, capsys)
    assert "4 cells: 3 done, 1 missing" in stood
    _moved(lab, monkeypatch)
    now, again = _told(lab, capsys)
    assert "the cases cannot be read" in now
    assert now.endswith(stood.splitlines(keepends=True)[-1])
    assert again == text
    assert "3 of 4 cells are scored" in text


def test_what_a_cell_was_trained_on_elsewhere_is_another_cell(
    lab: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Other settings of the data, or two memories of them: there is no telling, and the reason is given."""
    base = _moved(lab, monkeypatch)
    with pytest.raises(UserError, match="cases"):
        status([lab / "rates.yaml"], None, ["data.split.counts=[1, 1, 2]"], None, None, once=True)
    first = Cell(next(iter(sorted((base / "cells").iterdir()))))
    known = first.lineage()
    files.write_json(first.folder / "lineage.json", {**known, "fingerprints": {"learnt": "x", "scored": "y"}})
    with pytest.raises(UserError, match="cases"):
        status([lab / "rates.yaml"], None, [], None, None, once=True)


def test_cells_of_cases_that_are_no_longer_prepared_keep_their_names(
    lab: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ACDIS_HOME", str(lab / "home"))
    stood, text = _told(lab, capsys)
    shutil.rmtree(lab / "home" / "cache")
    now, again = _told(lab, capsys)
    assert (
        "the cases are not prepared here yet (`ablate` does it); cells are named by what they remember" in now
    )
    assert now.endswith(stood.splitlines(keepends=True)[-1])
    assert again == text
    assert not list((lab / "home" / "cache").glob("[!.]*"))


def test_nothing_is_trained_on_what_is_remembered(lab: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = _moved(lab, monkeypatch)
    with Display() as display, pytest.raises(UserError, match="cases"):
        open_specs([lab / "rates.yaml"], None, [], None, None, base, display)
