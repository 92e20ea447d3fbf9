"""Floors beside a report's tables, in every form; the first line where a row lies below the whole brain."""

from __future__ import annotations

import csv
import html
import io
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from acdis.evaluation.floor_files import Floors
from acdis.evaluation.floors import Thresholds, given
from acdis.report import floors, subsets_table
from acdis.report.facts import PHANTOM_WARNING
from acdis.report.formats import RENDERERS, compared, render
from acdis.report.subsets_forms import FORMS
from acdis.vocabulary import REGIONS, SUBSETS, subset_name

CASES = 4
#: Dice of the floors: by case and region for the brain, by case, subset and region for the rule.
BRAIN = np.linspace(0.05, 0.27, 12).reshape(CASES, 3)
RULE = np.linspace(0.1, 0.799, CASES * 45).reshape(CASES, 15, 3)
NAMES = tuple(f"case{number:03d}" for number in range(CASES))


def held(scores: Any, **more: Any) -> Any:
    """Scores with floors in another order of cases, one of which nobody scored."""
    rule = {given(subset): Thresholds(1.0, None, None) for subset in SUBSETS}
    names = ("unscored", *reversed(NAMES))
    brain = np.concatenate([np.ones((1, 3)), BRAIN[::-1]])
    fitted = np.concatenate([np.ones((1, 15, 3)), RULE[::-1]])
    return replace(scores, floors=replace(Floors(5, rule, names, brain, fitted), **more))


@pytest.fixture
def report(made: SimpleNamespace) -> Any:
    """`report(form, low, high)`: two rows of one seed at these Dice."""

    def build(
        form: str, low: float, high: float, phantoms: bool = False, standalone: bool = False, **more: Any
    ) -> str:
        spec = made.spec({"low": {"label": "low row"}, "high": {"label": "high row"}}, [0], phantoms=phantoms)
        reader = made.reader(
            {
                "low-0": held(made.scores([low] * CASES), **more),
                "high-0": held(made.scores([high] * CASES), **more),
            }
        )
        return render([spec], reader, form, standalone=standalone)

    return build


def lines_of(text: str, start: str) -> list[list[str]]:
    return [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in text.splitlines()
        if line.startswith("|") and line.strip("| ").startswith(start)
    ]


def test_the_table_of_rows_has_both_floors(report: Any) -> None:
    text = report("md", 0.9, 0.95)
    ((_, seeds, cases, *brain, _),) = lines_of(text, floors.BRAIN)
    ((*_, one, two, three, _),) = lines_of(text, floors.RULE)
    assert (seeds, cases) == ("", "4")
    assert [float(each) for each in brain] == pytest.approx(100 * BRAIN.mean(axis=0), abs=0.0051)
    means = 100 * RULE.mean(axis=(0, 1))
    assert [float(each) for each in (one, two, three)] == pytest.approx(means, abs=0.0051)
    assert "fitted on the 5 training cases" in text
    assert "Below the threshold rule" not in text
    assert "BELOW THE WHOLE BRAIN" not in text


def test_each_table_of_subsets_has_the_rule_beside_it(report: Any) -> None:
    text = report("md", 0.9, 0.95)
    lines = [line for mark in ("●", "○") for line in lines_of(text, mark) if len(line) > 9]
    assert len(lines) == 2 * 15
    due = {
        tuple("●" if each in subset else "○" for each in ("FLAIR", "T1ce", "T1", "T2")): 100
        * RULE[:, place].mean(axis=0)
        for place, subset in enumerate(SUBSETS)
    }
    for line in lines:
        assert [float(each) for each in line[-3:]] == pytest.approx(due[tuple(line[:4])], abs=0.0051)
    for line in lines_of(text, "mean"):
        assert [float(each) for each in line[-3:]] == pytest.approx(100 * RULE.mean(axis=(0, 1)), abs=0.0051)


def test_what_is_level_with_a_floor_is_not_below_it(made: SimpleNamespace) -> None:
    level = held(made.scores([0.2] * CASES))
    level = replace(level, dice=np.broadcast_to(BRAIN[:, None, :], (CASES, 15, 3)))
    assert floors.below(level) == floors.first_lines([made.row("level", {0: level})]) == []
    less = replace(level, dice=level.dice - 0.0001)
    assert floors.below(less)[0].count("<") == 3


@pytest.mark.parametrize("form", FORMS)
def test_the_layout_of_subsets_has_both_floors_below_its_rows(made: SimpleNamespace, form: str) -> None:
    """As papers print it: 15 subsets and their mean, never the best, and what lies below them is said."""
    spec = made.spec({"low": {"label": "low row"}, "high": {"label": "high row"}}, [0])
    rows = [
        made.row("low", {0: held(made.scores([0.165] * CASES))}, label="low row"),
        made.row("high", {0: held(made.scores([0.95] * CASES))}, label="high row"),
    ]
    table = subsets_table.table_of(spec, rows)
    for place, region in enumerate(REGIONS):
        *_, brain, rule = table.blocks[0].lines[region]
        assert (brain.label, rule.label) == (floors.BRAIN, floors.RULE)
        assert brain.values is not None
        assert rule.values is not None
        assert brain.values == pytest.approx([100 * BRAIN.mean(axis=0)[place]] * 16)
        means = 100 * RULE.mean(axis=0)[:, place]
        assert rule.values == pytest.approx([*means, means.mean()])
        assert not any(brain.ranks + rule.ranks)
    if form == "md":
        assert FORMS[form]([table], True).startswith("> **BELOW THE WHOLE BRAIN")
    if form == "html":
        assert (
            FORMS[form]([table], True)
            .partition("<body>")[2]
            .strip()
            .startswith('<p class="warning">BELOW THE WHOLE')
        )
    text = html.unescape(FORMS[form]([table], True)).replace("\\textless{}", "<")
    if form == "csv":
        lines = [line for line in csv.DictReader(io.StringIO(text)) if line["row"] == "floor:rule"]
        assert len(lines) == 3 * 16
        return
    assert text.count(floors.RULE) == text.count(floors.BRAIN) == 3
    assert "Below the threshold rule, mean over 15 subsets: low row (WT 16.50" in text
    assert text.index("BELOW THE WHOLE BRAIN") < text.index("Below the threshold rule")


def test_below_the_rule_is_a_note_and_not_the_first_line(report: Any) -> None:
    """The rule's means are 41.7 to 48.1: 40 is below it in all regions, and above the brain's 14 to 18."""
    text = report("md", 0.4, 0.95)
    assert text.startswith("# ")
    note = next(line for line in text.splitlines() if "Below the threshold rule" in line)
    assert "low row (WT 40.00 &lt; " in note or "low row (WT 40.00 < " in note
    assert "high row" not in note


@pytest.mark.parametrize("form", sorted(RENDERERS.keys() - {"challenger"}))  # which has no place for words
def test_below_the_brain_is_the_first_thing_said(report: Any, form: str) -> None:
    text = report(form, 0.165, 0.95, phantoms=True)
    brain = 100 * BRAIN.mean(axis=0)
    assert brain[1] < 16.5 < brain[2]
    due = "BELOW THE WHOLE BRAIN painted as tumour, so nothing was learned there: low row (ET 16.50 < 18.00)."
    if form == "md":
        assert text.splitlines()[0] == f"> **{due}**"
    elif form == "html":
        body = html.unescape(text.partition("<body>")[2].strip())
        assert body.startswith(f'<p class="warning">{due}</p>')
        assert body.index(due) < body.index("<h1>")
    elif form == "latex":
        needs, first, *_ = text.splitlines()
        assert needs.startswith("% needs ")
        assert first.startswith("% BELOW THE WHOLE BRAIN")  # and at the head of every caption of our figures
        captions = [line for line in text.splitlines() if line.startswith("\\caption")]
        assert captions
        assert all(line.startswith("\\caption{\\textbf{BELOW THE WHOLE BRAIN") for line in captions)
        body = report("latex", 0.165, 0.95, standalone=True).partition("\\begin{document}")[2].strip()
        assert body.startswith("\\textbf{BELOW THE WHOLE BRAIN")
    else:
        first, *others = csv.DictReader(io.StringIO(text))
        assert first["warning"] == f"{due} {PHANTOM_WARNING}"
        assert {line["warning"] for line in others} == {""}
        assert {line["phantoms"] for line in (first, *others)} == {"True"}


def test_csv_has_each_floor_in_a_column(report: Any) -> None:
    for line in csv.DictReader(io.StringIO(report("csv", 0.9, 0.95))):
        place = REGIONS.index(line["region"])
        names = [subset_name(subset) for subset in SUBSETS]
        rule = (
            RULE.mean(axis=(0, 1))
            if line["subset"] == "mean"
            else RULE.mean(axis=0)[names.index(line["subset"])]
        )
        assert float(line["floor_brain_percent"]) == pytest.approx(100 * BRAIN.mean(axis=0)[place])
        assert float(line["floor_rule_percent"]) == pytest.approx(100 * rule[place])


def test_without_a_fitted_rule_the_brain_stands_alone(report: Any) -> None:
    text = report("md", 0.9, 0.95, rule=None, fitted=None, trained=0)
    assert lines_of(text, floors.BRAIN)
    assert not lines_of(text, floors.RULE)
    assert "rule WT" not in text
    assert "threshold rule" not in text


def test_floors_of_other_cases_are_not_shown(made: SimpleNamespace) -> None:
    scores = held(made.scores([0.5] * CASES), cases=("unscored", "x", *NAMES[:3]))
    assert floors.levels(scores) is None
    row = made.row("row", {0: scores})
    assert floors.notes_on([row]) == floors.first_lines([row]) == []


def test_without_floors_a_report_is_as_it_was(made: SimpleNamespace) -> None:
    spec = made.spec({"one": {}}, [0])
    scores = made.scores([0.01] * CASES)
    assert all(
        row.seeds[0].floors is None
        for _, rows, _ in compared([spec], made.reader({"one-0": scores}))
        for row in rows
    )
    text = render([spec], made.reader({"one-0": scores}), "md")
    assert "floor" not in text.lower()


def test_a_cell_of_its_own_has_notes_and_columns(made: SimpleNamespace) -> None:
    scores = held(made.scores([0.16] * CASES))
    head, *lines = floors.columns(scores)
    assert head == ("rule WT %", "rule TC %", "rule ET %")
    assert [float(each) for each in lines[3]] == pytest.approx(100 * RULE.mean(axis=0)[3], abs=0.0051)
    assert len(lines) == 16
    (line,) = floors.below(scores)
    assert line.startswith("BELOW THE WHOLE BRAIN painted as tumour")
    assert "WT" not in line.partition(":")[2]  # 16 is above the brain's WT
    assert any("Below the threshold rule" in each for each in floors.notes(scores))
    assert floors.columns(made.scores([0.1])) == [()] * 17
