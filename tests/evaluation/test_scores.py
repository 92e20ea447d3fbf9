"""Columns against records read one by one."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from acdis.errors import UserError
from acdis.evaluation.records import Record, read_parquet, summarise, write_parquet
from acdis.evaluation.scores import from_records, read_file
from acdis.vocabulary import REGIONS, SUBSETS, subset_name


def _records(cases: int = 3, hd95: bool = True) -> list[Record]:
    draw = random.Random(cases)
    made = [
        Record(
            case=f"case-{case}",
            subset=subset_name(subset),
            region=region,
            dice=draw.random(),
            dice_et500=draw.random() if region == "ET" else None,
            hd95=40 * draw.random() if hd95 else None,
            predicted_voxels=1,
            truth_voxels=1,
            voxel_volume=1.0,
        )
        for case in range(cases)
        for subset in SUBSETS
        for region in REGIONS
    ]
    draw.shuffle(made)
    return made


@pytest.mark.parametrize("hd95", [True, False])
def test_every_value_stands_where_its_record_says(tmp_path: Path, hd95: bool) -> None:
    records = _records(hd95=hd95)
    write_parquet(tmp_path / "records.parquet", records)
    scores = read_file(tmp_path / "records.parquet")
    assert scores.cases == ("case-0", "case-1", "case-2")
    for record in records:
        place = (
            scores.cases.index(record.case),
            [subset_name(subset) for subset in SUBSETS].index(record.subset),
            REGIONS.index(record.region),
        )
        assert scores.dice[place] == record.dice
        if record.region == "ET":
            assert scores.dice_et500[place[:2]] == record.dice_et500
        assert (scores.hd95 is None) == (not hd95)
        assert scores.hd95 is None or scores.hd95[place] == record.hd95
    again = from_records(read_parquet(tmp_path / "records.parquet"))
    assert again.cases == scores.cases
    assert np.array_equal(again.dice, scores.dice)


def test_means_are_those_of_summarise() -> None:
    records = _records(5)
    scores, summary = from_records(records), summarise(records)
    for place, region in enumerate(REGIONS):
        assert scores.dice[..., place].mean() == pytest.approx(summary[f"dice/{region}/mean"])
    assert scores.dice_et500.mean() == pytest.approx(summary["dice_et500/ET/mean"])


def test_cases_in_an_order_of_choice() -> None:
    scores = from_records(_records(3))
    assert np.array_equal(scores.of(["case-2", "case-0"]), scores.dice[[2, 0]])


def _change(records: list[Record], **change: Any) -> list[Record]:
    place = next(number for number, record in enumerate(records) if record.region == "ET")
    return [*records[:place], replace(records[place], **change), *records[place + 1 :]]


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (lambda rows: [], "none to average"),
        (lambda rows: rows[1:], "missing"),
        (lambda rows: [*rows, rows[0]], "there twice"),
        (lambda rows: [*rows[1:], rows[1]], "there twice"),
        (lambda rows: _change(rows, subset="T1_T9"), "unknown subset"),
        (lambda rows: _change(rows, region="XX"), "unknown subset or region"),
        (lambda rows: _change(rows, dice=1.5), "dice of"),
        (lambda rows: _change(rows, dice=float("nan")), "dice of"),
        (lambda rows: _change(rows, dice_et500=None), "dice_et500 of"),
        (lambda rows: _change(rows, hd95=None), "hd95 of"),
        (lambda rows: _change(rows, hd95=float("inf")), "hd95 of"),
    ],
)
def test_nothing_is_averaged_over_a_part(broken: Any, said: str, tmp_path: Path) -> None:
    records = broken(_records())
    with pytest.raises(UserError, match=said):
        from_records(records)
    write_parquet(tmp_path / "records.parquet", records)
    with pytest.raises(UserError, match=rf"records\.parquet: .*{said}"):
        read_file(tmp_path / "records.parquet")


def test_a_file_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"records\.parquet: per-case scores cannot be read"):
        read_file(tmp_path / "records.parquet")
    (tmp_path / "records.parquet").write_bytes(b"PAR1 no more PAR1")
    with pytest.raises(UserError, match=r"records\.parquet: per-case scores cannot be read"):
        read_file(tmp_path / "records.parquet")
