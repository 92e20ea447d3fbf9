"""One report in four formats, each read back by a parser that knows nothing of how it was written."""

from __future__ import annotations

import csv
import io
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from acdis.report.as_latex import LONG, escape
from acdis.report.forms import RENDERERS, render
from acdis.vocabulary import REGIONS, SUBSETS, subset_name

#: Everything that one of the formats could take for its own.
NASTY = r'<script>alert(1)</script> & "x" | 50 % $a_b^2$ #1 \input{/etc/passwd} ~{}` * -- 脑 Ł é β [1]'
LEVELS = {"conv": 0.40, "mse": 0.42, "kl": 0.30}
PAPER = {"conv": 83.34, "mse": 84.85, "kl": 74.35}


def _report(
    made: SimpleNamespace, form: str, seeds: int = 3, rows: dict[str, Any] | None = None, **more: Any
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
    return render([spec], made.reader(scores), form)


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
    assert text.index("These are phantoms") < text.index("row conv")
    assert "NOTHING" in text
    assert "phantoms" not in _report(made, form)


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
    # Five cases and six tests: the least p is 0.0625, times six.
    assert "With 5 cases the Wilcoxon test can give none below 0.0625" in text
    assert "at least 8 cases are needed" in text
    assert "better" not in {line[-1] for line in _cells(text, "### Difference")}
    assert all(line[-1].startswith("undecided (needs") for line in _cells(text, "### Difference")[2:])


def test_a_note_stands_wherever_its_row_is_shown(made: SimpleNamespace) -> None:
    text = _report(made, "md", rows={"kl": {"note": "Tick marks garbled in the source."}})
    shown = [part for part in re.split(r"\n#+ ", text) if "row kl" in part]
    assert len(shown) == 4  # figures, differences, order, subsets
    for part in shown:
        assert "arbled" in part
    assert text.count("Tick marks garbled in the source.") == 3


def test_markdown_tables_are_even_on_a_terminal(made: SimpleNamespace) -> None:
    text = _report(made, "md")
    for table in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        assert len({len(line) for line in table.splitlines()}) == 1


def test_one_seed_says_so_and_prints_no_p(made: SimpleNamespace) -> None:
    text = _report(made, "md", seeds=1)
    assert "One seed: no spread can be given" in text
    assert "±" not in text[: text.index("## How to read")]
    for line in _cells(text, "### Difference")[2:]:
        assert line[5] == line[7] == line[8] == "–"
        assert line[9] == "none (1 seed)"
    for line in csv.DictReader(io.StringIO(_report(made, "csv", seeds=1))):
        assert line["dice_low"] == line["p_wilcoxon_holm"] == line["p_bootstrap_holm"] == ""
        assert line["verdict"] in ("", "none")


def test_order_and_subsets_are_in_it(made: SimpleNamespace) -> None:
    text = _report(made, "md")
    assert "WT: Kendall's τ = +1.00 (3 of 3 pairs" in text
    for name in LEVELS:
        head, _, *body = _cells(text, f"#### 15 subsets: row {name}")
        assert len(body) == 16
        assert head[:5] == ["FLAIR", "T1ce", "T1", "T2", "WT %"]
        assert [cell == "●" for cell in body[4][:4]] == [True, True, False, False]


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
    assert {line["verdict"] for line in means} == {"", "undecided"}
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
    plain = re.sub(r"(?<!\\)\$[^$]*\$", "", body)
    assert not re.search(r"(?<!\\)[_^#%]", plain)
    for columns, table in re.findall(
        r"\\begin\{(?:tabular|longtable)\}\{([lr]+)\}(.*?)\\end\{(?:tabular|longtable)\}", body, re.DOTALL
    ):
        rows = [line for line in table.splitlines() if line.endswith(r"\\")]
        assert rows
        assert {len(re.findall(r"(?<!\\)&", row)) + 1 for row in rows} == {len(columns)}
        assert all(rule in table for rule in (r"\toprule", r"\midrule", r"\bottomrule"))


@pytest.mark.parametrize("seeds", [1, 3, 14])
def test_latex_is_well_formed(made: SimpleNamespace, seeds: int) -> None:
    rows = {"kl": {"label": NASTY, "note": NASTY}, "mse": {"label": "plain"}}
    text = _report(made, "latex", seeds=seeds, rows=rows, title=NASTY, phantoms=True)
    _check_latex(text)
    assert r"\usepackage{booktabs}" in text
    assert ("longtable}{" in text) == (3 * seeds > LONG)


def test_the_check_of_latex_would_notice() -> None:
    begin = "\\begin{document}\n"
    for broken in ("{", "a_b", "50 %", r"\begin{tabular}{l}", "#1", "$x"):
        with pytest.raises(AssertionError):
            _check_latex(begin + broken + "\n\\end{document}")


def test_tex_prints_what_was_written() -> None:
    assert escape("50 % & L_Var") == r"50 \% \& L\_Var"
    assert escape("--") == "-{}-"
    assert escape("脑Łé") == "(U+8111)Łé"
    assert escape("e\u0301") == "é"
    assert escape("±×−Δτ●β") == r"$\pm$$\times$$-$$\Delta$$\tau$$\bullet$$\beta$"
    assert escape("[a]*") == "{[}a{]}{*}"


@pytest.mark.skipif(not (shutil.which("pdflatex") or shutil.which("tectonic")), reason="no TeX here")
@pytest.mark.parametrize("seeds", [3, 14])
def test_latex_compiles(made: SimpleNamespace, tmp_path: Path, seeds: int) -> None:
    rows = {"kl": {"label": NASTY, "note": NASTY}}
    text = _report(made, "latex", seeds=seeds, rows=rows, title=NASTY, phantoms=True)
    (tmp_path / "report.tex").write_text(text, encoding="utf-8")
    tex = shutil.which("pdflatex")
    line = [tex, "-interaction=nonstopmode", "-halt-on-error"] if tex else [shutil.which("tectonic") or ""]
    done = subprocess.run([*line, "report.tex"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert (tmp_path / "report.pdf").stat().st_size > 5000


def test_specs_side_by_side(made: SimpleNamespace) -> None:
    one = made.spec({"a": {}}, [0], name="table2", title="T2", phantoms=True)
    two = made.spec({"a": {}}, [0], name="table3", title="T3", baseline="b")
    text = render([one, two], made.reader({"a-0": made.scores([0.5, 0.6])}), "md")
    assert text.startswith("# T2; T3\n")
    assert "the paper. (of table2)" in text
    assert "it is not among the rows asked for" in text
    assert "no other row has scores yet" in text
