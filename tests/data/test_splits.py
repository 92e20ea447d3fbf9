"""Split files, the public lists among them, and seeded draws."""

import re

import numpy as np
import pytest

from acdis.config import Split
from acdis.data import splits
from acdis.data.lists import PUBLISHED, read_list, recognised
from acdis.data.patients import known
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
    with pytest.raises(
        UserError, match=r"train\.txt: 2 of 3 names match none of the 2 cases, which are named as a: x1, x2$"
    ):
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
    assert splits.resolve(Split(counts=(10, 3, 5), seed=7), NAMES[::-1], None) == lists
    assert splits.resolve(Split(counts=(10, 3, 5), seed=8), NAMES, None) != lists
    assert splits.resolve(Split(counts=(20, 0, 0)), NAMES, None).train == tuple(NAMES)


def test_a_draw_favours_nobody():
    """Over many seeds each case trains as often as its part of the counts."""
    trained = np.zeros(20)
    for seed in range(400):
        lists = splits.draw(NAMES, (10, 3, 5), seed)
        trained += [name in lists.train for name in NAMES]
    assert np.abs(trained / 400 - 0.5).max() < 0.1  # four standard deviations


def test_a_patient_of_a_draw_is_on_one_side():
    """Ten patients with two scans, thirty with one."""
    patients = {f"P{n}-{scan}": f"P{n}" for n in range(40) for scan in range(2 if n < 10 else 1)}
    for seed in range(20):
        lists = splits.draw(list(patients), (30, 7, 12), seed, patients)
        parts = [{patients[name] for name in part} for part in (lists.train, lists.validation, lists.test)]
        assert [len(part) for part in (lists.train, lists.validation, lists.test)] == [30, 7, 12]
        assert sum(map(len, parts)) == len(set.union(*parts))


def test_counts_that_whole_patients_do_not_come_to():
    patients = {f"P{n}-{scan}": f"P{n}" for n in range(10) for scan in range(2)}
    with pytest.raises(
        UserError, match=r"whole patients come to (\(.*\)) near that; choose these"
    ) as refused:
        splits.draw(list(patients), (9, 2, 9), 0, patients)
    near = tuple(map(int, re.findall(r"\d+", str(refused.value).partition("come to")[2])[:3]))
    assert near in {(8, 2, 10), (10, 2, 8), (8, 2, 8)}
    assert [len(part) for part in vars(splits.draw(list(patients), near, 0, patients)).values()] == [*near]


@pytest.mark.parametrize(
    ("scans", "counts"),
    [
        (
            (3, 3, 2, 2, 2),
            (6, 6, 0),
        ),  # largest first and evenly: 3 + 2 on each side, and the last fits nowhere
        ((2, 2, 2, 2, 3), (8, 0, 3)),
        ((5, 5, 3, 3, 3, 2), (10, 2, 9)),
        ((8, 4, 4, 4, 2, 2), (12, 4, 6)),
    ],
)
def test_counts_that_whole_patients_come_to_are_drawn(scans, counts):
    """Whoever asks for what can be had gets it, whichever seed; kinds and patients as they were."""
    patients = {f"P{n}-{scan}": f"P{n}" for n, count in enumerate(scans) for scan in range(count)}
    for seed in range(20):
        parts = list(vars(splits.draw(list(patients), counts, seed, patients)).values())
        assert [len(part) for part in parts] == [*counts]
        sides = [{patients[name] for name in part} for part in parts]
        assert sum(map(len, sides)) == len(set.union(*sides))
        assert [sum(scans[int(who[1:])] for who in side) for side in sides] == [*counts]


def test_a_draw_keeps_kinds_alike():
    """A quarter of 80 is of kind 1: so is a quarter of each part."""
    kinds = {f"C{n:02d}": int(n % 4 == 0) for n in range(80)}
    for seed in range(10):
        lists = splits.draw(list(kinds), (40, 8, 20), seed, None, kinds)
        assert [sum(kinds[n] for n in part) for part in (lists.train, lists.validation, lists.test)] == [
            10,
            2,
            5,
        ]


def test_lists_that_part_a_patient_are_named(write, tmp_path):
    names = ["BraTS-GLI-00001-000", "BraTS-GLI-00001-001", "BraTS-GLI-00002-000"]
    split = write(train=names[:1] + names[2:], test=names[1:2])
    with pytest.raises(UserError, match=r"test\.txt: patients also listed to train .*: BraTS-GLI-00001$"):
        splits.resolve(split, names, tmp_path, known(names))


def test_public_lists_of_brats2023_part_nobody(shared):
    folder = shared / "data" / "splits"
    parts = ("train", "val", "test")
    paths = {part: folder / f"brats2023_{name}.txt" for part, name in zip(splits.PARTS, parts, strict=True)}
    names = [name for path in paths.values() for name in read_list(path)]
    found = splits.from_files(paths, names, known(names))
    assert [len(part) for part in (found.train, found.validation, found.test)] == [875, 125, 251]
    assert len(set(known(names).values())) == 1133
    drawn = splits.draw(names, (875, 125, 251), 0, known(names))
    sides = [{known(names)[name] for name in part} for part in (drawn.train, drawn.validation, drawn.test)]
    assert sum(map(len, sides)) == 1133


def test_folds_keep_patients_together():
    patients = {f"P{n}-{scan}": f"P{n}" for n in range(12) for scan in range(2 if n < 3 else 1)}
    parts = splits.folds(list(patients), 5, 0, patients)
    assert sorted(len(part) for part in parts) == [3] * 5
    assert sorted(name for part in parts for name in part) == sorted(patients)
    sides = [{patients[name] for name in part} for part in parts]
    assert sum(map(len, sides)) == 12
    with pytest.raises(UserError, match="13 folds of 12 patients"):
        splits.folds(list(patients), 13, 0, patients)


@pytest.mark.parametrize("seed", range(10))
def test_folds_are_of_one_size_whatever_the_kinds(seed):
    """Each case of a kind of its own: none may draw all of them into the largest fold."""
    names = [f"C{n:02}" for n in range(11)]
    kinds = {name: index for index, name in enumerate(names)}
    assert sorted(map(len, splits.folds(names, 3, seed, None, kinds))) == [3, 4, 4]
    patients = {name: "Anna" if index < 8 else name for index, name in enumerate(names)}
    assert sorted(map(len, splits.folds(names, 4, seed, patients, kinds))) == [1, 1, 1, 8]


@pytest.mark.parametrize(
    ("text", "file"),
    [
        ("HGG/Brats18_a_1\n", "list.txt"),
        ("/data/x/HGG/Brats18_a_1/\r\n", "list.txt"),
        ("\ufeffBrats18_a_1.npy\n", "list.txt"),
        ("C:\\\\data\\\\Brats18_a_1.nii.gz", "list.txt"),
        ("case,age\nBrats18_a_1,60\n", "list.csv"),
        ("age, BraTS_ID\n60, Brats18_a_1\n", "list.csv"),
        ("Brats18_a_1,60\n", "list.csv"),
        ('[{"train": ["Brats18_a_1"], "val": []}]', "splits_final.json"),
        ('[{"train": [], "val": []}, {"train": ["Brats18_a_1"], "val": []}]', "splits_final.json#1"),
    ],
)
def test_lists_as_others_write_them(tmp_path, text, file):
    (tmp_path / file.partition("#")[0]).write_text(text, encoding="utf-8")
    split = Split(train=file)
    assert splits.resolve(split, ["Brats18_a_1", "Brats18_b_1"], tmp_path).train == ("Brats18_a_1",)


@pytest.mark.parametrize(
    ("text", "file"),
    [
        ("a,b,c\n", "list.txt"),
        ("a, b,\nc\n", "list.txt"),
        ("a;b;c", "list.txt"),
        ("a\tb\r\nc\n", "list.txt"),
        ("a b c", "list.txt"),
        ("['a',\n 'b',\n 'c']", "list.txt"),
        ("a\tHGG\nb\tLGG\nc\tHGG\n", "list.txt"),
        ("1;a\n2;b\n3;c\n", "list.txt"),
        ("nr;case;age\n1;a;60\n2;b;61\n3;c;62\n", "list.txt"),
        ("nr;case;age\n1;a;60\n2;b;61\n3;c;62\n", "list.csv"),
        ("nr\twho\n1\ta\n2\tb\n3\tc\n", "list.tsv"),
        ("a,b,c\n", "list.csv"),
        ("nr,who\n1,a\n2,b\n3,c\n", "list.csv"),
        ('["a", "b", "c"]', "list.json"),
        ("id,BraTS_ID\n1,a\n2,b\n3,c\n", "list.csv"),
        ("id\tgrade\tsubject\n1\tHGG\ta\n2\tLGG\tb\n3\tHGG\tc\n", "list.txt"),
        ("Case_ID\na\nb\nc\n", "list.txt"),
    ],
)
def test_several_names_or_columns_on_a_line(tmp_path, text, file):
    (tmp_path / file).write_text(text)
    assert splits.resolve(Split(train=file), ["a", "b", "c", "d"], tmp_path).train == ("a", "b", "c")


def test_names_may_hold_what_else_parts_them(write, tmp_path):
    names = ["Doe, Jane", "Roe; Rick", "Pat 1"]
    assert splits.resolve(write(train=names), names, tmp_path).train == tuple(sorted(names))


@pytest.mark.parametrize(
    ("text", "file", "reason"),
    [
        (
            "train\ttest\na\tb\nc\td\n",
            "list.txt",
            "columns 1 and 2 hold names of cases, so which .*; give a text",
        ),
        ("train,test\na,b\nc,d\n", "list.csv", "columns 1 and 2 hold names of cases"),
        ("case;split\na;train\nb;test\n", "list.txt", "its column 'split' says which part a case is in"),
        ("a,x,c\n", "list.txt", "1 of 3 names match none of the 4 cases, which are named as a: x$"),
        ("[]", "list.json", "holds no folds as nnU-Net writes them"),
    ],
)
def test_what_is_not_certain_says_what_to_give(tmp_path, text, file, reason):
    (tmp_path / file).write_text(text)
    with pytest.raises(UserError, match=reason):
        splits.resolve(Split(train=file), ["a", "b", "c", "d"], tmp_path)


def test_a_fold_that_parts_a_patient_and_one_that_is_not_there(tmp_path):
    (tmp_path / "f.json").write_text('[{"train": ["P1_0"], "val": ["P1_1"]}]')
    split, patients = Split(train="f.json#0", validation="f.json#0"), {"P1_0": "P1", "P1_1": "P1"}
    where = r"f\.json#0: its lists for train and validation share patients, remove from one: P1$"
    with pytest.raises(UserError, match=where):
        splits.resolve(split, list(patients), tmp_path, patients)
    with pytest.raises(UserError, match=r"f\.json: say which fold: f\.json#0$"):
        splits.resolve(Split(train="f.json#3"), list(patients), tmp_path)


def test_validation_of_a_fold_and_a_fold_that_is_not_named(tmp_path):
    (tmp_path / "splits_final.json").write_text(
        '[{"train": ["a"], "val": ["b"]}, {"train": ["b"], "val": ["a"]}]'
    )
    split = Split(train="splits_final.json#0", validation="splits_final.json#0")
    assert splits.resolve(split, ["a", "b"], tmp_path) == splits.Lists(("a",), ("b",), ())
    with pytest.raises(UserError, match=r"say which fold: splits_final\.json#0 to splits_final\.json#1"):
        splits.resolve(Split(train="splits_final.json"), ["a", "b"], tmp_path)


def test_accents_may_be_composed_or_not(write, tmp_path):
    composed, apart = "Pat_M\u00fcller", "Pat_Mu\u0308ller"
    assert splits.resolve(write(train=[composed]), [apart], tmp_path).train == (apart,)


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


def test_every_published_list_is_recognised_however_it_is_written(shared):
    found = {}
    for path in sorted((shared / "data" / "splits").glob("*.txt")):
        if path.name != "PROVENANCE.txt":
            names = [f"x/{name}.nii.gz" for name in reversed(read_list(path))]
            found[path.name] = recognised(names)
    assert set(found.values()) == set(PUBLISHED)
    assert all(found.values())
    assert {each.cases for name, each in found.items() if "2023" in name} == {875, 125, 251}
    assert recognised(["a"]) is None


def test_a_published_table_is_recognised_without_the_cases(tmp_path, shared):
    """`data splits` knows no names of cases: the header tells."""
    names = read_list(shared / "data" / "splits" / "brats2020_val.txt")
    file = tmp_path / "validation.csv"
    file.write_text("nr,BraTS_ID\n" + "".join(f"{number},{name}\n" for number, name in enumerate(names)))
    found = recognised(read_list(file))
    assert found is not None
    assert (found.split, found.part) == ("BraTS 2020", "validation")


@pytest.mark.parametrize("column", ["split", "Fold", "set"])
def test_a_table_of_several_parts_is_no_list_of_one(tmp_path, column):
    """All of its rows would train."""
    (tmp_path / "all.csv").write_text(f"case,{column}\na,train\nb,test\n")
    with pytest.raises(UserError, match=f"its column {column.lower()!r} says which part"):
        splits.resolve(Split(train=str(tmp_path / "all.csv")), ["a", "b"], tmp_path)
