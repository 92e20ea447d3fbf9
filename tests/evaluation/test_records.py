"""Per-case records as Parquet, and their averages: by hand, by NumPy and by MONAI's metrics."""

import math
import random
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from acdis.config import Evaluation
from acdis.errors import UserError
from acdis.evaluation.metrics import region_mask, score_case
from acdis.evaluation.records import Record, read_parquet, summarise, write_parquet
from acdis.vocabulary import REGIONS, SUBSETS, subset_name


def records(cases: int = 3, with_hd95: bool = True, seed: int = 0) -> list[Record]:
    """Complete records with scores at random."""
    draw = random.Random(seed)
    return [
        Record(
            case=f"case-{case}",
            subset=subset_name(subset),
            region=region,
            dice=draw.random(),
            dice_et500=draw.random() if region == "ET" else None,
            hd95=40 * draw.random() if with_hd95 else None,
            predicted_voxels=draw.randrange(1000),
            truth_voxels=draw.randrange(1000),
            voxel_volume=8.0,
        )
        for case in range(cases)
        for subset in SUBSETS
        for region in REGIONS
    ]


def test_written_and_read_are_equal_in_value_and_order(tmp_path: Path) -> None:
    for with_hd95 in (True, False):
        written = records(with_hd95=with_hd95)
        write_parquet(tmp_path / "records.parquet", written)
        assert read_parquet(tmp_path / "records.parquet") == written
    assert [path.name for path in tmp_path.iterdir()] == ["records.parquet"]


def test_columns_are_open_to_other_programs(tmp_path: Path) -> None:
    write_parquet(tmp_path / "records.parquet", records())
    schema = pq.read_schema(tmp_path / "records.parquet")
    expected = {
        "case": "string",
        "subset": "string",
        "region": "string",
        "dice": "double",
        "dice_et500": "double",
        "hd95": "double",
        "predicted_voxels": "int64",
        "truth_voxels": "int64",
        "voxel_volume": "double",
        "patient": "string",
    }
    assert {field.name: str(field.type) for field in schema} == expected
    assert [field.name for field in schema if field.nullable] == ["dice_et500", "hd95"]


def test_files_from_before_patients_were_kept_have_a_patient_per_case(tmp_path: Path) -> None:
    path = tmp_path / "records.parquet"
    write_parquet(path, records())
    pq.write_table(pq.read_table(path).drop_columns(["patient"]), path)
    assert read_parquet(path) == records()
    assert {row.patient for row in read_parquet(path)} == {row.case for row in records()}


def test_a_case_has_one_patient() -> None:
    rows = records()
    rows[0] = replace(rows[0], patient="somebody else")
    with pytest.raises(UserError, match="of two patients"):
        summarise(rows)


def test_folder_names_do_not_become_columns(tmp_path: Path) -> None:
    folder = tmp_path / "seed=0"
    folder.mkdir()
    write_parquet(folder / "records.parquet", records(1))
    assert read_parquet(folder / "records.parquet") == records(1)


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "records.parquet"
    write_parquet(path, records(1))

    def half(table: pa.Table, file: object, **_: object) -> None:
        file.write(b"PAR1")  # type: ignore[attr-defined]
        raise OSError("disk full")

    monkeypatch.setattr(pq, "write_table", half)
    with pytest.raises(OSError, match="disk full"):
        write_parquet(path, records(2))
    assert read_parquet(path) == records(1)
    assert list(tmp_path.iterdir()) == [path]


def test_files_that_are_not_ours_are_refused_in_one_line(tmp_path: Path) -> None:
    (text := tmp_path / "text.parquet").write_text("case,subset\n")
    pq.write_table(pa.table({"case": ["a"]}), other := tmp_path / "other.parquet")
    write_parquet(cut := tmp_path / "cut.parquet", records())
    cut.write_bytes(cut.read_bytes()[:-100])
    for path in (tmp_path / "absent.parquet", text, other, cut, tmp_path):
        with pytest.raises(UserError) as error:
            read_parquet(path)
        assert str(path) in str(error.value)
        assert "evaluate" in str(error.value)
        assert "\n" not in str(error.value)


def test_names_are_the_fixed_ones() -> None:
    summary = summarise(records())
    assert len(summary) == (3 + 1 + 3) * 16 + 3
    expected = {
        "dice/ET/FLAIR_T1ce",
        "dice/WT/mean",
        "hd95/TC/FLAIR_T1ce_T1_T2",
        "dice_et500/ET/T2",
        "dice_et500/ET/mean",
        "dice/mean",
        "hd95/mean",
        "dice_et500/mean",
    }
    assert expected <= summary.keys()
    assert not any(name.startswith(("dice_et500/WT", "dice_et500/TC")) for name in summary)
    assert not any(name.startswith("hd95") for name in summarise(records(with_hd95=False)))


def test_averages_of_a_case_made_by_hand() -> None:
    """Two cases; Dice 0.2 and 0.4 on every subset but the last, where both are 1: the mean is no last row."""
    rows = []
    for row in records(2):
        last = row.subset == "FLAIR_T1ce_T1_T2"
        value = 1.0 if last else {"case-0": 0.2, "case-1": 0.4}[row.case]
        et500 = None if row.dice_et500 is None else value / 2
        rows.append(replace(row, dice=value, dice_et500=et500, hd95=10 * value))
    summary = summarise(rows)
    for region in REGIONS:
        assert summary[f"dice/{region}/FLAIR"] == pytest.approx(0.3)
        assert summary[f"dice/{region}/FLAIR_T1ce_T1_T2"] == 1.0
        assert summary[f"dice/{region}/mean"] == pytest.approx((14 * 0.3 + 1) / 15)
        assert summary[f"hd95/{region}/mean"] == pytest.approx(10 * (14 * 0.3 + 1) / 15)
    assert summary["dice_et500/ET/mean"] == pytest.approx((14 * 0.3 + 1) / 30)
    assert summary["dice_et500/mean"] == summary["dice_et500/ET/mean"]  # no other region has it


def test_averages_by_numpy_in_any_order_of_the_records() -> None:
    rows = records(4)
    table = np.array([row.dice for row in rows]).reshape(4, 15, 3)
    random.Random(1).shuffle(rows)
    summary = summarise(rows)
    for at, region in enumerate(REGIONS):
        for which, subset in enumerate(SUBSETS):
            found = summary[f"dice/{region}/{subset_name(subset)}"]
            assert found == pytest.approx(table[:, which, at].mean())
        assert summary[f"dice/{region}/mean"] == pytest.approx(table[..., at].mean())
    assert summary["dice/mean"] == pytest.approx(table.mean())
    assert summary == summarise(records(4))


def test_averages_by_the_metrics_of_monai() -> None:
    """Three cases, 15 subsets, labels at random: DiceMetric and HD95 of MONAI, averaged by MONAI."""
    from monai.metrics import DiceMetric, HausdorffDistanceMetric

    draw = np.random.default_rng(0)
    truths = draw.integers(0, 4, (3, 8, 9, 7))
    predictions = np.where(draw.random((3, 15, 8, 9, 7)) < 0.6, truths[:, None], 0)
    spacing = (1.0, 2.0, 1.5)
    rows = [
        row
        for case in range(3)
        for row in score_case(f"{case}", predictions[case], truths[case], spacing, Evaluation(et_minimum=0.0))
    ]
    summary = summarise(rows)

    def one_hot(labels: np.ndarray) -> torch.Tensor:
        masks = [region_mask(labels, region) for region in REGIONS]
        return torch.from_numpy(np.stack(masks, axis=1)).float()

    by_subset: dict[str, list[torch.Tensor]] = {"dice": [], "hd95": []}
    for at in range(15):
        pair = one_hot(predictions[:, at]), one_hot(truths)
        overlap = DiceMetric(include_background=True, reduction="mean_batch")
        overlap(*pair)
        distance = HausdorffDistanceMetric(include_background=True, percentile=95, reduction="mean_batch")
        distance(*pair, spacing=list(spacing))
        by_subset["dice"].append(overlap.aggregate())
        by_subset["hd95"].append(distance.aggregate())
    for metric, means in by_subset.items():
        for index, region in enumerate(REGIONS):
            values = [mean[index].item() for mean in means]
            found = [summary[f"{metric}/{region}/{subset_name(subset)}"] for subset in SUBSETS]
            assert found == pytest.approx(values, abs=1e-5)
            assert summary[f"{metric}/{region}/mean"] == pytest.approx(sum(values) / 15, abs=1e-5)
    assert summary["dice_et500/ET/mean"] == summary["dice/ET/mean"]


def _change(index: int, **values: object) -> Callable[[list[Record]], list[Record]]:
    return lambda rows: [*rows[:index], replace(rows[index], **values), *rows[index + 1 :]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: [], "none"),
        (lambda rows: rows[:-1], "missing: case-1 FLAIR_T1ce_T1_T2 ET"),
        (
            lambda rows: [row for row in rows if row.case == "case-0" or row.subset != "T2"],
            "missing: case-1 T2 ET",
        ),
        (lambda rows: [row for row in rows if row.region != "TC"], "27 more"),
        (lambda rows: [*rows, rows[3]], "there twice: case-0 T1ce WT"),
        (_change(0, subset="T1_FLAIR"), "unknown subset or region: case-0 T1_FLAIR WT"),
        (_change(0, region="ED"), "unknown subset or region: case-0 FLAIR ED"),
        (_change(4, dice=math.nan), "dice of case-0 T1ce TC is nan"),
        (_change(4, dice=math.inf), "dice of case-0 T1ce TC is inf"),
        (_change(4, dice=1.5), "is 1.5"),
        (_change(4, dice=-0.1), "is -0.1"),
        (_change(4, hd95=math.inf), "hd95 of case-0 T1ce TC is inf"),
        (_change(4, hd95=math.nan), "hd95 of case-0 T1ce TC is nan"),
        (_change(4, hd95=None), "hd95 of case-0 T1ce TC is None"),
        (_change(5, dice_et500=None), "dice_et500 of case-0 T1ce ET is None"),
        (_change(4, dice_et500=0.5), "dice_et500 of case-0 T1ce TC is 0.5"),
    ],
)
def test_nothing_is_averaged_over_a_part(
    change: Callable[[list[Record]], list[Record]], message: str
) -> None:
    with pytest.raises(UserError, match=message) as error:
        summarise(change(records(2)))
    assert "\n" not in str(error.value)


def test_reading_scores_imports_neither_torch_nor_monai() -> None:
    code = (
        "import sys, acdis.evaluation.records; "
        "print([name for name in ('torch', 'monai', 'scipy', 'ray', 'mlflow') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
