"""Test cases that lack modalities, by what they have: against plain means, and damaged files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from acdis.errors import UserError
from acdis.evaluation import incomplete
from acdis.evaluation.records import Record, write_parquet
from acdis.evaluation.scores import from_records
from acdis.report import patterns
from acdis.report.facts import RowScores
from acdis.vocabulary import REGIONS, SUBSETS, Subset, subset_name


def records(case: str, modalities: Subset, seed: int) -> list[Record]:
    draw = np.random.default_rng(seed)
    return [
        Record(
            case=case,
            subset=subset_name(subset),
            region=region,
            dice=float(draw.random()),
            dice_et500=0.5 if region == "ET" else None,
            hd95=None,
            predicted_voxels=1,
            truth_voxels=1,
            voxel_volume=8.0,
        )
        for subset in SUBSETS
        if set(subset) <= set(modalities)
        for region in REGIONS
    ]


def lacking(seed: int) -> list[Record]:
    two = records("b", ("T1", "T2"), seed) + records("a", ("T1", "T2"), seed + 100)
    return records("c", ("FLAIR",), seed + 200) + two


def test_patterns_are_the_cases_with_the_same_modalities() -> None:
    flair, both = incomplete.patterns(lacking(0))
    assert (flair.modalities, flair.cases, flair.subsets) == (("FLAIR",), ("c",), 1)
    assert (both.modalities, both.cases, both.subsets) == (("T1", "T2"), ("a", "b"), 3)
    expected = np.mean([row.dice for row in lacking(0) if row.case in "ab" and row.region == "ET"])
    assert both.summary["dice/ET/mean"] == pytest.approx(expected)


def test_a_section_has_a_line_for_each_row_and_pattern() -> None:
    whole = from_records(records("w", SUBSETS[-1], 9))
    seeds = {seed: replace(whole, incomplete=incomplete.patterns(lacking(seed))) for seed in (0, 1)}
    rows = [
        RowScores("a", "a", None, None, seeds, {}, ()),
        RowScores("b", "b", None, None, {0: whole}, {}, ()),
    ]
    section = patterns.section(rows, {"a": "Row A", "b": "Row B"})
    assert section is not None
    assert section.table is not None
    flair, both = section.table.body
    assert flair[:4] == ("Row A", "FLAIR", "1", "1")
    assert both[:4] == ("Row A", "T1 + T2", "2", "3")
    dice = [row.dice for seed in (0, 1) for row in lacking(seed) if row.case != "c" and row.region == "WT"]
    assert both[4] == f"{100 * np.mean(dice):.2f}"
    assert patterns.section(rows[1:], {"b": "Row B"}) is None


def test_a_file_that_lacks_a_subset_or_is_none_is_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / incomplete.FILE
    assert incomplete.usable(path) == ()
    write_parquet(path, lacking(0)[:-3])
    with pytest.raises(UserError, match="missing: a T1_T2"):
        incomplete.parse(path.read_bytes(), "file")
    path.write_bytes(b"PAR1")
    assert incomplete.usable(path) == ()
    assert str(path) in caplog.text
