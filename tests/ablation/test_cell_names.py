"""Names of cells as properties: equal meaning has an equal name, whatever alters numbers another one.

`test_cells.py` goes through every field by hand; here hypothesis mixes them. `golden.json` holds the names of
the tables' rows: a change of them orphans what people have trained, and is a line in CHANGELOG.md.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from acdis import cells, config, methods
from acdis.ablation.expansion import decide
from acdis.ablation.spec import Spec
from acdis.config import Experiment
from acdis.methods.acdis.options import CONSISTENCY, SYNTHESIS

GOLDEN = Path(__file__).with_name("golden.json")
#: Made up: golden names must not depend on what is drawn or read.
FINGERPRINT = "0123456789abcdef" * 4

#: Values that count, by dotted key; each list holds different meanings.
WEIGHTY: dict[str, list[Any]] = {
    "seed": [0, 1, 7],
    "data.min_size": [96, 112, 128],
    "data.crop": [[32, 32, 32], [48, 32, 32], [32, 48, 32]],
    "data.lesion_crops": [0, 0.5, 1],
    "data.spacing": [None, 1, 2],
    "data.background": ["zero", "normalised"],
    "data.augmentation.flip": [0, 0.5, 1],
    "training.epochs": [1, 5, 500],
    "training.batch_size": [2, 4],
    "training.iterations": [None, 3, 4],
    "training.learning_rate": [1e-4, 1e-3, 1],
    "training.weight_decay": [0, 1e-4, 1],
    "training.amsgrad": [True, False],
    "training.precision": ["fp32", "bf16"],
    "training.selection": ["last", "best"],
    "method.options.base_width": [8, 16],
    "method.options.afeb": ["afeb", "conv"],
    "method.options.mfsb": ["mfsb", "conv"],
    "method.options.consistency": [[], ["var"], ["var", "covar"], list(CONSISTENCY)],
    "method.options.synthesis": [[], ["mse"], ["adver"], list(SYNTHESIS)],
    "method.options.synthesis_start": [0, 20],
    "method.options.aux_fusion": ["tile", "adapter"],
}

#: Values that change no weights, by dotted key.
WEIGHTLESS: dict[str, list[Any]] = {
    "scaling.workers": [1, 2],
    "scaling.accumulation": [1],
    "scaling.gpu": [True, False],
    "scaling.cpus_per_worker": [None, 1, 64],
    "scaling.loader_threads": [1, 9],
    "scaling.metric_processes": [None, 0, 4],
    "scaling.checkpoint_minutes": [None, 10],
    "scaling.activation_checkpointing": [True, False],
    "scaling.max_failures": [0, 3],
    "tracking.uri": [None, "http://somewhere:5000"],
    "tracking.experiment": ["acdis", "other"],
    "data.root": [None, "/one", "/other"],
    "data.split.train": ["/lists/a.txt", "/lists/b.txt"],
    "evaluation.hd95": [True, False],
    "evaluation.et_minimum": [0, 500],
}


def _choices(values: dict[str, list[Any]]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional={key: st.sampled_from(each) for key, each in values.items()})


def _experiment(changes: dict[str, Any]) -> Experiment:
    """Options that others disable are left out, as rows of specs have it."""
    parsed = config.parse(config.overlaid({"training": {"precision": "fp32"}}, changes), "test")
    return methods.resolve(parsed, given=())


def _name(changes: dict[str, Any]) -> str:
    return cells.cell_name(_experiment(changes), FINGERPRINT, 1)


def _respelled(value: Any, draw: st.DataObject) -> Any:
    """1 as 1.0, 1.0 as 1, a list of losses in another order."""
    if isinstance(value, list) and value and isinstance(value[0], str):
        return draw.draw(st.permutations(value))
    if isinstance(value, list):
        return [_respelled(each, draw) for each in value]
    if isinstance(value, int) and not isinstance(value, bool):
        return draw.draw(st.sampled_from([value, float(value)]))
    return value


@settings(max_examples=150, deadline=None)
@given(changes=_choices(WEIGHTY), data=st.data())
def test_equal_meaning_has_an_equal_name(changes: dict[str, Any], data: st.DataObject) -> None:
    """Another order of keys, other spellings of numbers, defaults written out or left out."""
    keys = data.draw(st.permutations(list(changes)))
    assert _name({key: _respelled(changes[key], data) for key in keys}) == _name(changes)
    written = Experiment.model_validate(_experiment(changes).model_dump(mode="json"))
    assert cells.cell_name(methods.resolve(written), FINGERPRINT, 1) == _name(changes)
    assert _name(config.load(None).model_dump(exclude={"training": {"precision"}}) and changes) == _name(
        changes
    )


@settings(max_examples=100, deadline=None)
@given(changes=_choices(WEIGHTY), free=_choices(WEIGHTLESS))
def test_scaling_paths_and_tracking_do_not_count(changes: dict[str, Any], free: dict[str, Any]) -> None:
    assert _name(changes | free) == _name(changes)


@settings(max_examples=300, deadline=None)
@given(one=_choices(WEIGHTY), data=st.data())
def test_any_change_that_alters_numbers_has_another_name(one: dict[str, Any], data: st.DataObject) -> None:
    """One key is set to each of its values: as many names as values, whatever stands beside it."""
    key = data.draw(st.sampled_from(sorted(WEIGHTY)))
    names = [_name(one | {key: value}) for value in WEIGHTY[key]]
    assert len(set(names)) == len(names)


@settings(max_examples=50, deadline=None)
@given(changes=_choices(WEIGHTY), data=st.text("0123456789abcdef", min_size=64, max_size=64))
def test_data_and_the_methods_version_count(changes: dict[str, Any], data: str) -> None:
    experiment = _experiment(changes)
    name = cells.cell_name(experiment, FINGERPRINT, 1)
    assert cells.cell_name(experiment, FINGERPRINT, 2) != name
    assert (cells.cell_name(experiment, data, 1) == name) == (data == FINGERPRINT)


@settings(max_examples=100, deadline=None)
@given(changes=_choices(WEIGHTY))
def test_resolving_again_changes_nothing(changes: dict[str, Any]) -> None:
    once = decide(_experiment(changes))
    assert decide(methods.resolve(once)) == once


def test_the_names_of_the_tables_stay(tables: dict[str, Spec]) -> None:
    assert golden(tables) == json.loads(GOLDEN.read_text())


def golden(tables: dict[str, Spec]) -> dict[str, str]:
    """The rows of both tables on the defaults (paper's scale), fp32, seeds 0 and 1, and their evaluation."""
    names = {}
    for table in ("table2", "table3"):
        for row in tables[table].rows:
            for seed in (0, 1):
                names[f"{table}/{row.id}/seed {seed}"] = _name(dict(row.changes) | {"seed": seed})
    return names | {"evaluation": cells.evaluation_name(Experiment(), FINGERPRINT)}


def test_weights_of_windows_are_in_the_name_of_what_they_change() -> None:
    """The evaluation always, the training where it chooses its weights by validation."""
    weights = {"evaluation.window_weights": "gaussian"}
    assert (
        cells.evaluation_name(_experiment(weights), FINGERPRINT)
        != json.loads(GOLDEN.read_text())["evaluation"]
    )
    chosen = {"training.selection": "best"}
    assert _name(chosen | weights) != _name(chosen)
