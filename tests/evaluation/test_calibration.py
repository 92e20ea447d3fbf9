"""Calibration: counts by bin, ECE and the curve by hand and by loops; from a method to records and back."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from acdis.config import Data, Evaluation
from acdis.data import cache, cases, phantom
from acdis.errors import UserError
from acdis.evaluation.calibration import BINS, counts, curve, error
from acdis.evaluation.records import read_parquet, summarise, write_parquet
from acdis.evaluation.scores import Scores, from_records, read_file
from acdis.evaluation.scoring import score
from acdis.methods.base import Method
from acdis.report import calibration, figures, palette
from acdis.report.facts import RowScores
from acdis.vocabulary import REGION_LABELS, REGIONS, SUBSETS, subset_name

SETTINGS = Evaluation(window=(24, 24, 24), stride=(24, 24, 24), hd95=False, metrics=("calibration",))


def test_by_hand() -> None:
    """Bins 0, 2, 2, 2, 9: ECE = (|0.05 − 0| + |0.7 − 1| + |1 − 1|) / 5; edges belong to the upper bin."""
    probability = np.array([0.05, 0.2, 0.2, 0.3 - 1e-9, 1.0])
    found = counts(probability, np.array([False, False, True, False, True]))
    due = np.zeros((3, BINS))
    due[:, 0], due[:, 2], due[:, 9] = (1, 0.05, 0), (3, 0.7, 1), (1, 1, 1)
    assert found == pytest.approx(due)
    assert error(found) == pytest.approx((0.05 + 0.3) / 5)
    mean, share = curve(found)
    assert mean[[0, 2, 9]] == pytest.approx([0.05, 0.7 / 3, 1])
    assert share[[0, 2, 9]] == pytest.approx([0, 1 / 3, 1])
    assert np.isnan(mean[[1, 3, 4, 5, 6, 7, 8]]).all()


def test_nothing_and_what_is_no_probability() -> None:
    assert error(counts(np.zeros(0), np.zeros(0, dtype=bool))) == 0
    for wrong in (-0.1, 1.1, math.nan):
        with pytest.raises(ValueError, match="0 to 1 is due"):
            counts(np.array([wrong]), np.array([True]))
    with pytest.raises(ValueError, match="where truth has"):
        counts(np.zeros(2), np.zeros(3, dtype=bool))


def test_perfect_and_worst() -> None:
    truth = np.arange(100) < 30
    assert error(counts(truth.astype(float), truth)) == 0
    assert error(counts(1 - truth.astype(float), truth)) == 1
    assert error(counts(np.full(100, 0.3), truth)) == pytest.approx(0)


class Unsure(Method):
    """Logits that depend on the voxel's FLAIR and on how many modalities there are, not on the truth."""

    forward = None  # it is never trained

    def encode(self, images, origin=None):
        return images[:, 0]

    def decode(self, features, available):
        given = available.sum(1).float()[:, None, None, None]
        return torch.stack([features * 0 + 1, features, -features, features * given / 4], dim=1)


class UnsureOfRegions(Unsure):
    """The same as three sigmoids."""

    outputs = "regions"

    def decode(self, features, available):
        return super().decode(features, available)[:, 1:]


@pytest.fixture(scope="module")
def entries(tmp_path_factory: pytest.TempPathFactory) -> list:
    folder = tmp_path_factory.mktemp("calibration")
    phantom.write(folder / "cases", 2, seed=7, shape=(26, 28, 30), spacing=6.0)
    data = Data(min_size=24, crop=(16, 16, 16))
    return list(cache.prepare(cases.find(folder / "cases").cases, data, folder / "cache", 1).values())


def by_hand(entry, subset, region, regions: bool) -> tuple[np.ndarray, float]:
    """Counts and ECE, voxel by voxel, from what the method's formula says; the case fits one window a side
    or is padded, and windows overlap: the mean of equal values is the value."""
    images = entry.whole()[0]
    box = entry.meta.box
    flair = images[0].astype(np.float64)
    logits = [np.ones_like(flair), flair, -flair, flair * len(subset) / 4]
    if regions:
        place = REGIONS.index(region)
        probability = 1 / (1 + np.exp(-logits[1 + place]))
    else:
        powers = np.exp(np.stack(logits))
        probability = powers[list(REGION_LABELS[region])].sum(0) / powers.sum(0)
    inside = tuple(
        slice(max(a, 0), min(b, n))
        for a, b, n in zip(box.start, box.stop, entry.meta.native_shape, strict=True)
    )
    offset = tuple(slice(each.start - a, each.stop - a) for each, a in zip(inside, box.start, strict=True))
    truth = np.isin(entry.native_labels()[inside], REGION_LABELS[region])
    found = np.zeros((3, BINS))
    for p, is_there in zip(probability[offset].ravel(), truth.ravel(), strict=True):
        place = min(int(p * BINS), BINS - 1)
        found[:, place] += 1, p, is_there
    return found, sum(abs(p - t) for _, p, t in found.T) / found[0].sum()


@pytest.mark.parametrize("method", [Unsure(), UnsureOfRegions()], ids=["classes", "regions"])
def test_from_a_method_to_records(entries: list, method: Method, tmp_path: Path) -> None:
    subsets = (("FLAIR",), ("FLAIR", "T1ce", "T2"))
    records = score(method, entries, SETTINGS, torch.device("cpu"), None, subsets=subsets)
    by_name = {(row.case, row.subset, row.region): row for row in records}
    regions = method.outputs == "regions"
    for subset, region in ((subsets[0], "WT"), (subsets[1], "ET")):
        found, ece = by_hand(entries[0], subset, region, regions)
        row = by_name[entries[0].name, subset_name(subset), region]
        counted = np.reshape(row.calibration, (3, BINS))
        assert counted[0].sum() == found[0].sum()
        assert counted == pytest.approx(found, rel=1e-4, abs=2)  # float32 may pass an edge
        assert row.ece == pytest.approx(ece, abs=1e-4)
        assert 0 < ece < 1
    plain = SETTINGS.model_copy(update={"metrics": ()})
    without = score(method, entries, plain, torch.device("cpu"), None, subsets=subsets)
    assert without == [replace(row, ece=None, calibration=None) for row in records]


@pytest.fixture(scope="module")
def records(entries: list) -> list:
    return score(Unsure(), entries, SETTINGS, torch.device("cpu"), None)


def test_records_and_scores_keep_the_counts(records: list, tmp_path: Path) -> None:
    write_parquet(path := tmp_path / "records.parquet", records)
    assert read_parquet(path) == records
    summary = summarise(records)
    assert summary["ece/ET/T2"] == pytest.approx(
        np.mean([row.ece for row in records if (row.subset, row.region) == ("T2", "ET")])
    )
    assert not any(name.startswith("calibration") for name in summary)
    for scores in (read_file(path), from_records(records)):
        assert scores.calibration is not None
        for place, subset in enumerate(SUBSETS[:2]):
            due = sum(
                np.reshape(row.calibration, (3, BINS))
                for row in records
                if (row.subset, row.region) == (subset_name(subset), "TC")
            )
            assert scores.calibration[place, 1] == pytest.approx(due)


def test_processes_give_the_same(entries: list, records: list) -> None:
    assert score(Unsure(), entries, SETTINGS, torch.device("cpu"), None, processes=1) == records


@pytest.mark.parametrize("wrong", [None, math.nan, -1.0])
def test_counts_that_are_none_are_refused(records: list, tmp_path: Path, wrong: float | None) -> None:
    path = tmp_path / "records.parquet"
    first = None if wrong is None else (wrong, *records[0].calibration[1:])
    write_parquet(path, [replace(records[0], calibration=first), *records[1:]])
    with pytest.raises(UserError, match=r"calibration has no counts somewhere|cannot be read"):
        read_file(path)


def test_lists_of_other_lengths_are_refused(records: list, tmp_path: Path) -> None:
    """As a hostile file may have them: a million numbers in a row would be a million in memory."""
    write_parquet(path := tmp_path / "records.parquet", records)
    table = pq.read_table(path)
    place = table.column_names.index("calibration")
    longer = pa.array([[0.0] * 31] * len(table), pa.list_(pa.float64()))
    pq.write_table(table.set_column(place, "calibration", longer), path)
    with pytest.raises(UserError, match="are not per-case scores of this version"):
        read_file(path)


def test_a_small_file_of_too_many_rows_is_refused(records: list, tmp_path: Path) -> None:
    """Alike as they are, they take next to nothing; read they would be hundreds of megabytes."""
    write_parquet(path := tmp_path / "records.parquet", records)
    pq.write_table(pq.read_table(path).take(np.zeros(300_001, dtype=np.int64)), path)
    assert path.stat().st_size < 1_000_000
    with pytest.raises(UserError, match="claims 300,001 rows, at most 300,000"):
        read_file(path)


def row_of(name: str, *seeds: Scores) -> RowScores:
    return RowScores(name, name, None, None, dict(enumerate(seeds)), {}, ())


def test_the_table_of_rows(records: list) -> None:
    """By sums over the records: two seeds, the second with every count doubled and an ECE of a half."""
    doubled = [replace(row, ece=0.5, calibration=tuple(2 * n for n in row.calibration)) for row in records]
    plain = from_records([replace(row, ece=None, calibration=None) for row in records])
    both = row_of("a", from_records(records), from_records(doubled))
    section = calibration.section([both, row_of("b", plain)], {"a": "Row A", "b": "Row B"})
    assert section
    assert section.table
    assert [line[:2] for line in section.table.body] == [("Row A", region) for region in REGIONS]
    for region, line in zip(REGIONS, section.table.body, strict=True):
        mine = [row for row in records if row.region == region]
        mean = np.mean([row.ece for row in mine])
        assert line[2] == f"{100 * (mean + 0.5) / 2:.2f}"
        voxels, _, true = sum(np.reshape(row.calibration, (3, BINS)) for row in mine)
        due = [f"{100 * t / n:.1f}" if n else "–" for n, t in zip(voxels, true, strict=True)]
        assert list(line[3:]) == due
    assert "–" in due
    assert section.table.head[3:5] == ("0–0.1", "0.1–0.2")
    assert calibration.section([row_of("b", plain)], {"b": "Row B"}) is None
    assert calibration.section([both] * 25, {"a": "a"}) is None


def test_the_curve_as_a_picture(tmp_path: Path) -> None:
    """WT lies on the diagonal, TC far above it: its colour is in the upper half alone."""
    import matplotlib.image

    voxels = np.full(BINS, 100.0)
    means = (np.arange(BINS) + 0.5) / BINS
    of_bins = np.stack(
        [np.stack([voxels, voxels * means, voxels * each]) for each in (means, 0 * means + 0.95, means)]
    )
    figures.reliability(tmp_path / "curve.png", of_bins, "a cell")
    picture = matplotlib.image.imread(tmp_path / "curve.png")[..., :3]
    wanted = palette.rgb(palette.REGIONS["TC"])
    left = picture[:, 100:275]  # the legend is at the right
    rows = np.flatnonzero((np.abs(left - wanted).max(axis=2) < 0.02).any(axis=1))
    assert len(rows)
    assert rows.max() < len(picture) / 5
