"""Scores by kind of case, against plain sums over the cases of each kind; tables of sites, distrusted."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from acdis.errors import UserError
from acdis.evaluation.floor_files import Floors
from acdis.evaluation.floors import Thresholds, given
from acdis.evaluation.records import Record
from acdis.evaluation.scores import Scores, from_records
from acdis.report import floors, strata
from acdis.report.facts import RowScores
from acdis.vocabulary import REGIONS, SUBSETS, subset_name

CASES = [f"case{number}" for number in range(7)]
VOXELS = {"WT": [900, 100, 500, 300, 700, 200, 800], "TC": [90] * 7, "ET": [30, 0, 20, 0, 10, 5, 7]}


def scores(seed: int) -> Scores:
    draw = np.random.default_rng(seed)
    return from_records(
        [
            Record(
                case=case,
                subset=subset_name(subset),
                region=region,
                dice=float(draw.random()),
                dice_et500=0.5 if region == "ET" else None,
                hd95=None,
                predicted_voxels=1,
                truth_voxels=VOXELS[region][place],
                voxel_volume=8.0,
                patient=f"patient{place}",
            )
            for place, case in enumerate(CASES)
            for subset in SUBSETS
            for region in REGIONS
        ]
    )


def row_of(name: str, *seeds: Scores) -> RowScores:
    return RowScores(name, name, None, None, dict(enumerate(seeds)), {}, ())


ROWS = [row_of("a", scores(0), scores(1)), row_of("b", scores(2))]


def table(groups: strata.Groups) -> dict[tuple[str, str], tuple[str, ...]]:
    section = strata.section(ROWS, {"a": "Row A", "b": "Row B"}, groups)
    assert section
    assert section.table
    return {(line[0], line[1]): line[2:] for line in section.table.body}


def expected(row: RowScores, places: list[int]) -> list[str]:
    every = [each.dice[places].mean(axis=(0, 1)) for each in row.seeds.values()]
    return [str(len(places)), *(f"{100 * sum(value) / len(every):.2f}" for value in zip(*every, strict=True))]


def test_floors_are_those_of_the_same_cases() -> None:
    draw = np.random.default_rng(9)
    brain, fitted = draw.random((7, 3)), draw.random((7, 15, 3))
    rule = {given(subset): Thresholds(1.0, None, None) for subset in SUBSETS}
    held = Floors(5, rule, tuple(reversed(CASES)), brain[::-1], fitted[::-1])
    rows = [row_of("a", replace(scores(0), floors=held)), row_of("b", scores(2))]
    section = strata.section(rows, {"a": "Row A", "b": "Row B"}, {})
    assert section
    assert section.table
    lines = {(line[0], line[1]): line[2:] for line in section.table.body}
    without = [place for place, voxels in enumerate(VOXELS["ET"]) if not voxels]
    for label, values in ((floors.BRAIN, brain[without]), (floors.RULE, fitted[without].mean(axis=1))):
        due = [f"{100 * value:.2f}" for value in values.mean(axis=0)]
        assert list(lines[label, "no ET"]) == [str(len(without)), *due]


def test_truth_tells_kinds_apart() -> None:
    found = table({})
    with_et = [place for place, voxels in enumerate(VOXELS["ET"]) if voxels]
    kinds = {
        "ET": with_et,
        "no ET": [1, 3],
        "a small lesion (0.8 to 2.4 ml)": [1, 3, 5],
        "a middle lesion (4 to 5.6 ml)": [2, 4],
        "a large lesion (6.4 to 7.2 ml)": [0, 6],
    }
    assert [kind for row, kind in found if row == "Row A"] == list(kinds)
    for row in ROWS:
        for kind, places in kinds.items():
            assert list(found[f"Row {row.id.upper()}", kind]) == expected(row, places)


def test_sites_by_case_or_patient() -> None:
    sites = dict(zip([*CASES[:3], "patient3", "patient4"], "AABBA", strict=True))
    found = table({"site": sites, "same": dict.fromkeys(CASES, "x")})
    assert list(found["Row B", "site A"]) == expected(ROWS[1], [0, 1, 4])
    assert list(found["Row B", "site B"]) == expected(ROWS[1], [2, 3])
    assert list(found["Row B", "site not known"]) == expected(ROWS[1], [5, 6])
    assert not [kind for _, kind in found if kind.startswith("same")]  # one group of all says nothing


def test_a_grid_is_left_alone() -> None:
    many = [row_of(str(number), ROWS[0].seeds[0]) for number in range(strata.MOST_ROWS + 1)]
    assert strata.section(many, {row.id: row.id for row in many}, {}) is None
    assert strata.section([row_of("a")], {}, {}) is None


def test_a_table_of_sites(tmp_path: Path) -> None:
    path = tmp_path / "sites.csv"
    path.write_text("﻿case,site,grade\ncase0, A ,HGG\n\ncase1,B,LGG\n", encoding="utf-8")
    assert strata.read_groups(path) == {
        "site": {"case0": "A", "case1": "B"},
        "grade": {"case0": "HGG", "case1": "LGG"},
    }


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "give a header such as case,site"),
        ("case\ncase0\n", "give a header such as case,site"),
        ("case,site\n", "give a header such as case,site"),
        ("case,site\na,A\na,B\n", "line 3: a is there twice"),
        ("case,site\na,A,B\n", "line 2: 3 values where the header has 2"),
        (
            "case,site\n" + "".join(f"c{n},{n}\n" for n in range(13)),
            "site has 13 different values; at most 12",
        ),
        ("case,site\n" + "x" * 200_000, "cannot be read"),
    ],
)
def test_what_is_wrong_with_it(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "sites.csv"
    path.write_text(text)
    with pytest.raises(UserError, match=said) as error:
        strata.read_groups(path)
    assert str(path) in str(error.value)
