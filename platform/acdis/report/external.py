"""A cell's scores on its own test cases and on other people's, side by side, as Markdown."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from acdis.evaluation.external import Shift, shifts
from acdis.evaluation.scores import Scores
from acdis.report.phrases import marks, p_value, signed
from acdis.vocabulary import MODALITIES, REGIONS, SUBSETS

_WORDS = {
    "lower": "lower outside",
    "higher": "higher outside",
    "undecided": "undecided",
    "too few": "too few patients",
}


def markdown(name: str, inside: Scores, outside: Scores) -> str:
    """Dice in per cent by subset and region, both groups side by side, and a test per region.

    Args:
        inside: on the cell's own test cases; outside: on others.
    """
    head = [*MODALITIES, *(f"{region} {where}" for region in REGIONS for where in ("inside", "outside", "Δ"))]
    means = [100 * scores.by_patient(scores.cases).mean(axis=0) for scores in (inside, outside)]
    lines = [_line(head), _line([":-:"] * 4 + ["--:"] * 9)]
    for place, subset in enumerate(SUBSETS):
        lines.append(_line([*marks(subset), *_figures(means[0][place], means[1][place])]))
    lines.append(_line(["mean", "of", "15", "", *_figures(means[0].mean(axis=0), means[1].mean(axis=0))]))
    told = [_sentence(shift) for shift in shifts(inside, outside)]
    counts = [f"{len(set(scores.patients or scores.cases))} patients" for scores in (inside, outside)]
    return "\n".join(
        [
            f"# {name}: inside ({counts[0]}) and outside ({counts[1]})",
            "",
            "Dice in per cent, mean over patients.",
            "",
            *lines,
            "",
            *told,
            "",
            "Welch's t test over patients of the mean over 15 subsets, Holm over three regions: for this "
            "trained model alone. A difference says that scores differ, not why: other scanners, other "
            "patients and other annotators look the same here.",
        ]
    )


def _figures(inside: np.ndarray, outside: np.ndarray) -> list[str]:
    return [
        text
        for one, other in zip(inside, outside, strict=True)
        for text in (f"{one:.2f}", f"{other:.2f}", signed(other - one))
    ]


def _sentence(shift: Shift) -> str:
    low, high, adjusted = signed(shift.low), signed(shift.high), p_value(shift.p_adjusted)
    interval = "" if shift.verdict == "too few" else f" (95 % {low} to {high})"
    said = _WORDS[shift.verdict]
    return f"- {shift.region}: {signed(shift.delta)}{interval}, p adjusted {adjusted}: {said}"


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"
