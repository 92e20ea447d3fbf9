"""Errors in experiment files name file and line, whichever file of an `extends` chain says it."""

from __future__ import annotations

from pathlib import Path

import pytest

from acdis import config, methods
from acdis.config.documents import read_value
from acdis.errors import UserError

BELOW = """\
seed: 1
data:
  min_size: 64
  crop: [32, 32, 32]
training:
  epochs: 5
method:
  options:
    base_width: 8
"""


def _refusal(folder: Path, text: str, *overrides: str) -> str:
    (folder / "below.yaml").write_text(BELOW)
    file = folder / "experiment.yaml"
    file.write_text(text)
    with pytest.raises(UserError) as refused:
        methods.load(file, overrides)
    assert "\n" not in str(refused.value)
    return str(refused.value).replace(f"{folder}/", "")


@pytest.mark.parametrize(
    ("text", "begins"),
    [
        (
            "seed: 1\ndata:\n  crp: 3\n",
            "experiment.yaml, line 3: unknown key 'data.crp'; did you mean 'data.crop'?",
        ),
        ("training:\n  epochs: many\n", "experiment.yaml, line 2: training.epochs:"),
        ("training: {epochs: 3,\n  batch_size: no}\n", "experiment.yaml, line 2: training.batch_size:"),
        ("data:\n  crop:\n    - 16\n    - wide\n    - 16\n", "experiment.yaml, line 4: data.crop.1:"),
        ("data:\n  crop:\n    [1, 2]\n", "experiment.yaml, line 2: data.crop: too few values"),
        ("seed: 1\ndata: {crop: [99, 9, 9], min_size: 64}\n", "experiment.yaml, line 2: data:"),
        ("method:\n  name: acdi\n", "experiment.yaml, line 2: method.name: unknown method"),
        (
            "method:\n  options:\n    base_with: 8\n",
            "experiment.yaml, line 3: unknown key 'method.options.base_with'; did you mean 'base_width'?",
        ),
        (
            "method:\n  options:\n    mfsb: conv\n    mfsb_kernel: 3\n",
            "experiment.yaml, line 4: method.options.mfsb_kernel has no effect",
        ),
        ("extends: below.yaml\ntraining: {epochs: 0}\n", "experiment.yaml, line 2: training.epochs:"),
        ("extends: below.yaml\ndata: {min_size: 16}\n", "experiment.yaml, line 2: data:"),
        ("extends:\n  - below.yaml\n", "experiment.yaml, line 1: extends:"),
        ("training: {<<: {epochs: 3}, batch_size: no}\n", "experiment.yaml, line 1: training.batch_size:"),
        ("base: &b {epochs: 3}\ntraining: *b\n", "experiment.yaml, line 1: unknown key 'base'"),
        (
            "method:\n  options:\n    consistency: [var, no]\n",
            "experiment.yaml, line 3: method.options.consist",
        ),
    ],
)
def test_the_line_that_says_it(tmp_path: Path, text: str, begins: str) -> None:
    assert _refusal(tmp_path, text).startswith(begins)


def test_what_the_file_below_says_is_that_files_line(tmp_path: Path) -> None:
    (tmp_path / "experiment.yaml").write_text("extends: below.yaml\ntraining: {batch_size: 2}\n")
    (tmp_path / "below.yaml").write_text("seed: 1\ntraining:\n  epochs: x\n")
    with pytest.raises(UserError, match=r"below\.yaml, line 3: training\.epochs"):
        config.load(tmp_path / "experiment.yaml")


def test_an_override_has_the_last_word_and_is_named(tmp_path: Path) -> None:
    said = _refusal(tmp_path, "extends: below.yaml\n", "training.epochs=3", "training.epochs=x")
    assert said.startswith("override 'training.epochs=x': training.epochs:")
    said = _refusal(tmp_path, "extends: below.yaml\n", "data.min_size=16")
    assert said.startswith("override 'data.min_size=16': data: ")


def test_text_that_begins_as_yaml_does_says_how_to_write_it(tmp_path: Path) -> None:
    """A pattern of `data.files` begins with {case} as a rule; what the message says is what works."""
    pattern = "{case}/{case}_t1.nii.gz"
    said = _refusal(tmp_path, "{}", f"data.files.T1={pattern}")
    assert said.endswith(f"""; as text: data.files.T1='"{pattern}"'""")
    assert read_value(f'"{pattern}"') == pattern
    assert "; as text" not in _refusal(tmp_path, "{}", "seed=x: y: z")


def test_every_problem_has_its_place(tmp_path: Path) -> None:
    said = _refusal(tmp_path, "extends: below.yaml\nseed: x\ndata:\n  spacing: y\n", "scaling.workers=z")
    for words in (
        "experiment.yaml, line 2: seed:",
        "experiment.yaml, line 4: data.spacing:",
        "override 'scaling.workers=z': scaling.workers:",
    ):
        assert words in said


def test_a_bomb_of_aliases_is_refused_quickly(tmp_path: Path) -> None:
    """2⁴⁰ values in two kilobytes: whoever copies or prints them never ends."""
    lines = ["a0: &a0 [1, 1]"] + [f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]" for n in range(1, 40)]
    file = tmp_path / "experiment.yaml"
    file.write_text("\n".join(lines))
    with pytest.raises(UserError, match=r"experiment\.yaml, line 17: .*200,000 values"):
        config.read_document(file)


def test_values_that_are_aliases_have_their_lines(tmp_path: Path) -> None:
    file = tmp_path / "experiment.yaml"
    file.write_text("a: &a [1, [2, 3]]\nb: *a\nc: 4\n")
    assert config.read_document(file).line(("c",)) == 3
    assert config.read_document(file).line(("b", 1, 0)) == 1
