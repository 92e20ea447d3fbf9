"""Spec files: what they say, and that every error names file and line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from acdis.ablation.spec import Question, Spec, load, select
from acdis.errors import UserError
from acdis.vocabulary import REGIONS

Write = Callable[..., Path]

OWN = """\
title: Mine
base: base.yaml
seeds: [0, 3]
baseline: plain
paper: somewhere
set:
  training.epochs: 3
rows:
  plain: {label: as it is}
  wide:
    label: twice as wide
    set:
      method.options.base_width: 16
    paper: {WT: 80, TC: 70.5, ET: 60}
    note: read with care
"""


def _refusal(path: Path, *overrides: str) -> str:
    with pytest.raises(UserError) as refused:
        load(path, None, overrides)
    assert "\n" not in str(refused.value)
    return str(refused.value).replace(f"{path.parent}/", "")


def test_a_spec_says_all_that_its_file_says(write: Write) -> None:
    found = load(write(OWN))
    assert (found.name, found.title, found.table, found.seeds) == ("own", "Mine", "own", (0, 3))
    assert (found.baseline, found.source, found.base.name) == ("plain", "somewhere", "base.yaml")
    plain, wide = found.rows
    assert (plain.id, plain.label, dict(plain.changes)) == ("plain", "as it is", {"training.epochs": 3})
    assert (plain.paper, plain.note) == (None, None)
    assert dict(wide.changes) == {"training.epochs": 3, "method.options.base_width": 16}
    assert (wide.paper, wide.note) == ({"WT": 80, "TC": 70.5, "ET": 60}, "read with care")


def test_a_spec_can_be_a_key(write: Write) -> None:
    assert len({load(write(OWN)), load(write(OWN))}) == 1


REFUSED = {
    "unknown key": (OWN.replace("seeds:", "seed:"), "own.yaml, line 3: unknown key 'seed'; did you mean"),
    "unknown key of a row": (
        OWN.replace("note:", "nota:"),
        "own.yaml, line 15: unknown key 'rows.wide.nota'; did you mean 'rows.note'?",
    ),
    "wrong type": (OWN.replace("[0, 3]", "first"), "own.yaml, line 3: seeds: "),
    "wrong type of a seed": (OWN.replace("[0, 3]", "[0, x]"), "own.yaml, line 3: seeds.1: "),
    "not YAML": (OWN.replace("[0, 3]", "[0, 3"), "own.yaml, line 4: is not valid YAML"),
    "row twice": (
        OWN.replace("  wide:", "  plain:"),
        "own.yaml, line 10: is not valid YAML: key 'plain' is given",
    ),
    "rows are no rows": (OWN[: OWN.index("rows:")] + "rows: [a]\n", "own.yaml, line 8: rows: "),
    "no rows": (OWN[: OWN.index("rows:")], "own.yaml: rows: none; give at least one row"),
    "empty rows": (OWN[: OWN.index("rows:")] + "rows: {}\n", "own.yaml, line 8: rows: none; give at least"),
    "a name that cannot be one": (
        OWN.replace("wide:", "so wide:"),
        "own.yaml, line 10: rows: 'so wide' cannot",
    ),
    "seed twice": (OWN.replace("[0, 3]", "[0, 3, 0]"), "own.yaml, line 3: seeds: 0 is listed twice"),
    "seed below 0": (OWN.replace("[0, 3]", "[-1]"), "own.yaml, line 3: seeds: -1 is no seed"),
    "no seed": (OWN.replace("[0, 3]", "[]"), "own.yaml, line 3: seeds: "),
    "no baseline": (OWN.replace("baseline: plain\n", ""), "own.yaml: baseline: not given; name the row"),
    "unknown baseline": (
        OWN.replace("baseline: plain", "baseline: plane"),
        "own.yaml, line 4: baseline: no row 'plane'; did you mean 'plain'?",
    ),
    "no base": (OWN.replace("base: base.yaml\n", ""), "own.yaml: base: not given"),
    "no such base": (OWN.replace("base.yaml", "bays.yaml"), "bays.yaml: cannot be read"),
    "other regions": (
        OWN.replace("ET: 60", "EC: 60"),
        "own.yaml, line 14: rows.wide.paper: give WT, TC, ET, no others (given: WT, TC, EC)",
    ),
    "a figure that is none": (OWN.replace("TC: 70.5", "TC: high"), "own.yaml, line 14: rows.wide.paper.TC: "),
    "rows and grid": (
        OWN + "grid: {factors: {training.epochs: [1, 2]}}\n",
        "own.yaml, line 16: grid: give either rows or a grid",
    ),
    "unknown key in set": (
        OWN.replace("options.base_width: 16", "options.base_with: 16"),
        "own.yaml, line 13: unknown key 'method.options.base_with'; did you mean 'base_width'? (row 'wide')",
    ),
    "unknown key in the spec's set": (
        OWN.replace("training.epochs", "training.epoch"),
        "own.yaml, line 7: unknown key 'training.epoch'; did you mean 'training.epochs'? (row 'plain')",
    ),
    "wrong value in set": (
        OWN.replace("base_width: 16", "base_width: wide"),
        "own.yaml, line 13: method.options.base_width: ",
    ),
    "values that do not fit": (
        OWN.replace("method.options.base_width: 16", "data.crop: [99, 99, 99]"),
        "own.yaml, line 13: data: crop (99, 99, 99) is larger than min_size 64",
    ),
    "a mapping in set": (
        OWN.replace("method.options.base_width: 16", "method.options: {base_width: 16}"),
        "own.yaml, line 13: rows.wide.set: method.options: write each key out, as in",
    ),
    "a seed in set": (
        OWN.replace("method.options.base_width: 16", "seed: 3"),
        "own.yaml, line 13: rows.wide.set: seed: seeds are what 'seeds' lists",
    ),
    "no effect": (
        OWN.replace("base_width: 16", "adversarial_weight: 2"),
        "own.yaml, line 13: method.options.adversarial_weight has no effect without 'adver'",
    ),
    "no effect in any row": (
        OWN.replace("training.epochs: 3", "method.options.discriminator_learning_rate: 1.0e-3"),
        "own.yaml, line 7: set: method.options.discriminator_learning_rate has no effect in any row",
    ),
    "equal meaning": (
        OWN.replace("base_width: 16", "base_width: 8.0"),
        "own.yaml, line 10: rows 'plain' and 'wide' mean the same: nothing that changes the weights",
    ),
    "scaling alone is no difference": (
        OWN.replace("method.options.base_width: 16", "scaling.workers: 2"),
        "own.yaml, line 10: rows 'plain' and 'wide' mean the same",
    ),
    "use of nothing": (
        OWN.replace("label: twice as wide", "use: '#other'"),
        "own.yaml, line 11: rows.wide.use: own.y",
    ),
    "use without row": (
        OWN.replace("label: twice as wide", "use: base.yaml"),
        "own.yaml, line 11: rows.wide.use: write",
    ),
    "use of itself": (
        OWN.replace("label: twice as wide", "use: '#wide'"),
        "own.yaml, line 11: rows.wide.use: leads in",
    ),
    "compare with an unknown row": (
        OWN + "compare: [{row: wide, with: plane}]\n",
        "own.yaml, line 16: compare.0.with: no row 'plane'; did you mean 'plain'?",
    ),
    "compare with an unknown key": (
        OWN + "compare:\n  - {row: wide, wiht: plain}\n",
        "own.yaml, line 17: unknown key 'compare.0.wiht'; did you mean 'compare.with'?",
    ),
    "compare in another region": (
        OWN + "compare:\n  - row: wide\n    regions: [WT, EC]\n",
        "own.yaml, line 18: compare.0.regions.1: Input should be 'WT', 'TC' or 'ET' (given: 'EC')",
    ),
    "compare with itself": (
        OWN + "compare: [{row: plain}]\n",
        "own.yaml, line 16: compare.0: 'plain' is compared with itself",
    ),
    "compare twice": (
        OWN + "compare:\n  - {row: wide}\n  - {row: plain, with: wide, regions: [TC]}\n",
        "own.yaml, line 18: compare.1: 'plain' with 'wide' in TC is asked twice",
    ),
    "compare nothing": (OWN + "compare: []\n", "own.yaml, line 16: compare: "),
    "compare what is not scored": (
        OWN.replace("    paper: {WT", "      scored: false\n    paper: {WT") + "compare: [{row: wide}]\n",
        "own.yaml, line 14: scored: a row of compare, 'wide' must be scored",
    ),
    "no margin": (OWN + "margin: 0\n", "own.yaml, line 16: margin: "),
    "extends of itself": ("extends: own.yaml\n" + OWN, "own.yaml: extends itself"),
    "extends of a number": ("extends: 3\n" + OWN, "own.yaml, line 1: extends: give the path"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_wrong_is_one_line_with_its_place(write: Write, what: str) -> None:
    text, begins = REFUSED[what]
    assert text != OWN
    assert _refusal(write(text)).startswith(begins)


def test_what_a_spec_asks(write: Write) -> None:
    plain = load(write(OWN))
    assert (plain.family, plain.margin) == (None, 1.0)
    text = OWN + "  third: {set: {training.epochs: 5}}\nmargin: 0.5\ncompare:\n"
    asked = "  - {row: wide}\n  - {row: wide, with: third, regions: [TC, ET]}\n"
    spec = load(write(text + asked))
    everywhere, declared = Question("wide", "plain", REGIONS), Question("wide", "third", ("TC", "ET"))
    assert (spec.family, spec.margin) == ((everywhere, declared), 0.5)
    assert select(spec, ["wide", "plain"], None).family == (everywhere,)
    assert select(spec, ["third"], None).family == ()
    by_values = "  - {row: {method.options.base_width: 16}, with: {training.epochs: 5}}\n"
    assert load(write(text + by_values)).family == (Question("wide", "third", REGIONS),)
    above = "extends: own.yaml\nbaseline: a\nrows:\n  a: {}\n"  # other rows: nothing to ask of these
    assert (load(write(above, "above.yaml")).family, load(write(above, "above.yaml")).margin) == (None, 0.5)


def test_equal_meaning_names_both_rows_with_their_lines(write: Write) -> None:
    said = _refusal(write(OWN.replace("base_width: 16", "base_width: 8")))
    assert "remove one ('plain': " in said
    assert "own.yaml, line 9)" in said


def test_an_option_of_the_base_that_a_row_disables_is_dropped(write: Write) -> None:
    text = OWN.replace("method.options.base_width: 16", "method.options.afeb: conv")
    assert [row.id for row in load(write(text)).rows] == ["plain", "wide"]


def test_an_option_for_every_row_may_be_idle_in_some(write: Write) -> None:
    text = OWN.replace("training.epochs: 3", "method.options.afeb_tokens: 6")
    load(write(text.replace("method.options.base_width: 16", "method.options.afeb: conv")))


def test_overrides_come_on_top_of_the_base(write: Write) -> None:
    path = write(OWN)
    assert load(path, None, ["training.learning_rate=0.1"]).overrides == ("training.learning_rate=0.1",)
    assert "override 'training.epochs=4': has no effect, every row" in _refusal(path, "training.epochs=4")
    idle = _refusal(path, "method.options.adversarial_weight=2")
    assert idle.startswith(
        "override 'method.options.adversarial_weight=2': has no effect in any row (without"
    )
    assert "override 'seed=4': seeds come from" in _refusal(path, "seed=4")
    assert _refusal(path, "training.epohs=4").startswith("override 'training.epohs=4': unknown key")


def test_another_experiment_takes_the_bases_place(write: Write, tmp_path: Path) -> None:
    other = write("method: {options: {base_width: 4}}\n", "other.yaml")
    assert load(write(OWN.replace("base: base.yaml\n", "")), other).base == other


def test_extends_takes_over_what_is_not_said_again(write: Write) -> None:
    write(OWN, "below/own.yaml")
    write("method: {options: {base_width: 4}}\n", "below/base.yaml")
    text = "extends: below/own.yaml\nseeds: [5]\nset: {training.batch_size: 4}\n"
    found = load(write(text, "above.yaml"))
    assert (found.name, found.title, found.table, found.seeds) == ("above", "Mine", "above", (5,))
    assert found.base.parent.name == "below"  # relative to the file that says it
    assert dict(found.rows[0].changes) == {"training.epochs": 3, "training.batch_size": 4}
    assert [row.id for row in found.rows] == ["plain", "wide"]
    own_rows = text + "baseline: a\nrows:\n  a: {}\n"
    assert [row.id for row in load(write(own_rows, "above.yaml")).rows] == ["a"]


def test_errors_in_what_is_extended_name_that_file(write: Write, tmp_path: Path) -> None:
    write(OWN.replace("epochs: 3", "epochs: no"), "below.yaml")
    said = _refusal(write("extends: below.yaml\nseeds: [5]\n", "above.yaml"))
    assert said.startswith("below.yaml, line 7: training.epochs: ")


def test_use_takes_over_the_whole_effective_row(write: Write) -> None:
    write(OWN, "other/own.yaml")
    text = (
        "base: base.yaml\nbaseline: a\nset: {training.epochs: 9, training.batch_size: 4}\nrows:\n"
        "  a: {use: other/own.yaml#wide}\n"
        "  b: {use: other/own.yaml#wide, label: own label, note: own note, set: {data.lesion_crops: 0.5}}\n"
        "  c: {use: '#b', set: {data.lesion_crops: 0.6}}\n"
    )
    a, b, c = load(write(text)).rows
    taken = {"training.epochs": 3, "training.batch_size": 4, "method.options.base_width": 16}
    assert dict(a.changes) == taken
    assert (a.label, a.note, a.paper) == ("twice as wide", "read with care", {"WT": 80, "TC": 70.5, "ET": 60})
    assert dict(b.changes) == taken | {"data.lesion_crops": 0.5}
    assert (b.label, b.note, b.paper) == ("own label", "own note", a.paper)
    assert dict(c.changes) == taken | {"data.lesion_crops": 0.6}


def test_use_in_a_circle_over_two_files(write: Write) -> None:
    write("base: base.yaml\nbaseline: x\nrows:\n  x: {use: own.yaml#y}\n", "other.yaml")
    said = _refusal(write("base: base.yaml\nbaseline: y\nrows:\n  y: {use: other.yaml#x}\n"))
    assert "leads in a circle" in said


def test_paths_in_set_are_relative_to_the_spec(write: Write, tmp_path: Path) -> None:
    path = write(OWN.replace("training.epochs: 3", "data.root: cases"), "deep/own.yaml")
    write("method: {options: {base_width: 4}}\n", "deep/base.yaml")
    assert load(path).rows[0].changes["data.root"] == str(tmp_path / "deep" / "cases")


def test_rows_and_seeds_are_selected(write: Write) -> None:
    spec = load(write(OWN))
    assert select(spec, None, None) == spec
    chosen = select(spec, ["wide"], [7, 1])
    assert ([row.id for row in chosen.rows], chosen.seeds, chosen.baseline) == (["wide"], (7, 1), "plain")
    with pytest.raises(UserError, match="no row 'wode'; did you mean 'wide'"):
        select(spec, ["wode"], None)
    with pytest.raises(UserError, match="1 is listed twice"):
        select(spec, None, [1, 2, 1])


@pytest.mark.parametrize("table", ["table2", "table3"])
def test_the_tables_are_the_papers(tables: dict[str, Spec], shared: Path, table: str) -> None:
    """Against `paper/tables.json`, by a reading of the changes that is not the platform's."""
    published = json.loads((shared / "paper" / "tables.json").read_text())[table]
    spec = tables[table]
    assert spec.source == "BraTS2020, Dice in per cent"
    assert spec.baseline == published[0]["id"]
    assert [(row.id, row.label, row.paper) for row in spec.rows] == [
        (row["id"], row["label"], row["dice"]) for row in published
    ]
    for row, wanted in zip(spec.rows, published, strict=True):
        said = {key.removeprefix("method.options."): value for key, value in row.changes.items()}
        full = {"afeb": "afeb", "mfsb": "mfsb", "consistency": ["var", "covar"], "synthesis": ["mse"]} | said
        assert full == {key: wanted[key] for key in ("afeb", "mfsb", "consistency", "synthesis")}
        # Ours says beside the reading what the equal parameters hide.
        note, _, ours = (row.note or "").partition(" At base width 16 ")
        assert (note or None) == wanted.get("note")
        assert bool(ours) == (table == "table2" and row.id == "conv")


ABSENT = (
    OWN
    + """\
  other:
    label: A method to come
    absent: not written yet
    paper: {WT: 1, TC: 2, ET: 3}
    paper_row: M3AE
    published: {Somebody 2025: {WT: 4, TC: 5, ET: 6}}
"""
)


def test_an_absent_row_is_known_and_is_no_row(write: Write) -> None:
    found = load(write(ABSENT))
    assert [row.id for row in found.rows] == ["plain", "wide"]
    (row,) = found.absent
    assert (row.label, row.absent, row.paper_row) == ("A method to come", "not written yet", "M3AE")
    assert (row.paper, row.published) == (
        {"WT": 1, "TC": 2, "ET": 3},
        {"Somebody 2025": {"WT": 4, "TC": 5, "ET": 6}},
    )
    with pytest.raises(UserError, match=r"row 'other' is absent: not written yet"):
        select(found, ["other"], None)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (ABSENT.replace("    absent:", "    set: {training.epochs: 9}\n    absent:"),
         r"line 18: rows\.other\.set: an absent row is not trained; remove one"),
        (ABSENT.replace("WT: 4, ", ""), r"line 21: rows\.other\.published\.Somebody 2025: give WT, TC, ET"),
        (ABSENT.replace("baseline: plain", "baseline: other"), r"line 4: baseline: row 'other' is absent: n"),
        ("base: base.yaml\nbaseline: a\nrows: {a: {absent: x}}\n", r"line 3: rows: all of them are absent"),
    ],
)  # fmt: skip
def test_absent_rows_that_cannot_be(write: Write, text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load(write(text))


def test_a_row_that_uses_an_absent_one_is_absent(write: Write) -> None:
    found = load(write(ABSENT + "  again: {use: '#other'}\n"))
    assert [(row.id, row.absent) for row in found.absent][1] == ("again", "not written yet")


CHAIN = (
    OWN.replace("training.epochs: 3", "training.epochs: 30")
    + """\
  first: {set: {method.name: rfnet}}
  then: {set: {method.name: gss, method.parents.start: WHAT}}
  later: {absent: not written yet}
"""
)


@pytest.mark.parametrize(
    ("parent", "message"),
    [
        (
            "firsst",
            r"line 17: method\.parents\.start: no row 'firsst'; did you mean 'first'\? \(row 'then'\)",
        ),
        ("later", r"line 17: method\.parents\.start: row 'later' is absent: not written yet \(row 'then'\)"),
        ("rfnet-0123", r"no row 'rfnet-0123'"),
    ],
)
def test_parents_that_are_not_there(write: Write, parent: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load(write(CHAIN.replace("WHAT", parent)))


@pytest.mark.parametrize("parent", ["first", "rfnet-0123456789ab"])
def test_parents_by_row_and_by_cell(write: Write, parent: str) -> None:
    then = load(write(CHAIN.replace("WHAT", parent))).rows[-1]
    assert then.changes["method.parents.start"] == parent


def test_the_planted_difference_is_a_tenth_of_the_steps_and_nothing_else(checkout: Path) -> None:
    spec = load(checkout / "ablations" / "planted.yaml")
    full, twin, tenth = (dict(row.changes) for row in spec.rows)
    assert (spec.baseline, len(spec.seeds)) == ("full", 3)
    assert (
        10 * tenth.pop("training.iterations")
        == full.pop("training.iterations")
        == twin["training.iterations"]
    )
    assert tenth == full
    assert {key for key in twin if twin[key] != full.get(key)} == {
        "training.iterations",
        "training.weight_decay",
    }
