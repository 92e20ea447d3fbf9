"""Text as Markdown and LaTeX show it, whatever is in it; for HTML there is `html.escape`."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable

_MARKDOWN = str.maketrans({"|": "\\|", "`": "\\`", "*": "\\*", "\n": " ", "\r": " "})
#: A loss as the paper names it.
_LOSS = re.compile(r"(?<!\w)L_([A-Za-z]+)(?!\w)")
_TAG = re.compile(r"<(?=[A-Za-z/!?])")  # `<0.001` is no tag, and reads better as it is

#: Stands between hyphens: two in a row would become a dash.
_APART = "\N{ZERO WIDTH SPACE}"

_LATEX = {
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
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
    "†": r"$\dagger$",
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
_GREEK = {
    "αβγδεζηθικλ": "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda",
    "μνξπρστφχψω": "mu nu xi pi rho sigma tau phi chi psi omega",
}
_LATEX |= {
    letter: f"$\\{name}$"
    for letters, names in _GREEK.items()
    for letter, name in zip(letters, names.split(), strict=True)
}
#: Letters of Latin Extended-A that LaTeX's T1 encoding lacks.
_WITHOUT = "ĦħĸĿŀŉŦŧſ"


def markdown(text: str) -> str:
    """Text for Markdown."""
    return _TAG.sub("&lt;", text.translate(_MARKDOWN))


def latex(text: str) -> str:
    """Text for TeX, with `L_Var` as the paper prints it: `$\\mathcal{L}_{Var}$`.

    Letters without a glyph become their code points: a label in Chinese must compile.
    """
    plain = unicodedata.normalize("NFC", text)
    while "--" in plain:
        plain = plain.replace("--", f"-{_APART}-")
    return _mathematical(plain, lambda words: "".join(map(_character, words)))


def tex_label(name: str) -> str:
    """What TeX takes in a label, whatever the name is."""
    return "".join(letter if letter.isascii() and letter.isalnum() else "-" for letter in name)


def mathtext(text: str) -> str:
    """Text for matplotlib, with `L_Var` as in `latex`; a dollar is a dollar."""
    return _mathematical(text, lambda words: words.replace("$", r"\$"))


def _mathematical(text: str, escape: Callable[[str], str]) -> str:
    """The names of losses as mathematics, everything else escaped."""
    words, *further = _LOSS.split(text)  # name and words take turns
    losses = zip(further[::2], further[1::2], strict=True)
    return escape(words) + "".join(f"$\\mathcal{{L}}_{{{name}}}${escape(more)}" for name, more in losses)


def _character(character: str) -> str:
    known = _LATEX.get(character)
    if known is not None:
        return known
    # ASCII, and the letters of Latin-1 and Latin Extended-A that the T1 encoding has.
    if " " <= character <= "~" or (
        character.isalpha() and "À" <= character <= "ſ" and character not in _WITHOUT
    ):
        return character
    return f"(U+{ord(character):04X})"
