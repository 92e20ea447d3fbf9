"""A document as LaTeX that compiles by itself: booktabs, and longtable where a page would not do.

pdflatex and tectonic take it. Letters that TeX has no glyph for are written as their code points: a label in
Chinese must not keep a report from compiling.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence

from acdis.report.document import Document, Section, Table

#: Rows beyond which a table may break over pages.
LONG = 36

#: Stands between hyphens: two in a row would become a dash.
_APART = "\N{ZERO WIDTH SPACE}"

_SPECIAL = {
    **{character: f"\\{character}" for character in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "`": r"\textasciigrave{}",
    _APART: "{}",
    "[": "{[}",  # after a line's end it would be an option of \\
    "]": "{]}",
    "*": "{*}",
    "\n": " ",
    "\r": " ",
    "\t": " ",
    "±": r"$\pm$",
    "×": r"$\times$",
    "−": "$-$",
    "–": "--",
    "—": "---",
    "Δ": r"$\Delta$",
    "τ": r"$\tau$",
    "●": r"$\bullet$",
    "○": r"$\circ$",
    "≤": r"$\leq$",
    "≥": r"$\geq$",
    "³": "$^3$",
    "²": "$^2$",
    "“": "``",
    "”": "''",
    "…": r"\ldots{}",
    "\N{NO-BREAK SPACE}": "~",
}
_GREEK = dict(
    zip(
        "αβγδεζηθικλμνξπρσφχψω",
        (
            *(
                "alpha",
                "beta",
                "gamma",
                "delta",
                "epsilon",
                "zeta",
                "eta",
                "theta",
                "iota",
                "kappa",
                "lambda",
            ),
            *("mu", "nu", "xi", "pi", "rho", "sigma", "phi", "chi", "psi", "omega"),
        ),
        strict=True,
    )
)
#: Letters of Latin Extended-A that LaTeX's T1 encoding lacks.
_WITHOUT = "ĦħĸĿŀŉŦŧſ"
_HEAD = r"""\documentclass[a4paper,10pt]{article}
\usepackage[utf8]{inputenc}
\usepackage[T1]{fontenc}
\usepackage{textcomp}
\usepackage[landscape,margin=15mm]{geometry}
\usepackage{booktabs}
\usepackage{longtable}
\setlength{\parindent}{0pt}
\setlength{\parskip}{4pt}
\begin{document}
"""
_HEADINGS = {2: "section", 3: "subsection", 4: "subsubsection"}


def render(document: Document) -> str:
    """The whole report; ends with a newline."""
    blocks = [f"{{\\LARGE {escape(document.title)}\\par}}"]
    blocks += [f"\\textbf{{{escape(line)}}}" for line in document.warnings]
    for section in document.sections:
        blocks += _section(section)
    return _HEAD + "\n\n".join(blocks) + "\n\\end{document}\n"


def escape(text: str) -> str:
    """Text as TeX prints it, whatever is in it."""
    plain = unicodedata.normalize("NFC", text)
    while "--" in plain:
        plain = plain.replace("--", f"-{_APART}-")
    return "".join(map(_character, plain))


def _character(character: str) -> str:
    known = _SPECIAL.get(character)
    if known is not None:
        return known
    if character in _GREEK:
        return f"$\\{_GREEK[character]}$"
    # ASCII, and the letters of Latin-1 and Latin Extended-A that the T1 encoding has.
    if " " <= character <= "~" or (
        character.isalpha() and "À" <= character <= "ſ" and character not in _WITHOUT
    ):
        return character
    return f"(U+{ord(character):04X})"


def _section(section: Section) -> Iterator[str]:
    yield f"\\{_HEADINGS[section.level]}*{{{escape(section.title)}}}"
    for paragraph in section.text:
        yield escape(paragraph)
    if section.table:
        yield _table(section.table)
    for note in section.notes:
        yield f"{{\\footnotesize {escape(note)}\\par}}"


def _table(table: Table) -> str:
    head = _line(table.head)
    body = [_line(line) for line in table.body]
    if table.last_apart:
        body.insert(len(body) - 1, "\\midrule")
    if len(body) > LONG:
        lines = [
            f"\\begin{{longtable}}{{{table.align}}}",
            *("\\toprule", head, "\\midrule", "\\endhead", "\\bottomrule", "\\endfoot"),
            *body,
            "\\end{longtable}",
        ]
    else:
        lines = [
            *("\\begin{center}", f"\\begin{{tabular}}{{{table.align}}}", "\\toprule", head, "\\midrule"),
            *body,
            *("\\bottomrule", "\\end{tabular}", "\\end{center}"),
        ]
    return "\n".join(["{\\footnotesize", *lines, "}"])


def _line(cells: Sequence[str]) -> str:
    return " & ".join(map(escape, cells)) + r" \\"
