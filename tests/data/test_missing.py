"""Modalities that training cases lack: how they are drawn, and that nothing of them is read."""

import json
from dataclasses import replace

import numpy as np
import pytest

from acdis import config
from acdis.data import missing, phantom
from acdis.data.case import Case
from acdis.data.cases import find, read
from acdis.data.inputs import look_at_inputs, open_for_learning, open_inputs
from acdis.errors import UserError
from acdis.vocabulary import MODALITIES

WHOLE = {f"case{i:03d}": MODALITIES for i in range(200)}


def rates(**given) -> config.Missing:
    return config.Missing(**given)


def lacking(kept) -> dict[str, int]:
    return {name: sum(name not in own for own in kept.values()) for name in MODALITIES}


# --- the draw


@pytest.mark.parametrize(
    "given",
    [
        {"T1ce": 0.4},
        {"FLAIR": 0.2, "T1ce": 0.4, "T1": 0.6, "T2": 0.8},
        {"FLAIR": 0.75, "T1ce": 0.75, "T1": 0.75, "T2": 0.75},  # each keeps exactly one
    ],
)
def test_rates_hold_exactly_and_every_case_keeps_one(given):
    kept = missing.draw(WHOLE, rates(**given))
    assert lacking(kept) == {name: round(200 * given.get(name, 0)) for name in MODALITIES}
    assert all(kept.values())
    assert all(list(own) == [name for name in MODALITIES if name in own] for own in kept.values())


def test_modalities_are_taken_whichever_others_a_case_lacks():
    """At 0.5 and 0.5 a quarter of 200 lacks both; three standard deviations of the hypergeometric number."""
    kept = missing.draw(WHOLE, rates(T1=0.5, T2=0.5))
    both = sum("T1" not in own and "T2" not in own for own in kept.values())
    assert abs(both - 50) < 3 * np.sqrt(100 * 100 * 100 * 100 / (200**2 * 199))


def test_the_draw_follows_names_and_seed_alone():
    given = {"T1ce": 0.4, "T2": 0.4}
    kept = missing.draw(WHOLE, rates(**given))
    assert missing.draw(dict(reversed(WHOLE.items())), rates(**given)) == kept
    assert missing.draw(WHOLE, rates(**given, seed=1)) != kept


def test_what_a_case_lacks_of_itself_counts_and_is_never_given_back():
    has = WHOLE | {f"case{i:03d}": ("T1",) for i in range(20)} | {"case199": ("FLAIR", "T1")}
    kept = missing.draw(has, rates(T1ce=0.1, T1=0.5, T2=0.3))
    assert lacking(kept) == {"FLAIR": 20, "T1ce": 21, "T1": 100, "T2": 60}  # 21 lack T1ce of themselves
    assert all(set(own) <= set(has[name]) for name, own in kept.items())
    assert [kept[f"case{i:03d}"] for i in range(20)] == [("T1",)] * 20


def test_rates_that_cannot_be():
    with pytest.raises(UserError, match=r"the shares add up to 3.2"):
        config.parse({"data": {"missing": dict.fromkeys(MODALITIES, 0.8)}}, "test")
    with pytest.raises(UserError, match=r"data\.missing\.T1c"):
        config.parse({"data": {"missing": {"T1c": 0.2}}}, "test")
    with pytest.raises(UserError, match=r"data.missing.T1: 0.9 of 3 training cases leaves none with T1"):
        missing.draw(dict.fromkeys("abc", MODALITIES), rates(T1=0.9))
    with pytest.raises(UserError, match="some of the 3 training cases keep no modality"):
        missing.draw({"a": ("T1",), "b": ("T1",), "c": ("T1", "T2")}, rates(T1=0.66))


# --- prepared cases


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("missing")
    phantom.write(place, cases=5, seed=0, shape=(24, 28, 24), spacing=6.0)
    return place


def data(folder, **changes) -> config.Data:
    tree = {"root": str(folder), "split": {"counts": [3, 1, 1]}, "min_size": 16, "crop": [16, 16, 16]}
    return config.Data(**{**tree, **changes})


def opened(folder, base, how=open_inputs, **changes):
    return how(data(folder, **changes), base, 1, lambda *_: None)


def test_what_is_taken_away_is_not_read_and_all_else_is_as_it_was(folder, tmp_path):
    """Files of the modalities that are taken away are no images any more: nobody notices."""
    rate = {"T1ce": 0.34, "FLAIR": 0.34, "T2": 0.34}
    whole = opened(folder, tmp_path)
    holed = opened(folder, tmp_path, missing=rate)
    assert sorted(len(entry.modalities) for entry in holed.train) in (
        [2, 3, 4],
        [2, 2, 4],
        [1, 4, 4],
        [3, 3, 3],
    )
    assert (holed.validation, holed.test) == (whole.validation, whole.test)
    assert holed.notes[-1] == "of the 3 training cases 1 have no FLAIR, 1 have no T1ce, 1 have no T2"
    copy = tmp_path / "copy"
    for entry in holed.train:
        own = next(case for case in find(folder).cases if case.name == entry.name)
        for name, path in own.given.items():
            target = copy / path.relative_to(folder)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes() if name in entry.modalities else b"no image")
        target = copy / own.segmentation.relative_to(folder)
        target.write_bytes(own.segmentation.read_bytes())
        before, at = entry.images(), [MODALITIES.index(name) for name in entry.modalities]
        assert before[at].any(axis=(1, 2, 3)).all()
        assert not np.delete(before, at, axis=0).any()
    split = {"counts": [3, 0, 0]}
    again = opened(copy, tmp_path / "other", missing=rate, split=split)
    assert [(entry.name, entry.fingerprint, entry.modalities) for entry in again.train] == [
        (entry.name, entry.fingerprint, entry.modalities) for entry in holed.train
    ]
    for entry, other in zip(holed.train, again.train, strict=True):
        np.testing.assert_array_equal(entry.images(), other.images())


def test_names_of_data_change_with_the_holes_alone(folder, tmp_path):
    whole = opened(folder, tmp_path)
    for nothing in ({}, {"T1": 0.0}, {"T1": 0.1}):  # a tenth of three cases is none of them
        assert opened(folder, tmp_path, missing=nothing).fingerprint == whole.fingerprint
    holed = opened(folder, tmp_path, missing={"T1": 0.34})
    assert holed.fingerprint != whole.fingerprint
    assert holed.test_fingerprint == whole.test_fingerprint
    assert opened(folder, tmp_path, look_at_inputs, missing={"T1": 0.34}).fingerprint == holed.fingerprint
    learning, _ = opened(folder, tmp_path, open_for_learning, missing={"T1": 0.34})
    assert learning.fingerprint == holed.fingerprint


def test_a_prepared_case_keeps_what_it_has_on_its_way_to_another_process(folder, tmp_path):
    for entry in opened(folder, tmp_path, missing={"T1": 0.67}).train:
        there = type(entry).from_dict(entry.as_dict())
        assert there.modalities == entry.modalities
        assert there == replace(entry, source=None, notes=())


def test_a_volume_without_a_modality_is_the_others(folder):
    case: Case = find(folder).cases[0]
    whole, part = read(case), read(case.only(("T1ce", "T2")))
    np.testing.assert_array_equal(part.images[[1, 3]], whole.images[[1, 3]])
    assert not part.images[[0, 2]].any()
    np.testing.assert_array_equal(part.labels, whole.labels)


# --- cases whose files lack modalities


def by_names(root):
    phantom.write(root, cases=2, seed=0, shape=(24, 28, 24), spacing=6.0)
    return config.Data(incomplete=True)


def by_patterns(root):
    phantom.write(root / "new", cases=2, seed=0, shape=(24, 28, 24), spacing=6.0)
    for case in find(root / "new").cases:
        for name, path in {**case.given, "truth": case.segmentation}.items():
            target = root / name / f"{case.name}.nii.gz"
            target.parent.mkdir(exist_ok=True)
            path.rename(target)
    files = {name: f"{name}/{{case}}.nii.gz" for name in MODALITIES}
    return config.Data(
        files={**files, "segmentation": "truth/{case}.nii.gz"}, scheme="brats2021", incomplete=True
    )


def as_nnunet(root):
    phantom.write(root / "new", cases=2, seed=0, shape=(24, 28, 24), spacing=6.0)
    (root / "imagesTr").mkdir()
    (root / "labelsTr").mkdir()
    for case in find(root / "new").cases:
        for number, path in enumerate(case.given.values()):
            path.rename(root / "imagesTr" / f"{case.name}_{number:04d}.nii.gz")
        case.segmentation.rename(root / "labelsTr" / f"{case.name}.nii.gz")
    channels = {str(number): name for number, name in enumerate(MODALITIES)}
    labels = {"background": 0, "NCR": 1, "ED": 2, "ET": 4}
    (root / "dataset.json").write_text(json.dumps({"channel_names": channels, "labels": labels}))
    return config.Data(incomplete=True)


@pytest.mark.parametrize("way", [by_names, by_patterns, as_nnunet])
def test_a_case_without_some_files_takes_part_where_that_is_asked_for(tmp_path, way):
    data = way(tmp_path)
    first, second = find(tmp_path, data).cases
    assert (first.modalities, second.modalities) == (MODALITIES, MODALITIES)
    second.given["T1ce"].unlink()
    second.given["T2"].unlink()
    finding = find(tmp_path, data)
    assert [case.modalities for case in finding.cases] == [MODALITIES, ("FLAIR", "T1")]
    assert finding.problems == []
    said = f"{second.name}: has no T1ce and no T2, and takes part without (data.incomplete)"
    assert said in map(str, finding.notes)
    volume = read(finding.cases[1])
    assert volume.images.any(axis=(1, 2, 3)).tolist() == [True, False, True, False]
    refused = find(tmp_path, data.model_copy(update={"incomplete": False}))
    assert [case.name for case in refused.cases] == [first.name]
    assert {problem.case for problem in refused.problems} == {second.name}
    assert len(refused.problems) == 2
    second.segmentation.unlink()
    assert [case.name for case in find(tmp_path, data).cases] == [first.name]  # without truth it cannot


def test_holes_are_drawn_beside_what_files_lack(tmp_path):
    """A third of three cases is to lack T1: one does of itself, so that none is taken away."""
    place = tmp_path / "cases"
    phantom.write(place, cases=4, seed=0, shape=(24, 28, 24), spacing=6.0)
    train = opened(place, tmp_path, split={"counts": [3, 0, 1]}).train
    lacking = next(case for case in find(place).cases if case.name == train[0].name)
    lacking.given["T1"].unlink()
    rate = {"T1": 0.34, "T2": 0.34}
    inputs = opened(place, tmp_path, split={"counts": [3, 0, 1]}, missing=rate, incomplete=True)
    without = [{*MODALITIES} - {*entry.modalities} for entry in inputs.train]
    assert without[0] in ({"T1"}, {"T1", "T2"})
    assert sorted(name for names in without for name in names) == ["T1", "T2"]
    assert len(inputs.test) == 1
