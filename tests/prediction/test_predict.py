"""From files to labels: every voxel in its place, the data set's values, what is said beside."""

import dataclasses
import itertools
import json
import math

import nibabel
import numpy as np
import pytest
import torch

import acdis
from acdis import config
from acdis.data import schemes
from acdis.data.case import Case
from acdis.data.inputs import Inputs
from acdis.data.nnunet import describe
from acdis.data.prepared_case import Entry
from acdis.data.preprocess import Box, Meta
from acdis.data.scan import read
from acdis.errors import UserError
from acdis.methods.base import Method
from acdis.prediction.model import Model, open_model
from acdis.prediction.predict import Options
from acdis.prediction.predict import predict as run
from acdis.vocabulary import MODALITIES
from acdis.workflow.jobs import learned_from

PLAIN = Options()


def predict(models, given, options=PLAIN):
    return run(models, read(given), options)


class Coordinates(Method):
    """Says for every voxel a class that follows from its place in the working grid alone."""

    def __init__(self, classes):
        super().__init__()
        self.classes = classes

    def encode(self, images, origin=None):
        places = [
            torch.stack(
                torch.meshgrid(
                    *(torch.arange(side) + at for side, at in zip(images.shape[2:], start, strict=True)),
                    indexing="ij",
                )
            )
            for start in origin.tolist()
        ]
        return torch.stack(places)

    def decode(self, features, available):
        one_hot = torch.nn.functional.one_hot(self.classes(*features.unbind(1)), 4)
        return 50.0 * one_hot.movedim(-1, 1).float()

    def forward(self, batch, epoch):
        raise NotImplementedError


def stub(classes, spacing=None):
    tree = {
        "data": {"min_size": 16, "crop": [16, 16, 16], "spacing": spacing},
        "evaluation": {"window": [16, 16, 16], "stride": [8, 8, 8]},
    }
    scheme = schemes.SCHEMES["brats2021"]
    device = torch.device("cpu")
    return Model("stub", config.parse(tree, "t"), Coordinates(classes), device, None, scheme, 1.0, None)


def affine_of(codes, spacing):
    """Written out: column a has the spacing of axis a in the row of its direction, signed in RAS."""
    affine = np.eye(4)
    affine[:3, :3] = 0
    for axis, code in enumerate(codes):
        row = next(r for r, pair in enumerate(("LR", "PA", "IS")) if code in pair)
        affine[row, axis] = spacing[axis] * (1 if code in "RAS" else -1)
    affine[:3, 3] = [11.5, -7.25, 3.0]
    return affine


def places_in_lps(shape, affine):
    """Per voxel its index counted from the right, the front and below, [3, D, H, W], from mm alone."""
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"))
    mm = np.einsum("rc,cdhw->rdhw", affine[:3, :3], index) + affine[:3, 3].reshape(3, 1, 1, 1)
    steps = np.abs(affine[:3, :3]).max(axis=1).reshape(3, 1, 1, 1)
    high, low = mm.max(axis=(1, 2, 3), keepdims=True), mm.min(axis=(1, 2, 3), keepdims=True)
    return np.stack([(high - mm)[0], (high - mm)[1], (mm - low)[2]]) / steps, steps.ravel()


ORIENTATIONS = ("LPS", "RAS", "LAS", "RPI", "PIR", "ASL", "SAR", "ILP")


@pytest.mark.parametrize("codes", ORIENTATIONS)
@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (1.0, 1.5, 2.0), (0.7, 0.7, 3.0)])
def test_every_voxel_comes_back_to_its_place(tmp_path, codes, spacing):
    shape, affine = (30, 27, 24), affine_of(codes, spacing)
    voxels = np.zeros(shape, np.float32)
    voxels[3:26, 2:24, 4:22] = np.random.default_rng(0).uniform(1, 2, (23, 22, 18))
    nibabel.save(nibabel.Nifti1Image(voxels, affine), tmp_path / "t1.nii.gz")

    def classes(i, j, k):
        return (i // 3 + 2 * (j // 4) + 3 * (k // 5)) % 4

    found = predict([stub(classes)], {"T1": tmp_path / "t1.nii.gz"})
    place, _ = places_in_lps(shape, affine)
    due = classes(*np.rint(place).astype(int))
    inside = np.zeros(shape, bool)
    inside[3:26, 2:24, 4:22] = True
    due = np.where(inside, np.array([0, 1, 2, 4])[due], 0)
    np.testing.assert_array_equal(found.labels, due)
    voxel = math.prod(spacing) / 1000
    assert found.volumes_ml["ET"] == pytest.approx((due == 4).sum() * voxel, abs=1e-3)
    assert found.volumes_ml["WT"] == pytest.approx((due > 0).sum() * voxel, abs=1e-3)
    assert found.volumes_ml["TC"] == pytest.approx(((due == 1) | (due == 4)).sum() * voxel, abs=1e-3)

    found.save(tmp_path / "seg.nii.gz")
    saved, source = (nibabel.load(tmp_path / name) for name in ("seg.nii.gz", "t1.nii.gz"))
    np.testing.assert_array_equal(np.asarray(saved.dataobj), due)
    np.testing.assert_array_equal(saved.affine, source.affine)
    assert saved.get_data_dtype() == np.uint8
    assert saved.header["sform_code"] == source.header["sform_code"]
    np.testing.assert_array_equal(saved.header.get_zooms(), source.header.get_zooms())


@pytest.mark.parametrize("codes", ["LPS", "PIR"])
def test_another_working_spacing_keeps_places_in_mm(tmp_path, codes):
    shape, spacing = (40, 44, 48), (1.0, 1.2, 1.5)
    affine = affine_of(codes, spacing)
    voxels = np.random.default_rng(0).uniform(1, 2, shape).astype(np.float32)
    nibabel.save(nibabel.Nifti1Image(voxels, affine), tmp_path / "t2.nii")
    # Slabs of 10 mm along the first LPS axis; voxel i of the working grid has its centre at 2i + 1 mm.
    model = stub(lambda i, j, k: ((2 * i + 1) // 10 % 4).long(), spacing=2.0)
    found = predict([model], {"T2": tmp_path / "t2.nii"})
    place, steps = places_in_lps(shape, affine)
    mm = (place[0] + 0.5) * steps[0]
    due = np.array([0, 1, 2, 4])[(mm // 10).astype(int) % 4]
    sure = np.abs(mm / 10 - np.rint(mm / 10)) > 0.2
    np.testing.assert_array_equal(found.labels[sure], due[sure])
    assert 0.5 < sure.mean() < 0.7


def test_flips_are_flipped_back(tmp_path):
    """A method that knows places in the volume, alike from either side, says the same with flips."""
    voxels = np.zeros((30, 27, 24), np.float32)
    voxels[2:22, 1:20, 3:20] = np.random.default_rng(0).uniform(1, 2, (20, 19, 17))
    nibabel.save(nibabel.Nifti1Image(voxels, np.diag([-1, -1, 1, 1])), tmp_path / "t1.nii")

    def classes(i, j, k):
        return (torch.minimum(i, 29 - i) // 3 + torch.minimum(j, 26 - j) // 3 + torch.minimum(k, 23 - k)) % 4

    given = {"T1": tmp_path / "t1.nii"}
    np.testing.assert_array_equal(
        predict([stub(classes)], given, Options(flips=True)).labels, predict([stub(classes)], given).labels
    )


def test_api_gives_labels_volumes_and_a_report(cell, base, patient, tmp_path, monkeypatch):
    monkeypatch.setenv("ACDIS_HOME", str(base))
    found = acdis.predict(cell.name[:10], {"T2": patient["T2"], "FLAIR": str(patient["FLAIR"])})
    assert found.labels.shape == (30, 34, 28)
    assert set(np.unique(found.labels)) <= {0, 1, 2, 4}
    assert len(np.unique(found.labels)) > 1
    written = found.save(tmp_path / "out" / "seg.nii.gz")
    report = json.loads(written["report"].read_text())
    assert report["used"] == ["FLAIR", "T2"]
    assert report["missing"] == ["T1ce", "T1"]
    assert report["volumes_ml"] == found.volumes_ml
    dice = report["expected_dice_percent"][cell.name]
    # eight cases: TC 50, 55 … 85; ET 40 without T1ce
    assert dice["cases"] == 8
    assert dice["TC"] == {"mean": 67.5, "p5": pytest.approx(51.75)}
    assert dice["ET"] == {"mean": 40.0, "p5": 40.0}
    assert report["better"] == {cell.name: ["with T1ce: ET +30 points"]}
    assert report["versions"]["acdis"] == acdis.__version__


def test_maps_are_probabilities_and_their_entropy(cell, patient, tmp_path):
    model = open_model(cell, "cpu")
    plain = predict([model], patient)
    found = predict([model], patient, Options(maps=True))
    np.testing.assert_array_equal(found.labels, plain.labels)
    assert found.regions.shape == (3, 30, 34, 28)
    wt, tc, et = found.regions
    assert (wt >= tc - 1e-6).all()
    assert (tc >= et - 1e-6).all()
    assert found.entropy.min() >= 0
    assert found.entropy.max() <= 1
    outside = found.scan.in_file_axes(found.scan.brain) == 0
    corner = np.zeros_like(outside)
    corner[0, 0, 0] = True
    assert found.entropy[corner & outside] == 0
    written = found.save(tmp_path / "s.nii.gz", probabilities=True, uncertainty=True)
    assert sorted(path.name for path in written.values()) == [
        "s.json", "s.nii.gz", "s_ET.nii.gz", "s_TC.nii.gz", "s_WT.nii.gz", "s_entropy.nii.gz",
    ]  # fmt: skip
    np.testing.assert_array_equal(np.asarray(nibabel.load(written["ET"]).dataobj), et)


def test_an_ensemble_is_the_mean_of_its_members(base, make_cell, cell, patient):
    models = [open_model(each, "cpu") for each in (cell, make_cell(base, seed=1))]
    both = predict(models, patient, Options(maps=True))
    alone = [predict([model], patient, Options(maps=True)).regions for model in models]
    np.testing.assert_allclose(both.regions, np.mean(alone, axis=0), atol=1e-6)
    assert not np.allclose(alone[0], alone[1], atol=1e-3)


def test_disagreement_is_counted_over_subsets_and_cells(base, make_cell, cell, patient, tmp_path):
    """Every subset and every cell by itself: the patient's four images have one mask, so one box."""
    models = [open_model(each, "cpu") for each in (cell, make_cell(base, seed=1))]
    given = {name: patient[name] for name in ("FLAIR", "T1", "T2")}
    options = Options(maps=True, disagreement=True)
    told = []
    found = run(models, read(given), options, lambda done, of: told.append((done, of)))
    assert told[-1][0] == told[-1][1]
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    subsets = [some for n in (1, 2) for some in itertools.combinations(given, n)]
    others = [predict(models, {name: given[name] for name in some}, options).labels for some in subsets]
    due = np.mean([other != found.labels for other in others], axis=0)
    assert 0 < due.mean() < 1
    # decoded together, sums are rounded otherwise: two classes that are all but equal may change places
    assert (np.abs(found.over_subsets - due) > 1e-6).sum() < 5
    each = [predict([model], given).labels for model in models]
    np.testing.assert_allclose(found.over_cells, np.mean([one != found.labels for one in each], axis=0))
    assert set(np.unique(found.over_cells)) == {0, 0.5, 1} or set(np.unique(found.over_cells)) == {0, 0.5}
    written = found.save(tmp_path / "s.nii.gz", uncertainty=True)
    kept = nibabel.load(written["disagreement_subsets"])
    np.testing.assert_array_equal(np.asarray(kept.dataobj), found.over_subsets)
    one = predict(models[:1], {"T2": patient["T2"]}, options)
    assert one.over_subsets is None
    assert one.over_cells is None
    assert "disagreement_subsets" not in one.save(tmp_path / "t.nii.gz", uncertainty=True)


def test_labels_are_processed_as_in_the_evaluation(base, make_cell, cell, patient):
    """With maps and without; models that differ in it are refused."""
    rule = {"evaluation.post_processing": [{"rule": "small_et", "volume": 1e7}]}
    plain, other = open_model(cell, "cpu"), open_model(make_cell(base, changes=rule, seed=2), "cpu")
    same = dataclasses.replace(
        plain, experiment=other.experiment
    )  # the weights of the one, the rule of the other
    before = predict([plain], patient).labels
    assert {1, 4} <= set(np.unique(before))  # 4 is ET in these files
    for options in (PLAIN, Options(maps=True)):
        np.testing.assert_array_equal(
            predict([same], patient, options).labels, np.where(before == 4, 1, before)
        )
    with pytest.raises(UserError, match=r"evaluation\.post_processing: the cells differ"):
        predict([plain, other], patient)


def test_entropy_of_known_distributions():
    from acdis.prediction.segment import entropy

    classes = torch.tensor([[1.0, 0.25, 0.5], [0, 0.25, 0.5], [0, 0.25, 0], [0, 0.25, 0]])
    torch.testing.assert_close(entropy(classes, regions=False), torch.tensor([0.0, 1.0, 0.5]))
    regions = torch.tensor([[1.0, 0.5, 0.5], [0.0, 0.5, 0.0], [1.0, 0.5, 1.0]])
    torch.testing.assert_close(entropy(regions, regions=True), torch.tensor([0.0, 1.0, 1 / 3]))


@pytest.mark.parametrize(
    ("names", "values"),
    [
        (("BraTS2021_00001",), {0, 1, 2, 4}),
        (("BraTS-GLI-00001-000",), {0, 1, 2, 3}),
        (("Phantom_00001",), {0, 1, 2, 4}),
        (("BRATS_001", "BRATS_002"), {0, 2, 1, 3}),
    ],
)
def test_values_are_those_of_the_data_set(tmp_path, make_cell, patient, names, values):
    model = open_model(make_cell(tmp_path, names=names), "cpu")
    report = predict([model], {"T1": patient["T1"]}).report
    assert set(report["labels"].values()) == values
    assert report["labels"]["ET"] == max(values)
    assert report["labels"]["ED"] == (1 if names[0] == "BRATS_001" else 2)
    assert list(MODALITIES) == ["FLAIR", "T1ce", "T1", "T2"]


def test_values_of_nnunets_data_are_those_that_its_description_told(tmp_path, make_cell, patient):
    """The names are BraTS 2021's, the files hold 3 for ET."""
    path = tmp_path / "dataset.json"
    names = {"0": "FLAIR", "1": "T1ce", "2": "T1", "3": "T2"}
    path.write_text(json.dumps({"channel_names": names, "labels": {"NCR": 2, "ED": 1, "ET": 3}}))
    case = Case("BraTS2021_00001", (path,) * 4, path, "nnunet", scheme=describe(path).scheme)
    meta = Meta(Box((0,) * 3, (1,) * 3), (1,) * 3, (1.0,) * 3, (1,) * 3, (1.0,) * 3, ((1.0,),))
    learned = Inputs((Entry(case.name, tmp_path, "f", meta, source=case),), (), ())
    of_msd = dataclasses.replace(learned.train[0], source=dataclasses.replace(case, layout="msd"))
    assert "labels" not in learned_from(Inputs((of_msd,), (), ()))
    cell = make_cell(tmp_path)
    lineage = json.loads((cell.folder / "lineage.json").read_text())
    (cell.folder / "lineage.json").write_text(json.dumps(lineage | learned_from(learned)))
    report = predict([open_model(cell, "cpu")], {"T1": patient["T1"]}).report
    assert report["labels"] == {"background": 0, "NCR/NET": 2, "ED": 1, "ET": 3}
