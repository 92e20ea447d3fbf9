"""From specs to cells: order, sharing, opening data once, speed."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from acdis import cells, methods
from acdis.ablation.expansion import generations, resolve
from acdis.ablation.spec import Spec, load, select
from acdis.config import Experiment
from acdis.data.inputs import Inputs
from acdis.errors import UserError
from acdis.report.collect import outline
from acdis.vocabulary import SUBSETS, subset_name

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


PARENTS = """\
base: base.yaml
seeds: [4, 2]
baseline: plain
set: {method.name: uhemis}
rows:
  pupil: {set: {method.parents.teacher: master, method.parents.start: uhemis-0123456789ab}}
  master: {set: {training.epochs: 3}}
  plain: {}
"""


@pytest.fixture
def roles(monkeypatch: pytest.MonkeyPatch) -> None:
    """U-HeMIS as a method that may have parents."""
    options = type(methods.validate("uhemis", {}))
    monkeypatch.setattr(options, "roles", lambda self: ("start", "teacher"))
    monkeypatch.setattr(options, "required_roles", lambda self: ())


@pytest.mark.usefixtures("roles")
def test_a_rows_parents_are_cells_of_the_same_seed_and_come_first(write: Write, inputs: Inputs) -> None:
    members = resolve([load(write(PARENTS))], lambda _: inputs)
    assert [(each.row.id, each.seed) for each in members] == [
        (row, seed) for row in ("pupil", "master", "plain") for seed in (4, 2)
    ]
    for pupil, master in zip(members[:2], members[2:4], strict=True):
        named = {"teacher": master.cell, "start": "uhemis-0123456789ab"}
        assert pupil.experiment.method.parents == named
    assert [[each.row.id for each in part] for part in generations(members)] == [
        ["master", "master", "plain", "plain"],
        ["pupil", "pupil"],
    ]
    names = [each.cell for each in members]
    other = resolve([load(write(PARENTS.replace("epochs: 3", "epochs: 4")))], lambda _: inputs)
    changed = [name != each.cell for name, each in zip(names, other, strict=True)]
    assert changed == [True] * 4 + [False] * 2  # another teacher is another pupil


@pytest.mark.usefixtures("roles")
def test_rows_that_are_each_others_parents_are_refused(write: Write, inputs: Inputs) -> None:
    text = PARENTS.replace("{training.epochs: 3}", "{method.parents.teacher: pupil}")
    with pytest.raises(UserError, match="'pupil', 'master' lead round in a circle"):
        resolve([load(write(text))], lambda _: inputs)


def test_a_method_says_which_parents_it_takes(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"line 6: method\.parents\.teacher: uhemis has no .*; it takes none"):
        load(write(PARENTS))
    options = type(methods.validate("uhemis", {}))
    monkeypatch.setattr(options, "roles", lambda self: ("teacher",))
    monkeypatch.setattr(options, "required_roles", lambda self: ("teacher",))
    with pytest.raises(UserError, match=r"method\.parents\.teacher: not given; name a row of the spec"):
        load(
            write(
                PARENTS.replace(
                    "{method.parents.teacher: master, method.parents.start: uhemis-0123456789ab}", "{}"
                )
            )
        )


def test_rows_that_are_not_scored_have_no_test_cases_and_stand_in_no_table(
    write: Write, inputs: Inputs
) -> None:
    scored = resolve([load(write(TWO))], lambda _: inputs)
    text = TWO.replace("  b: {set: {", "  b: {set: {scored: false, ")
    members = resolve([load(write(text))], lambda _: inputs)
    assert [len(each.inputs.test) for each in members] == [2, 2, 0, 0]
    assert [each.cell for each in members] == [each.cell for each in scored]  # the weights are the same
    (facts,) = outline(members)
    assert [row.id for row in facts.rows] == ["a"]
    assert [(row.id, [cell.cell for cell in row.cells]) for row in facts.unscored] == [
        ("b", [each.cell for each in members[2:]])
    ]
    with pytest.raises(UserError, match="scored: the baseline 'b' must be scored"):
        load(write(text.replace("baseline: a", "baseline: b")))


DEDICATED = """\
base: base.yaml
seeds: [4, 2]
baseline: plain
set: {method.name: unet_dedicated}
rows:
  each: {label: One for each}
  alone: {set: {method.options.subset: T1}}
  plain: {set: {method.name: unet}}
"""


def test_a_row_of_several_cells(write: Write, inputs: Inputs) -> None:
    """Fifteen parts and what is put together from them; a part that is a row as well is trained once."""
    members = resolve([load(write(DEDICATED))], lambda _: inputs)
    assert len(members) == len({each.cell for each in members}) == 2 * (14 + 1 + 1 + 1)
    names = [subset_name(subset) for subset in SUBSETS]
    whole = [each for each in members if each.row.id == "each"]
    for member in whole:
        seed = member.seed
        mine = {each.row.id: each for each in members if each.seed == seed}
        parts = {name: mine["alone" if name == "T1" else f"each:{name}"] for name in names}
        assert member.experiment.method.parents == {name: part.cell for name, part in parts.items()}
        for name, part in parts.items():
            assert part.experiment.method.options["subset"] == name
            assert part.experiment.scored == (name == "T1")
            assert part.part_of == ("" if name == "T1" else "each")
        assert methods.put_together(member.experiment)
        assert not any(methods.put_together(part.experiment) for part in parts.values())
    assert [len(part) for part in generations(members)] == [32, 2]
    (facts,) = outline(members)
    assert next((row.id, [cell.cell for cell in row.cells]) for row in facts.rows) == (
        "each",
        [member.cell for member in whole],
    )
    assert [row.id for row in facts.rows] == ["each", "alone", "plain"]


def test_a_part_may_be_a_cell_that_is_there(write: Write, inputs: Inputs) -> None:
    text = DEDICATED.replace(
        "{label: One for each}", "{set: {method.parents.T2: unet_dedicated-0123456789ab}}"
    )
    members = resolve([load(write(text))], lambda _: inputs)
    assert "each:T2" not in {each.row.id for each in members}
    (one, other) = (each.experiment.method.parents for each in members if each.row.id == "each")
    assert one["T2"] == other["T2"] == "unet_dedicated-0123456789ab"
    assert one["T1"] != other["T1"]  # of another seed


CHAIN = """\
base: base.yaml
seeds: [4, 2]
baseline: first
set: {training.epochs: 30}
rows:
  last: {set: {method.name: gss, method.parents.start: middle, method.options.rounds: 2}}
  first: {set: {method.name: rfnet}}
  middle: {set: {method.name: gss, method.parents.start: first}}
  aside: {set: {method.name: rfnet, training.epochs: 40}}
"""


def test_a_chosen_row_keeps_its_name_without_the_rows_that_it_descends_from(
    write: Write, inputs: Inputs
) -> None:
    spec = load(write(CHAIN))
    whole = {(each.row.id, each.seed): each.cell for each in resolve([spec], lambda _: inputs)}
    for chosen in (["last"], ["middle"], ["last", "first"]):
        found = resolve([select(spec, chosen, [2])], lambda _: inputs)
        assert {each.row.id for each in found} == set(chosen)
        assert all(each.cell == whole[each.row.id, 2] for each in found)
    (last,) = resolve([select(spec, ["last"], [2])], lambda _: inputs)
    assert last.experiment.method.parents == {"start": whole["middle", 2]}
