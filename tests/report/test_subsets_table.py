"""The field's table: figures, ranks and marks by hand, and each form read back by another parser."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from acdis.ablation import spec
from acdis.errors import UserError
from acdis.evaluation.scores import Scores
from acdis.report import subsets_table
from acdis.report.document import BEST, SECOND
from acdis.report.facts import AbsentFacts, SpecFacts, with_scores
from acdis.report.subsets_forms import FORMS
from acdis.report.subsets_table import SubsetsTable, ranks
from acdis.vocabulary import REGIONS, SUBSETS

NASTY = r'a & b | 50 % $x_1$ <b> \input{x} "q" * 脑'
LEVELS = {"one": 0.5, "two": 0.6, "three": 0.7}


def scores_of(level: float, seed: int) -> Scores:
    """Three cases; subset s in region r lies s / 100 + r / 1000 above the level, seeds 0.001 apart."""
    dice = np.empty((3, 15, 3))
    for case in range(3):
        for s in range(15):
            for r in range(3):
                dice[case, s, r] = level + s / 100 + r / 1000 + case / 10000 + seed / 1000
    return Scores(("a", "b", "c"), dice, dice[..., 2], None)


def spec_of(made: SimpleNamespace, **more: Any) -> SpecFacts:
    rows = {name: {"label": NASTY if name == "two" else name} for name in LEVELS}
    rows["none"] = {"label": "no scores", "missing": (0, 1)}
    spec = made.spec(rows, (0, 1), **more)
    absent = AbsentFacts(
        "later", "Later", "not written", None, {"WT": 1.5, "TC": 2.5, "ET": 3.5}, "M3AE",
        {"Somebody": {"WT": 4.0, "TC": 5.0, "ET": 6.0}},
    )  # fmt: skip
    first = replace(spec.rows[0], paper_row="RFNet", paper={"WT": 86.76, "TC": 77.39, "ET": 60.93})
    cells = tuple(
        replace(
            cell,
            capacity={
                "parameters_inference": 1.5e6 + cell.seed,
                "multiply_adds": 4000.0,
                "multiply_adds_subsets": 60_000.0,
                "window_voxels": 80.0**3,
                "step_seconds": 0.5 - cell.seed / 10,
                "peak_bytes": 3 * 2**30,
            },
        )
        for cell in first.cells
    )
    return replace(spec, rows=(replace(first, cells=cells), *spec.rows[1:]), absent=(absent,))


def read(cell: str, _evaluation: str) -> Scores:
    name, seed = cell.rsplit("-", 1)
    return scores_of(LEVELS[name], int(seed))


def table_of(spec: SpecFacts, against: str | None = None) -> SubsetsTable:
    return subsets_table.table_of(spec, [with_scores(row, read) for row in spec.rows], against)


def test_figures_are_means_over_cases_and_seeds(made: SimpleNamespace) -> None:
    table = table_of(spec_of(made))
    ours, paper = table.blocks
    for r, region in enumerate(REGIONS):
        lines = {line.id: line for line in ours.lines[region]}
        for name, level in LEVELS.items():
            expected = [100 * (level + s / 100 + r / 1000 + 0.0001 + 0.0005) for s in range(15)]
            values = lines[name].values
            assert values is not None
            assert values.tolist() == pytest.approx([*expected, sum(expected) / 15])
        assert lines["none"].values is None
        assert lines["three"].ranks == (BEST,) * 16
        assert lines["two"].ranks == (SECOND,) * 16
        assert lines["one"].ranks == lines["none"].ranks == (0,) * 16
    assert [line.id for line in paper.lines["WT"]] == ["one", "later"]


def test_the_papers_figures_are_those_of_the_shared_copy(made: SimpleNamespace, shared: Path) -> None:
    tree = json.loads((shared / "paper" / "tables.json").read_text(encoding="utf-8"))
    _, paper = table_of(spec_of(made)).blocks
    for region in REGIONS:
        rfnet, m3ae = paper.lines[region]
        stated = tree["table1"]["RFNet"][region]
        assert rfnet.values is not None
        assert rfnet.values.tolist() == pytest.approx([*stated["per_subset"], stated["average"]])
        assert m3ae.values is not None
        assert m3ae.values[:15].tolist() == pytest.approx(tree["table1"]["M3AE"][region]["per_subset"])


def test_table1_has_the_papers_printed_means(checkout: Path, shared: Path) -> None:
    """Of every row that names one of the paper's."""

    tree = json.loads((shared / "paper" / "tables.json").read_text(encoding="utf-8"))["table1"]
    found = spec.load(checkout / "ablations" / "table1.yaml")
    rows = {row.paper_row: row.paper for row in (*found.rows, *found.absent) if row.paper_row}
    assert rows == {
        name: {region: each[region]["average"] for region in REGIONS} for name, each in tree.items()
    }


def test_ranks() -> None:
    """What prints alike ranks alike, and what is not there has none."""
    values = np.array([[1.004, 5.0], [1.001, np.nan], [0.5, 7.0], [0.25, 6.0]])
    assert ranks(values).tolist() == [[BEST, 0], [BEST, 0], [SECOND, BEST], [0, SECOND]]
    assert ranks(np.full((2, 1), np.nan)).tolist() == [[0], [0]]


def test_verdicts_are_against_the_chosen_row(made: SimpleNamespace) -> None:
    """Rows 10 points apart, with hardly a spread over cases and seeds."""
    for against, expected in (
        ("two", {"one": "↓", "two": "", "three": "↑"}),
        (None, {"one": "", "three": "↑"}),
    ):
        (ours, _) = table_of(spec_of(made), against).blocks
        found = {line.id: line.mark for line in ours.lines["WT"]}
        assert {name: found[name] for name in expected} == expected


def test_a_row_that_is_not_there(made: SimpleNamespace) -> None:
    with pytest.raises(UserError, match=r"--against: table2 has no row 'four'"):
        table_of(spec_of(made), "four")
    spec = spec_of(made)
    wrong = replace(spec, rows=(replace(spec.rows[0], paper_row="RFNett"), *spec.rows[1:]))
    with pytest.raises(UserError, match=r"paper_row: the paper's Table 1 has no 'RFNett'; there are HeMiS"):
        table_of(wrong)


@pytest.mark.parametrize("form", FORMS)
def test_every_form_warns_of_phantoms_and_names_what_is_absent(made: SimpleNamespace, form: str) -> None:
    text = FORMS[form]([table_of(spec_of(made, phantoms=True))], False)
    assert "NOTHING about patients" in text.replace("\n", " ")
    assert "Later" in text
    assert NASTY not in text or form == "csv"


def test_csv_has_every_figure(made: SimpleNamespace) -> None:
    table = table_of(spec_of(made))
    lines = list(csv.DictReader(io.StringIO(FORMS["csv"]([table], False))))
    assert len(lines) == (4 + 2) * 3 * 16 + 6
    (line,) = [
        each
        for each in lines
        if (each["row"], each["region"], each["subset"], each["block"]) == ("two", "TC", "T1ce", "ours")
    ]
    assert line["label"] == NASTY
    assert float(line["dice_percent"]) == pytest.approx(100 * (0.6 + 0.01 + 0.001 + 0.0006))
    assert line["rank"] == "2"
    last = lines[-1]
    assert (last["block"], last["source"], last["region"], last["dice_percent"]) == (
        "published",
        "Somebody",
        "ET",
        "6.0",
    )


def test_markdown_is_even(made: SimpleNamespace) -> None:
    text = FORMS["md"]([table_of(spec_of(made))], False)
    rows = [line for line in text.splitlines() if line.startswith("| WT")]
    cells = [re.split(r"(?<!\\)\|", line)[1:-1] for line in rows]
    assert {len(each) for each in cells} == {18}
    assert cells[2][2].strip() == "**70.06**"
    assert cells[1][2].strip() == "<u>60.06</u>"
    assert cells[2][17].strip() == "**77.06** ↑"
    assert cells[3][2].strip() == "–"
    head = next(line for line in text.splitlines() if line.startswith("| | Row"))
    assert [each.strip() for each in head.split("|")[3:7]] == ["●○○○", "○●○○", "○○●○", "○○○●"]


class _Cells(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_data(self, data: str) -> None:
        if self.rows and self.rows[-1]:
            self.rows[-1][-1] += data


def test_html_is_one_file_with_all_cells(made: SimpleNamespace) -> None:
    parser = _Cells()
    parser.feed(FORMS["html"]([table_of(spec_of(made))], False))
    full = [row for row in parser.rows if row[0].strip() == NASTY and len(row) == 17]
    assert len(full) == 3
    assert full[0][1] == "60.06"
    assert not {"script", "img", "link"} & set(parser.tags)


def _without_comments(text: str) -> str:
    return "\n".join(line for line in text.splitlines() if not line.startswith("%"))


def test_the_papers_table_is_not_warned_of(made: SimpleNamespace) -> None:
    text = _without_comments(FORMS["latex"]([table_of(spec_of(made, phantoms=True))], False))
    ours, theirs, *_ = re.findall(r"\\caption\{(.*)\}$", text, re.M)
    assert "NOTHING about patients" in ours
    assert "NOTHING" not in theirs
    assert "As printed" in theirs


def test_latex_can_be_put_in(made: SimpleNamespace) -> None:
    text = _without_comments(FORMS["latex"]([table_of(spec_of(made))], False))
    assert "\\documentclass" not in text
    assert text.count("\\begin{table}") == text.count("\\end{table}") == 4
    assert "\\label{tab:table2-ours}" in text
    assert "\\label{tab:table2-paper}" in text
    rows = [line for line in text.splitlines() if line.endswith(r"\\") and "multicolumn" not in line]
    assert r"Later & Somebody & 4.00 & 5.00 & 6.00 \\" in rows
    rows = rows[: -(1 + 3) - (1 + 2)]  # the costs and other sources: heads, three rows and two
    assert {len(re.findall(r"(?<!\\)&", line)) for line in rows} == {16}
    assert text.count("{") - text.count(r"\{") == text.count("}") - text.count(r"\}")
    assert "U+2191" not in text


@pytest.mark.skipif(not shutil.which("pdflatex"), reason="no pdflatex here")
@pytest.mark.parametrize("standalone", [True, False])
def test_latex_compiles(made: SimpleNamespace, tmp_path: Path, standalone: bool) -> None:
    """By itself, and put into an article."""
    text = FORMS["latex"]([table_of(spec_of(made))], standalone)
    if not standalone:
        (tmp_path / "tables.tex").write_text(text)
        needs = text.splitlines()[0].removeprefix("% needs ")
        lines = (r"\documentclass{article}", needs, r"\begin{document}", r"\input{tables}", r"\end{document}")
        text = "\n".join(lines)
    (tmp_path / "t.tex").write_text(text)
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "t.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:]


def test_latex_names_losses_as_the_paper_does(made: SimpleNamespace) -> None:
    """LaTeX numbers tables itself, so that a title's own number is left out."""
    spec = spec_of(made, title="Table 7: what L_Var does")
    named = replace(spec, rows=(replace(spec.rows[0], label="AFEB + L_Covar"), *spec.rows[1:]))
    text = _without_comments(FORMS["latex"]([table_of(named)], False))
    assert r"\caption{what $\mathcal{L}_{Var}$ does: Dice in per cent" in text
    assert r"AFEB + $\mathcal{L}_{Covar}$ & 50.06 &" in text
    assert "AFEB + L_Covar |" in FORMS["md"]([table_of(named)], False)


def test_one_subset_more_would_show(made: SimpleNamespace) -> None:
    """Columns stand in the order of the vocabulary: the last but the mean is all four modalities."""
    text = FORMS["latex"]([table_of(spec_of(made))], False)
    flair = next(line for line in text.splitlines() if line.startswith("FLAIR"))
    assert [("bullet" in cell) for cell in flair.split("&")[1:16]] == ["FLAIR" in s for s in SUBSETS]


def test_costs_stand_beside_the_scores(made: SimpleNamespace) -> None:
    """Hours are summed over seeds; of what cells have counted the largest counts."""
    table = table_of(spec_of(made))
    assert list(table.costs) == ["one", "two", "three"]
    one = table.costs["one"]
    assert one.hours == {"cpu": 0.5}
    assert one.figures == {
        "parameters_inference": 1_500_001,
        "multiply_adds": 4000,
        "gflop_window": 2 * 4000 * 512_000 / 1e9,
        "gflop_subsets": 2 * 60_000 * 512_000 / 1e9,
        "step_seconds": 0.5,
        "peak_bytes": 3 * 2**30,
    }
    text = FORMS["md"]([table], False)
    assert "| one | 0.50 CPU | – | 1.50 | 4.00 | 4.10 | 61.44 | 0.50 | 3.00 |" in text
    assert "| three | 0.50 CPU |" + " – |" * 7 in text
    lines = list(csv.DictReader(io.StringIO(FORMS["csv"]([table], False))))
    costly = [line for line in lines if line["peak_bytes"]]
    assert {(line["row"], line["subset"], line["block"]) for line in costly} == {("one", "mean", "ours")}
    assert {line["gflop_subsets"] for line in costly} == {"61.44"}
    assert "<td>1.50</td>" in FORMS["html"]([table], False)
    assert "& 1.50 & 4.00 & 4.10 & 61.44 & 0.50 & 3.00" in FORMS["latex"]([table], False)
