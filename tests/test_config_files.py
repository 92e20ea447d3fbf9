"""Experiment files: what is read, what is refused, and in which words."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from acdis import config, methods
from acdis.config import Experiment
from acdis.errors import UserError


def _load(folder: Path, text: str, *overrides: str) -> Experiment:
    file = folder / "experiment.yaml"
    file.write_text(text)
    return config.load(file, overrides)


def test_no_file_is_the_defaults() -> None:
    assert config.load(None) == Experiment()


@pytest.mark.parametrize("name", [None, "brats2018.yaml", "brats2020.yaml"])
def test_the_defaults_are_the_papers_and_rfnets_where_it_is_silent(checkout: Path, name: str | None) -> None:
    """500 epochs of 150 steps of two volumes; the field's windows, all voxels of one weight."""
    found = config.load(checkout / "experiments" / name if name else None)
    training, data, evaluation = found.training, found.data, found.evaluation
    assert (training.epochs * (training.iterations or 0), training.batch_size) == (75_000, 2)
    assert (training.learning_rate, training.weight_decay, training.amsgrad) == (1e-4, 1e-4, True)
    assert (training.poly_power, training.selection) == (0.9, "last")
    assert (data.crop, data.lesion_crops, data.normalisation) == ((80, 80, 80), 0, "zscore")
    assert (data.background, data.last_slice, data.min_size) == ("zero", True, 128)
    assert (data.augmentation.rotation, data.augmentation.rotation_images) == (10, "linear")
    assert (evaluation.window, evaluation.stride) == ((80, 80, 80), (40, 40, 40))
    assert (evaluation.window_weights, evaluation.et_minimum) == ("constant", 500)


def test_overrides_reach_nested_keys_and_method_options() -> None:
    found = config.load(
        None, ["data.crop=[16, 16, 16]", "method.options.base_width=8", "training.learning_rate=1e-3"]
    )
    assert found.data.crop == (16, 16, 16)
    assert found.training.learning_rate == 1e-3
    assert methods.resolve(found).method.options["base_width"] == 8


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("data.crop=[16, 16]", ["data.crop: too few values", "[16, 16]"]),
        ("data.crop=[16, 16, 16, 16]", ["data.crop: too many values, 3 at most"]),
        ("data.crop=16", ["data.crop", "16"]),
        ("data.crp=[1, 1, 1]", ["unknown key 'data.crp'; did you mean 'data.crop'?"]),
        ("epochs=3", ["unknown key 'epochs'; did you mean 'training.epochs'?"]),
        ("training.epochs=none", ["training.epochs", "'none'"]),
        ("training.learning_rate=nan", ["training.learning_rate", "finite"]),
        ("seed.x=1", ["seed"]),
        ("=5", ["'=5'", "key.path=value"]),
        ("a..b=5", ["'a..b=5'", "key.path=value"]),
        (".=5", ["key.path=value"]),
        ("training.epochs", ["key.path=value"]),
        ("seed=[", ["seed=[", "YAML"]),
        ("evaluation.stride=[81, 40, 40]", ["stride", "left out"]),
        ("scaling.workers=3", ["training.batch_size 2", "3 workers"]),
    ],
)
def test_a_wrong_override_is_one_clear_line(override: str, words: list[str]) -> None:
    with pytest.raises(UserError) as refused:
        config.load(None, [override])
    assert "\n" not in str(refused.value)
    for word in words:
        assert word in str(refused.value)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("method.options.base_with=8", "did you mean 'base_width'?"),
        ("method.options.base_width=many", "method.options.base_width"),
        ("method.name=acdi", "did you mean 'acdis'?"),
        ("method.options.adversarial_weight=1", "no effect"),
    ],
)
def test_a_wrong_method_option_names_the_nearest(override: str, words: str) -> None:
    with pytest.raises(UserError, match="method") as refused:
        methods.resolve(config.load(None, [override]))
    assert words in str(refused.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("seed: 1\ndata: {crop: [1\n", ["line 3", "YAML"]),
        ("seed: 1\ndata: {}\nseed: 2\n", ["line 3", "'seed' is given twice"]),
        ("data:\n  crop: *nowhere\n", ["line 2", "nowhere"]),
        ("a: &a {b: *a}\n", ["recursive"]),
        ("seed: !!python/object/apply:os.getpid []\n", ["line 1", "YAML"]),
        ("- 1\n- 2\n", ["found a list"]),
        ("1: 2\n", ["strings"]),
        ("extends: nowhere.yaml\n", ["nowhere.yaml", "cannot be read"]),
        ("extends: experiment.yaml\n", ["extends itself"]),
        ("extends: [a]\n", ["extends"]),
    ],
)
def test_a_broken_file_is_named_with_the_line(tmp_path: Path, text: str, words: list[str]) -> None:
    with pytest.raises(UserError) as refused:
        _load(tmp_path, text)
    for word in ["experiment.yaml" if "nowhere.yaml" not in words else "nowhere.yaml", *words]:
        assert word in str(refused.value)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe\x00")
    for file in ("bytes.yaml", "nothing.yaml", "."):
        with pytest.raises(UserError, match="give the path of an experiment file"):
            config.load(tmp_path / file)


def test_an_empty_file_is_the_defaults(tmp_path: Path) -> None:
    assert _load(tmp_path, "") == Experiment()


def test_anchors_and_merge_keys_work(tmp_path: Path) -> None:
    text = "evaluation: &e {window: [32, 32, 32], stride: [16, 16, 16]}\ndata: {crop: [16, 16, 16]}\n"
    assert _load(tmp_path, text).evaluation.window == (32, 32, 32)
    merged = "data:\n  phantoms: {cases: 3, seed: 1}\n  split: &s {counts: [1, 1, 1]}\n"
    assert _load(tmp_path, merged).data.split.counts == (1, 1, 1)


def test_extends_keeps_what_is_not_said_again(tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "base.yaml").write_text(
        "seed: 4\ntraining: {epochs: 7, batch_size: 4}\ndata: {root: cases, split: {train: lists/a.txt}}\n"
    )
    found = _load(
        tmp_path,
        "extends: below/base.yaml\ntraining: {epochs: 9}\ndata: {split: {test: b.txt}}\n",
        "training.batch_size=6",
    )
    assert (found.seed, found.training.epochs, found.training.batch_size) == (4, 9, 6)
    assert found.data.root == str(tmp_path / "below" / "cases")  # each path relative to the file that says it
    assert found.data.split.train == str(tmp_path / "below" / "lists" / "a.txt")
    assert found.data.split.test == str(tmp_path / "b.txt")


def test_relative_paths_in_overrides_are_the_working_directorys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found = config.load(None, ["data.root=here", "data.split.train=$LISTS/a.txt"])
    assert found.data.root == str(tmp_path / "here")
    assert found.data.split.train == "$LISTS/a.txt"


@pytest.mark.parametrize("table", ["lists/p.csv", "P.TSV"])
def test_a_table_of_patients_is_a_path_and_an_expression_is_none(tmp_path: Path, table: str) -> None:
    (tmp_path / "here").mkdir()
    file = tmp_path / "here" / "e.yaml"
    file.write_text(f"data: {{patients: {table}}}\n")
    assert config.load(file).data.patients == str(tmp_path / "here" / table)
    file.write_text(r"data: {patients: '(P\d+)_.*'}" + "\n")
    assert config.load(file).data.patients == r"(P\d+)_.*"


@pytest.mark.parametrize("text", ["a\x85b", "\u2028", "Köln"])
def test_letters_and_line_breaks_of_unicode_come_back(tmp_path: Path, text: str) -> None:
    """U+0085 became spaces where PyYAML wrote it unescaped."""
    experiment = config.parse({"method": {"options": {text: text}}}, "test")
    file = tmp_path / "round.yaml"
    file.write_text(config.dump(experiment), encoding="utf-8")
    assert config.load(file) == experiment


_TEXT = st.characters(codec="utf-8", exclude_characters="\0")


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**31 - 1),
    epochs=st.integers(1, 10**6),
    rate=st.floats(1e-12, 1e6),
    crop=st.tuples(*[st.integers(1, 128)] * 3),
    lesion=st.floats(0, 1),
    root=st.none()
    | st.text(st.characters(codec="utf-8", exclude_characters="$~\0"), min_size=1, max_size=20),
    options=st.dictionaries(
        st.text(_TEXT, min_size=1, max_size=8),
        st.integers(-(10**90), 10**90) | st.booleans() | st.text(_TEXT, max_size=5),
        max_size=3,
    ),
)
def test_what_is_dumped_is_what_is_loaded(
    tmp_path_factory: pytest.TempPathFactory,
    seed: int,
    epochs: int,
    rate: float,
    crop: Any,
    lesion: float,
    root: str | None,
    options: dict[str, Any],
) -> None:
    tree = {
        "seed": seed,
        "data": {"crop": crop, "lesion_crops": lesion, "root": f"/{root}" if root else None},
        "training": {"epochs": epochs, "learning_rate": rate},
        "method": {"options": options},
    }
    experiment = config.parse(tree, "test")
    file = tmp_path_factory.getbasetemp() / "round.yaml"
    file.write_text(config.dump(experiment), encoding="utf-8")
    loaded = config.load(file)
    if experiment.data.root:  # paths come back tidied
        again = experiment.data.model_copy(update={"root": str(Path(experiment.data.root).resolve())})
        experiment = experiment.model_copy(update={"data": again})
    assert loaded == experiment


@pytest.mark.parametrize("name", ["phantom", "brats2021_small", "brats2020", "brats2018", "brats2018_split2"])
def test_the_experiments_of_the_checkout_are_valid(checkout: Path, name: str) -> None:
    methods.resolve(config.load(checkout / "experiments" / f"{name}.yaml"))


def test_flatten_names_every_leaf() -> None:
    flat = config.flatten({"a": {"b": [1, 2], "c": {}}, "d": None})
    assert flat["a.b"] == "[1, 2]"
    assert "d" in flat


def _undescribed(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, field in model.model_fields.items():
        parts = list(_models(field.annotation))
        if not field.description and not parts:
            yield prefix + name
        for part in parts:
            yield from _undescribed(part, f"{prefix}{name}.")


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in getattr(annotation, "__args__", ()):
        yield from _models(part)


def test_every_key_says_what_it_means() -> None:
    """But those that only hold others."""
    assert list(_undescribed(Experiment)) == []
