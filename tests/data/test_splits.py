"""Split files, the public lists among them, and seeded draws."""

import numpy as np
import pytest

from acdis.config import Split
from acdis.data import splits
from acdis.errors import UserError

NAMES = [f"BraTS2021_{index:05d}" for index in range(20)]


@pytest.fixture
def write(tmp_path):
    def writer(**lists):
        for part, text in lists.items():
            (tmp_path / f"{part}.txt").write_text(text if isinstance(text, str) else "\n".join(text) + "\n")
        return Split(**{part: f"{part}.txt" for part in lists})

    return writer


def test_files_relative_to_base(write, tmp_path):
    split = write(train=["b", "a"], validation=["c"], test=["d"])
    lists = splits.resolve(split, ["a", "b", "c", "d", "unused"], tmp_path)
    assert lists == splits.Lists(("a", "b"), ("c",), ("d",))


def test_files_relative_to_the_current_folder_and_absolute(write, tmp_path, monkeypatch):
    split = write(train=["a"])
    monkeypatch.chdir(tmp_path)
    assert splits.resolve(split, ["a"], tmp_path / "elsewhere").train == ("a",)
    assert splits.resolve(split, ["a"], None).train == ("a",)
    assert splits.resolve(Split(train=str(tmp_path / "train.txt")), ["a"], None).train == ("a",)


def test_comments_empty_lines_and_windows_files(write, tmp_path):
    split = write(train="\ufeff# my split\r\n\r\n  a  \r\nb # held in\r\n\r\n")
    assert splits.resolve(split, ["a", "b"], tmp_path).train == ("a", "b")


def test_prefix_of_the_grade_is_mapped_both_ways(write, tmp_path):
    split = write(train=["HG_BraTS20_Training_002", "LG_BraTS20_Training_260", "BraTS20_Training_336"])
    names = ["BraTS20_Training_002", "BraTS20_Training_260", "HG_BraTS20_Training_336"]
    assert set(splits.resolve(split, names, tmp_path).train) == set(names)


def test_unknown_names_are_all_listed(write, tmp_path):
    split = write(train=["a", "x1", "x2"], validation=["b"])
    with pytest.raises(UserError, match=r"train\.txt: 2 of 3 names match none of the 2 cases: x1, x2$"):
        splits.resolve(split, ["a", "b"], tmp_path)


@pytest.mark.parametrize(
    ("lists", "reason"),
    [
        ({"train": ["a", "b", "a"]}, r"train\.txt: listed more than once: a$"),
        ({"train": ["HG_a", "a"]}, r"train\.txt: listed more than once: a$"),
        ({"train": ["a", "b"], "test": ["c", "b"]}, r"test\.txt: also listed to train .*: b$"),
        (
            {"train": ["a"], "validation": ["b"], "test": ["LG_b"]},
            r"test\.txt: also listed to validation .*: b$",
        ),
        ({"train": ["# nobody"], "test": ["a"]}, r"train\.txt: holds no case to train on"),
    ],
)
def test_lists_must_be_disjoint(write, tmp_path, lists, reason):
    with pytest.raises(UserError, match=reason):
        splits.resolve(write(**lists), ["a", "b", "c"], tmp_path)


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(UserError, match=r"train\.txt: no such split file; looked for .*"):
        splits.resolve(Split(train="train.txt"), ["a"], tmp_path)
    (tmp_path / "train.txt").write_bytes(b"\xff\xfe\x00a")
    with pytest.raises(UserError, match="is not UTF-8 text"):
        splits.resolve(Split(train="train.txt"), ["a"], tmp_path)


def test_no_split_is_the_users_error():
    with pytest.raises(UserError, match="give files"):
        splits.resolve(Split(), NAMES, None)


def test_draw_by_counts():
    lists = splits.resolve(Split(counts=(10, 3, 5), seed=7), NAMES, None)
    assert [len(part) for part in (lists.train, lists.validation, lists.test)] == [10, 3, 5]
    assert len({*lists.train, *lists.validation, *lists.test}) == 18
    order = np.random.default_rng(7).permutation(20)
    assert set(lists.train) == {NAMES[index] for index in order[:10]}
    assert splits.resolve(Split(counts=(10, 3, 5), seed=7), NAMES[::-1], None) == lists
    assert splits.resolve(Split(counts=(10, 3, 5), seed=8), NAMES, None) != lists
    assert splits.resolve(Split(counts=(20, 0, 0)), NAMES, None).train == tuple(NAMES)


def test_more_than_there_is():
    with pytest.raises(UserError, match=r"ask for 21 cases, there are 20"):
        splits.resolve(Split(counts=(20, 0, 1)), NAMES, None)


def test_public_lists_of_brats2020(shared):
    folder = shared / "data" / "splits"
    split = Split(train="brats2020_train.txt", validation="brats2020_val.txt", test="brats2020_test.txt")
    names = [f"BraTS20_Training_{number:03d}" for number in range(1, 370)]
    lists = splits.resolve(split, names, folder)
    assert [len(part) for part in (lists.train, lists.validation, lists.test)] == [219, 50, 100]
    assert {*lists.train, *lists.validation, *lists.test} == set(names)


@pytest.mark.parametrize("fold", [1, 2, 3])
def test_public_lists_of_brats2018(shared, fold):
    folder = shared / "data" / "splits"
    split = Split(
        train=f"brats2018_train{fold}.txt",
        validation=f"brats2018_val{fold}.txt",
        test=f"brats2018_test{fold}.txt",
    )
    files = [folder / name for name in (split.train, split.validation, split.test)]
    names = [name for file in files for name in file.read_text().split()]
    assert len(set(names)) == 285
    lists = splits.resolve(split, names, folder)
    assert [len(part) for part in (lists.train, lists.validation, lists.test)] == [199, 29, 57]
    with pytest.raises(UserError, match=names[0]):
        splits.resolve(split, names[1:], folder)
