"""From specs to cells: order, sharing, opening data once, speed."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from acdis import methods
from acdis.ablation import cells
from acdis.ablation.members import resolve
from acdis.ablation.spec import Spec, load, select
from acdis.config import Experiment
from acdis.data.inputs import Inputs
from acdis.errors import UserError

TWO = """\
base: base.yaml
seeds: [4, 2]
baseline: a
rows:
  a: {}
  b: {set: {method.options.afeb: conv, method.options.consistency: []}}
"""

Write = Callable[..., Path]


def test_members_stand_in_the_order_spec_row_seed(write: Write, inputs: Inputs) -> None:
    one, other = load(write(TWO)), load(write("extends: own.yaml\nseeds: [2]\n", "other.yaml"))
    members = resolve([one, other], lambda _: inputs)
    roles = [(each.spec.name, each.row.id, each.seed) for each in members]
    assert roles == [
        *(("own", "a", 4), ("own", "a", 2), ("own", "b", 4), ("own", "b", 2)),
        *(("other", "a", 2), ("other", "b", 2)),
    ]
    assert len({each.cell for each in members}) == 4
    assert [each.cell for each in members[4:]] == [members[1].cell, members[3].cell]
    for each in members:
        assert each.experiment.seed == each.seed
        assert each.cell == cells.cell_name(each.experiment, inputs.fingerprint, methods.version("acdis"))
        assert each.evaluation == cells.evaluation_name(each.experiment, inputs.test_fingerprint)


def test_options_that_a_row_disables_are_gone(write: Write, inputs: Inputs) -> None:
    a, _, b, _ = resolve([load(write(TWO))], lambda _: inputs)
    assert a.experiment.method.options["afeb_tokens"] == 4  # of the base
    assert "afeb_tokens" not in b.experiment.method.options
    assert a.experiment.training.precision == "fp32"


def test_auto_precision_is_decided(write: Write, inputs: Inputs) -> None:
    text = TWO + "set: {training.precision: auto}\n"
    assert resolve([load(write(text))], lambda _: inputs)[0].experiment.training.precision in ("bf16", "fp32")


def test_the_first_row_of_table_3_is_the_last_of_table_2(tables: dict[str, Spec], inputs: Inputs) -> None:
    members = resolve([tables["table2"], tables["table3"]], lambda _: inputs)
    cell = {(each.spec.name, each.row.id): each.cell for each in members}
    assert len(set(cell.values())) == 11
    assert cell["table3", "conv"] == cell["table2", "acct"]
    grid = {each.cell for each in resolve([tables["grid"]], lambda _: inputs)}
    assert set(cell.values()) < grid


def test_cases_are_opened_once_for_each_data(write: Write, inputs: Inputs) -> None:
    asked: list[Experiment] = []

    def opened(experiment: Experiment) -> Inputs:
        asked.append(experiment)
        return inputs

    text = TWO + "  c: {set: {data.lesion_crops: 0.5}}\n"
    resolve([load(write(text)), load(write(TWO, "other.yaml"))], opened)
    assert [each.data.lesion_crops for each in asked] == [0, 0.5]


def test_rows_that_differ_in_the_place_of_equal_cases_mean_the_same(write: Write, inputs: Inputs) -> None:
    spec = load(write(TWO + "  c: {set: {data.root: elsewhere}}\n"))
    with pytest.raises(UserError, match="rows 'a' and 'c' mean the same: the cases"):
        resolve([spec], lambda _: inputs)


def test_a_thousand_members_are_resolved_in_two_seconds(tables: dict[str, Spec], inputs: Inputs) -> None:
    spec = select(tables["grid"], None, range(4))
    start = time.process_time()
    members = resolve([spec], lambda _: inputs)
    assert len({each.cell for each in members}) == 1156
    assert time.process_time() - start < 2
