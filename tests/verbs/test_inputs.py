"""From a data configuration to cases: which problems count, and that all of them are told at once."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from acdis.config import Data
from acdis.data import phantom
from acdis.data.found_cases import find_cases
from acdis.data.inputs import Inputs, open_inputs
from acdis.errors import UserError

SHAPE, SPACING = (24, 24, 24), 6.0


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    phantom.write(folder, 4, 0, SHAPE, SPACING)
    return folder


@pytest.fixture
def root(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "cases"))


def _file(root: Path, number: int, suffix: str) -> Path:
    return root / f"Phantom_{number:05}" / f"Phantom_{number:05}_{suffix}.nii.gz"


def _data(root: Path, **split: Any) -> Data:
    return Data(root=str(root), split=split, min_size=16, crop=(16, 16, 16))


def _open(data: Data, base: Path) -> Inputs:
    return open_inputs(data, base, 1, lambda what, done, of: None)


def _list(folder: Path, name: str, *numbers: int) -> str:
    file = folder / name
    file.write_text("".join(f"Phantom_{number:05}\n" for number in numbers))
    return str(file)


def _names(entries: Any) -> list[int]:
    return [int(entry.name[-5:]) for entry in entries]


def test_files_say_who_does_what(root: Path, tmp_path: Path) -> None:
    data = _data(root, train=_list(tmp_path, "a", 3, 1), test=_list(tmp_path, "b", 4))
    inputs = _open(data, tmp_path / "home")
    assert (_names(inputs.train), _names(inputs.validation), _names(inputs.test)) == ([1, 3], [], [4])


def test_a_problem_outside_the_split_does_not_count(root: Path, tmp_path: Path) -> None:
    _file(root, 2, "t1").unlink()
    _file(root, 4, "t2").write_bytes(b"not a volume")
    data = _data(root, train=_list(tmp_path, "a", 3, 1))
    assert _names(_open(data, tmp_path / "home").train) == [1, 3]


def test_all_problems_of_wanted_cases_come_in_one_go(root: Path, tmp_path: Path) -> None:
    _file(root, 1, "t1").unlink()
    _file(root, 2, "seg").unlink()
    _file(root, 3, "t2").write_bytes(b"not a volume")
    data = _data(root, train=_list(tmp_path, "a", 1, 2), test=_list(tmp_path, "b", 3))
    with pytest.raises(UserError) as refused:
        _open(data, tmp_path / "home")
    said = str(refused.value)
    for words in (
        "Phantom_00001_t1.nii.gz: T1 is missing",
        "segmentation is missing",
        "Phantom_00003_t2.nii.gz",
    ):
        assert words in said
    assert "Phantom_00004" not in said


def test_with_counts_every_case_counts(root: Path, tmp_path: Path) -> None:
    _file(root, 2, "t1").unlink()
    with pytest.raises(UserError, match="Phantom_00002_t1"):
        _open(_data(root, counts=(1, 0, 1)), tmp_path / "home")


def test_a_name_that_no_case_has_is_listed(root: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="Phantom_00077"):
        _open(_data(root, train=_list(tmp_path, "a", 1, 77)), tmp_path / "home")


def test_phantoms_are_drawn_and_others_in_the_folder_left_out(tmp_path: Path) -> None:
    drawn = {"cases": 3, "seed": 1, "shape": SHAPE, "spacing": SPACING}
    data = Data(phantoms=drawn, split={"counts": (1, 1, 1)}, min_size=16, crop=(16, 16, 16))
    said: list[str] = []
    more = find_cases(data, tmp_path, lambda what, done, of: said.append(f"{what} {done}/{of}"))
    assert len(more.cases) == 3
    assert said[-1] == "drawing phantoms 3/3"
    fewer = data.model_copy(update={"phantoms": data.phantoms.model_copy(update={"cases": 2})})
    found = find_cases(fewer, tmp_path, lambda *_: None)
    assert found.names == more.names[:2]
    assert next(iter(found.cases.values())).segmentation == next(iter(more.cases.values())).segmentation


def test_the_fingerprint_says_which_cases_did_what(root: Path, tmp_path: Path) -> None:
    one, two = _list(tmp_path, "one", 1), _list(tmp_path, "two", 2)
    first = _open(_data(root, train=one, validation=two), tmp_path / "home")
    second = _open(_data(root, train=two, validation=one), tmp_path / "home")
    tested = _open(_data(root, train=one, validation=two, test=_list(tmp_path, "c", 3)), tmp_path / "home")
    assert first.fingerprint != second.fingerprint
    assert first.fingerprint == tested.fingerprint
    assert first.test_fingerprint != tested.test_fingerprint


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (Data(), "data.root: not set"),
        (Data(root="$NO_SUCH_VARIABLE"), "the environment variable"),
        (Data(root="/nowhere/at/all"), "is not a folder"),
        (Data(root="/tmp/runtime_resources/x/cases"), "Ray's copy of the checkout"),
    ],
)
def test_no_data_is_one_clear_line(tmp_path: Path, data: Data, words: str) -> None:
    with pytest.raises(UserError) as refused:
        find_cases(data, tmp_path, lambda *_: None)
    assert words in str(refused.value)


def test_no_split_is_refused(root: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"data\.split"):
        _open(_data(root), tmp_path / "home")
