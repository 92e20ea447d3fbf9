"""Search files: what they mean, and what is wrong with them, by file and line."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from acdis import cells, methods
from acdis.ablation.expansion import decide
from acdis.ablation.search import Search, load
from acdis.errors import UserError

BASE = """
data: {root: cases, split: {counts: [3, 2, 1]}, min_size: 48, crop: [32, 32, 32]}
method: {options: {base_width: 8, afeb_tokens: 4}}
training: {epochs: 20, validate_every: 5, precision: fp32}
evaluation: {window: [48, 48, 48], stride: [32, 32, 32]}
"""
FILE = """\
title: Rates
base: base.yaml
set: {training.weight_decay: 0.0}
search:
  trials: 7
  seed: 3
  pruner: {name: asha, min_epochs: 5, reduction: 2}
  space:
    training.learning_rate: {low: 1e-4, high: 1.0e-2, log: true}
    method.options.base_width: {low: 4, high: 12, step: 4}
    method.options.consistency: {choices: [[var, covar], [mse], []]}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "base.yaml").write_text(BASE)
    return tmp_path


def read(folder: Path, text: str = FILE, **options: Any) -> Search:
    path = folder / "rates.yaml"
    path.write_text(text)
    return load(path, **options)


def test_a_file_is_read_with_its_defaults(folder: Path) -> None:
    search = read(folder)
    settings = search.settings
    assert (search.name, search.title, settings.trials, settings.seed) == ("rates", "Rates", 7, 3)
    assert (settings.sampler, settings.objective, settings.pruner.name) == ("tpe", "dice/mean", "asha")
    rate, width, losses = settings.space.values()
    assert (rate.low, rate.high, rate.log, rate.whole) == (1e-4, 1e-2, True, False)
    assert (width.corners, width.whole) == ((4, 12), True)
    assert losses.texts == ('["var", "covar"]', '["mse"]', "[]")
    experiment = search.experiment({**search.first, "training.learning_rate": 0.003})
    assert (experiment.training.learning_rate, experiment.training.weight_decay) == (0.003, 0.0)
    assert experiment.method.options["base_width"] == 4
    assert experiment.data.root == str(folder / "cases")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("trials: 7", "trails: 7", r"line 5: unknown key 'search.trails'; did you mean 'search.trials'"),
        ("trials: 7", "trials: 0", r"line 5: search.trials"),
        ("  trials: 7\n", "", r"search.trials"),
        ("name: asha, min_epochs: 5", "name: median, min_epochs: 5", r"line 7: .*min_epochs has no effect"),
        ("name: asha, min_epochs: 5, reduction: 2", "name: tpe", r"line 7: search.pruner.name"),
        ("seed: 3", "sampler: tpa", r"line 6: search.sampler"),
        ("seed: 3", "objective: loss", r"line 6: search.objective"),
        (
            "low: 1e-4, high: 1.0e-2",
            "low: 1e-2, high: 1.0e-4",
            r"line 9: .*low 0.01 must be below high 0.0001",
        ),
        ("low: 1e-4", "low: 0", r"line 9: .*log needs a low above 0"),
        ("low: 4, high: 12, step: 4", "low: 4", r"line 10: .*give low and high, or choices"),
        (
            "low: 4, high: 12, step: 4",
            "low: 4, high: 12, choices: [4]",
            r"line 10: .*low and high, or choices",
        ),
        ("low: 4, high: 12, step: 4", "low: 4, high: 12, step: 9", r"line 10: .*step 9 must be"),
        ("low: 4, high: 12, step: 4", "choices: []", r"line 10: .*choices"),
        ("low: 4, high: 12, step: 4", "choices: [4, 4]", r"line 10: .*a choice is listed twice"),
        ("[mse], []", "[mse], [mes]", r"line 11: .*method.options.consistency"),
        (
            "training.learning_rate:",
            "training.learning_rates:",
            r"line 9: unknown key 'training.learning_rates'",
        ),
        ("options.base_width:", "options.width:", r"line 10: .*method.options.width"),
        ("low: 4, high: 12, step: 4", "low: 0, high: 12, step: 4", r"line 10: .*base_width"),
        (
            "training.learning_rate: {low",
            "seed: {low",
            r"line 9: .*seed cannot be searched: the best of several",
        ),
        (
            "training.learning_rate: {low",
            "data.split.seed: {low",
            r"line 9: .*data.split.seed cannot be searched",
        ),
        (
            "training.learning_rate: {low",
            "scaling.workers: {low",
            r"line 9: .*cannot be searched: it changes no",
        ),
        ("training.weight_decay", "training.learning_rate", r"line 3: set: .*has no effect, it is searched"),
        ("training.weight_decay", "training.weight", r"line 3: unknown key 'training.weight'"),
        (
            "weight_decay: 0.0",
            "epochs: 5",
            r"line 7: search.pruner: nothing to judge by before the last of 5",
        ),
        ("base: base.yaml\n", "", r"base: not given"),
        ("base: base.yaml", "base: other.yaml", r"other.yaml: cannot be read"),
        ("  space:\n", "  space: {}\n  spaces:\n", r"space"),
        ("title: Rates", "title: [", r"not valid YAML"),
    ],
)
def test_errors_name_the_line(folder: Path, old: str, new: str, message: str) -> None:
    assert old in FILE
    with pytest.raises(UserError) as caught:
        read(folder, FILE.replace(old, new))
    assert re.search(message, str(caught.value)), str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_option_that_is_idle_everywhere_is_refused(folder: Path) -> None:
    text = FILE.replace("training.weight_decay: 0.0", "method.options.afeb: conv")
    with pytest.raises(UserError, match=r"line 10: .*method\.options\.afeb_tokens has no effect here"):
        read(folder, text.replace("options.base_width", "options.afeb_tokens"))


def test_a_part_of_a_searched_key_is_refused(folder: Path) -> None:
    text = FILE + "    method.options: {choices: [{base_width: 4}]}\n"
    with pytest.raises(UserError, match=r"method\.options\.base_width is part of method\.options"):
        read(folder, text)


@pytest.mark.parametrize("override", ["training.learning_rate=1e-3", "training.weight_decay=1e-3"])
def test_an_override_without_effect_is_refused(folder: Path, override: str) -> None:
    with pytest.raises(UserError, match="has no effect"):
        read(folder, overrides=[override])


def test_another_experiment_and_overrides_take_the_place_of_the_base(folder: Path) -> None:
    (folder / "other.yaml").write_text(
        yaml.safe_dump({"extends": "base.yaml", "training": {"amsgrad": False}})
    )
    search = read(folder, experiment=folder / "other.yaml", overrides=["training.epochs=9"])
    training = search.experiment(search.first).training
    assert (training.amsgrad, training.epochs) == (False, 9)
    text = search.experiment_file(search.first, "found")
    (folder / "runs").mkdir()
    (folder / "runs" / "best.yaml").write_text(text)
    assert decide(methods.load(folder / "runs" / "best.yaml")) == search.experiment(search.first)
    assert "extends" not in yaml.safe_load(text)  # the home with the file may be moved away from the base


def test_an_option_idle_beside_other_values_is_dropped_and_equal_meaning_is_one_cell(folder: Path) -> None:
    text = FILE.replace("choices: [[var, covar], [mse], []]", "choices: [[]]") + (
        "    method.options.afeb: {choices: [afeb, conv]}\n"
        "    method.options.afeb_tokens: {choices: [3, 5]}\n"
    )
    search = read(folder, text)
    name = {
        (block, tokens): cells.cell_name(
            search.experiment(
                {**search.first, "method.options.afeb": block, "method.options.afeb_tokens": tokens}
            ),
            "data",
            1,
        )
        for block in ("afeb", "conv")
        for tokens in (3, 5)
    }
    assert name["conv", 3] == name["conv", 5]
    assert len(set(name.values())) == 3
    # The base's afeb_tokens is idle in what was found.
    values = {**search.first, "method.options.afeb": "conv", "method.options.afeb_tokens": 5}
    found = folder / "best.yaml"
    found.write_text(search.experiment_file(values, "found"))
    assert "extends" not in yaml.safe_load(found.read_text())
    assert decide(methods.load(found)) == search.experiment(values)


def test_paths_in_set_are_relative_to_the_file(folder: Path) -> None:
    (folder / "deeper").mkdir()
    text = FILE.replace("base: base.yaml", "base: ../base.yaml").replace("weight_decay: 0.0", "epochs: 30")
    path = folder / "deeper" / "rates.yaml"
    path.write_text(text.replace("set: {", "set: {data.root: ../elsewhere, "))
    search = load(path)
    assert search.experiment(search.first).data.root == str(folder / "elsewhere")
    assert yaml.safe_load(search.experiment_file(search.first, "x"))["data"]["root"] == str(
        folder / "elsewhere"
    )


def test_the_meaning_is_what_makes_trials_comparable(folder: Path) -> None:
    meaning = read(folder).meaning("data")
    same = {
        "trials: 7": "trials: 70",
        "seed: 3": "seed: 4",
        "reduction: 2": "reduction: 3",
        "Rates": "Speeds",
    }
    for old, new in same.items():
        assert read(folder, FILE.replace(old, new)).meaning("data") == meaning
    other = {
        "high: 12": "high: 16",
        "weight_decay: 0.0": "weight_decay: 0.1",
        "seed: 3": "objective: dice/ET/mean",
    }
    for old, new in other.items():
        assert read(folder, FILE.replace(old, new)).meaning("data") != meaning
    assert read(folder).meaning("other data") != meaning


def test_the_file_in_the_checkout_is_valid(checkout: Path) -> None:
    search = load(checkout / "ablations" / "search.yaml")
    assert search.experiment(search.first).data.phantoms is not None


def test_nothing_heavy_is_imported() -> None:
    code = (
        "import sys, acdis.ablation.search, acdis.ablation.trials, acdis.verbs.search\n"
        "print({'optuna', 'mlflow', 'torch', 'ray', 'monai'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "set()"
