"""From prepared cases and a method to records: the case's own grid, its own spacing, all subsets."""

from pathlib import Path

import numpy as np
import pytest
import torch

from acdis.config import Data, Evaluation
from acdis.data import cache, cases, phantom
from acdis.evaluation import examples
from acdis.evaluation.case_files import CaseFiles
from acdis.evaluation.records import summarise
from acdis.evaluation.scoring import label_maps, score
from acdis.methods.base import Method
from acdis.vocabulary import MODALITIES, REGION_LABELS, SUBSETS, subset_name

CPU = torch.device("cpu")
SETTINGS = Evaluation(window=(24, 24, 24), stride=(16, 16, 16), hd95=False, et_minimum=0)


class Oracle(Method):
    """Reads the answer, which the test writes into FLAIR; without FLAIR it sees background only.

    It also checks how it is called: in evaluation mode, without gradients.
    """

    forward = None  # it is never trained

    def encode(self, images, origin=None):
        assert not self.training
        assert not torch.is_grad_enabled()
        return images

    def decode(self, features, available):
        flair = features[:, 0].round().long().clamp(0, 3)
        known = available[:, 0, None, None, None]
        answer = torch.where(known, flair, torch.zeros_like(flair))
        return 20.0 * torch.nn.functional.one_hot(answer, 4).movedim(-1, 1).float()


@pytest.fixture(scope="module")
def entries(tmp_path_factory):
    """Two phantoms at their own spacing, FLAIR replaced by the labels."""
    folder = tmp_path_factory.mktemp("scoring")
    phantom.write(folder / "cases", 2, seed=5, shape=(32, 36, 28), spacing=5.0)
    data = Data(min_size=24, crop=(16, 16, 16))
    entries = list(cache.prepare(cases.find(folder / "cases").cases, data, folder / "cache", 1).values())
    for entry in entries:
        images = np.load(entry.path / "image.npy")
        images[0] = entry.labels()
        np.save(entry.path / "image.npy", images)
    return entries


def test_labels_come_back_in_the_files_grid(entries):
    """Whole where FLAIR is given, empty where it is not; the method's mode is put back."""
    method = Oracle().train()
    for entry in entries:
        maps = list(label_maps(method, entry, SETTINGS, CPU, None))
        assert len(maps) == len(SUBSETS)
        for subset, labels in zip(SUBSETS, maps, strict=True):
            truth = entry.native_labels()
            assert labels.shape == truth.shape == (32, 36, 28)
            assert np.array_equal(labels, truth if "FLAIR" in subset else np.zeros_like(truth))
    assert method.training


def test_records_of_all_cases_subsets_and_regions(entries):
    done = []
    records = score(Oracle(), entries, SETTINGS, CPU, None, done.append)
    assert done == [1, 2]
    assert len(records) == 2 * 15 * 3
    assert {record.voxel_volume for record in records} == {125.0}
    for record in records:
        truth = next(entry for entry in entries if entry.name == record.case).native_labels()
        voxels = int(np.isin(truth, REGION_LABELS[record.region]).sum())
        assert record.truth_voxels == voxels
        given = "FLAIR" in record.subset.split("_")
        assert record.predicted_voxels == (voxels if given else 0)
        assert record.dice == pytest.approx(1.0 if given or not voxels else 0.0, abs=1e-6)
        assert record.hd95 is None
    summary = summarise(records)
    with_flair = sum("FLAIR" in subset for subset in SUBSETS) / len(SUBSETS)
    assert summary["dice/WT/mean"] == pytest.approx(with_flair, abs=1e-6)


def test_a_working_spacing_is_undone(tmp_path):
    """At 6 mm the labels are coarser, so not all voxels are hit; the grid is the file's again."""
    phantom.write(tmp_path / "cases", 1, seed=6, shape=(40, 40, 40), spacing=3.0)
    data = Data(spacing=6.0, min_size=24, crop=(16, 16, 16))
    found = cases.find(tmp_path / "cases").cases
    (entry,) = cache.prepare(found, data, tmp_path / "cache", 1).values()
    images = np.load(entry.path / "image.npy")
    images[0] = entry.labels()
    np.save(entry.path / "image.npy", images)
    records = score(Oracle(), [entry], SETTINGS, CPU, None)
    assert {record.voxel_volume for record in records} == {27.0}
    whole = [record.dice for record in records if record.region == "WT" and record.subset == "FLAIR"]
    assert 0.75 < whole[0] < 1.0


def test_slices_of_the_worst_cases_stay(entries, tmp_path: Path, monkeypatch):
    """The axial slice with the most lesion; predictions of the subsets that are shown; scores as without."""
    worst, plain = examples.Worst(), score(Oracle(), entries, SETTINGS, CPU, None)
    assert score(Oracle(), entries, SETTINGS, CPU, None, keep=worst.add) == plain
    means = {
        entry.name: np.mean([record.dice for record in plain if record.case == entry.name])
        for entry in entries
    }
    assert [example.case for example in worst.examples] == sorted(means, key=lambda name: (means[name], name))
    worst.save(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(f"{name}.npz" for name in means)
    for entry in entries:
        truth = entry.native_labels()
        largest = max(range(truth.shape[2]), key=lambda k: np.count_nonzero(truth[:, :, k]))
        found = examples.read_example(tmp_path / f"{entry.name}.npz")
        assert found.case == entry.name
        box = entry.meta.box  # what the images show
        assert entry.meta.spacing == entry.meta.native_spacing
        (first, second), (far, farther) = np.maximum(box.start, 0)[:2], box.stop[:2]
        shown = truth[first:far, second:farther, largest]
        assert np.array_equal(found.truth, shown)
        assert found.images.shape == (len(MODALITIES), *entry.labels().shape[:2])
        assert found.subsets == tuple(subset_name(subset) for subset in examples.SHOWN)
        for subset, labels in zip(examples.SHOWN, found.predictions, strict=True):
            expected = shown if "FLAIR" in subset else np.zeros_like(shown)
            assert np.array_equal(labels, expected)
    monkeypatch.setattr(examples, "KEPT", 1)
    examples.Worst(reversed(worst.examples)).save(tmp_path)
    assert [path.stem for path in tmp_path.iterdir()] == [min(means, key=lambda name: (means[name], name))]


class RegionOracle(Oracle):
    """The same answer as logits of WT, TC, ET; a coin decides what must not count inside a region."""

    outputs = "regions"

    def decode(self, features, available):
        flair = features[:, 0].round().long().clamp(0, 3)
        answer = torch.where(available[:, 0, None, None, None], flair, 0)
        coin = torch.rand(answer.shape, generator=torch.Generator().manual_seed(0)) < 0.5
        wt = (answer == 2) | ((answer != 0) & coin)
        tc = (answer == 1) | ((answer == 3) & coin)
        return 10.0 * torch.stack([wt, tc, answer == 3], dim=1).float() - 5


def test_a_region_method_scores_as_one_of_classes(entries):
    """Regions are made nested: ET over TC over WT."""
    one, other = (
        list(label_maps(method, entries[0], SETTINGS, CPU, None)) for method in (Oracle(), RegionOracle())
    )
    assert all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))
    assert {0, 1, 2, 3} <= set(np.unique(other[0]))


def test_labels_are_post_processed_in_the_files_grid(entries):
    """Scores and label maps are those of the processed labels, volumes by the file's spacing."""
    method, entry = Oracle().train(), entries[0]
    rule = {"rule": "small_et", "volume": 1e6}  # more than any tumour: what was ET is NCR
    given = SETTINGS.model_copy(
        update={"post_processing": Evaluation(post_processing=[rule]).post_processing}
    )
    plain, processed = (next(iter(label_maps(method, entry, each, CPU, None))) for each in (SETTINGS, given))
    assert (plain == 3).any()
    np.testing.assert_array_equal(processed, np.where(plain == 3, 1, plain))
    dice = {r.region: r.dice for r in score(method, [entry], given, CPU, None) if r.subset == "FLAIR"}
    assert dice["WT"] == dice["TC"] == 1
    assert dice["ET"] < 1e-6


def test_a_killed_scoring_costs_the_case_that_was_at_work(entries, tmp_path: Path):
    """Whole records and slices as without; of what is there nothing is predicted again, unless it is torn."""

    class Counting(Oracle):
        windows = 0

        def encode(self, images, origin=None):
            Counting.windows += 1
            return super().encode(images, origin)

    class Killed(Exception):  # noqa: N818
        pass

    def die(done: int) -> None:
        raise Killed

    plain, worst = score(Oracle(), entries, SETTINGS, CPU, None), examples.Worst()
    score(Oracle(), entries, SETTINGS, CPU, None, keep=worst.add)
    files = CaseFiles(tmp_path / "scored")
    with pytest.raises(Killed):
        score(Oracle(), entries, SETTINGS, CPU, None, on_case=die, keep=lambda _: None, files=files)
    assert {path.name for path in files.folder.iterdir()} == {
        f"{entries[0].name}.{end}" for end in ("parquet", "npz")
    }
    again = examples.Worst()
    method = Counting()
    assert score(method, entries, SETTINGS, CPU, None, keep=again.add, files=files) == plain
    half = Counting.windows
    for one, other in zip(worst.examples, again.examples, strict=True):
        assert (one.case, one.dice) == (other.case, other.dice)
        assert all(
            np.array_equal(getattr(one, k), getattr(other, k)) for k in ("images", "truth", "predictions")
        )
    (files.folder / f"{entries[0].name}.parquet").write_bytes(b"torn")
    (files.folder / f"{entries[1].name}.npz").write_bytes(b"torn")
    assert score(method, entries, SETTINGS, CPU, None, keep=again.add, files=files) == plain
    both = Counting.windows
    assert both > 2 * half
    assert score(method, entries, SETTINGS, CPU, None, files=files) == plain
    assert Counting.windows == both
    files.remove()
    assert not files.folder.exists()
