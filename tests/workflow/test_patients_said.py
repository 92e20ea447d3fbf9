"""`data.patients` may be said once cells are trained: their scores and lineage follow."""

from __future__ import annotations

from pathlib import Path

from acdis import config, methods
from acdis.data.inputs import Inputs
from acdis.data.prepared_case import Entry
from acdis.data.preprocess import Box, Meta
from acdis.evaluation.records import Record, read_parquet, write_parquet
from acdis.workflow.jobs import job_of

META = Meta(Box((0, 0, 0), (1, 1, 1)), (1, 1, 1), (1.0, 1.0, 1.0), (1, 1, 1), (1.0, 1.0, 1.0), ((1.0,),))


def _inputs(**patients: str) -> Inputs:
    entries = [Entry(name, Path(name), "f", META, patient) for name, patient in patients.items()]
    return Inputs(tuple(entries[:2]), (), tuple(entries[2:]))


def test_scores_and_lineage_follow_what_is_said_of_patients(tmp_path: Path) -> None:
    experiment = methods.resolve(config.parse({"method": {"name": "rfnet"}}, "test"))
    before = job_of(experiment, _inputs(A_1="A_1", A_2="A_2", B_1="B_1", B_2="B_2"), tmp_path, {})
    rows = [Record(case, "T1", "WT", 0.5, None, None, 1, 1, 1.0) for case in ("B_1", "B_2", "gone")]
    before.evaluation.mkdir(parents=True)
    write_parquet(before.evaluation / "records.parquet", rows)
    after = job_of(experiment, _inputs(A_1="A", A_2="A", B_1="B", B_2="B"), tmp_path, {})
    assert after.cell == before.cell
    assert after.cell.lineage()["patients"] == {"A_1": "A", "A_2": "A"}
    scored = read_parquet(after.evaluation / "records.parquet")
    assert [(row.case, row.patient) for row in scored] == [("B_1", "B"), ("B_2", "B"), ("gone", "gone")]
    assert {row.dice for row in scored} == {0.5}
