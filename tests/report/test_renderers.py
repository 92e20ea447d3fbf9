"""One report in four formats, each read back by a parser that knows nothing of how it was written."""

from __future__ import annotations

import csv
import io
import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas
import pytest
import yaml

from acdis.ablation.spec import Question
from acdis.evaluation.floor_files import Floors
from acdis.evaluation.records import write_parquet
from acdis.evaluation.sample_size import Needed
from acdis.report import per_case, phrases
from acdis.report.comparison import Difference
from acdis.report.escaping import latex as escape
from acdis.report.facts import PHANTOM_WARNING
from acdis.report.formats import RENDERERS, beside, render
from acdis.report.rendering import LONG
from acdis.vocabulary import REGIONS, SUBSETS, subset_name

#: Everything that one of the formats could take for its own.
NASTY = r'<script>alert(1)</script> & "x" | 50 % $a_b^2$ #1 \input{/etc/passwd} ~{}` * -- 脑 Ł é β [1]'
LEVELS = {"conv": 0.40, "mse": 0.42, "kl": 0.30}
PAPER = {"conv": 83.34, "mse": 84.85, "kl": 74.35}


def _report(
    made: SimpleNamespace,
    form: str,
    seeds: int = 3,
    rows: dict[str, Any] | None = None,
    standalone: bool = False,
    **more: Any,
) -> str:
    scores = {
        f"{name}-{seed}": made.scores(level + 0.03 * np.arange(5), 0.02, seed=number * 10 + seed, hd95=True)
        for number, (name, level) in enumerate(LEVELS.items())
        for seed in range(seeds)
    }
    given = {
        name: {"label": f"row {name}", "paper": dict.fromkeys(REGIONS, PAPER[name])}
        | (rows or {}).get(name, {})
        for name in LEVELS
    }
    spec = made.spec(given, range(seeds), **more)
    return render([spec], made.reader(scores), form, standalone=standalone)


def _cells(text: str, heading: str) -> list[list[str]]:
    """The Markdown table under a heading."""
    lines = text[text.index(heading) :].splitlines()
    first = next(number for number, line in enumerate(lines) if line.startswith("|"))
    table = []
    for line in lines[first:]:
        if not line.startswith("|"):
            break
        table.append([cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]])
    return table


@pytest.mark.parametrize("form", RENDERERS)
def test_a_report_on_phantoms_is_headed_by_the_warning(made: SimpleNamespace, form: str) -> None:
    text = _report(made, form, phantoms=True)
    if form == "challenger":  # R would take a line of words for data: every task is named so
        assert text.splitlines()[1].split(",")[2].startswith("PHANTOMS/")
        return
    assert text.index("These are phantoms") < text.index("row conv")
    assert "NOTHING" in text
    assert "These are phantoms" not in _report(made, form)


def test_markdown_says_what_every_figure_stands_on(made: SimpleNamespace) -> None:
    text = _report(made, "md", rows={"kl": {"missing": (1,), "note": "garbled tick marks"}})
    head, _, *body = _cells(text, "### Dice")
    assert head == ["Row", "Seeds", "Cases", "WT %", "paper", "TC %", "paper", "ET %", "paper", "Hours"]
    assert [line[0] for line in body] == ["row conv (baseline)", "row mse", "row kl [1]"]
    assert [line[1:3] for line in body] == [["3 of 3", "5"], ["3 of 3", "5"], ["2 of 3", "5"]]
    assert [line[4] for line in body] == ["83.34", "84.85", "74.35"]
    assert [line[9] for line in body] == ["0.75 CPU", "0.75 CPU", "0.50 CPU"]
    assert all(re.fullmatch(r"\d+\.\d\d ± \d+\.\d\d", line[3]) for line in body)
    assert "8 of 9 cells are scored" in text
    assert "Missing: kl seed 1 (not started)." in text
    assert "6 questions (rows × regions, with the baseline); p adjusted is Holm's over them." in text
    assert "Without seed 1, which one of the two lacks: kl with conv." in text
    head, _, *body = _cells(text, "### Difference")
    assert head[2:] == ["Seeds", "Patients", "Δ", "95 % interval", "Δ paper", "p", "p adjusted", "Verdict"]
    assert [line[2:4] for line in body] == [["3", "5"]] * 3 + [["2", "5"]] * 3
    assert [line[9] for line in body] == ["better"] * 3 + ["worse"] * 3
    # 42 − 40 points of level, 84.85 − 83.34 in the paper.
    assert all(float(line[4]) == pytest.approx(2, abs=0.7) and line[6] == "+1.51" for line in body[:3])


def test_undecided_equal_and_declared_in_words(made: SimpleNamespace) -> None:
    near = {"conv": [0.40, 0.44, 0.41], "mse": [0.42, 0.41, 0.44], "same": [0.40, 0.44, 0.41]}
    scores = {
        f"{name}-{seed}": made.scores(level + 0.03 * np.arange(5), 0.001, seed=10 * place + seed)
        for place, (name, levels) in enumerate(near.items())
        for seed, level in enumerate(levels)
    }
    asked = (Question("mse", "conv", ("TC",)), Question("same", "mse", ("WT", "ET")))
    spec = made.spec({name: {} for name in near}, range(3), family=asked, margin=4.5)
    text = render([spec], made.reader(scores), "md")
    body = _cells(text, "### Declared comparisons")[2:]
    assert [line[:2] for line in body] == [["mse", "TC"], ["same − mse", "WT"], ["same − mse", "ET"]]
    assert re.fullmatch(
        r"undecided \((needs \d+ seeds( or \d+ patients)?|more than 30 seeds: these settle .*)\), own spread",
        body[0][9],
    )
    assert "3 questions (declared in the spec)" in text
    assert "Fewer questions have more power: “compare:” in the spec" in text
    assert "“equal within 4.5 points”" in text
    own = made.spec({"conv": {}, "same": {}}, range(3))
    text = render([own], made.reader(scores), "md")
    assert [line[9] for line in _cells(text, "### Difference")[2:]] == ["equal within 1 point"] * 3
    lines = csv.DictReader(io.StringIO(render([spec], made.reader(scores), "csv")))
    found = [line for line in lines if line["verdict"]]
    assert [(each["row"], each["compared_with"], each["region"], each["tests"]) for each in found] == [
        ("mse", "conv", "TC", "3"),
        ("same", "mse", "WT", "3"),
        ("same", "mse", "ET", "3"),
    ]


def test_pandas_reads_the_csv_without_options_and_a_warning_stands_once(made: SimpleNamespace) -> None:
    table = pandas.read_csv(io.StringIO(_report(made, "csv", phantoms=True)))
    assert len(table) == len(LEVELS) * 3 * 16
    assert table["warning"].notna().tolist() == [True] + [False] * (len(table) - 1)
    assert table["warning"][0] == PHANTOM_WARNING
    assert table["phantoms"].dtype == bool
    assert table["phantoms"].all()
    assert table["dice_percent"].dtype == float
    ours = pandas.read_csv(io.StringIO(_report(made, "csv", phantoms=False)))
    assert ours["warning"].isna().all()
    assert not ours["phantoms"].any()


def test_no_p_is_rounded_to_less_than_it_is() -> None:
    draw = np.random.default_rng(0)
    values = [0.05, 0.001, 0.0010000001, 0.0499999, 0.05000000001, 1.0, *draw.uniform(0.001, 1, 2000)]
    for value in map(float, values):
        assert value <= float(phrases.p_value(value)) < value + 0.001
    assert phrases.p_value(0.05) == "0.050"
    assert phrases.p_value(0.05000000001) == "0.051"
    for value in (0.000999999, 1e-5, 1e-300):
        assert phrases.p_value(value) == "<0.001"


@pytest.mark.parametrize(
    ("seeds", "cases", "words"),
    [
        (5, 400, "needs 5 seeds or 400 patients"),  # 1.7 times the seeds, 4 times the patients
        (12, 130, "needs 130 patients or 12 seeds"),
        (None, 900, "needs 900 patients"),
        (30, None, "needs 30 seeds"),
        (None, None, "more than 30 seeds: these settle 1.3 points or more"),  # 1.21 rounded up
    ],
)
def test_the_better_way_to_settle_stands_first(seeds: int | None, cases: int | None, words: str) -> None:
    answer = SimpleNamespace(verdict="undecided", apart=False)
    demand = Needed(seeds, cases, 1.21)
    difference = Difference("a", "b", "WT", 0.5, (0, 1, 2), 100, answer, needed=demand)  # type: ignore[arg-type]
    assert phrases.verdict(difference, 1.0) == f"undecided ({words})"


def test_a_note_stands_wherever_its_row_is_shown(made: SimpleNamespace) -> None:
    text = _report(made, "md", rows={"kl": {"note": "Tick marks garbled in the source."}})
    shown = [part for part in re.split(r"\n#+ ", text) if "row kl" in part]
    assert len(shown) == 5  # figures, differences, order, ranking, subsets
    for part in shown:
        assert "arbled" in part
    assert text.count("Tick marks garbled in the source.") == 4


def test_markdown_tables_are_even_on_a_terminal(made: SimpleNamespace) -> None:
    text = _report(made, "md")
    for table in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        assert len({len(line) for line in table.splitlines()}) == 1


def test_one_seed_speaks_of_these_trainings_only(made: SimpleNamespace) -> None:
    text = _report(made, "md", seeds=1)
    assert "One seed: no row can be called better or worse." in text
    assert "Nothing can be said about methods" in text
    assert "±" not in text[: text.index("## How to read")]
    assert "\n### Difference" not in text
    body = _cells(text, "### These two trainings only: difference to the baseline (conv)")[2:]
    assert (
        "One seed of each row, paired over patients: intervals and p say how far the patients agree" in text
    )
    assert [line[9] for line in body] == ["one seed"] * 6
    assert "row mse: one seed; 95 % over patients, for this trained model alone: WT " in text
    for line in csv.DictReader(io.StringIO(_report(made, "csv", seeds=1))):
        assert line["dice_low"] == ""
        assert (line["patients_low"] != "") == (line["subset"] == "mean")
        assert line["verdict"] in ("", "one seed")


def test_order_and_subsets_are_in_it(made: SimpleNamespace) -> None:
    text = _report(made, "md")
    assert "WT: Kendall's τ = +1.00 (3 of 3 pairs" in text
    for name in LEVELS:
        head, _, *body = _cells(text, f"#### 15 subsets: row {name}")
        assert len(body) == 16
        assert head[:5] == ["FLAIR", "T1ce", "T1", "T2", "WT %"]
        assert [cell == "●" for cell in body[4][:4]] == [True, True, False, False]


def _with_penalties(made: SimpleNamespace, form: str, **more: Any) -> str:
    """Two rows × two seeds × three cases; the first seed of `a` misses ET from FLAIR alone in two cases."""
    scores = {
        f"{name}-{seed}": made.scores([0.4, 0.5, 0.6], 0.01, seed=10 * place + seed, hd95=True)
        for place, name in enumerate("ab")
        for seed in (0, 1)
    }
    scores["a-0"].hd95[:2, 0, 2] = 373.13
    spec = made.spec({"a": {}, "b": {}}, (0, 1), **more)
    return render([spec], made.reader(scores), form, standalone=form == "latex")


def test_beside_hd95_stands_what_an_empty_mask_counts_and_how_often(made: SimpleNamespace) -> None:
    text = _with_penalties(made, "md")
    rule = (
        "- HD95 in mm, the larger of the two directed 95th percentiles (MONAI): both masks empty counts 0, "
        "one empty 373.13 (a penalty). In brackets"
    )
    assert text.count(rule) == 2
    body = _cells(text, "#### 15 subsets: a (a)")[2:]
    assert body[0][-1].endswith(" (2)")
    assert body[15][-1].endswith(" (2)")
    assert all(line[-1].endswith(" (0)") for line in body[1:15])
    for form, words in (
        ("html", "one empty 373.13 (a penalty). In brackets"),
        ("latex", "one empty 373.13 (a penalty)"),
    ):
        text = _with_penalties(made, form)
        assert text.count(words) == 3  # of each row, and in how to read it
        assert text.count("(2)") == 2
    for line in csv.DictReader(io.StringIO(_with_penalties(made, "csv"))):
        count = (
            "2"
            if (line["row"], line["region"]) == ("a", "ET") and line["subset"] in ("FLAIR", "mean")
            else "0"
        )
        assert line["hd95_penalties"] == count
        assert line["hd95_scores"] == ("90" if line["subset"] == "mean" else "6")
        assert line["hd95_convention"] == (
            "the larger of the two directed 95th percentiles (MONAI); both empty 0 mm; one empty 373.13 mm "
            "(penalty)"
        )


def test_every_case_says_whether_its_hd95_is_a_penalty(made: SimpleNamespace, tmp_path: Path) -> None:
    """Truth and prediction empty or not, by the voxels; 0 where both are."""
    records = made.records(made.scores([0.5] * 4, hd95=True))
    empty = {
        "case000": (0, 0, 0.0),
        "case001": (0, 9, 373.13),
        "case002": (9, 0, 373.13),
        "case003": (9, 9, 373.13),
    }
    records = [
        replace(record, predicted_voxels=one, truth_voxels=two, hd95=mm)
        for record in records
        for one, two, mm in [empty[record.case]]
    ]
    write_parquet(tmp_path / "cells" / "a-0" / "evaluations" / "e" / "records.parquet", records)
    lines = csv.DictReader(io.StringIO(per_case.render([made.spec({"a": {}}, [0])], tmp_path)))
    told = {line["case"]: line["hd95_penalty"] for line in lines}
    assert told == {"case000": "False", "case001": "True", "case002": "True", "case003": "False"}


def test_csv_has_further_metrics_where_every_seed_has_them(made: SimpleNamespace) -> None:
    """Of `a` both seeds have lesion-wise Dice, of `b` one: means for `a`, nothing for `b`."""
    scores = {
        f"{name}-{seed}": made.scores([0.4, 0.5], seed=10 * place + seed)
        for place, name in enumerate("ab")
        for seed in (0, 1)
    }
    draw = np.random.default_rng(0).random((3, 2, 15, 3))
    for name, values in zip(("a-0", "a-1", "b-0"), draw, strict=True):
        scores[name] = replace(scores[name], further={"lesion_dice": values, "lesion_hd95": 374 * values})
    text = render([made.spec({"a": {}, "b": {}}, (0, 1))], made.reader(scores), "csv")
    for line in csv.DictReader(io.StringIO(text)):
        assert line["instance_f1"] == ""
        assert ("counts 374" in line["hd95_convention"]) == (line["row"] == "a")
        if line["row"] == "b":
            assert line["lesion_dice"] == ""
            continue
        of_region = draw[:2, :, :, REGIONS.index(line["region"])]
        places = [subset_name(each) for each in SUBSETS]
        wanted = of_region if line["subset"] == "mean" else of_region[:, :, places.index(line["subset"])]
        assert float(line["lesion_dice"]) == pytest.approx(wanted.mean(), abs=1e-12)


def test_the_ranking_stands_beside_the_verdicts(made: SimpleNamespace) -> None:
    text = _report(made, "md")
    body = _cells(text, "### Ranking as challenges do it")[2:]
    assert [line[0] for line in body] == ["row mse", "row conv (baseline)", "row kl"]
    assert body[2] == ["row kl", "3.00", "3", "3", "0"]
    lines = list(csv.DictReader(io.StringIO(_report(made, "csv"))))
    ranked = {line["row"]: line for line in lines if line["subset"] == "mean"}
    assert [ranked[name]["rank"] for name in LEVELS] == ["2", "1", "3"]
    assert sum(float(line["mean_rank"]) for line in ranked.values()) == pytest.approx(6)
    short = _report(made, "md", rows={"kl": {"missing": (1,)}})
    assert [line[0] for line in _cells(short, "### Ranking")[2:]] == [
        "row mse",
        "row conv (baseline)",
    ]
    assert "- row kl is not ranked: it lacks seeds or cases." in short


def test_challenger_has_every_case_of_every_row_once(made: SimpleNamespace) -> None:
    lines = list(csv.DictReader(io.StringIO(_report(made, "challenger", rows={"kl": {"missing": (1,)}}))))
    assert list(lines[0]) == ["algorithm", "case", "task", "value"]
    keys = {(line["algorithm"], line["case"], line["task"]) for line in lines}
    assert len(keys) == len(lines) == 2 * 5 * 45  # kl lacks a seed: not every case of it is like the others'
    scores = [made.scores(0.42 + 0.03 * np.arange(5), 0.02, seed=10 + seed) for seed in range(3)]
    for line in lines:
        if line["algorithm"] == "mse":
            region, subset = line["task"].split("/")
            place = [subset_name(each) for each in SUBSETS].index(subset)
            case = int(line["case"].removeprefix("case"))
            wanted = np.mean([each.dice[case, place, REGIONS.index(region)] for each in scores])
            assert float(line["value"]) == pytest.approx(wanted, abs=1e-12)
    scores = {f"{name}-{seed}": made.scores([0.5, 0.6]) for name in LEVELS for seed in range(2)}
    rows = {name: {"label": f"row {name}", "missing": (1,) if name == "kl" else ()} for name in LEVELS}
    spec, never = made.spec(rows, range(2)), made.spec({"a": {"missing": (0,)}}, [0], name="never")
    told = beside([spec, never], made.reader(scores), "challenger")
    assert told[0] == "table2: without row kl, which lack seeds or cases"
    assert told[1].startswith("never: no scores that rows share")
    assert beside([spec], made.reader(scores), "csv") == []
    phantoms = csv.DictReader(io.StringIO(_report(made, "challenger", phantoms=True)))
    assert all(line["task"].startswith("PHANTOMS/") for line in phantoms)


def test_csv_round_trips(made: SimpleNamespace) -> None:
    text = _report(made, "csv", rows={"kl": {"label": NASTY, "note": 'a "note", with\na line'}})
    lines = list(csv.DictReader(io.StringIO(text)))
    assert len(lines) == 3 * 3 * 16
    assert {line["label"] for line in lines if line["row"] == "kl"} == {NASTY}
    assert {line["note"] for line in lines if line["row"] == "kl"} == {'a "note", with\na line'}
    scores = [made.scores(0.42 + 0.03 * np.arange(5), 0.02, seed=10 + seed) for seed in range(3)]
    for line in lines:
        if line["row"] == "mse" and line["subset"] != "mean":
            subset = [subset_name(subset) for subset in SUBSETS].index(line["subset"])
            dice = [100 * each.dice[:, subset, REGIONS.index(line["region"])].mean() for each in scores]
            assert float(line["dice_percent"]) == pytest.approx(np.mean(dice), abs=1e-9)
    means = [line for line in lines if line["subset"] == "mean"]
    assert {line["paper_percent"] for line in means if line["row"] == "conv"} == {"83.34"}
    assert {line["verdict"] for line in means} == {"", "better", "worse"}
    for line in means:
        if line["row"] != "conv":
            assert 0 < float(line["p"]) <= float(line["p_adjusted"]) <= 0.05
            assert (line["compared_with"], line["difference_seeds"]) == ("conv", "0 1 2")
    assert {line["cpu_hours"] for line in means} == {"0.75"}
    assert all(line["difference"] == "" for line in lines if line["row"] == "conv")


class _Reader(HTMLParser):
    """Balanced tags, what is linked, and the text."""

    VOID = frozenset({"meta", "br", "img", "link", "input", "hr"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: set[str] = set()
        self.attributes: set[str] = set()
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)
        self.attributes |= {name for name, _ in attrs}
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def test_html_needs_nothing_else_and_escapes_everything(made: SimpleNamespace) -> None:
    rows = {"kl": {"label": NASTY, "note": NASTY}}
    text = _report(made, "html", rows=rows, title=NASTY, source=NASTY, phantoms=True)
    reader = _Reader()
    reader.feed(text)
    assert reader.open == []
    assert not reader.seen & {"script", "link", "img", "iframe", "object", "a"}
    assert not reader.attributes & {"src", "href", "onload", "onerror", "style"}
    assert "http" not in text.replace("http-equiv", "")
    assert "url(" not in text
    assert "".join(reader.text).count(NASTY) >= 5


def _check_latex(text: str) -> None:
    """Environments and braces balance, special characters stand for themselves, tables have even rows."""
    depth = 0
    for match in re.finditer(r"\\\\|\\[{}]|[{}]", text):
        depth += {"{": 1, "}": -1}.get(match.group(), 0)
        assert depth >= 0
    assert depth == 0
    environments: list[str] = []
    for kind, name in re.findall(r"\\(begin|end)\{(\w+)\}", text):
        if kind == "begin":
            environments.append(name)
        else:
            assert environments.pop() == name
    assert environments == []
    assert text.isascii() or all(char.isalpha() for char in text if ord(char) > 127)
    body = text[text.index(r"\begin{document}") :]
    assert len(re.findall(r"(?<!\\)\$", body)) % 2 == 0
    plain = re.sub(r"(?<!\\)\$[^$]*\$", "", body).replace("{%\n", "{\n")
    assert not re.search(r"(?<!\\)[_^#%]", plain)
    for columns, table in re.findall(
        r"\\begin\{(?:tabular|longtable)\}\{([lr]+)\}(.*?)\\end\{(?:tabular|longtable)\}", body, re.DOTALL
    ):
        rows = [line for line in table.splitlines() if line.endswith(r"\\") and r"\label" not in line]
        assert rows
        wide = [sum(int(width) - 1 for width in re.findall(r"multicolumn\{(\d+)\}", row)) for row in rows]
        places = [len(re.findall(r"(?<!\\)&", row)) + 1 for row in rows]
        assert {one + more for one, more in zip(places, wide, strict=True)} == {len(columns)}
        assert all(rule in table for rule in (r"\toprule", r"\midrule", r"\bottomrule"))


@pytest.mark.parametrize("seeds", [1, 3, 14])
def test_latex_is_well_formed(made: SimpleNamespace, seeds: int) -> None:
    rows = {"kl": {"label": NASTY, "note": NASTY}, "mse": {"label": "plain"}}
    text = _report(made, "latex", seeds, rows, standalone=True, title=NASTY, phantoms=True)
    _check_latex(text)
    assert r"\usepackage{booktabs}" in text
    assert ("longtable}{" in text) == (3 * seeds > LONG)
    tables = _report(made, "latex", seeds, rows, title=NASTY, phantoms=True)
    assert r"\documentclass" not in tables
    assert r"\begin{document}" not in tables
    _check_latex("\\begin{document}\n" + _without_comments(tables) + "\\end{document}\n")


def _without_comments(text: str) -> str:
    return "".join(line for line in text.splitlines(keepends=True) if not line.startswith("%"))


def _floats(text: str) -> dict[str, tuple[str, list[list[str]]]]:
    """Label: caption and the lines of the table, cells as they are written."""
    found = {}
    for body in re.findall(r"\\begin\{table\}.*?\\end\{table\}", _without_comments(text), re.S):
        (caption,), (label,) = re.findall(r"\\caption\{(.*)\}\n", body), re.findall(r"\\label\{(.*?)\}", body)
        lines = [line.removesuffix(r"\\") for line in body.splitlines() if line.endswith(r" \\")]
        found[label] = caption, [[cell.strip() for cell in line.split("&")] for line in lines]
    return found


def test_the_tables_to_put_in_have_caption_label_heads_and_the_best_bold(made: SimpleNamespace) -> None:
    """Every figure of the table of means is that of the CSV; ranks are found by sorting these."""
    labels = {"conv": "w/o AFEB", "mse": "AFEB + L_MSE", "kl": "AFEB + L_Var + L_Covar"}
    rows: dict[str, Any] = {name: {"label": label} for name, label in labels.items()}
    more = {"rows": rows, "title": "Table 2: AFEB and its loss", "source": "BraTS2020"}
    tables = _floats(_report(made, "latex", **more))
    assert list(tables) == ["tab:table2-means", "tab:table2-differences"]
    caption, (groups, heads, *body) = tables["tab:table2-means"]
    assert caption.startswith("AFEB and its loss. Dice in per cent, mean over test cases, 15 subsets")
    assert "``paper'': as printed (BraTS2020)." in caption
    assert r"$\Delta$: row minus w/o AFEB; $\uparrow$ better, $\downarrow$ worse (level 0.05)." in caption
    assert groups == ["", *(rf"\multicolumn{{3}}{{c}}{{{region}}}" for region in REGIONS)]
    assert heads == ["Row", *["Dice", "paper", r"$\Delta$"] * 3]
    assert [line[0] for line in body] == [
        "w/o AFEB",
        r"AFEB + $\mathcal{L}_{MSE}$",
        r"AFEB + $\mathcal{L}_{Var}$ + $\mathcal{L}_{Covar}$",
    ]
    lines = list(csv.DictReader(io.StringIO(_report(made, "csv", **more))))
    known = {(line["row"], line["region"]): line for line in lines if line["subset"] == "mean"}
    marks = {"better": r"$^{\uparrow}$", "worse": r"$^{\downarrow}$", "": ""}
    for place, region in enumerate(REGIONS):
        order = sorted(labels, key=lambda name: -float(known[name, region]["dice_percent"]))
        for name, line in zip(labels, body, strict=True):
            figures = known[name, region]
            half = (float(figures["dice_high"]) - float(figures["dice_low"])) / 2
            dice = rf"{float(figures['dice_percent']):.2f} $\pm$ {half:.2f}"
            due = [rf"\textbf{{{dice}}}", rf"\underline{{{dice}}}", dice][order.index(name)]
            printed = f"{PAPER[name]:.2f}"
            due_paper = {"mse": rf"\textbf{{{printed}}}", "conv": rf"\underline{{{printed}}}", "kl": printed}
            delta = figures["difference"] and f"{float(figures['difference']):+.2f}".replace("-", "$-$")
            shown = line[1 + 3 * place : 4 + 3 * place]
            assert shown == [due, due_paper[name], delta + marks[figures["verdict"]]]
    caption, (_, heads, *body) = tables["tab:table2-differences"]
    assert "p by Holm over 6 questions" in caption
    assert heads == ["Row", *[r"$\Delta$", r"95 \% interval", "adjusted p"] * 3]
    for name, line in zip(("mse", "kl"), body, strict=True):
        for place, region in enumerate(REGIONS):
            figures = known[name, region]
            ends = [
                f"{float(figures[f'difference_{end}']):+.2f}".replace("-", "$-$") for end in ("low", "high")
            ]
            assert line[2 + 3 * place] == " to ".join(ends)
            assert line[3 + 3 * place] == phrases.p_value(float(figures["p_adjusted"])).replace(
                "<", r"\textless{}"
            )


def test_one_seed_decides_nothing_in_the_tables_to_put_in(made: SimpleNamespace) -> None:
    tables = _floats(_report(made, "latex", seeds=1))
    assert list(tables) == ["tab:table2-means", "tab:table2-two-trainings"]
    caption, (_, _, *body) = tables["tab:table2-means"]
    assert "of one seed, which decides nothing about methods" in caption
    assert "pm" not in caption + str(body)
    assert "arrow" not in str(body)
    assert "these two trainings only" in tables["tab:table2-two-trainings"][0]


def test_floors_costs_and_sources_are_in_the_tables_to_put_in(made: SimpleNamespace) -> None:
    floors = Floors(3, None, tuple(f"case{n:03d}" for n in range(2)), np.tile([0.1, 0.2, 0.9], (2, 1)), None)
    scores = {"a-0": replace(made.scores([0.5, 0.6]), floors=floors)}
    capacity = {"parameters": 2e6}
    spec = made.spec({"a": {"label": "L_Var only", "capacity": capacity}}, [0], phantoms=True)
    (row,) = spec.rows
    row = replace(row, published={"Somebody": dict(zip(REGIONS, (1.0, 2.0, 3.0), strict=True))})
    tables = _floats(render([replace(spec, rows=(row,))], made.reader(scores), "latex"))
    assert list(tables) == ["tab:table2-means", "tab:table2-sources", "tab:table2-cost"]
    caption, lines = tables["tab:table2-means"]
    warned = r"\\textbf\{(BELOW THE WHOLE BRAIN .*?ET .*?)\} \\textbf\{(These are phantoms.*?)\} Table 2"
    assert re.match(warned, caption)
    assert lines[0] == ["Row", *REGIONS]
    assert lines[2] == ["whole brain as tumour (floor)", "10.00", "20.00", "90.00"]
    assert lines[1][1:] == [r"\textbf{55.00}"] * 3
    caption, lines = tables["tab:table2-sources"]
    assert "phantoms" not in caption
    assert lines[1] == [r"$\mathcal{L}_{Var}$ only", "Somebody", "1.00", "2.00", "3.00"]
    assert "phantoms" in tables["tab:table2-cost"][0]


def test_kinds_of_cases_are_in_the_tables_to_put_in(made: SimpleNamespace) -> None:
    scores = {"a-0": made.scores([0.4, 0.5, 0.6])}
    sites = {"site": {"case000": "A", "case001": "A", "case002": "B"}}
    spec = made.spec({"a": {"note": "a note"}}, [0])
    tables = _floats(render([spec], made.reader(scores), "latex", sites))
    _, (head, *body) = tables["tab:table2-kinds"]
    assert head == ["Row", "Cases with", "Cases", *(rf"{region} \%" for region in REGIONS)]
    assert body == [["a", "site A", "2", *["45.00"] * 3], ["a", "site B", "1", *["60.00"] * 3]]


def test_the_check_of_latex_would_notice() -> None:
    begin = "\\begin{document}\n"
    for broken in ("{", "a_b", "50 %", r"\begin{tabular}{l}", "#1", "$x"):
        with pytest.raises(AssertionError):
            _check_latex(begin + broken + "\n\\end{document}")


@pytest.mark.parametrize(
    ("form", "braces"), [("md", "{{ 7 * 7 }}"), ("html", "{{ 7 * 7 }}"), ("latex", "<< 7 * 7 >>")]
)
def test_what_a_row_is_called_is_no_template(made: SimpleNamespace, form: str, braces: str) -> None:
    text = _report(made, form, rows={"kl": {"label": f"row {braces}"}})
    assert "7" in text
    assert "row 49" not in text


def test_tex_prints_what_was_written() -> None:
    assert escape("50 % & L_Var") == r"50 \% \& $\mathcal{L}_{Var}$"
    assert escape("(L_Syn), XL_a L_a_b L_2") == r"($\mathcal{L}_{Syn}$), XL\_a L\_a\_b L\_2"
    assert escape("--") == "-{}-"
    assert escape("脑Łé") == "(U+8111)Łé"
    assert escape("e\u0301") == "é"
    assert escape("±×−Δτ●β") == r"$\pm$$\times$$-$$\Delta$$\tau$$\bullet$$\beta$"
    assert escape("[a]*") == "{[}a{]}{*}"


#: What the head of a file to put in says that it needs.
ARTICLE = r"""\documentclass{article}
%s
\begin{document}
See Tables~\ref{tab:table2-means} and \ref{tab:table2-differences}.
\input{tables}
\end{document}
"""


@pytest.mark.skipif(not shutil.which("pdflatex"), reason="no pdflatex here")
@pytest.mark.parametrize("standalone", [True, False])
def test_latex_compiles(made: SimpleNamespace, tmp_path: Path, standalone: bool) -> None:
    """By itself, and put into an article: twice, so that it refers to the tables by their numbers."""
    rows: dict[str, Any] = {"kl": {"label": NASTY, "note": NASTY}, "mse": {"label": "AFEB + L_Var"}}
    seeds = 14 if standalone else 3  # cells in a table of several pages
    text = _report(made, "latex", seeds, rows, standalone, title=NASTY, phantoms=True)
    if not standalone:
        (tmp_path / "tables.tex").write_text(text, encoding="utf-8")
        needs = text.splitlines()[0].removeprefix("% needs ")
        text = ARTICLE % needs
    (tmp_path / "report.tex").write_text(text, encoding="utf-8")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "report.tex"]
    for _ in range(1 if standalone else 2):
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout[-2000:]
    assert (tmp_path / "report.pdf").stat().st_size > 5000
    assert "undefined" not in done.stdout
    assert "Overfull \\hbox" not in done.stdout or standalone


@pytest.mark.skipif(not shutil.which("pdflatex"), reason="no pdflatex here")
def test_a_table_of_many_rows_to_put_in_may_break(made: SimpleNamespace, tmp_path: Path) -> None:
    rows = {f"row{number}": {} for number in range(LONG + 1)}
    scores = {f"{name}-0": made.scores([0.4, 0.5], 0.1, seed=place) for place, name in enumerate(rows)}
    text = render([made.spec(rows, [0])], made.reader(scores), "latex")
    assert text.count(r"\begin{longtable}") == 1  # of means; differences are one line less
    (tmp_path / "tables.tex").write_text(text, encoding="utf-8")
    (tmp_path / "report.tex").write_text(ARTICLE % text.splitlines()[0].removeprefix("% needs "))
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "report.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:]


def test_specs_side_by_side(made: SimpleNamespace) -> None:
    one = made.spec({"a": {}}, [0], name="table2", title="T2", phantoms=True)
    two = made.spec({"a": {}}, [0], name="table3", title="T3", baseline="b")
    text = render([one, two], made.reader({"a-0": made.scores([0.5, 0.6])}), "md")
    assert text.startswith("# T2; T3\n")
    assert "the paper. (of table2)" in text
    assert "it is not among the rows asked for" in text
    assert "no other row has scores yet" in text


def test_how_large_the_methods_are(made: SimpleNamespace) -> None:
    """The largest over the seeds; rows whose cells have not counted are absent, not nought."""
    rows = {
        "conv": {
            "capacity": {
                "parameters": 2_053_124,
                "multiply_adds": 79_568.0,
                "multiply_adds_subsets": 1_000_000.0,
                "window_voxels": 1e6,
                "step_seconds": 0.256,
                "peak_bytes": 3 * 2**29,
            }
        },
        "mse": {"capacity": {"parameters": 16_541_448, "parameters_inference": 14_488_324}},
    }
    text = _report(made, "md", rows=rows)
    head, _, *body = _cells(text, "### Cost")
    assert head[2:] == [
        "Parameters, M",
        "at inference, M",
        "Multiply-adds per voxel, k",
        "GFLOP a window",
        "GFLOP, 15 subsets",
        "Step, s",
        "Peak of a step, GiB",
    ]
    assert [row[2:] for row in body] == [
        ["2.05", "–", "79.57", "159.14", "2,000.00", "0.26", "1.50"],  # 2 FLOP an addition and product
        ["16.54", "14.49", "–", "–", "–", "–", "–"],
        ["–"] * 7,
    ]
    assert "### Cost" not in _report(made, "md")
    lines = list(csv.DictReader(io.StringIO(_report(made, "csv", rows=rows))))
    told = {line["row"]: line for line in lines if line["subset"] == "mean"}
    names = ("parameters", "multiply_adds", "gflop_window", "peak_bytes", "parameters_inference")
    assert [told["conv"][name] for name in names] == ["2053124", "79568.0", "159.136", "1610612736", ""]
    assert [told["mse"][name] for name in names] == ["16541448", "", "", "", "14488324"]
    assert not any(told["kl"][name] for name in names)
    assert not any(line["parameters"] for line in lines if line["subset"] != "mean")


def test_other_sources_stand_beside_the_papers(made: SimpleNamespace, checkout: Path) -> None:
    """Of Table 1 as it is shipped: every published mean, and the notes on rows far below all of them."""
    tree = yaml.safe_load((checkout / "ablations" / "table1.yaml").read_text(encoding="utf-8"))["rows"]
    named = {name: {"label": row["label"], "note": row.get("note")} for name, row in tree.items()}
    facts = made.spec(named, [0])
    rows = tuple(
        replace(row, paper=tree[row.id].get("paper"), published=tree[row.id].get("published"))
        for row in facts.rows
    )
    scores = {f"{name}-0": made.scores([0.5]) for name in tree}
    text = render([replace(facts, rows=rows)], made.reader(scores), "md")
    lines = _cells(text, "### Means of other sources, each on its own split")[2:]
    expected = [
        [row["label"], source, *(f"{figures[region]:.2f}" for region in ("WT", "TC", "ET"))]
        for row in tree.values()
        if "published" in row
        for source, figures in ({"the paper": row.get("paper")} | row["published"]).items()
        if figures
    ]
    assert lines == expected
    assert len(lines) == 6 + 13
    for far_below in ("uhemis", "uhved", "mmformer"):
        assert " ".join(tree[far_below]["note"].split()) in text


def test_post_processing_is_said(made: SimpleNamespace) -> None:
    words = "Labels were post-processed before they were scored: small_et (below 500 mm³)."
    assert words in _report(made, "md", post_processing="small_et (below 500 mm³)")
    assert "post-processed" not in _report(made, "md")


@pytest.mark.parametrize(
    ("value", "words"),
    [(1.2, "+1.20"), (-0.351, "−0.35"), (-0.004, "0.00"), (0.004, "0.00"), (-0.0, "0.00"), (-0.006, "−0.01")],
)
def test_what_rounds_to_nothing_has_no_sign(value: float, words: str) -> None:
    assert phrases.signed(value) == words


def test_the_convention_of_hd95_is_named_beside_it(made: SimpleNamespace, tmp_path: Path) -> None:
    """Row by row where rows differ; in each case too."""
    plain = made.scores([0.5] * 3, hd95=True)
    scores = {"a-0": plain, "b-0": replace(plain, hd95_convention="pooled")}
    text = render([made.spec({"a": {}, "b": {}}, [0])], made.reader(scores), "md")
    of_a, of_b = text.split("#### 15 subsets: a (a)")[1].split("#### 15 subsets: b (b)")
    assert "HD95 in mm, the larger of the two directed 95th percentiles (MONAI): both" in of_a
    assert "HD95 in mm, the 95th percentile of both directions' distances together (medpy): both" in of_b
    rule = phrases.hd95_rule(["max", "pooled", "max"])
    assert "(MONAI); or the 95th percentile" in rule
    assert "(two conventions: not to be compared)" in rule
    lines = list(csv.DictReader(io.StringIO(render([made.spec({"b": {}}, [0])], made.reader(scores), "csv"))))
    assert {line["hd95_convention"].split("; ")[0] for line in lines} == {
        "the 95th percentile of both directions' distances together (medpy)"
    }
    records = [replace(record, hd95_convention="pooled") for record in made.records(plain)]
    write_parquet(tmp_path / "cells" / "a-0" / "evaluations" / "e" / "records.parquet", records)
    cases = csv.DictReader(io.StringIO(per_case.render([made.spec({"a": {}}, [0])], tmp_path)))
    assert {line["hd95_convention"] for line in cases} == {"pooled"}
