"""The 15 × 3 table against scores made by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from acdis.evaluation.records import Record, summarise
from acdis.evaluation.scores import from_records
from acdis.report import tables
from acdis.vocabulary import MODALITIES, REGIONS, SUBSETS, subset_name


def _dice(case: int, subset: int, region: int) -> float:
    """A number that no other place of the table has."""
    return ((case * 15 + subset) * 3 + region + 1) / 100


def _records(cases: int = 2, hd95: bool = True, empty_et: bool = False) -> list[Record]:
    made = []
    for case in range(cases):
        for number, subset in enumerate(SUBSETS):
            for place, region in enumerate(REGIONS):
                et = region == "ET"
                truth = 0 if et and empty_et else 40
                made.append(
                    Record(
                        case=f"case{case}",
                        subset=subset_name(subset),
                        region=region,
                        dice=_dice(case, number, place) if truth else 1.0,
                        dice_et500=0.5 if et else None,
                        hd95=float(10 * number + place) if hd95 else None,
                        predicted_voxels=30 if truth else 0,
                        truth_voxels=truth,
                        voxel_volume=1.0,
                    )
                )
    return made


def _cells(text: str) -> list[list[str]]:
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_every_figure_stands_where_it_belongs() -> None:
    text = tables.markdown(summarise(_records()), "a title", ["a note"])
    head, rule, *body = _cells(text)
    assert head == [*MODALITIES, "WT %", "TC %", "ET %", "ET500 %", "WT HD95 mm", "TC HD95 mm", "ET HD95 mm"]
    assert all(set(cell) <= {"-", ":"} for cell in rule)
    assert len(body) == 16
    for number, subset in enumerate(SUBSETS):
        row = body[number]
        assert [mark == "●" for mark in row[:4]] == [modality in subset for modality in MODALITIES]
        wanted = [
            f"{100 * (_dice(0, number, place) + _dice(1, number, place)) / 2:.2f}" for place in range(3)
        ]
        assert row[4:7] == wanted
        assert row[7:] == ["50.00", *(f"{10 * number + place:.2f}" for place in range(3))]
    mean = body[-1]
    assert mean[:4] == ["mean", "of", "15", ""]
    for place in range(3):
        every = [_dice(case, number, place) for case in range(2) for number in range(15)]
        assert mean[4 + place] == f"{100 * math.fsum(every) / 30:.2f}"
    assert text.startswith("# a title\n")
    assert text.rstrip().endswith("a note")


def test_all_lines_are_of_one_length() -> None:
    lines = [
        line for line in tables.markdown(summarise(_records()), "t", []).splitlines() if line.startswith("|")
    ]
    assert len({len(line) for line in lines}) == 1


def test_without_distances_there_are_no_columns_for_them() -> None:
    head, *_ = _cells(tables.markdown(summarise(_records(hd95=False)), "t", []))
    assert head == [*MODALITIES, "WT %", "TC %", "ET %", "ET500 %"]


def test_a_case_without_enhancing_tumour_counts_100() -> None:
    *_, mean = _cells(tables.markdown(summarise(_records(cases=1, empty_et=True)), "t", []))
    assert mean[6] == "100.00"


@pytest.mark.parametrize("minimum", [500.0, 0.0])
def test_the_notes_say_how_to_read_it(minimum: float) -> None:
    records = [replace(each, dice=0.5) for each in _records(3)]
    lost = [
        replace(each, hd95=373.13) if (each.case, each.region) == ("case1", "ET") else each
        for each in records
    ]
    said = " ".join(tables.notes(from_records(lost), minimum))
    assert "3 cases" in said
    assert "one empty 373.13 (a penalty); penalties: WT 0, TC 0, ET 15 of 45 scores each." in said
    assert "HD95" not in " ".join(tables.notes(from_records(_records(2, hd95=False)), minimum))
    assert f"{minimum:g} mm³" in said
