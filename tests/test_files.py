"""Reading what others have written: up to a limit, nothing without an end, words fit for a terminal."""

from __future__ import annotations

import json
import os
import pickle
import time
from pathlib import Path

import pytest

from acdis import config, files
from acdis.data.fingerprints import file_hash
from acdis.errors import LONGEST, UserError
from acdis.evaluation.examples import read_example
from acdis.evaluation.records import read_parquet
from acdis.evaluation.scores import read_file


def test_up_to_the_limit_and_no_further(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"x" * 10)
    assert files.read(path, 10) == b"x" * 10
    with pytest.raises(files.TooLargeError, match="10 bytes, 9 at most"):
        files.read(path, 9)


def test_a_file_of_a_terabyte_takes_no_time(tmp_path: Path) -> None:
    with (tmp_path / "sparse").open("wb") as stream:
        stream.truncate(2**40)
    began = time.process_time()
    with pytest.raises(files.TooLargeError, match="1,099,511,627,776"):
        files.read(tmp_path / "sparse", 100)
    assert time.process_time() - began < 10  # reading it would take minutes of the processor


def test_what_has_no_end_is_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("/dev/zero")
    for path in (tmp_path / "pipe", tmp_path / "link", tmp_path, tmp_path / "a\0b", tmp_path / ("x" * 5000)):
        with pytest.raises(OSError, match=r"."):
            files.read(path, 100)


def test_files_without_a_size_are_limited_too() -> None:
    """Those of /proc say 0."""
    assert os.stat("/proc/self/environ").st_size == 0
    with pytest.raises(files.TooLargeError, match="more than 3 bytes"):
        files.read(Path("/proc/self/environ"), 3)


@pytest.mark.parametrize("read", [read_file, read_parquet, read_example, lambda path: file_hash(path, path)])
@pytest.mark.timeout(20)
def test_no_pipe_is_waited_for(tmp_path, read):
    """Nobody writes into it, and `report` of a colleague's cell would stand there for ever."""
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises((UserError, OSError), match="Not a regular file"):
        read(tmp_path / "pipe")
    assert not files.is_held(tmp_path / "pipe")


def test_errors_are_fit_for_a_terminal() -> None:
    error = UserError("a\x1b[2Jb \ud800 \u202e ü\nsecond line")
    assert str(error) == "a\\x1b[2Jb \\ud800 \\u202e ü\nsecond line"
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


def test_errors_have_an_end() -> None:
    """What is wrong stands at the beginning, and what to do at the end."""
    text = str(UserError("begin " + "x" * 100_000 + " end"))
    assert len(text) <= LONGEST + 10
    assert text.startswith("begin x")
    assert text.endswith("x end")


def test_ten_thousand_unknown_keys_are_told_at_once(tmp_path: Path) -> None:
    """Looking up the nearest key for each of 20,000 took three minutes."""
    (tmp_path / "e.yaml").write_text("\n".join(f"k{number}: 1" for number in range(10_000)))
    began = time.process_time()
    with pytest.raises(UserError, match=r"unknown key 'k0'.*\(and 9,988 more\)"):
        config.load(tmp_path / "e.yaml")
    assert time.process_time() - began < 30


CHAIN = "\n".join(["a0: &a0 [1]", *(f"a{n}: &a{n} [*a{n - 1}]" for n in range(1, 300))])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("seed: 0x" + "f" * 5000, "a number of 5002 characters"),  # its decimal digits are too many to print
        ('tracking: {experiment: "a\\0b"}', "a NUL"),
        ('tracking: {experiment: "\\ud800"}', "half of a surrogate pair"),
        ("? [a]\n: 1", "cannot be a key"),
        ("seed: !!set {a}", "the tag tag:yaml.org,2002:set"),
        ("seed: !!binary aGk=", "the tag tag:yaml.org,2002:binary"),
        ("seed: 2026-99-99", "seed: Input should be a valid integer"),
        ("a: " + "[" * 50 + "]" * 50, "more than 40 deep"),
        (
            "\n".join(["a0: &a0 [1]", *(f"a{n}: &a{n} [*a{n - 1}]" for n in range(1, 300))]),
            "more than 40 deep",
        ),
        ("data: {min_size: 100000}", "data.min_size: Input should be less than or equal to 1024"),
        ("data: {phantoms: {cases: 1000000000}}", "less than or equal to 10000"),
    ],
)
def test_yaml_that_is_no_configuration(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "e.yaml").write_text(text)
    with pytest.raises(UserError) as refused:
        config.load(tmp_path / "e.yaml")
    assert words in str(refused.value)
    assert "e.yaml" in str(refused.value)


@pytest.mark.parametrize("value", ["2026-99-99", "[" * 5000, "&a [*a]", "!!set {a}", "0x" + "f" * 5000])
def test_overrides_are_read_as_strictly_as_files(value: str) -> None:
    with pytest.raises(UserError, match=r"override 'seed="):
        config.load(None, [f"seed={value}"])


@pytest.mark.parametrize(
    ("content", "count"), [(b"[1, 2, 3]", 3), (b'{"a": [1], "b": {}}', 4), (b"[[[[]]]]", 4), (b"7", 0)]
)
def test_values_are_counted_before_any_is_made(content, count):
    """By commas and brackets: never fewer than there are beyond the first."""
    assert files.json_of(content, most=count) == json.loads(content)
    if count:
        with pytest.raises(files.TooLargeError, match=rf"about {count} values, {count - 1} at most"):
            files.json_of(content, most=count - 1)


def test_what_is_nested_too_deep_is_no_json():
    with pytest.raises(ValueError, match="nested too deep"):
        files.json_of(b"[" * 100_000 + b"]" * 100_000)
