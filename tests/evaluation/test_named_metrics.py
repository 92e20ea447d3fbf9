"""`evaluation.metrics`: values by hand and by MONAI; from the setting to records, summary and table."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import get_type_hints

import numpy as np
import pyarrow.parquet as pq
import pytest

from acdis.config import Evaluation
from acdis.errors import UserError
from acdis.evaluation.metrics import score_case
from acdis.evaluation.named_metrics import named
from acdis.evaluation.records import Record, read_parquet, summarise, write_parquet
from acdis.evaluation.scores import from_records, read_file
from acdis.report import tables
from acdis.vocabulary import FURTHER_METRICS, NAMED_METRICS, REGIONS

SPACING = (0.5, 1.0, 3.0)
ALL = ("brats2023", "brats2026", "nsd", "volume", "sensitivity", "precision")


def mask(*voxels: tuple[slice, ...]) -> np.ndarray:
    made = np.zeros((12, 8, 8), dtype=bool)
    for voxel in voxels:
        made[voxel] = True
    return made


EMPTY = mask()
TRUTH = mask(np.s_[2:6, 2:4, 2:4])  # 16 voxels of 1.5 mm³
PREDICTION = mask(np.s_[3:8, 2:4, 2:4])  # 20, of which 12 are right


def test_values_by_hand() -> None:
    """|20 − 16|·1.5 mm³ = 0.006 ml; sensitivity 12/16, precision 12/20.

    Layers are 0.5 mm apart and all voxels are surface. Truth's layer 2 is 0.5 mm off, the prediction's 6 and
    7 are 0.5 and 1 mm: all within 1 mm.
    """
    found = named(("nsd", "volume", "sensitivity", "precision"), PREDICTION, TRUTH, SPACING)
    assert found == {
        "nsd_1mm": 1.0,
        "nsd_2mm": 1.0,
        "volume_difference_ml": pytest.approx(0.006),
        "sensitivity": 0.75,
        "precision": 0.6,
    }


def test_tolerances_are_mm() -> None:
    """Moved by 3 mm along the last axis, half of 2 layers stays: 3 mm is beyond both tolerances."""
    moved = mask(np.s_[2:6, 2:4, 3:5])
    found = named(("nsd",), moved, TRUTH, SPACING)
    assert found == {"nsd_1mm": 0.5, "nsd_2mm": 0.5}
    along = mask(np.s_[5:9, 2:4, 2:4])  # by 3 layers of 0.5 mm: of 4 layers at 1.5, 1, 0.5, 0 mm 3 are near
    assert named(("nsd",), along, TRUTH, SPACING) == {"nsd_1mm": 0.75, "nsd_2mm": 1.0}


@pytest.mark.parametrize("seed", range(4))
def test_nsd_is_monais(seed: int) -> None:
    import torch
    from monai.metrics import compute_surface_dice

    draw = np.random.default_rng(seed)
    pair = [draw.random((9, 8, 7)) < share for share in (0.2, 0.5)]
    found = named(("nsd",), *pair, SPACING)
    batch = [torch.from_numpy(each)[None, None] for each in pair]
    for tolerance in (1, 2):
        monai = compute_surface_dice(*batch, [tolerance], include_background=True, spacing=list(SPACING))
        assert found[f"nsd_{tolerance}mm"] == pytest.approx(monai.item(), rel=1e-6)


@pytest.mark.parametrize(
    ("prediction", "truth", "values"),
    [
        (EMPTY, EMPTY, (1, 0, 0, 0, 0, 1, 1, 0, 1, 1, 1, 0, 1, 1)),
        (TRUTH, EMPTY, (0, 374, 0, 0, 1, 0, 0, 373, 0, 0, 0, 0.024, 1, 0)),
        (EMPTY, TRUTH, (1, 0, 0, 0, 0, 0, 0, 373, 0, 0, 0, 0.024, 0, 1)),
        (~EMPTY, ~EMPTY, (1, 0, 1, 0, 0, 1, 1, 0, 1, 1, 1, 0, 1, 1)),
    ],
    ids=["both empty", "false", "missed, and below 50 voxels", "full"],
)
def test_empty_and_full_masks(prediction: np.ndarray, truth: np.ndarray, values: tuple[float, ...]) -> None:
    found = named(ALL, prediction, truth, SPACING)
    assert (*found, "ece") == FURTHER_METRICS
    assert tuple(found.values()) == pytest.approx(values)


def test_records_have_a_field_for_every_metric() -> None:
    kinds = get_type_hints(Record)
    assert [name for name in kinds if name in FURTHER_METRICS] == list(FURTHER_METRICS)
    assert {kinds[name] for name in FURTHER_METRICS} == {float | None}


def scored(metrics: tuple[str, ...]) -> list[Record]:
    """Two cases, ET alone, the first with a false speck far from the lesion."""
    truth = np.zeros((20, 20, 20), dtype=np.int64)
    truth[2:6, 2:6, 2:6] = 3
    speck = truth.copy()
    speck[18, 18, 18] = 3
    settings = Evaluation(metrics=metrics)
    return [
        row
        for name, labels in (("a", speck), ("b", truth))
        for row in score_case(name, [labels] * 15, truth, (1.0, 1.0, 1.0), settings)
    ]


def test_from_the_setting_to_the_summary(tmp_path: Path) -> None:
    """Lesion-wise Dice ½ and 1, HD95 187 and 0 mm; one false lesion in two cases."""
    rows = scored(("brats2023", "precision"))
    write_parquet(path := tmp_path / "records.parquet", rows)
    assert read_parquet(path) == rows
    given = [*NAMED_METRICS["brats2023"], "precision"]
    assert pq.read_schema(path).names[10:] == given
    summary = summarise(rows)
    for region in REGIONS:
        assert summary[f"lesion_dice/{region}/FLAIR_T1ce"] == summary[f"lesion_dice/{region}/mean"] == 0.75
        assert summary[f"lesion_hd95/{region}/mean"] == 93.5
        assert summary[f"lesions_false/{region}/mean"] == 0.5
    assert summary["precision/ET/T2"] == pytest.approx((1 + 64 / 65) / 2)
    assert not any(name.startswith(("nsd", "instance")) for name in summary)
    for scores in (read_file(path), from_records(rows)):
        assert set(scores.further) == set(given)
        assert scores.further["lesion_dice"].tolist() == [[[0.5] * 3] * 15, [[1.0] * 3] * 15]
    text = tables.markdown(summary, "t", ())
    assert "| lesion_dice | 0.750 | 0.750 | 0.750 |" in text
    assert "lesion_hd95 in mm, mean over lesions: each that is missed or false counts 374" in text
    assert "instance_hd95" not in text
    assert "counts 373" in tables.markdown(summarise(scored(("brats2026",))), "t", ())
    assert "hd95 in mm" not in tables.markdown(summarise(scored(("precision",))), "t", ()).lower()


def test_without_a_metric_files_are_what_they_were(tmp_path: Path) -> None:
    rows = scored(())
    write_parquet(path := tmp_path / "records.parquet", rows)
    assert pq.read_schema(path).names[-1] == "patient"
    assert read_file(path).further == {}
    assert {name.partition("/")[0] for name in summarise(rows)} == {"dice", "dice_et500", "hd95"}
    assert "mean of 15" not in tables.markdown(summarise(rows), "t", ())


@pytest.mark.parametrize("value", [None, -0.5, 1.5, float("nan"), float("inf")])
def test_a_score_that_cannot_be_is_refused(value: float | None, tmp_path: Path) -> None:
    rows = scored(("brats2023",))
    rows[7] = replace(rows[7], lesion_dice=value)
    with pytest.raises(UserError, match="lesion_dice of a T1 TC"):
        summarise(rows)
    write_parquet(path := tmp_path / "records.parquet", rows)
    with pytest.raises(UserError, match="lesion_dice of a T1 TC"):
        read_file(path)
    rows[7] = replace(rows[7], lesion_dice=0.5, lesion_hd95=1e4)
    assert summarise(rows)["lesion_hd95/TC/T1"] == 5000


def test_names_are_checked_and_their_order_does_not_matter() -> None:
    assert Evaluation(metrics=("nsd", "brats2023", "nsd")).metrics == ("brats2023", "nsd")
    with pytest.raises(ValueError, match="'lesions' is no metric; known are brats2023, "):
        Evaluation(metrics=("lesions",))
    with pytest.raises(ValueError, match="brats2023 and brats2023_met give the same scores"):
        Evaluation(metrics=("brats2023_met", "brats2023"))
    alone = Evaluation(metrics=("nsd",)).dice_alone()
    assert (alone.metrics, alone.hd95) == ((), False)


def test_every_name_gives_its_metrics() -> None:
    for name, metrics in NAMED_METRICS.items():
        given = () if name == "calibration" else metrics  # of probabilities, which masks do not tell
        assert tuple(named((name,), PREDICTION, TRUTH, SPACING)) == given
